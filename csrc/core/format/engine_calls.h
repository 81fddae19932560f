// The engine calls of a program in an archive.
#pragma once

#include <string>
#include <vector>

#include "core/format/archive.h"
#include "core/format/manifest.h"

namespace portrt {

inline constexpr const char* kOperator = "torch.ops.portrt.execute_engine.default";

struct EngineCall {
  std::string text;  // of the manifest, in the graph
  Manifest manifest;
  std::vector<Record> blobs;  // of the call, in order
};

// All calls, also those in graphs of control flow, in the order of the graph; manifests and sizes
// of blobs are checked.
//   model: the record kModelRecord
// Throws Error (load, package).
std::vector<EngineCall> engine_calls(const Archive& archive, const Json& model);
std::vector<EngineCall> engine_calls(const Archive& archive);

}  // namespace portrt
