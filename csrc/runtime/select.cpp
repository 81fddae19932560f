#include "runtime/select.h"

#include <exception>
#include <variant>

#include "core/error.h"
#include "core/runtime/choice.h"
#include "core/targets/backends.h"
#include "core/targets/requirements.h"
#include "core/targets/this_machine.h"
#include "engines/onnxruntime/runtime.h"

namespace portrt {
namespace {

const char* const kOnnxRuntime = "onnxruntime";

using SessionOrNo = std::variant<std::shared_ptr<Session>, Verdict>;

// Whether the backend exists and this machine accepts the engine.
Verdict on_machine(const EngineSpec& engine, const std::string& device) {
  if (find_backend(engine.backend) == nullptr) return unknown_backend();
  if (engine.backend == kOnnxRuntime && !engine.parts) return onnxruntime_accepts(engine, device);
  static const Machine& machine = *new Machine(this_machine());
  Verdict verdict = check_requirements(engine.backend, engine.requires_, machine, device);
  if (!verdict) return verdict;
  if (engine.parts) {
    return Verdict::no(VerdictCode::library_missing,
                       "the C++ runtime does not run engines in parts", "run the file in Python");
  }
  return Verdict::no(VerdictCode::library_missing,
                     "the C++ runtime has no backend " + engine.backend, "run the file in Python");
}

std::shared_ptr<Session> session_of(const Manifest& manifest, const EngineSpec& engine,
                                    const Bytes& data, const WeightsImage* weights, int threads) {
  OnnxRuntimeOptions options;
  options.threads = threads;
  return open_onnxruntime_engine(engine, manifest.signature(), data.data, weights, options);
}

SessionOrNo opened(const Manifest& manifest, const EngineSpec& engine, const Bytes& data,
                   const WeightsImage* weights, int threads) {
  try {
    return session_of(manifest, engine, data, weights, threads);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::package) throw;
    return Verdict::no(VerdictCode::open_failed, "it could not be opened: " + error.happened(),
                       error.remedy());
  } catch (const std::exception& error) {  // the other engines stay usable
    return Verdict::no(VerdictCode::open_failed,
                       std::string("it could not be opened: ") + error.what());
  }
}

// The engine's session, or why it must not run.
SessionOrNo judged(const Manifest& manifest, const EngineSpec& engine,
                   const std::vector<Bytes>& blobs, const WeightsImage* weights,
                   const std::string& device, const Policy& policy, int threads) {
  Verdict verdict =
      engine_verdict(engine, policy, device, [&] { return on_machine(engine, device); });
  if (!verdict) return verdict;
  const Bytes& data = blobs[engine.data.index];
  check_digest(data.data, data.size, engine.data,
               "engine " + engine.backend + " of " + manifest.name);
  SessionOrNo found = opened(manifest, engine, data, weights, threads);
  if (policy.check == "first-open" && std::holds_alternative<std::shared_ptr<Session>>(found)) {
    return Verdict::no(VerdictCode::check_failed,
                       "its outputs could not be compared: the C++ runtime does not run sources",
                       "run the file in Python, or with check='off'");
  }
  return found;
}

// Why the source does not run instead.
Verdict no_source(const Manifest& manifest, const Policy& policy) {
  const Verdict verdict = source_verdict(manifest.source.has_value(), policy);
  if (!verdict) return verdict;
  return Verdict::no(VerdictCode::library_missing, "the C++ runtime does not run sources",
                     "run the file in Python");
}

}  // namespace

std::shared_ptr<Session> open_stored(const Manifest& manifest, const EngineSpec& engine,
                                     const Bytes& data, const WeightsImage* weights, int threads) {
  const Verdict verdict = on_machine(engine, "cpu");
  if (!verdict) {
    throw Error(ErrorCode::backend_unavailable, verdict.reason,
                "an engine of ONNX Runtime, and its library", verdict.remedy);
  }
  return session_of(manifest, engine, data, weights, threads);
}

Selection select(const Manifest& manifest, const std::vector<Bytes>& blobs,
                 const WeightsImage* weights, const std::string& device, const Policy& policy,
                 int threads) {
  Selection found;
  for (const EngineSpec& engine : manifest.engines) {
    SessionOrNo session = judged(manifest, engine, blobs, weights, device, policy, threads);
    if (const Verdict* no = std::get_if<Verdict>(&session)) {
      found.verdicts.emplace_back(engine.backend, *no);
      continue;
    }
    found.session = std::get<std::shared_ptr<Session>>(std::move(session));
    found.name = engine.backend;
    found.verdicts.emplace_back(engine.backend, Verdict::yes());
    return found;
  }
  std::string lines;
  for (const auto& [name, verdict] : found.verdicts) {
    lines += "\n    " + name + ": " + verdict.text();
  }
  throw Error(ErrorCode::no_usable_engine,
              "no engine of " + manifest.name + " can run here on " + device + " tensors, and " +
                  no_source(manifest, policy).reason + ":" +
                  (lines.empty() ? " none is stored" : lines),
              "a stored engine that this machine accepts",
              "compile with an engine for this machine, or run the file in Python with "
              "fallback='eager'");
}

}  // namespace portrt
