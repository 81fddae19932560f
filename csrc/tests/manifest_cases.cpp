// Cases of manifests.json.
#include "core/error.h"
#include "core/format/manifest.h"
#include "tests/cases.h"

namespace portrt::tests {
namespace {

Json or_null(const std::optional<int64_t>& value) { return value ? Json(*value) : Json(); }

Json index_or_null(const std::optional<Blob>& blob) {
  return blob ? Json(static_cast<int64_t>(blob->index)) : Json();
}

Json size_facts(const Size& size) {
  if (const int64_t* integer = std::get_if<int64_t>(&size)) return *integer;
  if (const SizeExpr* tree = std::get_if<SizeExpr>(&size)) return tree->tree();
  if (const DataDependentSize* unknown = std::get_if<DataDependentSize>(&size)) {
    return Json::Object{{"unknown", or_null(unknown->max)}, {"symbol", unknown->symbol}};
  }
  const Dimension& range = std::get<Dimension>(size);
  Json::Object found = {{"min", range.min},
                        {"opt", range.opt},
                        {"max", or_null(range.max)},
                        {"symbol", range.symbol}};
  if (!range.profiles.empty()) {
    Json::Array profiles;
    for (const auto& [low, opt, high] : range.profiles) {
      profiles.push_back(Json::Array{low, opt, high});
    }
    found.push_back({"profiles", std::move(profiles)});
  }
  return found;
}

template <class Specs>
Json spec_facts(const Specs& specs) {
  Json::Array found;
  for (const auto& spec : specs) {
    Json::Array shape;
    for (const Size& size : spec.shape) shape.push_back(size_facts(size));
    found.push_back(Json::Object{
        {"name", spec.name}, {"dtype", dtype_name(spec.dtype)}, {"shape", std::move(shape)}});
  }
  return found;
}

Json facts_of(const Manifest& manifest) {
  Json::Array engines, parts;
  Json::Array blobs = {index_or_null(manifest.weights), index_or_null(manifest.source)};
  bool has_parts = false;
  for (const EngineSpec& engine : manifest.engines) {
    engines.push_back(engine.backend);
    blobs.push_back(static_cast<int64_t>(engine.data.index));
    has_parts = has_parts || engine.parts;
    Json::Array inner;
    for (const Part& part : engine.parts ? engine.parts->engines : std::vector<Part>()) {
      inner.push_back(Json::Array{part.name, static_cast<int64_t>(part.engine.data.index)});
    }
    parts.push_back(engine.parts ? Json(std::move(inner)) : Json());
  }
  Json::Object found = {{"format", manifest.format},
                        {"name", manifest.name},
                        {"inputs", spec_facts(manifest.inputs)},
                        {"outputs", spec_facts(manifest.outputs)},
                        {"engines", std::move(engines)},
                        {"blobs", std::move(blobs)},
                        {"blob_count", static_cast<int64_t>(manifest.blob_count)}};
  if (has_parts) found.push_back({"parts", std::move(parts)});
  return found;
}

// An empty list of profiles is the same as none.
Json without_empty_profiles(const Json& value) {
  if (value.array() != nullptr) {
    Json::Array found;
    for (const Json& item : *value.array()) found.push_back(without_empty_profiles(item));
    return found;
  }
  if (value.object() == nullptr) return value;
  Json::Object found;
  for (const auto& [key, item] : *value.object()) {
    if (key == "profiles" && item.array() != nullptr && item.array()->empty()) continue;
    found.push_back({key, without_empty_profiles(item)});
  }
  return found;
}

}  // namespace

void check_manifest(const Json& given, const std::string& name, Checks& checks) {
  const std::string text = manifest_text(field(given, "manifest"));
  const bool valid = *field(given, "valid").boolean();
  try {
    const Json found = facts_of(decode(text));
    checks.that(valid, name, "it is taken");
    if (!valid) return;
    const Json wanted = without_empty_profiles(field(given, "facts"));
    checks.that(found == wanted, name, found.dump() + " is not " + wanted.dump());
  } catch (const Error& error) {
    checks.that(!valid, name, error.what());
    if (valid) return;
    checks.that(error.code() == ErrorCode::package, name, error_name(error.code()));
    const std::string& wanted = text_field(given, "field");
    checks.that(error.field() == wanted, name,
                error.field().value_or("no field") + " is not " + wanted + ": " + error.what());
  }
}

}  // namespace portrt::tests
