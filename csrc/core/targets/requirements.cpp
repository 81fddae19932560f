#include "core/targets/requirements.h"

#include <algorithm>

#include "core/targets/backends.h"
#include "core/targets/tensorrt_rules.h"
#include "core/targets/versions.h"
#include "core/text.h"

namespace portrt {
namespace {

constexpr size_t kAllParts = 99;
constexpr size_t kReleaseParts = 3;
constexpr size_t kShownFeatures = 4;

Verdict features_verdict(std::vector<std::string> wanted, const std::set<std::string>& found) {
  std::sort(wanted.begin(), wanted.end());
  std::vector<std::string> missing;
  for (const std::string& name : wanted) {
    if (found.count(name) == 0) missing.push_back(name);
  }
  if (missing.empty()) return Verdict::yes();
  std::string more;
  if (missing.size() > kShownFeatures) {
    more = " and " + std::to_string(missing.size() - kShownFeatures) + " more";
    missing.resize(kShownFeatures);
  }
  return Verdict::no(
      VerdictCode::wrong_platform,
      "built for a CPU with " + joined(missing, ", ") + more + ", which this one lacks",
      "build it again on a machine with this CPU: portrt add-engine, or "
      "rebuild='missing'");
}

Verdict platform_verdict(const Requirements& requires_, const Machine& machine) {
  struct Item {
    const char* key;
    const std::vector<std::string>& wanted;
    const std::optional<std::string>& found;
  };
  for (const Item& item :
       {Item{"os", requires_.os, machine.os}, Item{"arch", requires_.arch, machine.arch}}) {
    if (item.wanted.empty() || !item.found || contains(item.wanted, *item.found)) continue;
    return Verdict::no(VerdictCode::wrong_platform,
                       "built for " + joined(item.wanted, ", ") + ", not " + *item.found,
                       std::string("compile on a machine with ") + item.key + "=" + *item.found);
  }
  if (requires_.cpu_features.empty() || !machine.cpu_features) return Verdict::yes();
  return features_verdict(requires_.cpu_features, *machine.cpu_features);
}

// A driver runs code that was built with any CUDA version of its own major version or an older one:
// CUDA compatibility guide, "Minor version compatibility".
Verdict driver_verdict(const Requirements& requires_, const Machine& machine) {
  if (!requires_.cuda || !machine.cuda) return Verdict::yes();
  std::vector<long> wanted = version_numbers(*requires_.cuda);
  std::vector<long> found = version_numbers(*machine.cuda);
  wanted.resize(std::min<size_t>(wanted.size(), 1));
  found.resize(std::min<size_t>(found.size(), 1));
  if (found >= wanted) return Verdict::yes();
  return Verdict::no(VerdictCode::driver_too_old,
                     "the GPU's driver is too old: it supports CUDA " + *machine.cuda +
                         ", the engine was built with CUDA " + *requires_.cuda,
                     "update the driver");
}

// TensorRT-RTX documentation, "Support matrix": data-center GPUs are not supported.
std::string remedy_for_gpu(const std::string& backend, const std::string& capability) {
  const std::string major = capability.substr(0, capability.find('.'));
  if (backend == "tensorrt_rtx" && (major == "9" || major == "10")) {
    return "portrt add-engine --engine tensorrt: TensorRT-RTX builds none for " + capability;
  }
  return "portrt add-engine --target " + capability + ", if its builder supports that GPU";
}

Verdict gpu_verdict(const std::string& backend, const Requirements& requires_,
                    const Machine& machine) {
  if (!machine.compute_capability) {
    return Verdict::no(VerdictCode::no_gpu, machine.gpu_reason, "use a machine with such a GPU");
  }
  const std::string& found = *machine.compute_capability;
  const std::vector<std::string>& wanted = requires_.compute_capabilities;
  if (!wanted.empty() && !contains(wanted, found)) {
    return Verdict::no(
        VerdictCode::wrong_gpu,
        "built for compute capability " + joined(wanted, ", ") + ", the GPU has " + found,
        remedy_for_gpu(backend, found));
  }
  const std::optional<std::string>& oldest = requires_.compute_capability_min;
  if (oldest && !at_least(*oldest, found)) {
    return Verdict::no(
        VerdictCode::wrong_gpu,
        "built for compute capability " + *oldest + " or newer, the GPU has " + found,
        "use a machine with a newer GPU");
  }
  return driver_verdict(requires_, machine);
}

Verdict version_verdict(VersionRule rule, const std::string& library, const std::string& wanted,
                        const std::string& found) {
  if (rule == VersionRule::at_least) {
    if (at_least(wanted, found)) return Verdict::yes();
    return Verdict::no(
        VerdictCode::library_version,
        "needs " + library + " " + wanted + " or newer, and " + found + " is installed",
        "update " + library);
  }
  const size_t parts = rule == VersionRule::exact ? kAllParts : kReleaseParts;
  if (same_release(wanted, found, parts)) return Verdict::yes();
  return Verdict::no(VerdictCode::library_version,
                     "built by " + library + " " + wanted + ", and " + found + " is installed",
                     "install " + library + " " + wanted + ", or portrt add-engine where " + found +
                         " is installed");
}

Verdict library_verdict(const BackendInfo& row, const Requirements& requires_,
                        const Machine& machine) {
  if (row.version_rule == VersionRule::tensorrt) {
    const LibraryOrNo found = tensorrt_runtime_for(requires_, machine);
    const Verdict* no = std::get_if<Verdict>(&found);
    return no == nullptr ? Verdict::yes() : *no;
  }
  bool is_known = false;
  for (const std::string& library : row.libraries) {
    const auto found = machine.versions.find(library);
    if (found == machine.versions.end()) continue;
    is_known = true;
    if (found->second.empty()) continue;
    const std::optional<std::string> wanted = requires_.text(row.libraries[0].c_str());
    if (!wanted) return Verdict::yes();
    return version_verdict(row.version_rule, library, *wanted, found->second);
  }
  if (!is_known) return Verdict::yes();
  return Verdict::no(VerdictCode::library_missing, row.libraries[0] + " is not installed",
                     row.install);
}

}  // namespace

Verdict unknown_backend() {
  return Verdict::no(VerdictCode::unknown_backend, "this version of portrt does not know it",
                     "install a newer version of portrt, or the package that adds this backend");
}

Verdict device_verdict(const Requirements& requires_, const std::string& device) {
  if (contains(requires_.device, device)) return Verdict::yes();
  return Verdict::no(VerdictCode::wrong_device, "it takes " + joined(requires_.device, " or ") +
                                                    " tensors, the inputs are on " + device);
}

Verdict check_requirements(const std::string& backend, const Requirements& requires_,
                           const Machine& machine, const std::string& device) {
  const BackendInfo* row = find_backend(backend);
  if (row == nullptr) return unknown_backend();
  Verdict verdict = device_verdict(requires_, device);
  if (verdict) verdict = platform_verdict(requires_, machine);
  if (verdict && device == "cuda") verdict = gpu_verdict(backend, requires_, machine);
  if (verdict) verdict = library_verdict(*row, requires_, machine);
  return verdict;
}

}  // namespace portrt
