// Cases of policies.json.
#include "core/error.h"
#include "core/runtime/choice.h"
#include "core/runtime/policy.h"
#include "tests/cases.h"

namespace portrt::tests {
namespace {

Json or_null(const std::optional<int64_t>& value) { return value ? Json(*value) : Json(); }
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

}  // namespace

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

}  // namespace portrt::tests
