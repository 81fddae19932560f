#include "torch/call.h"

namespace portrt::torch_abi {
namespace {

// Outputs that torch allocates, on the CPU.
class NewTensors : public Outputs {
 public:
  void* make(size_t index, DType dtype, const std::vector<int64_t>& sizes) override {
    static const int32_t cpu = aoti_torch_device_type_cpu();
    if (made_.size() <= index) made_.resize(index + 1);
    made_[index] = Tensor::empty(sizes, dtype, cpu, 0);
    return made_[index].data();
  }
  std::vector<Tensor> take() { return std::move(made_); }

 private:
  std::vector<Tensor> made_;
};

int thread_count() {
  uint32_t found = 1;
  check(torch_get_num_threads(&found), "torch_get_num_threads");
  return static_cast<int>(found);
}

// Keeps contiguous copies of the inputs that are not.
std::vector<TensorView> views_of(std::vector<Tensor>& inputs) {
  std::vector<TensorView> found;
  found.reserve(inputs.size());
  for (Tensor& input : inputs) {
    if (!input.is_contiguous()) input = input.copied(input.device_type(), input.device_index());
    TensorView view;
    view.info.dtype = input.dtype();
    view.info.shape = {input.sizes(), static_cast<size_t>(input.rank())};
    view.info.device = input.device();
    view.data = input.data();
    found.push_back(std::move(view));
  }
  return found;
}

}  // namespace

std::vector<Tensor> call(Block& block, std::vector<Tensor> inputs) {
  NewTensors outputs;
  block.run(views_of(inputs), outputs, thread_count());
  return outputs.take();
}

}  // namespace portrt::torch_abi
