// Sources: NVIDIA TensorRT documentation, "Engine portability" and "Version compatibility"; see
// portrt/targets/tensorrt_rules.py, which has the same rules.
#include "core/targets/tensorrt_rules.h"

#include <utility>
#include <vector>

#include "core/targets/backends.h"
#include "core/targets/versions.h"
#include "core/text.h"

namespace portrt {
namespace {

constexpr size_t kAllParts = 4;

struct Installed {
  std::string name, version;  // "" where the version is not known
};
using Libraries = std::vector<Installed>;

// The newer major version that also runs version-compatible engines of this one; 0 for none.
long next_major(const std::string& built) {
  switch (version_numbers(built)[0]) {
    case 8:
    case 9: return 10;
    case 10: return 11;
    default: return 0;
  }
}

std::string listed(const Libraries& installed) {
  std::vector<std::string> found;
  for (const Installed& library : installed) {
    found.push_back(library.name + (library.version.empty() ? "" : " ") + library.version);
  }
  return joined(found, " and ");
}

const Installed* find_library(const Libraries& installed, const std::string& name) {
  for (const Installed& library : installed) {
    if (library.name == name) return &library;
  }
  return nullptr;
}

std::string how_to_get(const std::string& built) {
  const long next = next_major(built);
  const long major = next != 0 ? next : version_numbers(built)[0];
  return "pip install 'tensorrt-dispatch-cu13<" + std::to_string(major + 1) + "'";
}

Verdict no_major(const std::string& built, const Libraries& installed) {
  const long next = next_major(built);
  return Verdict::no(VerdictCode::library_version,
                     "it was built by tensorrt " + built + ", needs that or a newer TensorRT " +
                         std::to_string(version_numbers(built)[0]) +
                         (next == 0 ? "" : ", or TensorRT " + std::to_string(next)) + ", and " +
                         listed(installed) + " is installed",
                     how_to_get(built));
}

// Whether a library can load a version-compatible engine, directly or by delegating.
bool can_load(const std::string& built, const Installed& library) {
  const std::vector<long> found = version_numbers(library.version);
  const bool is_same = found.empty() || found[0] == version_numbers(built)[0];
  if (is_same && at_least(built, library.version)) return true;
  return !found.empty() && found[0] == next_major(built);
}

LibraryOrNo exact(const std::string& built, const Libraries& installed) {
  const Installed* found = find_library(installed, "tensorrt");
  if (found != nullptr && same_release(built, found->version, kAllParts)) return found->name;
  return Verdict::no(
      VerdictCode::library_version,
      "it is not version compatible: built by tensorrt " + built + ", and " + listed(installed) +
          " is installed",
      "install tensorrt " + built + ", or build it again with the installed version");
}

LibraryOrNo with_lean_inside(const std::string& built, const Libraries& installed) {
  for (const Installed& library : installed) {
    if (can_load(built, library)) return library.name;
  }
  return no_major(built, installed);
}

LibraryOrNo with_lean_outside(const std::string& built, const Libraries& installed,
                              const Machine& machine) {
  for (const char* name : {"tensorrt", "tensorrt_lean"}) {  // these are its lean runtime
    const Installed* found = find_library(installed, name);
    if (found != nullptr && same_release(built, found->version)) return found->name;
  }
  for (const Installed& library : installed) {
    if (library.name == "tensorrt_lean" || !can_load(built, library)) continue;
    if (!machine.lean_library) return library.name;
    const LibraryOrNo lean = machine.lean_library(built);
    if (std::holds_alternative<Verdict>(lean)) return lean;
    return library.name;
  }
  if (installed.size() == 1 && installed[0].name == "tensorrt_lean") {
    return Verdict::no(VerdictCode::library_version,
                       "it was built by tensorrt " + built +
                           " without a lean runtime inside, and " + listed(installed) +
                           " runs such engines of its own release only",
                       "install tensorrt_lean " + built + ", or " + how_to_get(built));
  }
  return no_major(built, installed);
}

}  // namespace

LibraryOrNo tensorrt_runtime_for(const Requirements& requires_, const Machine& machine) {
  const std::optional<std::string> built = requires_.text("tensorrt");
  if (!built || version_numbers(*built).size() < 2) {
    return Verdict::no(VerdictCode::requirement_missing,
                       "it does not state which TensorRT built it", "build it again");
  }
  bool is_known = false;
  Libraries installed;
  for (const std::string& name : tensorrt_runtimes()) {
    const auto found = machine.versions.find(name);
    if (found == machine.versions.end()) continue;
    is_known = true;
    if (!found->second.empty()) installed.push_back({name, found->second});
  }
  if (is_known && installed.empty()) {
    return Verdict::no(
        VerdictCode::library_missing,
        "neither tensorrt, tensorrt_lean nor tensorrt_dispatch is installed",
        requires_.version_compatible ? how_to_get(*built) : "pip install tensorrt==" + *built);
  }
  if (!is_known) {
    for (const std::string& name : tensorrt_runtimes()) installed.push_back({name, ""});
  }
  if (!requires_.version_compatible) return exact(*built, installed);
  if (requires_.text("lean_runtime") == "inside") return with_lean_inside(*built, installed);
  return with_lean_outside(*built, installed, machine);
}

}  // namespace portrt
