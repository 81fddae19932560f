// The cases of conformance/*.json: `conformance NAME FILE`.
#include <functional>
#include <map>

#include "core/error.h"
#include "core/format/fields.h"
#include "core/format/manifest.h"
#include "core/format/size_expr.h"
#include "core/runtime/choice.h"
#include "core/runtime/policy.h"
#include "core/targets/requirements.h"
#include "core/targets/tensorrt_rules.h"
#include "core/targets/versions.h"
#include "tests/check.h"

namespace portrt::tests {
namespace {

Json or_null(const std::optional<int64_t>& value) { return value ? Json(*value) : Json(); }

Json index_or_null(const std::optional<Blob>& blob) {
  return blob ? Json(static_cast<int64_t>(blob->index)) : Json();
}

// ---- manifests.json

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

// ---- size_expressions.json

void check_size_expression(const Json& given, const std::string& name, Checks& checks) {
  std::vector<std::vector<int64_t>> sizes;
  std::vector<size_t> ranks;
  std::vector<Shape> shapes;
  for (const Json& shape : list_field(given, "shapes")) {
    sizes.emplace_back();
    for (const Json& size : *shape.array()) sizes.back().push_back(*size.integer());
    ranks.push_back(sizes.back().size());
  }
  for (const std::vector<int64_t>& shape : sizes) shapes.push_back({shape.data(), shape.size()});
  const Json* error_kind = given.find("error");
  const std::string wanted = error_kind == nullptr ? "" : *error_kind->string();
  try {
    const int64_t found = SizeExpr::read(field(given, "tree"), ranks, "it", "").evaluate(shapes);
    const Json* value = given.find("value");
    checks.that(value != nullptr && value->integer() && *value->integer() == found, name,
                std::to_string(found));
  } catch (const Error& error) {
    checks.that(wanted == "malformed", name, error.what());
    if (wanted != "malformed") return;
    checks.that(error.field() == text_field(given, "field"), name,
                error.field().value_or("no field") + ": " + error.what());
  } catch (const ArithmeticError& error) {
    checks.that(wanted == "arithmetic", name, error.what());
  }
}

// ---- requirements.json

std::optional<std::string> text_or_none(const Json& object, const char* key) {
  const Json* found = object.find(key);
  return found == nullptr ? std::nullopt : std::optional<std::string>(*found->string());
}

LibraryOrNo lean_library(const std::string& built, const std::string& there) {
  if (there != "none" && same_release(built, there)) return there;
  const VerdictCode code =
      there == "none" ? VerdictCode::library_missing : VerdictCode::library_version;
  return Verdict::no(code, "as the case has it");
}

Machine machine_of(const Json& given) {
  Machine found;
  found.os = text_or_none(given, "os");
  found.arch = text_or_none(given, "arch");
  found.compute_capability = text_or_none(given, "compute_capability");
  found.cuda = text_or_none(given, "cuda");
  if (const Json* features = given.find("cpu_features")) {
    found.cpu_features.emplace();
    for (const Json& name : *features->array()) found.cpu_features->insert(*name.string());
  }
  if (const Json* versions = given.find("versions")) {
    for (const auto& [library, version] : *versions->object()) {
      found.versions[library] = *version.string() == "none" ? "" : *version.string();
    }
  }
  if (const auto there = text_or_none(given, "lean_library")) {
    found.lean_library = [there = *there](const std::string& built) {
      return lean_library(built, there);
    };
  }
  return found;
}

void check_requirement(const Json& given, const std::string& name, Checks& checks) {
  const Fields fields(given, "the case");
  const Requirements requires_ = read_requirements(fields, nullptr);
  const Machine machine = machine_of(field(given, "machine"));
  const Verdict verdict = check_requirements(text_field(given, "backend"), requires_, machine,
                                             text_field(given, "device"));
  checks.that(code_name(verdict.code) == text_field(given, "code"), name, verdict.text());
  checks.that(static_cast<bool>(verdict) || !verdict.reason.empty(), name, "a no has no reason");
  if (const Json* library = given.find("library")) {
    const LibraryOrNo found = tensorrt_runtime_for(requires_, machine);
    const std::string* path = std::get_if<std::string>(&found);
    checks.that(path != nullptr && *path == *library->string(), name, "another library");
  }
}

// ---- policies.json

Json or_null(const std::optional<std::string>& value) { return value ? Json(*value) : Json(); }

Json or_null(const std::optional<std::vector<std::string>>& names) {
  if (!names) return Json();
  return Json::Array(names->begin(), names->end());
}

Json policy_facts(const Policy& policy) {
  return Json::Object{{"fallback", or_null(policy.fallback)},
                      {"engines", or_null(policy.engines)},
                      {"rebuild", or_null(policy.rebuild)},
                      {"trust", or_null(policy.trust)},
                      {"cuda_graphs", or_null(policy.cuda_graphs)},
                      {"check", or_null(policy.check)},
                      {"select", or_null(policy.select)},
                      {"background", policy.background ? Json(*policy.background) : Json()}};
}

Policy policy_of(const Json& given) {
  Policy call;
  for (const Json& fields : list_field(given, "context")) call = read_policy(fields).over(call);
  const Json& variables = field(given, "environment");
  return effective_policy(field(given, "stored"), call,
                          [&](const char* name) { return text_or_none(variables, name); });
}

Verdict verdict_of(const Json& engine, const Policy& policy, const std::string& device) {
  EngineSpec spec;
  spec.backend = text_field(engine, "backend");
  spec.data.sha256 = std::string(64, '0');
  for (const Json& name : list_field(engine, "devices")) {
    spec.requires_.device.push_back(*name.string());
  }
  const Json* host_code = engine.find("host_code");
  spec.requires_.host_code = host_code != nullptr && *host_code->boolean();
  const VerdictCode code = code_named(text_field(engine, "machine")).value();
  return engine_verdict(spec, policy, device,
                        [&] { return Verdict{code, "as the case has it", ""}; });
}

void check_choice(const Json& given, const Policy& policy, const std::string& name,
                  Checks& checks) {
  std::vector<std::pair<std::string, Verdict>> verdicts;
  Json::Array codes;
  for (const Json& engine : list_field(given, "engines")) {
    const Verdict verdict = verdict_of(engine, policy, text_field(given, "device"));
    verdicts.emplace_back(text_field(engine, "backend"), verdict);
    codes.push_back(code_name(verdict.code));
  }
  checks.that(Json(codes) == field(given, "codes"), name, Json(codes).dump());
  const Json* compiler = given.find("compiler");
  const Choice choice = choose(
      verdicts, policy, *field(given, "source").boolean(),
      [&] {
        std::vector<std::string> found;
        for (const Json& builder : list_field(given, "builders")) {
          found.push_back(*builder.string());
        }
        return found;
      },
      [&] { return compiler != nullptr && *compiler->boolean(); });
  const Json& wanted = field(given, "choice");
  const std::string detail =
      std::string(choice_name(choice.kind)) + " " + choice.name + " " + choice.verdict.text();
  checks.that(choice_name(choice.kind) == text_field(wanted, "kind"), name, detail);
  checks.that(choice.name == text_or_none(wanted, "name").value_or(""), name, detail);
  checks.that(code_name(choice.verdict.code) == text_or_none(wanted, "code").value_or("ok"), name,
              detail);
}

void check_policy(const Json& given, const std::string& name, Checks& checks) {
  try {
    const Policy policy = policy_of(given);
    checks.that(given.find("error") == nullptr, name, "it is taken");
    if (given.find("error") != nullptr) return;
    const Json found = policy_facts(policy);
    checks.that(found == field(given, "effective"), name, found.dump());
    check_choice(given, policy, name, checks);
  } catch (const Error& error) {
    checks.that(given.find("error") != nullptr && error.code() == ErrorCode::settings, name,
                error.what());
  }
}

using Check = std::function<void(const Json&, const std::string&, Checks&)>;

const std::map<std::string, Check> kChecks = {
    {"manifests", check_manifest},
    {"size_expressions", check_size_expression},
    {"requirements", check_requirement},
    {"policies", check_policy},
};

int run(const std::string& kind, const std::string& path) {
  const Json cases = Json::parse(read_file(path));
  Checks checks;
  for (const Json& given : *cases.array()) {
    kChecks.at(kind)(given, text_field(given, "name"), checks);
  }
  std::cout << cases.array()->size() << " cases, ";
  return checks.status();
}

}  // namespace
}  // namespace portrt::tests

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: conformance NAME FILE\n";
    return 2;
  }
  return portrt::tests::run(arguments[1], arguments[2]);
}
