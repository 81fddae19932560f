#include "engines/onnxruntime/runtime.h"

#include <algorithm>
#include <string_view>

#include "core/targets/requirements.h"
#include "engines/nonzero_sizes.h"
#include "engines/onnxruntime/library.h"

namespace portrt {
namespace {

const char* const kName = "onnxruntime";

// Operators that end the process, or fail, where a size is 0; seen with 1.23 and 1.32.
constexpr std::string_view kNeedElements[] = {"LSTM", "GRU", "RNN", "Attention"};

// The sizes that must not be 0; for some engines of older files all dynamic ones.
std::vector<SizeExpr> nonzero_sizes(const EngineSpec& engine, const Signature& signature,
                                    const uint8_t* data) {
  const Json* stored = engine.requires_.entry.find("nonzero_sizes");
  if (stored != nullptr && !stored->is_null()) return engine.requires_.nonzero_sizes;
  const uint8_t* end = data + engine.data.size;
  const bool needs = std::any_of(
      std::begin(kNeedElements), std::end(kNeedElements), [&](std::string_view kind) {
        return std::search(data, end, kind.begin(), kind.end()) != end;
      });
  std::vector<SizeExpr> found;
  if (!needs) return found;
  std::vector<size_t> ranks;
  for (const InputSpec& spec : signature.inputs) ranks.push_back(spec.shape.size());
  for (size_t index = 0; index < signature.inputs.size(); ++index) {
    const std::vector<Size>& shape = signature.inputs[index].shape;
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      if (std::holds_alternative<int64_t>(shape[axis])) continue;
      const Json tree(Json::Array{"dim", static_cast<int64_t>(index), static_cast<int64_t>(axis)});
      found.push_back(SizeExpr::read(tree, ranks, "a size", ""));
    }
  }
  return found;
}

}  // namespace

Verdict onnxruntime_accepts(const EngineSpec& engine, const std::string& device) {
  if (device != "cpu") {
    return Verdict::no(VerdictCode::wrong_device,
                       "it runs on CPU tensors, the inputs are on " + device, "use CPU tensors");
  }
  const ort::Library& library = ort::library();
  if (!library.verdict) return library.verdict;
  Machine machine;
  machine.versions[kName] = library.version;
  return check_requirements(kName, engine.requires_, machine, device);
}

std::unique_ptr<Session> open_onnxruntime_engine(const EngineSpec& engine,
                                                 const Signature& signature, const uint8_t* data,
                                                 const WeightsImage* weights,
                                                 const OnnxRuntimeOptions& options) {
  std::vector<SizeExpr> sizes = nonzero_sizes(engine, signature, data);
  return with_nonzero_sizes(open_onnxruntime(engine, signature, data, weights, options), signature,
                            std::move(sizes), "ONNX Runtime");
}

}  // namespace portrt
