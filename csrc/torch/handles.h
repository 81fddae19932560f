// torch's stable C interface: handles that are released, and statuses that become errors.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/format/dtypes.h"

namespace portrt::torch_abi {

// Throws std::runtime_error if a function of torch failed; torch has printed why.
void check(AOTITorchError status, const char* function);

// A tensor that is owned; null where it was moved from.
class Tensor {
 public:
  explicit Tensor(AtenTensorHandle handle = nullptr) : handle_(handle) {}
  Tensor(Tensor&& other) noexcept : handle_(other.release()) {}
  Tensor& operator=(Tensor&& other) noexcept;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor();

  AtenTensorHandle get() const { return handle_; }
  AtenTensorHandle release();

  bool is_defined() const;
  bool is_contiguous() const;
  int64_t rank() const;
  int64_t numel() const;
  const int64_t* sizes() const;  // as long as the tensor
  DType dtype() const;
  int32_t device_type() const;
  int32_t device_index() const;
  std::string device() const;  // such as "cpu" or "cuda:0"
  void* data() const;

  // A contiguous tensor on the CPU or on another device.
  static Tensor empty(const std::vector<int64_t>& sizes, DType dtype, int32_t device_type,
                      int32_t device_index);
  // The same values, contiguous, on a device.
  Tensor copied(int32_t device_type, int32_t device_index) const;

 private:
  AtenTensorHandle handle_;
};

// Take the tensors of a list argument; the list is deleted.
std::vector<Tensor> take_list(StableIValue value);

// A list that is a result; it owns the tensors.
StableIValue give_list(std::vector<Tensor> tensors);

// A text argument, deleted at the end.
class Text {
 public:
  explicit Text(StableIValue value);
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;
  ~Text();

  std::string_view view() const { return view_; }

 private:
  StringHandle handle_ = nullptr;
  std::string_view view_;
};

}  // namespace portrt::torch_abi
