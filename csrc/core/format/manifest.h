// The manifest of an engine call. docs/format.md describes every field.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/format/engine_spec.h"
#include "core/format/signature.h"

namespace portrt {

constexpr int64_t kFormat = 3;
constexpr int64_t kOldestFormat = 1;
constexpr size_t kMaxManifestChars = size_t{16} << 20;

struct Manifest {
  int64_t format = 0;
  std::string name;
  std::map<std::string, std::string> producer;  // library -> version
  std::vector<InputSpec> inputs;
  std::vector<OutputSpec> outputs;
  std::optional<Blob> weights;
  std::optional<Blob> source;  // none where it was stripped
  std::vector<std::string> source_weights;
  int64_t node_count = 0;
  std::vector<EngineSpec> engines;  // in order of preference
  Json policy;                      // an object
  size_t blob_count = 0;

  Signature signature() const { return {name, inputs, outputs}; }
};

// Read and check a manifest. Throws Error (package) with the field at fault.
Manifest decode(std::string_view text);

// Number and sizes of the call's blobs are those of the manifest, or Error (package).
void check_blob_sizes(const Manifest& manifest, const std::vector<uint64_t>& sizes);

// Every blob of a call with a label for messages, such as "engine onnxruntime".
std::vector<std::pair<std::string, Blob>> labelled_blobs(const Manifest& manifest);

// The bytes are those that the digest is of, or Error (package).
void check_digest(const void* data, uint64_t size, const Blob& blob, const std::string& label);

}  // namespace portrt
