// Engines in a manifest: entries with references to their blobs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/format/json.h"
#include "core/format/size_expr.h"

namespace portrt {

class Fields;

// Reference to a blob: its index in the call, its size in bytes, and its SHA-256.
struct Blob {
  size_t index = 0;
  uint64_t size = 0;
  std::string sha256;  // 64 digits
};

// What an engine needs to run. An absent field rejects no machine.
struct Requirements {
  std::vector<std::string> device;  // device types of the inputs; not empty
  std::vector<std::string> compute_capabilities, os, arch, cpu_features;
  std::optional<std::string> compute_capability_min, cuda;
  bool host_code = false;
  bool version_compatible = false;
  // Expressions over the inputs' dimensions, none of which may be 0 in a call. Empty for a part of
  // an engine: `read_nonzero_sizes` reads them where its inputs are known.
  std::vector<SizeExpr> nonzero_sizes;
  Json entry;  // the whole object

  // The text of a field, such as the version of a library; none where it is absent or no text.
  std::optional<std::string> text(const char* key) const;
};

struct Part;

// Engines for parts of a block; PyTorch runs the rest of it.
struct Parts {
  int64_t nodes = 0;             // operator calls in the block
  int64_t nodes_in_engines = 0;  // those that are in the engines
  std::vector<Part> engines;     // in the order of their calls
};

struct EngineSpec {
  std::string backend;
  Blob data;   // its bytes; with `parts` the program that calls them
  Json build;  // an object; for display and verdicts, and what sessions read of it
  Requirements requires_;
  std::vector<std::string> weights;  // names in the weights image, in order
  Json check;                        // an object or null
  std::optional<Parts> parts;

  // Its blob, and those of its parts.
  std::vector<Blob> blobs() const;
  // Such as "in 2 parts, with 3 of 40 operators in PyTorch"; "" for a whole engine.
  std::string in_words() const;
};

struct Part {
  std::string name;
  EngineSpec engine;
};

// Read and check a blob entry.
Blob read_blob(const Fields& owner, const std::string& key);

// Read and check `requires`.
//   ranks: number of dimensions of each input, or null for a part
Requirements read_requirements(const Fields& engine, const std::vector<size_t>* ranks);

// Read `nonzero_sizes` of a part, whose inputs have these ranks.
std::vector<SizeExpr> read_nonzero_sizes(const Json& entry, const std::vector<size_t>& ranks,
                                         const std::string& where, const std::string& path = "");

// Read and check the entry of an engine.
//   path: JSON pointer of the entry
//   version: format version of the manifest
//   ranks: number of dimensions of each input, or null for a part
EngineSpec read_engine(const Json& entry, const std::string& block, const std::string& path,
                       int64_t version, const std::vector<size_t>* ranks);

}  // namespace portrt
