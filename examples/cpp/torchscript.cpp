// Runs a program that `portrt.save(..., output_format="torchscript")` wrote, without Python.
//   c++ torchscript.cpp $(portrt cpp flags) -o run
//   ./run $(portrt cpp build) model.ts inputs.pt outputs.pt
// inputs.pt: torch.save of a list of tensors, each the input of one call; outputs.pt: a tuple
// for torch.load.
#include <dlfcn.h>
#include <torch/script.h>

#include <fstream>
#include <iostream>
#include <iterator>

int main(int count, char** paths) {
  if (count != 5) {
    std::cerr << "usage: run LIBRARY MODEL INPUTS OUTPUTS\n";
    return 2;
  }
  if (dlopen(paths[1], RTLD_NOW) == nullptr) {  // registers portrt::execute_engine
    std::cerr << dlerror() << "\n";
    return 2;
  }
  try {
    const c10::InferenceMode guard;
    // TorchScript's optimizer compares constants, of which torch took the blobs in the first call.
    torch::jit::setGraphExecutorOptimize(false);
    torch::jit::Module model = torch::jit::load(paths[2]);
    std::ifstream file(paths[3], std::ios::binary);
    const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
    const c10::IValue inputs = torch::jit::pickle_load(bytes);
    std::vector<c10::IValue> outputs;
    for (const c10::IValue& input : inputs.toListRef()) {
      outputs.push_back(model.forward({input}));
    }
    const std::vector<char> result =
        torch::jit::pickle_save(c10::ivalue::Tuple::create(std::move(outputs)));
    std::ofstream(paths[4], std::ios::binary).write(result.data(), result.size());
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
