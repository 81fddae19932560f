// CPU time of a call of a bare ONNX Runtime session, and of portrt::Program, in turns.
//   program_call ONNXRUNTIME_LIBRARY MODEL.onnx MODEL.pt2 CALLS TURNS INPUT_FILE:SIZE,SIZE...
// Prints a line for each turn: microseconds of the session, of the program, and the largest
// difference of their first outputs.
#include <dlfcn.h>
#include <portrt/program.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <sstream>

#include "engines/onnxruntime/api.h"

namespace ort = portrt::ort;

namespace {

const ort::Api* api = nullptr;

void check(ort::Status* status) {
  if (status == nullptr) return;
  std::cerr << ort::error_message(api, status) << "\n";
  std::exit(1);
}

std::vector<char> bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Given {
  std::vector<char> data;
  std::vector<int64_t> sizes;
};

int element_type(portrt::DType dtype) { return dtype == portrt::DType::int64 ? 7 : 1; }

// A session as a C++ user writes it: values over the inputs, made anew in each call.
class Bare {
 public:
  Bare(const std::string& library, const std::string& model, const portrt::Program& program)
      : program_(program) {
    void* handle = dlopen(library.c_str(), RTLD_NOW);
    auto entry = reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
    api = entry()->get_api(ort::kApiVersion);
    ort::Env* env = nullptr;
    check(ort::create_env(api, ort::kLogError, "bare", &env));
    check(ort::create_cpu_memory_info(api, ort::kArena, ort::kDefaultMemory, &cpu_));
    ort::SessionOptions* options = nullptr;
    check(ort::create_session_options(api, &options));
    check(ort::set_intra_op_threads(api, options, 1));
    model_ = bytes_of(model);
    check(ort::create_session_from_array(api, env, model_.data(), model_.size(), options,
                                         &session_));
    ort::Allocator* allocator = nullptr;
    check(ort::default_allocator(api, &allocator));
    for (size_t index = 0; index < program.inputs().size(); ++index) {
      char* name = nullptr;
      check(ort::input_name(api, session_, index, allocator, &name));
      inputs_.push_back(name);
    }
    check(ort::output_name(api, session_, 0, allocator, &output_));
  }

  // The first number of the output.
  float operator()(const std::vector<Given>& given) {
    std::vector<ort::Value*> values;
    for (size_t index = 0; index < given.size(); ++index) {
      const Given& item = given[index];
      ort::Value* value = nullptr;
      check(ort::create_tensor_over(api, cpu_, const_cast<char*>(item.data.data()),
                                    item.data.size(), item.sizes.data(), item.sizes.size(),
                                    element_type(program_.inputs()[index].dtype), &value));
      values.push_back(value);
    }
    ort::Value* made = nullptr;
    check(ort::run(api, session_, nullptr, inputs_.data(), values.data(), values.size(), &output_,
                   1, &made));
    void* data = nullptr;
    check(ort::tensor_data(api, made, &data));
    const float found = *static_cast<float*>(data);
    for (ort::Value* value : values) ort::release_value(api, value);
    ort::release_value(api, made);
    return found;
  }

 private:
  const portrt::Program& program_;
  std::vector<char> model_;
  ort::MemoryInfo* cpu_ = nullptr;
  ort::NativeSession* session_ = nullptr;
  std::vector<const char*> inputs_;
  char* output_ = nullptr;
};

double microseconds(const std::function<void()>& call, int calls) {
  timespec start, end;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
  for (int index = 0; index < calls; ++index) call();
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  return ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / 1e3 / calls;
}

}  // namespace

int main(int count, char** words) {
  if (count < 7) return 2;
  portrt::ProgramOptions options;
  options.onnxruntime = words[1];
  const portrt::Program program(words[3], options);
  std::vector<Given> given;
  for (int index = 6; index < count; ++index) {
    const std::string word = words[index];
    const size_t colon = word.rfind(':');
    Given item{bytes_of(word.substr(0, colon)), {}};
    std::istringstream sizes(word.substr(colon + 1));
    for (std::string size; std::getline(sizes, size, ',');) item.sizes.push_back(std::stoll(size));
    given.push_back(std::move(item));
  }
  Bare bare(words[1], words[2], program);
  const auto run = [&] {
    std::vector<portrt::Argument> inputs;
    for (size_t index = 0; index < given.size(); ++index) {
      inputs.push_back({program.inputs()[index].dtype, given[index].sizes.data(),
                        given[index].sizes.size(), given[index].data.data()});
    }
    return *static_cast<const float*>(program.run(inputs)[0].data());
  };
  const float difference = std::abs(bare(given) - run());
  const int calls = std::atoi(words[4]);
  for (int turn = 0; turn < std::atoi(words[5]); ++turn) {
    const double one = microseconds([&] { bare(given); }, calls);
    const double other = microseconds(run, calls);
    std::cout << one << " " << other << " " << difference << "\n";
  }
}
