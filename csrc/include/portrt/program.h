// A program of portrt.save in a process without Python and without torch.
//
//   portrt::Program program("model.pt2");
//   const int64_t sizes[] = {2, 8};
//   std::vector<portrt::Result> results =
//       program.run({{portrt::DType::float32, sizes, 2, data}});
//
// The file is mapped, and its program must be one engine call; the engine is of ONNX Runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "portrt/dtype.h"
#include "portrt/error.h"
#include "portrt/runtime.h"

namespace portrt {

// A contiguous tensor in memory of the caller.
struct Argument {
  DType dtype = DType::float32;
  const int64_t* sizes = nullptr;  // null for rank 0
  size_t rank = 0;
  const void* data = nullptr;  // of a tensor without elements anything
};

// A contiguous tensor that a call returned.
class Result {
 public:
  // A new tensor with numbers that are not set.
  PORTRT_EXPORT Result(DType dtype, std::vector<int64_t> sizes);

  DType dtype() const { return dtype_; }
  const std::vector<int64_t>& sizes() const { return sizes_; }
  void* data() { return data_.get(); }
  const void* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    PORTRT_EXPORT void operator()(void* data) const;
  };

  DType dtype_;
  std::vector<int64_t> sizes_;
  size_t bytes_;
  std::unique_ptr<void, Free> data_;
};

// An input or output of a program.
struct Port {
  std::string name;
  DType dtype = DType::float32;
  std::vector<int64_t> sizes;  // -1 for a size that is another in other calls
};

struct ProgramOptions {
  int threads = 1;     // that the engine may use
  // The library of ONNX Runtime; "" searches for it, see docs/cpp.md. The first call in a process
  // that needs one finds it for all programs.
  std::string onnxruntime;
  std::string policy;  // as JSON, such as R"({"trust": ["host-code"]})"; "" for none
};

// Several threads may run one program.
class PORTRT_EXPORT Program {
 public:
  // Map a file. The engine is opened by the first call.
  // Throws Error: the file cannot be read (load), or its manifest is damaged (package); the program
  // is more than one engine call (load, with the node that is in the way); a wrong policy
  // (settings).
  explicit Program(const std::string& path, const ProgramOptions& options = {});
  ~Program();
  Program(Program&& other) noexcept;
  Program& operator=(Program&& other) noexcept;

  // Arguments in the order of the program, nested ones flat, by the names that torch.export gave.
  const std::vector<Port>& inputs() const;
  // Outputs in the order of the program, nested ones flat.
  const std::vector<Port>& outputs() const;

  // Run once, with all inputs in order.
  // Throws Error (input, package, no_usable_engine, engine, out_of_profile, settings).
  std::vector<Result> run(const std::vector<Argument>& inputs) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace portrt
