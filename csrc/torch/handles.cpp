#include "torch/handles.h"

#include <array>
#include <cstring>
#include <stdexcept>

#define PORTRT_CHECK(function, ...) check(function(__VA_ARGS__), #function)

namespace portrt::torch_abi {
namespace {

struct Row {
  int32_t code;
  DType dtype;
};

const std::array<Row, 17>& dtype_rows() {
  static const std::array<Row, 17> found = {{
      {aoti_torch_dtype_float32(), DType::float32},
      {aoti_torch_dtype_int64(), DType::int64},
      {aoti_torch_dtype_float16(), DType::float16},
      {aoti_torch_dtype_bfloat16(), DType::bfloat16},
      {aoti_torch_dtype_bool(), DType::boolean},
      {aoti_torch_dtype_int32(), DType::int32},
      {aoti_torch_dtype_uint8(), DType::uint8},
      {aoti_torch_dtype_int8(), DType::int8},
      {aoti_torch_dtype_int16(), DType::int16},
      {aoti_torch_dtype_float64(), DType::float64},
      {aoti_torch_dtype_uint16(), DType::uint16},
      {aoti_torch_dtype_uint32(), DType::uint32},
      {aoti_torch_dtype_uint64(), DType::uint64},
      {aoti_torch_dtype_float8_e4m3fn(), DType::float8_e4m3fn},
      {aoti_torch_dtype_float8_e5m2(), DType::float8_e5m2},
      {aoti_torch_dtype_complex64(), DType::complex64},
      {aoti_torch_dtype_complex128(), DType::complex128},
  }};
  return found;
}

int32_t code_of(DType dtype) {
  for (const Row& row : dtype_rows()) {
    if (row.dtype == dtype) return row.code;
  }
  throw std::runtime_error(std::string("portrt: torch has no dtype ") + dtype_name(dtype));
}

// The handle in a value of torch's interface.
template <class Handle>
Handle handle_in(StableIValue value) {
  static_assert(sizeof(Handle) <= sizeof(StableIValue));
  Handle found;
  std::memcpy(&found, &value, sizeof found);
  return found;
}

template <class Handle>
StableIValue value_of(Handle handle) {
  StableIValue found = 0;
  std::memcpy(&found, &handle, sizeof handle);
  return found;
}

class List {
 public:
  explicit List(StableListHandle handle) : handle_(handle) {}
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    if (handle_ != nullptr) torch_delete_list(handle_);
  }
  StableListHandle get() const { return handle_; }
  StableListHandle release() {
    StableListHandle found = handle_;
    handle_ = nullptr;
    return found;
  }

 private:
  StableListHandle handle_;
};

}  // namespace

void check(AOTITorchError status, const char* function) {
  if (status == 0) return;
  throw std::runtime_error(std::string("portrt: ") + function +
                           " failed; torch printed the reason");
}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  Tensor old(handle_);
  handle_ = other.release();
  return *this;
}

Tensor::~Tensor() {
  if (handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
}

AtenTensorHandle Tensor::release() {
  AtenTensorHandle found = handle_;
  handle_ = nullptr;
  return found;
}

bool Tensor::is_defined() const {
  bool found = false;
  PORTRT_CHECK(aoti_torch_is_defined, handle_, &found);
  return found;
}

bool Tensor::is_contiguous() const {
  bool found = false;
  PORTRT_CHECK(aoti_torch_is_contiguous, handle_, &found);
  return found;
}

int64_t Tensor::rank() const {
  int64_t found = 0;
  PORTRT_CHECK(aoti_torch_get_dim, handle_, &found);
  return found;
}

int64_t Tensor::numel() const {
  int64_t found = 0;
  PORTRT_CHECK(aoti_torch_get_numel, handle_, &found);
  return found;
}

const int64_t* Tensor::sizes() const {
  int64_t* found = nullptr;
  PORTRT_CHECK(aoti_torch_get_sizes, handle_, &found);
  return found;
}

DType Tensor::dtype() const {
  int32_t code = 0;
  PORTRT_CHECK(aoti_torch_get_dtype, handle_, &code);
  for (const Row& row : dtype_rows()) {
    if (row.code == code) return row.dtype;
  }
  return DType::other;
}

int32_t Tensor::device_type() const {
  int32_t found = 0;
  PORTRT_CHECK(aoti_torch_get_device_type, handle_, &found);
  return found;
}

int32_t Tensor::device_index() const {
  int32_t found = 0;
  PORTRT_CHECK(aoti_torch_get_device_index, handle_, &found);
  return found;
}

std::string Tensor::device() const {
  static const int32_t cpu = aoti_torch_device_type_cpu();
  static const int32_t cuda = aoti_torch_device_type_cuda();
  const int32_t type = device_type();
  if (type == cpu) return "cpu";
  const std::string name = type == cuda ? "cuda" : "device" + std::to_string(type);
  return name + ":" + std::to_string(device_index());
}

void* Tensor::data() const {
  void* found = nullptr;
  PORTRT_CHECK(aoti_torch_get_data_ptr, handle_, &found);
  return found;
}

Tensor Tensor::empty(const std::vector<int64_t>& sizes, DType dtype, int32_t device_type,
                     int32_t device_index) {
  std::array<int64_t, 64> strides;  // as many as a manifest's shapes have
  int64_t stride = 1;
  for (size_t axis = sizes.size(); axis-- > 0;) {
    strides.at(axis) = stride;
    stride *= sizes[axis] == 0 ? 1 : sizes[axis];
  }
  AtenTensorHandle found = nullptr;
  PORTRT_CHECK(aoti_torch_empty_strided, static_cast<int64_t>(sizes.size()), sizes.data(),
               strides.data(), code_of(dtype), device_type, device_index, &found);
  return Tensor(found);
}

Tensor Tensor::copied(int32_t device_type, int32_t device_index) const {
  const int64_t* first = sizes();
  Tensor found = empty(std::vector<int64_t>(first, first + rank()), dtype(), device_type,
                       device_index);
  PORTRT_CHECK(aoti_torch_copy_, found.get(), handle_, 0);
  return found;
}

std::vector<Tensor> take_list(StableIValue value) {
  const List list(handle_in<StableListHandle>(value));
  size_t size = 0;
  PORTRT_CHECK(torch_list_size, list.get(), &size);
  std::vector<Tensor> found;
  found.reserve(size);
  for (size_t index = 0; index < size; ++index) {
    StableIValue item = 0;
    PORTRT_CHECK(torch_list_get_item, list.get(), index, &item);
    found.emplace_back(handle_in<AtenTensorHandle>(item));
  }
  return found;
}

StableIValue give_list(std::vector<Tensor> tensors) {
  StableListHandle handle = nullptr;
  PORTRT_CHECK(torch_new_list_reserve_size, tensors.size(), &handle);
  List list(handle);
  for (Tensor& tensor : tensors) {
    PORTRT_CHECK(torch_list_push_back, list.get(), value_of(tensor.get()));
    tensor.release();  // the list's
  }
  return value_of(list.release());
}

Text::Text(StableIValue value) : handle_(handle_in<StringHandle>(value)) {
  size_t size = 0;
  const char* data = nullptr;
  PORTRT_CHECK(torch_string_length, handle_, &size);
  PORTRT_CHECK(torch_string_c_str, handle_, &data);
  view_ = {data, size};
}

Text::~Text() {
  if (handle_ != nullptr) torch_delete_string(handle_);
}

}  // namespace portrt::torch_abi
