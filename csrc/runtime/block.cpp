#include "runtime/block.h"

#include <mutex>

#include "core/runtime/input_check.h"
#include "core/runtime/policy.h"
#include "runtime/output_sizes.h"

namespace portrt {
namespace {

constexpr size_t kMaxKnownShapes = 1024;

Manifest checked(const std::string& text, const std::vector<Bytes>& blobs) {
  Manifest found = decode(text);
  std::vector<uint64_t> sizes;
  for (const Bytes& blob : blobs) sizes.push_back(blob.size);
  check_blob_sizes(found, sizes);
  return found;
}

// "cuda" of "cuda:0".
std::string device_type(const std::string& device) { return device.substr(0, device.find(':')); }

// All that `check_inputs` judges but the devices, which must be those of the first input.
void append_key(const std::vector<TensorView>& inputs, std::vector<int64_t>& key) {
  for (const TensorView& input : inputs) {
    const InputInfo& info = input.info;
    key.push_back(static_cast<int64_t>(info.dtype));
    key.push_back(static_cast<int64_t>(info.shape.rank));
    key.insert(key.end(), info.shape.sizes, info.shape.sizes + info.shape.rank);
  }
}

}  // namespace

Block::Block(std::string text, std::vector<Bytes> blobs, Policy policy)
    : text_(std::move(text)),
      policy_(std::move(policy)),
      manifest_(checked(text_, blobs)),
      signature_(manifest_.signature()),
      blobs_(std::move(blobs)),
      is_measured_(has_data_dependent_sizes(signature_)) {
  if (manifest_.weights) {
    const Bytes& image = blobs_[manifest_.weights->index];
    weights_.emplace(image.data, image.size);
  }
}

size_t Block::Hash::operator()(const std::vector<int64_t>& key) const {
  uint64_t found = 0xcbf29ce484222325;  // FNV-1a, of whole integers
  for (int64_t item : key) found = (found ^ static_cast<uint64_t>(item)) * 0x100000001b3;
  return static_cast<size_t>(found ^ found >> 32);
}

std::shared_ptr<const OutputShapes> Block::shapes_of(const std::vector<TensorView>& inputs) {
  thread_local std::vector<int64_t> key;
  key.clear();
  bool one_device = true;
  for (const TensorView& input : inputs) {
    one_device = one_device && input.info.device == inputs[0].info.device;
  }
  append_key(inputs, key);
  if (one_device) {
    const std::shared_lock<std::shared_mutex> guard(shapes_lock_);
    const auto found = shapes_.find(key);
    if (found != shapes_.end()) return found->second;
  }
  std::vector<InputInfo> infos;
  for (const TensorView& input : inputs) infos.push_back(input.info);
  check_inputs(signature_, infos);
  auto made = std::make_shared<const OutputShapes>(output_shapes(signature_, infos));
  const std::unique_lock<std::shared_mutex> guard(shapes_lock_);
  if (shapes_.size() >= kMaxKnownShapes) shapes_.clear();
  shapes_[key] = made;
  return made;
}

std::shared_ptr<Session> Block::session_for(const std::string& device, int threads) {
  {
    const std::shared_lock<std::shared_mutex> guard(sessions_lock_);
    const auto found = sessions_.find(device);
    if (found != sessions_.end()) return found->second;
  }
  const std::unique_lock<std::shared_mutex> guard(sessions_lock_);  // others of this block wait
  const auto found = sessions_.find(device);
  if (found != sessions_.end()) return found->second;
  const Policy policy = effective_policy(manifest_.policy, policy_);
  const WeightsImage* weights = weights_ ? &*weights_ : nullptr;
  Selection made = select(manifest_, blobs_, weights, device_type(device), policy, threads);
  return sessions_[device] = std::move(made.session);
}

void Block::open(size_t engine, int threads) {
  const EngineSpec& spec = manifest_.engines.at(engine);
  const WeightsImage* weights = weights_ ? &*weights_ : nullptr;
  std::shared_ptr<Session> made =
      open_stored(manifest_, spec, blobs_[spec.data.index], weights, threads);
  const std::unique_lock<std::shared_mutex> guard(sessions_lock_);
  sessions_["cpu"] = std::move(made);
}

void Block::run(const std::vector<TensorView>& inputs, Outputs& outputs, int threads) {
  const std::shared_ptr<const OutputShapes> shapes = shapes_of(inputs);
  const std::shared_ptr<Session> session = session_for(inputs[0].info.device, threads);
  if (!is_measured_) return session->run(inputs, *shapes, outputs);
  MeasuredOutputs measured(signature_, *shapes, outputs);
  session->run(inputs, *shapes, measured);
}

}  // namespace portrt
