#include "core/format/archive.h"

#include <algorithm>

#include "core/error.h"
#include "core/format/fields.h"
#include "core/format/zip_directory.h"

namespace portrt {
namespace {

Error load_error(const std::string& label, const std::string& fact, const std::string& expected,
                 const std::string& remedy = kFileRemedy) {
  return Error(ErrorCode::load, quoted(label) + " " + fact, expected, remedy);
}

// The name without the root folder, which is the part before the first "/".
std::string inner_name(const std::string& name) {
  const size_t slash = name.find('/');
  return slash == std::string::npos ? "" : name.substr(slash + 1);
}

void check_kind(const std::vector<ZipEntry>& entries, const std::string& label) {
  const auto has = [&](const char* wanted) {
    return std::any_of(entries.begin(), entries.end(),
                       [&](const ZipEntry& entry) { return inner_name(entry.name) == wanted; });
  };
  if (!has("archive_format")) {
    const bool script = has("constants.pkl");
    throw load_error(label, script ? "is a TorchScript file" : "is not a torch.export archive",
                     "a file that torch.export.save wrote",
                     script ? "use torch::jit::load" : kFileRemedy);
  }
  const auto first = std::min_element(entries.begin(), entries.end(),
                                      [](const ZipEntry& one, const ZipEntry& other) {
                                        return one.header_offset < other.header_offset;
                                      });
  // A source is an archive inside this one: if the file is cut short behind it, the last zip
  // directory in the file is that of the source.
  if (first->header_offset != 0) {
    throw load_error(label, "does not begin with its first record", "a complete .pt2 file");
  }
}

}  // namespace

Archive::Archive(const void* data, uint64_t size, std::string label)
    : data_(static_cast<const uint8_t*>(data)), size_(size), label_(std::move(label)) {
  std::vector<ZipEntry> entries;
  try {
    entries = read_zip_directory(data_, size_, kMaxRecords);
  } catch (const ZipError& error) {
    throw load_error(label_, error.what(), "a complete .pt2 file of stored records");
  }
  check_kind(entries, label_);
  root_ = entries[0].name.substr(0, entries[0].name.find('/'));
  for (const ZipEntry& entry : entries) {
    const bool has_root = !entry.name.empty() && entry.name[0] != '/';
    const Record record{entry.offset, entry.size, entry.crc};
    if (!has_root || !records_.emplace(inner_name(entry.name), record).second) {
      throw load_error(label_, "has the record " + quoted(entry.name) + " twice", "one of each");
    }
  }
  if (read("archive_format", 16) != "pt2") {
    throw load_error(label_, "is not a torch.export archive",
                     "a file that torch.export.save wrote");
  }
}

const Record& Archive::record(std::string_view name) const {
  const auto found = records_.find(name);
  if (found == records_.end()) {
    throw load_error(label_, "has no record " + quoted(name), "a file of torch.export.save");
  }
  return found->second;
}

std::string_view Archive::bytes(const Record& record) const {
  return {reinterpret_cast<const char*>(data_) + record.offset, static_cast<size_t>(record.size)};
}

std::string_view Archive::read(std::string_view name, uint64_t max_bytes) const {
  const Record& found = record(name);
  if (found.size > max_bytes) {
    throw load_error(label_, "has " + std::to_string(found.size) + " bytes in " + quoted(name),
                     "at most " + std::to_string(max_bytes));
  }
  const std::string_view content = bytes(found);
  if (crc32(content.data(), content.size()) != found.crc) {
    throw load_error(label_, "has a damaged record " + quoted(name), "the bytes that were written");
  }
  return content;
}

Json Archive::json(std::string_view name) const {
  try {
    return Json::parse(read(name));
  } catch (const JsonError& error) {
    throw load_error(label_, "has " + quoted(name) + " that is not JSON: " + error.what(), "JSON");
  }
}

}  // namespace portrt
