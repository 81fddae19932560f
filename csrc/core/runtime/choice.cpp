#include "core/runtime/choice.h"

#include "core/runtime/trust.h"
#include "core/targets/requirements.h"
#include "core/text.h"

namespace portrt {
namespace {

const char* const kEager = "eager";
const char* const kCompiled = "inductor";  // the backend that compiles sources as the fallback

}  // namespace

const char* choice_name(ChoiceKind kind) {
  switch (kind) {
    case ChoiceKind::engine: return "engine";
    case ChoiceKind::rebuild: return "rebuild";
    case ChoiceKind::compiled: return "compiled";
    case ChoiceKind::eager: return "eager";
    case ChoiceKind::error: return "error";
  }
  return "error";
}

Verdict engine_verdict(const EngineSpec& engine, const Policy& policy, const std::string& device,
                       const std::function<Verdict()>& on_machine) {
  if (policy.engines && !contains(*policy.engines, engine.backend)) {
    const std::string allowed =
        policy.engines->empty() ? "no engine" : joined(*policy.engines, ", ");
    return Verdict::no(VerdictCode::policy, "the policy allows " + allowed);
  }
  Verdict verdict = device_verdict(engine.requires_, device);
  if (verdict) verdict = on_machine();
  verdict = host_code_verdict(engine, policy, std::move(verdict));
  return verdict && engine.parts ? Verdict::yes(engine.in_words()) : verdict;
}

Verdict source_verdict(bool has_source, const Policy& policy) {
  if (!has_source) {
    return Verdict::no(VerdictCode::source_missing, "the file has no source",
                       "use a file that was not stripped");
  }
  if (policy.fallback == "error") {
    return Verdict::no(VerdictCode::policy, "the policy forbids PyTorch",
                       "load it with fallback='eager'");
  }
  return Verdict::yes();
}

Choice choose(const std::vector<std::pair<std::string, Verdict>>& engines, const Policy& policy,
              bool has_source, const std::function<std::vector<std::string>()>& builders,
              const std::function<bool()>& compiles) {
  for (const auto& [backend, verdict] : engines) {
    if (verdict) return {ChoiceKind::engine, backend, Verdict::yes()};
  }
  if (policy.rebuild == "missing" && has_source && builders) {
    const std::vector<std::string> names = builders();
    if (!names.empty()) return {ChoiceKind::rebuild, names[0], Verdict::yes()};
  }
  if (policy.fallback == kCompiled && has_source && compiles && compiles()) {
    return {ChoiceKind::compiled, kCompiled, Verdict::yes()};
  }
  const Verdict verdict = source_verdict(has_source, policy);
  if (verdict) return {ChoiceKind::eager, kEager, verdict};
  return {ChoiceKind::error, "", verdict};
}

}  // namespace portrt
