// Files mapped to memory.
#pragma once

#include <cstdint>
#include <string>

namespace portrt {

// A file's bytes, copy-on-write: what is written to the memory never reaches the file. They are
// read on access, so the file must not be truncated while it is mapped.
class MappedFile {
 public:
  // Throws Error (load): the file is missing, is no file, or cannot be mapped.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace portrt
