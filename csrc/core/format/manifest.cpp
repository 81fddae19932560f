#include "core/format/manifest.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/format/fields.h"
#include "core/format/sha256.h"

namespace portrt {
namespace {

Error error_at(std::string path, std::string happened, std::string expected,
               std::string remedy = kFileRemedy) {
  return Error(ErrorCode::package, std::move(happened), std::move(expected), std::move(remedy),
               std::move(path));
}

Json parse(std::string_view text) {
  const size_t chars = count_chars(text);
  if (chars > kMaxManifestChars) {
    throw error_at("", "a manifest of " + std::to_string(chars) + " characters",
                   "at most " + std::to_string(kMaxManifestChars));
  }
  Json raw;
  try {
    raw = Json::parse(text);
  } catch (const JsonError& error) {
    throw error_at("", std::string("a manifest is not JSON: ") + error.what(), "canonical JSON");
  }
  if (raw.object() == nullptr)
    throw error_at("", "a manifest is not a JSON object", "a JSON object");
  const Json* format = raw.find("format");
  const int64_t* version = format == nullptr ? nullptr : format->integer();
  if (version == nullptr || *version < kOldestFormat || *version > kFormat) {
    const std::string found = format == nullptr ? "null" : format->brief();
    throw error_at(
        "/format", "the program has format version " + found,
        "a version from " + std::to_string(kOldestFormat) + " to " + std::to_string(kFormat),
        version != nullptr && *version > kFormat ? "install a newer portrt" : kFileRemedy);
  }
  return raw;
}

DType read_dtype(const Fields& part) {
  const std::string name = part.text("dtype");
  const std::optional<DType> found = dtype_named(name);
  if (!found) throw part.bad("dtype", "is " + quoted(name), "one of " + dtype_names());
  return *found;
}

// All dimensions with profiles have the same number of them.
void check_profile_counts(const std::vector<InputSpec>& inputs, const Fields& top) {
  size_t count = 0;
  for (size_t index = 0; index < inputs.size(); ++index) {
    for (size_t axis = 0; axis < inputs[index].shape.size(); ++axis) {
      const Dimension* dimension = std::get_if<Dimension>(&inputs[index].shape[axis]);
      const size_t found = dimension == nullptr ? 0 : dimension->profiles.size();
      if (count == 0) count = found;
      if (found == 0 || found == count) continue;
      const std::string shape = pointer(pointer(top.at("inputs"), index), "shape");
      throw error_at(pointer(pointer(shape, axis), "profiles"),
                     "input " + quoted(inputs[index].name) + " of " + top.where() + " has " +
                         std::to_string(found) + " profiles",
                     std::to_string(count) + ", as the dimensions before it");
    }
  }
}

std::vector<InputSpec> read_inputs(const Fields& top, std::vector<size_t>& ranks) {
  const Json::Array& items = top.items("inputs");
  if (items.empty()) throw error_at("/inputs", top.where() + " has no inputs", "at least one");
  std::vector<InputSpec> found;
  for (size_t index = 0; index < items.size(); ++index) {
    Fields part(items[index], "an input of " + top.where(), pointer(top.at("inputs"), index));
    InputSpec spec;
    spec.name = part.text("name");
    part.set_where("input " + quoted(spec.name) + " of " + top.where());
    spec.shape = read_input_shape(part, ranks);
    spec.dtype = read_dtype(part);
    found.push_back(std::move(spec));
  }
  check_profile_counts(found, top);
  return found;
}

std::vector<OutputSpec> read_outputs(const Fields& top, const std::vector<size_t>& ranks,
                                     int64_t format) {
  const Json::Array& items = top.items("outputs");
  if (items.empty()) throw error_at("/outputs", top.where() + " has no outputs", "at least one");
  std::vector<OutputSpec> found;
  for (size_t index = 0; index < items.size(); ++index) {
    Fields part(items[index], "an output of " + top.where(), pointer(top.at("outputs"), index));
    OutputSpec spec;
    spec.name = part.text("name");
    part.set_where("output " + quoted(spec.name) + " of " + top.where());
    spec.shape = read_output_shape(part, ranks);
    for (size_t axis = 0; axis < spec.shape.size() && format < 2; ++axis) {
      if (!std::holds_alternative<DataDependentSize>(spec.shape[axis])) continue;
      throw error_at(pointer(part.at("shape"), axis),
                     part.where() + " has a data-dependent size, in format version 1",
                     "format version 2");
    }
    spec.dtype = read_dtype(part);
    found.push_back(std::move(spec));
  }
  return found;
}

Json read_policy_entry(const Fields& top) {
  const Json& policy = top.mapping("policy");
  const Fields part = top.part("policy");
  if (!part.is_absent("fallback")) {
    const Json& fallback = *part.find("fallback");
    const std::string* name = fallback.string();
    if (name == nullptr || (*name != "eager" && *name != "error")) {
      throw part.bad("fallback", "is " + fallback.brief(), "'eager' or 'error'");
    }
  }
  if (!part.is_absent("engines")) part.names("engines");
  return policy;
}

struct LabelledBlob {
  std::string label;
  Blob blob;
  std::string path;  // JSON pointer of its entry
};

std::vector<LabelledBlob> blobs_of(const Manifest& manifest) {
  std::vector<LabelledBlob> found;
  if (manifest.weights) found.push_back({"the weights", *manifest.weights, "/weights"});
  if (manifest.source) found.push_back({"the source", *manifest.source, "/source"});
  for (size_t index = 0; index < manifest.engines.size(); ++index) {
    const EngineSpec& engine = manifest.engines[index];
    const std::string label = "engine " + quoted(engine.backend);
    const std::string path = pointer("/engines", index);
    found.push_back({label, engine.data, path + "/data"});
    if (!engine.parts) continue;
    for (size_t place = 0; place < engine.parts->engines.size(); ++place) {
      const Part& part = engine.parts->engines[place];
      found.push_back({label + " for " + quoted(part.name), part.engine.data,
                       pointer(path + "/parts/engines", place) + "/data"});
    }
  }
  return found;
}

bool takes_weights(const EngineSpec& engine) {
  if (!engine.weights.empty()) return true;
  return engine.parts && std::any_of(engine.parts->engines.begin(), engine.parts->engines.end(),
                                     [](const Part& part) { return takes_weights(part.engine); });
}

// The manifest refers to every blob of the call exactly once.
void check_blobs(const Manifest& manifest) {
  const std::string block = "block " + quoted(manifest.name);
  std::map<size_t, std::string> owner;
  for (const LabelledBlob& item : blobs_of(manifest)) {
    if (item.blob.index >= manifest.blob_count) {
      throw error_at(
          item.path + "/blob",
          item.label + " of " + block + " refers to blob " + std::to_string(item.blob.index),
          "an index below the " + std::to_string(manifest.blob_count) + " blobs of the call");
    }
    const auto [place, is_new] = owner.emplace(item.blob.index, item.label);
    if (!is_new) {
      throw error_at(item.path + "/blob",
                     item.label + " and " + place->second + " of " + block + " are one blob",
                     "one blob each");
    }
  }
  if (owner.size() != manifest.blob_count) {
    throw error_at("/blob_count",
                   block + " describes " + std::to_string(owner.size()) + " of " +
                       std::to_string(manifest.blob_count) + " blobs",
                   "a description of each blob");
  }
  const bool needs_weights =
      !manifest.source_weights.empty() ||
      std::any_of(manifest.engines.begin(), manifest.engines.end(), takes_weights);
  if (needs_weights && !manifest.weights) {
    throw error_at("/weights", block + " names weights but has none", "a weights blob");
  }
}

}  // namespace

Manifest decode(std::string_view text) {
  const Json raw = parse(text);
  Fields top(raw, "the manifest");
  Manifest found;
  found.format = *raw.find("format")->integer();
  found.name = top.text("name");
  top.set_where("block " + quoted(found.name));
  std::vector<size_t> ranks;
  found.inputs = read_inputs(top, ranks);
  found.producer = top.texts("producer");
  found.outputs = read_outputs(top, ranks, found.format);
  if (!top.is_null("weights")) found.weights = read_blob(top, "weights");
  if (!top.is_null("source")) found.source = read_blob(top, "source");
  found.source_weights = top.names("source_weights");
  found.node_count = top.integer("node_count");
  const Json::Array& engines = top.items("engines");
  for (size_t index = 0; index < engines.size(); ++index) {
    found.engines.push_back(read_engine(engines[index], found.name,
                                        pointer(top.at("engines"), index), found.format, &ranks));
  }
  found.policy = read_policy_entry(top);
  found.blob_count = static_cast<size_t>(top.integer("blob_count"));
  check_blobs(found);
  return found;
}

void check_blob_sizes(const Manifest& manifest, const std::vector<uint64_t>& sizes) {
  const std::string block = "block " + quoted(manifest.name);
  if (sizes.size() != manifest.blob_count) {
    throw error_at("/blob_count",
                   "the call of " + block + " has " + std::to_string(sizes.size()) + " blobs",
                   std::to_string(manifest.blob_count) + ", as in its manifest");
  }
  for (const LabelledBlob& item : blobs_of(manifest)) {
    if (sizes[item.blob.index] == item.blob.size) continue;
    throw error_at(
        item.path + "/size",
        item.label + " of " + block + " has " + std::to_string(sizes[item.blob.index]) + " bytes",
        std::to_string(item.blob.size) + ", as in its manifest");
  }
}

std::vector<std::pair<std::string, Blob>> labelled_blobs(const Manifest& manifest) {
  std::vector<std::pair<std::string, Blob>> found;
  if (manifest.weights) found.emplace_back("the weights", *manifest.weights);
  if (manifest.source) found.emplace_back("the source", *manifest.source);
  for (const EngineSpec& engine : manifest.engines) {
    for (const Blob& blob : engine.blobs()) found.emplace_back("engine " + engine.backend, blob);
  }
  return found;
}

void check_digest(const void* data, uint64_t size, const Blob& blob, const std::string& label) {
  const std::string found = sha256(data, size);
  if (found == blob.sha256) return;
  throw Error(ErrorCode::package,
              label + " is damaged: its SHA-256 is " + found.substr(0, 16) + "...",
              blob.sha256.substr(0, 16) + "..., as in its manifest", kFileRemedy);
}

}  // namespace portrt
