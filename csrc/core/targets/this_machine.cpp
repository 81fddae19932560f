#include "core/targets/this_machine.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <sstream>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#include <sys/utsname.h>
#endif

namespace portrt {
namespace {

// Names in the "flags" of x86 and the "Features" of ARM that compilers may generate code for; the
// others name properties of the kernel or of virtual machines.
const char* const kPrefixes[] = {"sse", "ssse", "avx", "amx_",  "bmi", "sha",
                                 "sve", "sm3",  "sm4", "asimd", "aes"};
const char* const kNames[] = {
    "fma",     "fma4",   "f16c", "popcnt", "abm",   "movbe", "pclmulqdq", "vpclmulqdq", "vaes",
    "gfni",    "adx",    "xop",  "tbm",    "lzcnt", "fp",    "fphp",      "pmull",      "crc32",
    "atomics", "jscvt",  "fcma", "lrcpc",  "dcpop", "flagm", "flagm2",    "frint",      "i8mm",
    "bf16",    "ilrcpc", "sb",   "paca",   "pacg",  "f32mm", "f64mm",     "sme",        "sme2"};

bool is_instruction_set(const std::string& name) {
  const auto starts = [&](const char* prefix) { return name.rfind(prefix, 0) == 0; };
  return std::any_of(std::begin(kPrefixes), std::end(kPrefixes), starts) ||
         std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return text;
}

// The functions of the CUDA driver that are called, by name.
class Driver {
 public:
  Driver() {
#ifdef _WIN32
    library_ = LoadLibraryA("nvcuda.dll");
#else
    library_ = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
#endif
  }
  // It stays loaded: CUDA may be in use elsewhere in the process.

  std::optional<std::string> newest_cuda() const {
    const auto get = function<int (*)(int*)>("cuDriverGetVersion");
    int version = 0;
    if (get == nullptr || get(&version) != 0) return std::nullopt;
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  }

  std::optional<std::string> compute_capability() const {
    constexpr int kMajor = 75, kMinor = 76;  // CUdevice_attribute
    const auto init = function<int (*)(unsigned)>("cuInit");
    const auto device_of = function<int (*)(int*, int)>("cuDeviceGet");
    const auto attribute = function<int (*)(int*, int, int)>("cuDeviceGetAttribute");
    if (init == nullptr || device_of == nullptr || attribute == nullptr) return std::nullopt;
    int device = 0, major = 0, minor = 0;
    if (init(0) != 0 || device_of(&device, 0) != 0) return std::nullopt;
    if (attribute(&major, kMajor, device) != 0 || attribute(&minor, kMinor, device) != 0) {
      return std::nullopt;
    }
    return std::to_string(major) + "." + std::to_string(minor);
  }

 private:
  template <class Function>
  Function function(const char* name) const {
    if (library_ == nullptr) return nullptr;
#ifdef _WIN32
    return reinterpret_cast<Function>(GetProcAddress(library_, name));
#else
    return reinterpret_cast<Function>(dlsym(library_, name));
#endif
  }

#ifdef _WIN32
  HMODULE library_ = nullptr;
#else
  void* library_ = nullptr;
#endif
};

void set_system(Machine& machine) {
#ifdef _WIN32
  machine.os = "windows";
#if defined(_M_ARM64)
  machine.arch = "aarch64";
#elif defined(_M_X64)
  machine.arch = "x86_64";
#endif
#else
  utsname names;
  if (uname(&names) != 0) return;
  machine.os = lower(names.sysname);
  machine.arch = arch_name(names.machine);
#endif
}

}  // namespace

std::string arch_name(std::string machine) {
  machine = lower(std::move(machine));
  if (machine == "amd64") return "x86_64";
  if (machine == "arm64") return "aarch64";
  return machine;
}

std::optional<std::set<std::string>> cpu_features(std::istream& cpuinfo) {
  std::optional<std::set<std::string>> found;
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string key = line.substr(0, colon);
    key.erase(key.find_last_not_of(" \t") + 1);
    if (key != "flags" && key != "Features") continue;
    std::istringstream names(line.substr(colon + 1));
    std::set<std::string> of_core;
    for (std::string name; names >> name;) {
      // A process may run on any core.
      if (is_instruction_set(name) && (!found || found->count(name) != 0)) of_core.insert(name);
    }
    found = std::move(of_core);
  }
  return found;
}

Machine this_machine() {
  Machine found;
  set_system(found);
  std::ifstream cpuinfo("/proc/cpuinfo");
  found.cpu_features = cpu_features(cpuinfo);
  static const Driver& driver = *new Driver;
  found.cuda = driver.newest_cuda();
  found.compute_capability = driver.compute_capability();
  found.gpu_reason = found.compute_capability ? "" : "there is no NVIDIA GPU here";
  return found;
}

}  // namespace portrt
