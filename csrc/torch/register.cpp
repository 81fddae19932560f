// The operator `portrt::execute_engine`, on torch's stable C interface by raw handles: one binary
// for several releases of torch. torch's own wrapper of boxed kernels takes several times as long.
#include <torch/headeronly/util/shim_utils.h>

#include <string>

#include "core/error.h"
#include "engines/onnxruntime/library.h"
#include "torch/handles.h"
#include "torch/held_blocks.h"

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace portrt::torch_abi {
namespace {

constexpr const char* kNamespace = "portrt";
constexpr const char* kOperator = "execute_engine";
constexpr const char* kSchema =
    "execute_engine(Tensor[] inputs, Tensor[] blobs, str manifest) -> Tensor[]";

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

// The kernel: the arguments are taken from the stack, and the result is put there.
void execute_engine(StableIValue* stack, uint64_t /*arguments*/, uint64_t /*results*/) {
  std::vector<Tensor> inputs = take_list(stack[0]);
  std::vector<Tensor> blobs = take_list(stack[1]);
  const Text manifest(stack[2]);
  const std::shared_ptr<Block> block = held_blocks().find(manifest.view(), std::move(blobs));
  NewTensors outputs;
  block->run(views_of(inputs), outputs, thread_count());
  stack[0] = give_list(outputs.take());
}

// The folder of the Python package onnxruntime beside torch's, where torch is a package too.
void search_beside_torch() {
#ifndef _WIN32
  Dl_info found;
  if (dladdr(reinterpret_cast<void*>(&aoti_torch_get_data_ptr), &found) == 0) return;
  const std::string library = found.dli_fname;  // .../torch/lib/libtorch_cpu.so
  const size_t folder = library.rfind("/torch/lib/");
  if (folder == std::string::npos) return;
  ort::set_search({"", {library.substr(0, folder) + "/onnxruntime/capi"}});
#endif
}

void add_kernel(const char* key) {
  TorchLibraryHandle library = nullptr;  // never deleted: that would take the kernel away
  check(aoti_torch_library_init_impl(kNamespace, key, __FILE__, __LINE__, &library),
        "aoti_torch_library_init_impl");
  check(torch_library_impl(library, kOperator, &execute_engine, TORCH_ABI_VERSION),
        "torch_library_impl");
}

struct Registration {
  Registration() {
    search_beside_torch();
    // In a process with Python, portrt may have defined the operator, with its other kernels.
    TorchLibraryHandle library = nullptr;
    check(aoti_torch_library_init_fragment(kNamespace, __FILE__, __LINE__, &library),
          "aoti_torch_library_init_fragment");
    const bool is_mine = aoti_torch_library_def(library, kSchema) == 0;
    add_kernel("CPU");
    add_kernel("CUDA");  // which ends in the verdicts of the engines
    // There is no fallthrough in the stable interface. The kernel gives outputs without gradients.
    if (is_mine) add_kernel("Autograd");
  }
} registered;

}  // namespace
}  // namespace portrt::torch_abi
