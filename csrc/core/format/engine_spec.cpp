#include "core/format/engine_spec.h"

#include <set>

#include "core/error.h"
#include "core/format/fields.h"

namespace portrt {
namespace {

bool is_digest(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Parts read_parts(const Fields& engine, const std::string& block, int64_t version) {
  if (version < 3) {
    throw engine.bad("parts", "is there, in format version " + std::to_string(version),
                     "format version 3");
  }
  const Fields own = engine.part("parts");
  const Json::Array& items = own.items("engines");
  Parts found;
  std::set<std::string> names;
  for (size_t index = 0; index < items.size(); ++index) {
    const std::string path = pointer(own.at("engines"), index);
    const Fields fields(items[index], "a part of " + engine.where(), path);
    std::string name = fields.text("name");
    if (!names.insert(name).second) {
      throw fields.bad("name", "is " + quoted(name) + " twice", "one name for each part");
    }
    if (!fields.is_absent("parts")) {  // before it is read: it may be deep
      throw fields.bad("parts", "is there", "an engine that has no parts itself");
    }
    EngineSpec spec = read_engine(items[index], block, path, version, nullptr);
    const std::string backend = engine.text("backend");
    if (spec.backend != backend) {
      throw fields.bad("backend", "is " + quoted(spec.backend), quoted(backend) + ", as around it");
    }
    found.engines.push_back({std::move(name), std::move(spec)});
  }
  if (found.engines.empty()) throw own.bad("engines", "is empty", "at least one part");
  found.nodes = own.integer("nodes");
  found.nodes_in_engines = own.integer("nodes_in_engines");
  if (found.nodes_in_engines > found.nodes) {
    throw own.bad("nodes_in_engines", "is " + std::to_string(found.nodes_in_engines),
                  "at most " + std::to_string(found.nodes) + ", the block's 'nodes'");
  }
  return found;
}

}  // namespace

std::optional<std::string> Requirements::text(const char* key) const {
  const Json* value = entry.find(key);
  if (value == nullptr || !value->string()) return std::nullopt;
  return *value->string();
}

std::vector<Blob> EngineSpec::blobs() const {
  std::vector<Blob> found = {data};
  if (parts) {
    for (const Part& part : parts->engines) found.push_back(part.engine.data);
  }
  return found;
}

std::string EngineSpec::in_words() const {
  if (!parts) return "";
  const size_t count = parts->engines.size();
  return "in " + std::to_string(count) + (count == 1 ? " part" : " parts") + ", with " +
         std::to_string(parts->nodes - parts->nodes_in_engines) + " of " +
         std::to_string(parts->nodes) + " operators in PyTorch";
}

Blob read_blob(const Fields& owner, const std::string& key) {
  const Fields part = owner.part(key);
  Blob found;
  found.sha256 = part.text("sha256");
  if (!is_digest(found.sha256)) {
    throw part.bad("sha256", "is " + quoted(found.sha256), "64 hexadecimal digits");
  }
  found.index = static_cast<size_t>(part.integer("blob"));
  found.size = static_cast<uint64_t>(part.integer("size"));
  return found;
}

std::vector<SizeExpr> read_nonzero_sizes(const Json& entry, const std::vector<size_t>& ranks,
                                         const std::string& where, const std::string& path) {
  std::vector<SizeExpr> found;
  if (const Json* trees = entry.find("nonzero_sizes"); trees != nullptr && trees->array()) {
    for (size_t index = 0; index < trees->array()->size(); ++index) {
      found.push_back(SizeExpr::read((*trees->array())[index], ranks, where, pointer(path, index)));
    }
  }
  return found;
}

Requirements read_requirements(const Fields& engine, const std::vector<size_t>* ranks) {
  Requirements found;
  found.entry = engine.mapping("requires");
  const Fields part = engine.part("requires");
  found.device = part.names("device");
  if (found.device.empty()) throw part.bad("device", "is empty", "a device type");
  const std::pair<const char*, std::vector<std::string>*> lists[] = {
      {"compute_capabilities", &found.compute_capabilities},
      {"os", &found.os},
      {"arch", &found.arch},
      {"cpu_features", &found.cpu_features},
  };
  for (const auto& [key, names] : lists) {
    if (part.has(key)) *names = part.names(key);
  }
  if (part.has("host_code")) found.host_code = part.boolean("host_code");
  if (part.has("version_compatible")) found.version_compatible = part.boolean("version_compatible");
  for (const char* key :
       {"compute_capability_min", "cuda", "tensorrt", "tensorrt_rtx", "onnxruntime", "torch"}) {
    if (part.has(key)) part.text(key);
  }
  found.compute_capability_min = found.text("compute_capability_min");
  found.cuda = found.text("cuda");
  if (part.has("nonzero_sizes")) {
    part.items("nonzero_sizes");
    if (ranks != nullptr) {
      found.nonzero_sizes =
          read_nonzero_sizes(part.object(), *ranks, part.where(), part.at("nonzero_sizes"));
    }
  }
  return found;
}

EngineSpec read_engine(const Json& entry, const std::string& block, const std::string& path,
                       int64_t version, const std::vector<size_t>* ranks) {
  Fields part(entry, "an engine of block " + quoted(block), path);
  EngineSpec found;
  found.backend = part.text("backend");
  part.set_where("engine " + quoted(found.backend) + " of block " + quoted(block));
  found.data = read_blob(part, "data");
  if (!part.is_null("check")) found.check = part.mapping("check");
  found.build = part.mapping("build");
  found.requires_ = read_requirements(part, ranks);
  found.weights = part.names("weights");
  if (!part.is_absent("parts")) found.parts = read_parts(part, block, version);
  return found;
}

}  // namespace portrt
