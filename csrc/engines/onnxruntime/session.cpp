#include "engines/onnxruntime/session.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/format/onnx_wire.h"
#include "core/text.h"
#include "engines/forks.h"
#include "engines/onnxruntime/library.h"

namespace portrt {
namespace {

using ort::check;
using ort::library;

// ONNX Runtime needs an address for a tensor without elements, too.
char nowhere[64];

// TensorProto.DataType of onnx.proto; 0 where it has none.
int element_type(DType dtype) {
  switch (dtype) {
    case DType::float32: return 1;
    case DType::uint8: return 2;
    case DType::int8: return 3;
    case DType::uint16: return 4;
    case DType::int16: return 5;
    case DType::int32: return 6;
    case DType::int64: return 7;
    case DType::boolean: return 9;
    case DType::float16: return 10;
    case DType::float64: return 11;
    case DType::uint32: return 12;
    case DType::uint64: return 13;
    case DType::complex64: return 14;
    case DType::complex128: return 15;
    case DType::bfloat16: return 16;
    case DType::float8_e4m3fn: return 17;
    case DType::float8_e5m2: return 19;
    case DType::other: return 0;
  }
  return 0;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// Values that are released together.
class Values {
 public:
  explicit Values(size_t count) { values_.reserve(count); }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;
  ~Values() {
    for (ort::Value* value : values_) {
      if (value != nullptr) ort::release_value(library().api, value);
    }
  }

  // A value over memory that the caller keeps and, if it is an input, ONNX Runtime does not write.
  void add_over(const void* data, DType dtype, const int64_t* sizes, size_t rank) {
    size_t bytes = item_size(dtype);
    for (size_t axis = 0; axis < rank; ++axis) bytes *= static_cast<size_t>(sizes[axis]);
    void* place = bytes == 0 ? nowhere : const_cast<void*>(data);
    ort::Value* value = nullptr;
    check(ort::create_tensor_over(library().api, library().cpu, place, bytes, sizes, rank,
                                  element_type(dtype), &value));
    values_.push_back(value);
  }
  void add_none() { values_.push_back(nullptr); }

  ort::Value** data() { return values_.data(); }
  size_t size() const { return values_.size(); }
  ort::Value* operator[](size_t index) const { return values_[index]; }

 private:
  std::vector<ort::Value*> values_;
};

class TensorInfo {
 public:
  explicit TensorInfo(const ort::Value* value) {
    check(ort::tensor_info(library().api, value, &info_));
  }
  TensorInfo(const TensorInfo&) = delete;
  TensorInfo& operator=(const TensorInfo&) = delete;
  ~TensorInfo() { ort::release_tensor_info(library().api, info_); }

  std::vector<int64_t> sizes() const {
    size_t rank = 0;
    check(ort::rank(library().api, info_, &rank));
    std::vector<int64_t> found(rank);
    check(ort::sizes(library().api, info_, found.data(), rank));
    return found;
  }

 private:
  ort::TensorInfo* info_ = nullptr;
};

// An input or output of the native session.
struct Item {
  std::string name;
  int type = 0;  // 0 where it is no tensor
};

enum class Side { input, output };

Item item_at(const ort::NativeSession* session, Side side, size_t index) {
  const ort::Api* api = library().api;
  ort::Allocator* allocator = nullptr;
  check(ort::default_allocator(api, &allocator));
  char* name = nullptr;
  check(side == Side::input ? ort::input_name(api, session, index, allocator, &name)
                            : ort::output_name(api, session, index, allocator, &name));
  Item found;
  found.name = name;
  check(ort::allocator_free(api, allocator, name));
  ort::TypeInfo* type = nullptr;
  check(side == Side::input ? ort::input_type(api, session, index, &type)
                            : ort::output_type(api, session, index, &type));
  const ort::TensorInfo* tensor = nullptr;
  ort::Status* status = ort::as_tensor_info(api, type, &tensor);
  if (status == nullptr && tensor != nullptr) {
    status = ort::element_type(api, tensor, &found.type);
  }
  ort::release_type_info(api, type);
  check(status);
  return found;
}

std::vector<Item> items_of(const ort::NativeSession* session, Side side) {
  size_t count = 0;
  check(side == Side::input ? ort::input_count(library().api, session, &count)
                            : ort::output_count(library().api, session, &count));
  std::vector<Item> found;
  for (size_t index = 0; index < count; ++index) found.push_back(item_at(session, side, index));
  return found;
}

std::string listed(const std::vector<Item>& items) {
  std::vector<std::string> found;
  for (const Item& item : items) {
    found.push_back("'" + item.name + "' of type " + std::to_string(item.type));
  }
  return found.empty() ? "nothing" : joined(found, ", ");
}

// Indices of the weights that the session uses in place; none in older files.
std::vector<size_t> in_place(const EngineSpec& engine) {
  std::vector<size_t> found;
  const Json* places = engine.build.find("weights_in_place");
  if (places == nullptr || places->array() == nullptr) return found;
  for (const Json& item : *places->array()) {
    const int64_t* place = item.integer();
    if (place == nullptr || *place < 0) continue;
    const size_t index = static_cast<size_t>(*place);
    if (index < engine.weights.size()) found.push_back(index);
  }
  return found;
}

// The native session, and the values over weights that must live as long.
class Opened {
 public:
  Opened(const EngineSpec& engine, const uint8_t* data, const WeightsImage* weights,
         const OnnxRuntimeOptions& given)
      : generation_(fork_generation()), weights_(engine.weights.size()) {
    const ort::Api* api = library().api;
    ort::SessionOptions* options = nullptr;
    check(ort::create_session_options(api, &options));
    const std::unique_ptr<ort::SessionOptions, void (*)(ort::SessionOptions*)> kept(
        options, [](ort::SessionOptions* it) { ort::release_session_options(library().api, it); });
    set_options(options, given);
    add_weights(options, engine, weights);
    check(ort::create_session_from_array(api, library().env, data,
                                         static_cast<size_t>(engine.data.size), options, &native_));
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() {
    if (native_ != nullptr) ort::release_session(library().api, native_);
  }

  ort::NativeSession* native() const { return native_; }
  // Whether this process is a child of the one that opened it.
  bool is_of_parent() const { return generation_ != fork_generation(); }

 private:
  static void set_options(ort::SessionOptions* options, const OnnxRuntimeOptions& given) {
    const ort::Api* api = library().api;
    check(ort::set_intra_op_threads(api, options, given.threads));
    // What a call fails with is thrown, and need not be printed.
    check(ort::set_log_severity(api, options, given.low_memory ? 4 : 3));
    const auto set = [&](const char* key) {
      check(ort::add_config_entry(api, options, key, "1"));
    };
    // Threads spin during a run only: afterwards the caller, or the next block, needs the cores.
    set("session.force_spinning_stop");
    // Keep int8: the conversion to uint8 fails after a MatMul that was fused into a Gemm.
    set("session.qdqisint8allowed");
    // MatMuls with int8 weights in float32: by default the other operand is quantized to int8.
    set("session.qdq_matmulnbits_accuracy_level");
    if (given.low_memory) set("session.disable_prepacking");
  }

  void add_weights(ort::SessionOptions* options, const EngineSpec& engine,
                   const WeightsImage* weights) {
    if (engine.weights.empty()) return;
    std::vector<const char*> names;
    for (const std::string& name : engine.weights) {
      const WeightEntry& entry = weights->entry(name);
      weights_.add_over(weights->bytes(entry), entry.dtype, entry.shape.data(),
                        entry.shape.size());
      names.push_back(name.c_str());
    }
    const ort::Api* api = library().api;
    // ONNX Runtime copies external initializers. `add_initializer` makes it use the memory itself,
    // but discards changes that its optimizer made to the weight.
    check(ort::add_external_initializers(api, options, names.data(), weights_.data(),
                                         names.size()));
    for (size_t place : in_place(engine)) {
      check(ort::add_initializer(api, options, names[place], weights_[place]));
    }
  }

  uint32_t generation_;
  Values weights_;
  ort::NativeSession* native_ = nullptr;
};

class OnnxRuntimeSession : public Session {
 public:
  OnnxRuntimeSession(const EngineSpec& engine, const Signature& signature, const uint8_t* data,
                     const WeightsImage* weights, const OnnxRuntimeOptions& options)
      : engine_(engine), name_(signature.name), data_(data), weights_(weights), options_(options) {
    opened_ = open();
    bind(signature);
  }
  OnnxRuntimeSession(const OnnxRuntimeSession&) = delete;
  OnnxRuntimeSession& operator=(const OnnxRuntimeSession&) = delete;
  ~OnnxRuntimeSession() override {
    // In a child, ending it would wait for threads that only the parent has.
    const Opened* opened = opened_.load();
    if (!opened->is_of_parent()) delete opened;
  }

  void run(const std::vector<TensorView>& inputs, const std::vector<std::vector<int64_t>>& shapes,
           Outputs& outputs) override {
    const Opened* opened = opened_.load(std::memory_order_acquire);
    if (opened->is_of_parent()) opened = reopened();
    try {
      Values given(taken_.size()), made(shapes.size());
      for (size_t index : taken_) {
        const InputInfo& info = inputs[index].info;
        given.add_over(inputs[index].data, info.dtype, info.shape.sizes, info.shape.rank);
      }
      bool is_measured = false;
      for (size_t index = 0; index < shapes.size(); ++index) {
        const std::vector<int64_t>& shape = shapes[index];
        if (is_unknown(shape)) {  // ONNX Runtime allocates it; copied after the run
          made.add_none();
          is_measured = true;
          continue;
        }
        void* place = outputs.make(index, dtypes_[index], shape);
        made.add_over(place, dtypes_[index], shape.data(), shape.size());
      }
      check(ort::run(library().api, opened->native(), nullptr, input_names_.data(), given.data(),
                     given.size(), output_names_.data(), made.size(), made.data()));
      if (is_measured) copy_measured(shapes, made, outputs);
    } catch (const ort::Failure& failure) {
      throw Error(ErrorCode::engine,
                  "ONNX Runtime failed in " + name_ + ": " + first_line(failure.text),
                  "inputs for which the model itself runs",
                  "run the uncompiled model on these inputs; if it works, report the model");
    }
  }

 private:
  static bool is_unknown(const std::vector<int64_t>& shape) {
    return std::find(shape.begin(), shape.end(), kUnknownSize) != shape.end();
  }

  Opened* open() const {
    const std::string fault = external_fault(data_, engine_.data.size, engine_.weights);
    try {
      if (!fault.empty()) throw ort::Failure{"the model " + fault};
      return new Opened(engine_, data_, weights_, options_);
    } catch (const ort::Failure& failure) {
      const Json* version = engine_.build.find("version");
      const std::string* built = version == nullptr ? nullptr : version->string();
      throw Error(ErrorCode::engine,
                  "ONNX Runtime " + library().version + " cannot open the engine of " + name_ +
                      ": " + first_line(failure.text),
                  "an engine as ONNX Runtime " + (built == nullptr ? "?" : *built) + " built it",
                  "update onnxruntime, or compile the model again");
    }
  }

  // In a forked child: the parent's session is left, and never ended.
  const Opened* reopened() {
    const std::lock_guard<std::mutex> guard(reopening_);
    if (opened_.load()->is_of_parent()) opened_.store(open(), std::memory_order_release);
    return opened_.load();
  }

  // Find what the engine takes and gives among the block's inputs and outputs. Names and dtypes: by
  // them the memory of tensors is bound. ONNX Runtime checks sizes in each run.
  void bind(const Signature& signature) {
    std::vector<Item> taken, made;
    try {
      taken = items_of(opened_.load()->native(), Side::input);
      made = items_of(opened_.load()->native(), Side::output);
    } catch (const ort::Failure& failure) {
      delete opened_.exchange(nullptr);
      throw Error(ErrorCode::engine, "ONNX Runtime failed in " + name_ + ": " + failure.text,
                  "an engine with inputs and outputs", "compile the model again");
    }
    bool fits = made.size() == signature.outputs.size();
    for (const Item& item : taken) {
      const auto spec = std::find_if(signature.inputs.begin(), signature.inputs.end(),
                                     [&](const InputSpec& it) { return it.name == item.name; });
      fits = fits && spec != signature.inputs.end() && element_type(spec->dtype) == item.type;
      if (fits) taken_.push_back(static_cast<size_t>(spec - signature.inputs.begin()));
    }
    for (size_t index = 0; fits && index < made.size(); ++index) {
      dtypes_.push_back(signature.outputs[index].dtype);
      fits = element_type(dtypes_.back()) == made[index].type;
    }
    if (!fits) {
      delete opened_.exchange(nullptr);
      throw Error(ErrorCode::engine,
                  "the onnxruntime engine of " + name_ + " takes " + listed(taken) +
                      " and gives " + listed(made),
                  "inputs and outputs as in its manifest, with ONNX's types",
                  "compile the model again");
    }
    for (const Item& item : taken) names_.push_back(item.name);
    for (const Item& item : made) names_.push_back(item.name);
    for (size_t index = 0; index < names_.size(); ++index) {
      (index < taken.size() ? input_names_ : output_names_).push_back(names_[index].c_str());
    }
  }

  void copy_measured(const std::vector<std::vector<int64_t>>& shapes, const Values& made,
                     Outputs& outputs) const {
    for (size_t index = 0; index < shapes.size(); ++index) {
      if (!is_unknown(shapes[index])) continue;
      const std::vector<int64_t> sizes = TensorInfo(made[index]).sizes();
      void* found = nullptr;
      check(ort::tensor_data(library().api, made[index], &found));
      size_t bytes = item_size(dtypes_[index]);
      for (int64_t size : sizes) bytes *= static_cast<size_t>(size);
      void* place = outputs.make(index, dtypes_[index], sizes);
      if (bytes != 0) std::memcpy(place, found, bytes);
    }
  }

  EngineSpec engine_;
  std::string name_;
  const uint8_t* data_;
  const WeightsImage* weights_;
  OnnxRuntimeOptions options_;
  std::atomic<Opened*> opened_{nullptr};
  std::mutex reopening_;
  std::vector<size_t> taken_;  // indices of the block's inputs that the engine takes
  std::vector<std::string> names_;
  std::vector<const char*> input_names_, output_names_;
  std::vector<DType> dtypes_;  // of the outputs
};

}  // namespace

std::unique_ptr<Session> open_onnxruntime(const EngineSpec& engine, const Signature& signature,
                                          const uint8_t* data, const WeightsImage* weights,
                                          const OnnxRuntimeOptions& options) {
  return std::make_unique<OnnxRuntimeSession>(engine, signature, data, weights, options);
}

}  // namespace portrt
