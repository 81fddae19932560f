#include "engines/onnxruntime/library.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <mutex>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "core/targets/backends.h"

namespace portrt::ort {
namespace {

#ifdef _WIN32
const char* const kNames[] = {"onnxruntime.dll"};
const std::string kPrefix = "onnxruntime.dll";
#elif defined(__APPLE__)
const char* const kNames[] = {"libonnxruntime.dylib"};
const std::string kPrefix = "libonnxruntime.";
#else
const char* const kNames[] = {"libonnxruntime.so.1", "libonnxruntime.so"};
const std::string kPrefix = "libonnxruntime.so";
#endif

using GetApiBase = const ApiBase*(PORTRT_ORT_CALL*)();

std::mutex& search_lock() {
  static std::mutex& found = *new std::mutex;
  return found;
}

Search& search() {
  static Search& found = *new Search;  // never destroyed: other threads may run at the end
  return found;
}

// The entry point of a library, or null with the reason.
GetApiBase opened(const std::string& path, std::string& reason) {
#ifdef _WIN32
  HMODULE handle = LoadLibraryA(path.c_str());
  if (handle == nullptr) {
    reason = path + ": error " + std::to_string(GetLastError());
    return nullptr;
  }
  auto found = reinterpret_cast<GetApiBase>(GetProcAddress(handle, "OrtGetApiBase"));
#else
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* error = dlerror();
    reason = error == nullptr ? path : error;
    return nullptr;
  }
  auto found = reinterpret_cast<GetApiBase>(dlsym(handle, "OrtGetApiBase"));
#endif
  if (found == nullptr) reason = path + " has no function OrtGetApiBase";
  return found;
}

// The libraries in a folder.
std::vector<std::string> libraries_in(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().filename().string().rfind(kPrefix, 0) == 0) {
      found.push_back(entry.path().string());
    }
  }
  std::sort(found.rbegin(), found.rend());  // the newest first, where the digits are as many
  return found;
}

std::vector<std::string> candidates(const Search& where) {
  if (!where.path.empty()) return {where.path};
  const char* given = std::getenv("PORTRT_ONNXRUNTIME_LIBRARY");
  if (given != nullptr && *given != '\0') return {given};
  std::vector<std::string> found(std::begin(kNames), std::end(kNames));
  for (const std::string& folder : where.folders) {
    const std::vector<std::string> inside = libraries_in(folder);
    found.insert(found.end(), inside.begin(), inside.end());
  }
  return found;
}

void set_up(Library& found, const ApiBase* base, const std::string& path) {
  found.version = base->version();
  found.api = base->get_api(kApiVersion);
  if (found.api == nullptr) {
    found.verdict = Verdict::no(VerdictCode::library_version,
                                "ONNX Runtime " + found.version + " of " + path + " is too old",
                                find_backend("onnxruntime")->install);
    return;
  }
  const auto failed = [&](Status* status) {
    if (status == nullptr) return false;
    found.verdict = Verdict::no(
        VerdictCode::library_missing,
        "ONNX Runtime of " + path + " does not start: " + error_message(found.api, status));
    release_status(found.api, status);
    return true;
  };
  if (failed(create_env(found.api, kLogError, "portrt", &found.env)) ||
      failed(create_cpu_memory_info(found.api, kArena, kDefaultMemory, &found.cpu))) {
    found.api = nullptr;
    return;
  }
  found.verdict = Verdict::yes("ONNX Runtime " + found.version + " of " + path);
}

Library* load() {
  auto* found = new Library;
  Search where;
  {
    const std::lock_guard<std::mutex> guard(search_lock());
    where = search();
  }
  std::string tried;
  for (const std::string& path : candidates(where)) {
    std::string reason;
    const GetApiBase entry = opened(path, reason);
    if (entry != nullptr) {
      set_up(*found, entry(), path);
      return found;
    }
    tried += (tried.empty() ? "" : "; ") + reason;
  }
  found->verdict =
      Verdict::no(VerdictCode::library_missing, "onnxruntime cannot be loaded: " + tried,
                  find_backend("onnxruntime")->install +
                      ", or name its library in PORTRT_ONNXRUNTIME_LIBRARY");
  return found;
}

}  // namespace

void set_search(Search where) {
  const std::lock_guard<std::mutex> guard(search_lock());
  search() = std::move(where);
}

const Library& library() {
  static const Library& found = *load();
  return found;
}

void check(Status* status) {
  if (status == nullptr) return;
  const Api* api = library().api;
  Failure failure{error_message(api, status)};
  release_status(api, status);
  throw failure;
}

}  // namespace portrt::ort
