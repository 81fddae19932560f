// The operator `portrt::execute_engine`, on torch's stable C interface by raw handles: one binary
// for several releases of torch. torch's own wrapper of boxed kernels takes several times as long.
#include <torch/headeronly/util/shim_utils.h>

#include <string>

#include "core/error.h"
#include "engines/onnxruntime/library.h"
#include "torch/call.h"
#include "torch/handles.h"
#include "torch/held_blocks.h"
#include "torch/opened_engines.h"

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace portrt::torch_abi {
namespace {

constexpr const char* kNamespace = "portrt";
constexpr const char* kOperator = "execute_engine";
constexpr const char* kSchema =
    "execute_engine(Tensor[] inputs, Tensor[] blobs, str manifest) -> Tensor[]";
// The same kernel under a name of its own, whoever has the operator.
constexpr const char* kCppSchema =
    "execute_engine_cpp(Tensor[] inputs, Tensor[] blobs, str manifest) -> Tensor[]";

// The kernel: the arguments are taken from the stack, and the result is put there.
void execute_engine(StableIValue* stack, uint64_t /*arguments*/, uint64_t /*results*/) {
  std::vector<Tensor> inputs = take_list(stack[0]);
  std::vector<Tensor> blobs = take_list(stack[1]);
  const Text manifest(stack[2]);
  const std::shared_ptr<Block> block = held_blocks().find(manifest.view(), std::move(blobs));
  stack[0] = give_list(call(*block, std::move(inputs)));
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

using Kernel = void (*)(StableIValue*, uint64_t, uint64_t);

TorchLibraryHandle fragment() {
  TorchLibraryHandle found = nullptr;
  check(aoti_torch_library_init_fragment(kNamespace, __FILE__, __LINE__, &found),
        "aoti_torch_library_init_fragment");
  return found;
}

// What is returned keeps the kernel; it is taken away where that is deleted.
TorchLibraryHandle add_kernel(const char* name, Kernel kernel, const char* key) {
  TorchLibraryHandle found = nullptr;
  check(aoti_torch_library_init_impl(kNamespace, key, __FILE__, __LINE__, &found),
        "aoti_torch_library_init_impl");
  check(torch_library_impl(found, name, kernel, TORCH_ABI_VERSION), "torch_library_impl");
  return found;
}

// Kernels of `portrt::execute_engine`, where this library has defined it.
std::vector<TorchLibraryHandle>& own_kernels() {
  static auto& found = *new std::vector<TorchLibraryHandle>;
  return found;
}

// `portrt::leave_kernels()`: Python's are registered after this library, and are called from now on.
void leave_kernels(StableIValue* /*stack*/, uint64_t /*arguments*/, uint64_t /*results*/) {
  for (TorchLibraryHandle library : own_kernels()) aoti_torch_delete_library_object(library);
  own_kernels().clear();
}

struct Registration {
  Registration() {
    search_beside_torch();
    const TorchLibraryHandle own = fragment();
    if (aoti_torch_library_def(own, kCppSchema) != 0) return;  // another copy is loaded
    for (const char* schema : {kRunOpenedSchema, "leave_kernels() -> ()"}) {
      check(aoti_torch_library_def(own, schema), "aoti_torch_library_def");
    }
    set_python_interface();
    // There is no fallthrough in the stable interface: the kernels give outputs without gradients.
    for (const char* key : {"CPU", "CUDA", "Autograd"}) {
      add_kernel("execute_engine_cpp", &execute_engine, key);
      add_kernel("run_opened_engine", &run_opened_engine, key);
    }
    add_kernel("leave_kernels", &leave_kernels, "CompositeExplicitAutograd");
    // In a process with Python, portrt may have defined the operator, with its own kernels: they
    // stay, and Python chooses.
    if (aoti_torch_library_def(fragment(), kSchema) != 0) return;
    for (const char* key : {"CPU", "CUDA", "Autograd"}) {  // CUDA: ends in the engines' verdicts
      own_kernels().push_back(add_kernel(kOperator, &execute_engine, key));
    }
  }
} registered;

}  // namespace
}  // namespace portrt::torch_abi
