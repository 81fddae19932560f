#include "core/format/zip_directory.h"

#include <algorithm>
#include <array>

#include "core/format/fields.h"

namespace portrt {
namespace {

// Signatures, and bytes of the fixed part of each structure.
constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50,
                   kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr uint64_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                   kLocator64Bytes = 20, kMaxComment = 0xffff;
constexpr uint16_t kExtra64 = 1, kEncrypted = 1, kStored = 0;
constexpr uint32_t kIn64 = 0xffffffff;  // the value is in the 64-bit structure

struct Directory {
  uint64_t offset = 0, size = 0, count = 0;
};

class Reader {
 public:
  Reader(const uint8_t* data, uint64_t size) : data_(data), size_(size) {}

  std::vector<ZipEntry> read(size_t max_entries) const {
    const Directory directory = find_directory();
    if (directory.count > max_entries) {
      throw ZipError("has " + std::to_string(directory.count) + " records");
    }
    std::vector<ZipEntry> found;
    uint64_t at = directory.offset;
    const uint64_t end = directory.offset + directory.size;
    for (uint64_t index = 0; index < directory.count; ++index) {
      found.push_back(read_entry(at, end));
    }
    if (at != end) throw ZipError("has a directory of another length than its records");
    return found;
  }

 private:
  bool fits(uint64_t at, uint64_t bytes) const { return at <= size_ && bytes <= size_ - at; }

  template <class Integer>
  Integer integer(uint64_t at) const {
    Integer found = 0;
    for (size_t index = sizeof(Integer); index > 0; --index) {
      found = static_cast<Integer>(static_cast<uint64_t>(found) << 8 | data_[at + index - 1]);
    }
    return found;
  }
  uint16_t half(uint64_t at) const { return integer<uint16_t>(at); }
  uint32_t word(uint64_t at) const { return integer<uint32_t>(at); }
  uint64_t wide(uint64_t at) const { return integer<uint64_t>(at); }

  // The last end record whose comment reaches to the end of the file.
  uint64_t find_end() const {
    if (size_ < kEndBytes) throw ZipError("is too short for a zip file");
    const uint64_t last = size_ - kEndBytes;
    for (uint64_t comment = 0; comment <= std::min(last, kMaxComment); ++comment) {
      const uint64_t at = last - comment;
      if (word(at) == kEnd && half(at + 20) == comment) return at;
    }
    throw ZipError("has no zip directory at its end");
  }

  Directory find_directory() const {
    uint64_t end = find_end();
    Directory found{word(end + 16), word(end + 12), half(end + 10)};
    if (end >= kLocator64Bytes && word(end - kLocator64Bytes) == kLocator64) {
      const uint64_t at = wide(end - kLocator64Bytes + 8);
      if (!fits(at, kEnd64Bytes) || at + kEnd64Bytes > end - kLocator64Bytes ||
          word(at) != kEnd64) {
        throw ZipError("has no zip directory where its end says");
      }
      end = at;
      found = {wide(at + 48), wide(at + 40), wide(at + 32)};
    }
    // With bytes before the archive, or without some of its own, the places are others.
    if (found.offset > end || found.size != end - found.offset) {
      throw ZipError("has a zip directory that does not end where the directory's end begins");
    }
    return found;
  }

  ZipEntry read_entry(uint64_t& at, uint64_t end) const {
    if (end - at < kCentralBytes || word(at) != kCentralHeader) {
      throw ZipError("has a damaged zip directory");
    }
    const uint64_t name_bytes = half(at + 28), extra_bytes = half(at + 30);
    const uint64_t bytes = kCentralBytes + name_bytes + extra_bytes + half(at + 32);
    if (end - at < bytes) throw ZipError("has a damaged zip directory");
    ZipEntry found;
    found.name.assign(reinterpret_cast<const char*>(data_) + at + kCentralBytes,
                      static_cast<size_t>(name_bytes));
    found.crc = word(at + 16);
    uint64_t packed = word(at + 20);
    found.size = word(at + 24);
    found.header_offset = word(at + 42);
    read_extra(at + kCentralBytes + name_bytes, extra_bytes,
               {&found.size, &packed, &found.header_offset});
    if (half(at + 10) != kStored || (half(at + 8) & kEncrypted) != 0 || packed != found.size) {
      throw ZipError("has the record " + quoted(found.name) + " compressed");
    }
    locate(found);
    at += bytes;
    return found;
  }

  // Each value that did not fit in 32 bits follows in this order.
  void read_extra(uint64_t at, uint64_t bytes, std::array<uint64_t*, 3> values) const {
    const uint64_t end = at + bytes;
    while (end - at >= 4) {
      const uint16_t id = half(at);
      uint64_t left = half(at + 2);
      at += 4;
      if (left > end - at) throw ZipError("has a damaged zip directory");
      const uint64_t next = at + left;
      for (size_t index = 0; id == kExtra64 && index < values.size(); ++index) {
        if (*values[index] != kIn64) continue;
        if (left < 8) throw ZipError("has a damaged zip directory");
        *values[index] = wide(at);
        at += 8;
        left -= 8;
      }
      at = next;
    }
  }

  // The bytes follow the local header, whose length is in it.
  void locate(ZipEntry& entry) const {
    const uint64_t at = entry.header_offset;
    if (!fits(at, kLocalBytes) || word(at) != kLocalHeader) {
      throw ZipError("has no record " + quoted(entry.name) + " where it should be");
    }
    const uint64_t names = uint64_t{half(at + 26)} + half(at + 28);
    entry.offset = at + kLocalBytes + names;
    if (!fits(entry.offset, entry.size)) {
      throw ZipError("ends within the record " + quoted(entry.name));
    }
  }

  const uint8_t* data_;
  uint64_t size_;
};

std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> found{};
  for (uint32_t byte = 0; byte < found.size(); ++byte) {
    uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = rest & 1 ? rest >> 1 ^ 0xedb88320 : rest >> 1;
    found[byte] = rest;
  }
  return found;
}

}  // namespace

std::vector<ZipEntry> read_zip_directory(const uint8_t* data, uint64_t size, size_t max_entries) {
  return Reader(data, size).read(max_entries);
}

uint32_t crc32(const void* data, uint64_t size) {
  static const std::array<uint32_t, 256> table = crc_table();
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  uint32_t found = 0xffffffff;
  for (uint64_t at = 0; at < size; ++at) found = table[(found ^ bytes[at]) & 0xff] ^ found >> 8;
  return ~found;
}

}  // namespace portrt
