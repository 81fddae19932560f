#include "core/targets/backends.h"

namespace portrt {

const std::vector<std::string>& tensorrt_runtimes() {
  static const std::vector<std::string> found = {"tensorrt", "tensorrt_lean", "tensorrt_dispatch"};
  return found;
}

const std::vector<BackendInfo>& known_backends() {
  static const std::vector<BackendInfo> rows = {
      {"tensorrt", tensorrt_runtimes(), VersionRule::tensorrt, "pip install tensorrt"},
      {"tensorrt_rtx",
       {"tensorrt_rtx"},
       VersionRule::same_release,
       "pip install tensorrt-rtx-cu13"},
      {"onnxruntime", {"onnxruntime"}, VersionRule::at_least, "pip install onnxruntime"},
      {"openvino", {"openvino"}, VersionRule::at_least, "pip install 'portrt[openvino]'"},
      {"inductor", {"torch"}, VersionRule::exact, ""},
  };
  return rows;
}

const BackendInfo* find_backend(std::string_view name) {
  for (const BackendInfo& row : known_backends()) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

}  // namespace portrt
