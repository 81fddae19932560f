#include "portrt/program.h"

#include <algorithm>
#include <new>
#include <optional>

#include "core/format/mapped_file.h"
#include "core/format/one_call.h"
#include "core/runtime/policy.h"
#include "engines/onnxruntime/library.h"
#include "runtime/block.h"

namespace portrt {
namespace {

constexpr std::align_val_t kAlignment{64};

size_t bytes_of(DType dtype, const std::vector<int64_t>& sizes) {
  size_t bytes = item_size(dtype);
  for (int64_t size : sizes) bytes *= static_cast<size_t>(size);
  return bytes;
}

// The outputs of one call.
class Results : public Outputs {
 public:
  explicit Results(size_t count) { made_.resize(count); }

  void* make(size_t index, DType dtype, const std::vector<int64_t>& sizes) override {
    return made_.at(index).emplace(dtype, sizes).data();
  }
  std::optional<Result>& operator[](size_t index) { return made_[index]; }

 private:
  std::vector<std::optional<Result>> made_;
};

Policy policy_of(const std::string& text) {
  if (text.empty()) return {};
  try {
    return read_policy(Json::parse(text));
  } catch (const JsonError& error) {
    throw Error(ErrorCode::settings, std::string("a policy is no JSON: ") + error.what(),
                "an object such as {\"engines\": [\"onnxruntime\"]}", "correct the text");
  }
}

template <class Spec>
Port port_of(std::string name, const Spec& spec) {
  Port found{std::move(name), spec.dtype, {}};
  for (const Size& size : spec.shape) {
    const int64_t* fixed = std::get_if<int64_t>(&size);
    found.sizes.push_back(fixed == nullptr ? kUnknownSize : *fixed);
  }
  return found;
}

std::vector<Bytes> blobs_of(const MappedFile& file, const OneCall& call) {
  std::vector<Bytes> found;
  for (const Record& blob : call.call.blobs) {
    found.push_back({file.data() + blob.offset, blob.size});
  }
  return found;
}

}  // namespace

Result::Result(DType dtype, std::vector<int64_t> sizes)
    : dtype_(dtype),
      sizes_(std::move(sizes)),
      bytes_(bytes_of(dtype_, sizes_)),
      data_(::operator new(bytes_ == 0 ? 1 : bytes_, kAlignment)) {}

void Result::Free::operator()(void* data) const { ::operator delete(data, kAlignment); }

struct Program::State {
  State(const std::string& path, const ProgramOptions& options)
      : file(path),
        archive(file.data(), file.size(), path),
        call(one_call(archive, archive.json(kModelRecord))),
        block(call.call.text, blobs_of(file, call), policy_of(options.policy)),
        threads(options.threads) {
    if (!options.onnxruntime.empty()) ort::set_search({options.onnxruntime, {}});
    const Manifest& manifest = call.call.manifest;
    inputs.resize(call.names.size());
    for (size_t index = 0; index < call.positions.size(); ++index) {
      const size_t place = call.positions[index];
      inputs[place] = port_of(call.names[place], manifest.inputs[index]);
    }
    used.resize(manifest.outputs.size());
    for (size_t result : call.results) {
      outputs.push_back(port_of(manifest.outputs[result].name, manifest.outputs[result]));
      ++used[result];
    }
  }

  MappedFile file;
  Archive archive;
  OneCall call;
  Block block;
  int threads;
  std::vector<Port> inputs, outputs;
  std::vector<size_t> used;  // how many outputs each result of the engine is
};

Program::Program(const std::string& path, const ProgramOptions& options)
    : state_(std::make_unique<State>(path, options)) {}
Program::~Program() = default;
Program::Program(Program&& other) noexcept = default;
Program& Program::operator=(Program&& other) noexcept = default;

const std::vector<Port>& Program::inputs() const { return state_->inputs; }
const std::vector<Port>& Program::outputs() const { return state_->outputs; }

std::vector<Result> Program::run(const std::vector<Argument>& inputs) const {
  const std::vector<size_t>& positions = state_->call.positions;
  std::vector<TensorView> views;
  // Of another number of inputs all are given, for the block's own error.
  const bool is_number = inputs.size() == positions.size();
  views.reserve(inputs.size());
  for (size_t index = 0; index < inputs.size(); ++index) {
    const Argument& input = inputs[is_number ? positions[index] : index];
    views.push_back({{input.dtype, {input.sizes, input.rank}, "cpu"}, input.data});
  }
  Results made(state_->used.size());
  state_->block.run(views, made, state_->threads);
  std::vector<Result> found;
  found.reserve(state_->outputs.size());
  for (size_t result : state_->call.results) {
    if (state_->used[result] == 1) {
      found.push_back(std::move(*made[result]));
      continue;
    }
    const Result& shared = *made[result];  // an output that the program returns twice
    Result copy(shared.dtype(), shared.sizes());
    std::copy_n(static_cast<const char*>(shared.data()), shared.bytes(),
                static_cast<char*>(copy.data()));
    found.push_back(std::move(copy));
  }
  return found;
}

}  // namespace portrt
