// The directory of a zip file (PKWARE's APPNOTE, 4.3 and 4.5.3), of stored records alone.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace portrt {

// What is wrong with a zip file, as the end of a sentence that begins with its name.
class ZipError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct ZipEntry {
  std::string name;
  uint64_t header_offset = 0;
  uint64_t offset = 0;  // of its bytes, all of which are in the file
  uint64_t size = 0;
  uint32_t crc = 0;
};

// Throws ZipError.
std::vector<ZipEntry> read_zip_directory(const uint8_t* data, uint64_t size, size_t max_entries);

uint32_t crc32(const void* data, uint64_t size);

}  // namespace portrt
