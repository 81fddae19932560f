// ONNX Runtime's library, found and loaded once in a process.
#pragma once

#include <string>
#include <vector>

#include "core/verdict.h"
#include "engines/onnxruntime/api.h"

namespace portrt::ort {

// Where the library is searched, in this order: `path`, or else the variable
// PORTRT_ONNXRUNTIME_LIBRARY, either of which alone is tried if it is given; the system's loader;
// and `folders`, in which a file is named libonnxruntime.so, with a version or without: those of
// the Python package onnxruntime, `onnxruntime/capi`.
struct Search {
  std::string path;
  std::vector<std::string> folders;
};

// Set where the library is searched; without effect once it was.
void set_search(Search search);

struct Library {
  Verdict verdict;       // whether it was loaded, and from where
  std::string version;   // such as "1.32.0"; "" where it was not loaded
  const Api* api = nullptr;
  Env* env = nullptr;
  MemoryInfo* cpu = nullptr;
};

// The library, loaded by the first call; it is never unloaded.
const Library& library();

// Throw `Failure` with the text of a status that is no success, and release it.
void check(Status* status);

// What ONNX Runtime reports, as it does.
struct Failure {
  std::string text;
};

}  // namespace portrt::ort
