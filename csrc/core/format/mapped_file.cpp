#include "core/format/mapped_file.h"

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/format/fields.h"

#ifdef _WIN32
#include <fstream>
#include <limits>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace portrt {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& fact) {
  throw Error(ErrorCode::load, quoted(path) + " " + fact, "a readable file", "correct the path");
}

}  // namespace

#ifdef _WIN32

// Read, not mapped.
MappedFile::MappedFile(const std::string& path) : path_(path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) fail(path, "cannot be read");
  size_ = static_cast<uint64_t>(file.tellg());
  file.seekg(0);
  data_ = new uint8_t[size_ == 0 ? 1 : size_];
  if (!file.read(reinterpret_cast<char*>(data_), static_cast<std::streamsize>(size_))) {
    delete[] data_;
    fail(path, "cannot be read");
  }
}

MappedFile::~MappedFile() { delete[] data_; }

#else

MappedFile::MappedFile(const std::string& path) : path_(path) {
  // A pipe or a device is not waited for.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    if (errno == ENOENT) {
      throw Error(ErrorCode::load, "there is no file " + quoted(path), "a compiled program",
                  "correct the path");
    }
    fail(path, std::string("cannot be read: ") + std::strerror(errno));
  }
  struct stat found{};
  std::string fault;
  if (fstat(file, &found) != 0) {
    fault = std::string("cannot be read: ") + std::strerror(errno);
  } else if (!S_ISREG(found.st_mode)) {
    fault = "is no file";
  } else if (found.st_size > 0) {
    size_ = static_cast<uint64_t>(found.st_size);
    void* memory = mmap(nullptr, static_cast<size_t>(size_), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_NORESERVE, file, 0);
    if (memory == MAP_FAILED) {
      fault = std::string("cannot be mapped: ") + std::strerror(errno);
    } else {
      data_ = static_cast<uint8_t*>(memory);
    }
  }
  close(file);
  if (!fault.empty()) fail(path, fault);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(size_));
}

#endif

}  // namespace portrt
