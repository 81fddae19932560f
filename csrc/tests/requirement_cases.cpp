// Cases of requirements.json.
#include "core/format/fields.h"
#include "core/targets/requirements.h"
#include "core/targets/tensorrt_rules.h"
#include "core/targets/versions.h"
#include "tests/cases.h"

namespace portrt::tests {
namespace {

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

}  // namespace

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

}  // namespace portrt::tests
