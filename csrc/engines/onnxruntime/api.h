// The part of ONNX Runtime's C interface that is called.
//
// OrtApi is a table of function pointers that only grows at its end, so that the place of each is
// the same in every release. No header of ONNX Runtime is needed.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef _WIN32
#define PORTRT_ORT_CALL __stdcall
#else
#define PORTRT_ORT_CALL
#endif

namespace portrt::ort {

// The version of the table that has every function below; ONNX Runtime 1.12 was the first with it.
constexpr uint32_t kApiVersion = 12;

struct Env;
struct Status;
struct MemoryInfo;
struct NativeSession;
struct Value;
struct RunOptions;
struct TypeInfo;
struct TensorInfo;
struct SessionOptions;
struct Allocator;

struct Api;  // the table itself

struct ApiBase {
  const Api*(PORTRT_ORT_CALL* get_api)(uint32_t version);  // null where that version is newer
  const char*(PORTRT_ORT_CALL* version)();
};

// Function `Place` of the table.
template <size_t Place, class Result, class... Arguments>
struct Function {
  Result operator()(const Api* api, Arguments... arguments) const {
    using Pointer = Result(PORTRT_ORT_CALL*)(Arguments...);
    return reinterpret_cast<const Pointer*>(api)[Place](arguments...);
  }
};

enum LoggingLevel : int { kLogError = 3 };
enum AllocatorType : int { kArena = 1 };
enum MemoryType : int { kDefaultMemory = 0 };

// A status is null for success.
inline constexpr Function<2, const char*, const Status*> error_message;
inline constexpr Function<3, Status*, int, const char*, Env**> create_env;
inline constexpr Function<8, Status*, const Env*, const void*, size_t, const SessionOptions*,
                          NativeSession**>
    create_session_from_array;
inline constexpr Function<9, Status*, NativeSession*, const RunOptions*, const char* const*,
                          const Value* const*, size_t, const char* const*, size_t, Value**>
    run;
inline constexpr Function<10, Status*, SessionOptions**> create_session_options;
inline constexpr Function<22, Status*, SessionOptions*, int> set_log_severity;
inline constexpr Function<24, Status*, SessionOptions*, int> set_intra_op_threads;
inline constexpr Function<30, Status*, const NativeSession*, size_t*> input_count;
inline constexpr Function<31, Status*, const NativeSession*, size_t*> output_count;
inline constexpr Function<33, Status*, const NativeSession*, size_t, TypeInfo**> input_type;
inline constexpr Function<34, Status*, const NativeSession*, size_t, TypeInfo**> output_type;
inline constexpr Function<36, Status*, const NativeSession*, size_t, Allocator*, char**> input_name;
inline constexpr Function<37, Status*, const NativeSession*, size_t, Allocator*, char**>
    output_name;
inline constexpr Function<49, Status*, const MemoryInfo*, void*, size_t, const int64_t*, size_t,
                          int, Value**>
    create_tensor_over;
inline constexpr Function<51, Status*, Value*, void**> tensor_data;
inline constexpr Function<55, Status*, const TypeInfo*, const TensorInfo**> as_tensor_info;
inline constexpr Function<60, Status*, const TensorInfo*, int*> element_type;
inline constexpr Function<61, Status*, const TensorInfo*, size_t*> rank;
inline constexpr Function<62, Status*, const TensorInfo*, int64_t*, size_t> sizes;
inline constexpr Function<65, Status*, const Value*, TensorInfo**> tensor_info;
inline constexpr Function<69, Status*, int, int, MemoryInfo**> create_cpu_memory_info;
inline constexpr Function<76, Status*, Allocator*, void*> allocator_free;
inline constexpr Function<78, Status*, Allocator**> default_allocator;
inline constexpr Function<93, void, Status*> release_status;
inline constexpr Function<95, void, NativeSession*> release_session;
inline constexpr Function<96, void, Value*> release_value;
inline constexpr Function<98, void, TypeInfo*> release_type_info;
inline constexpr Function<99, void, TensorInfo*> release_tensor_info;
inline constexpr Function<100, void, SessionOptions*> release_session_options;
inline constexpr Function<130, Status*, SessionOptions*, const char*, const char*>
    add_config_entry;
inline constexpr Function<150, Status*, SessionOptions*, const char*, const Value*>
    add_initializer;
inline constexpr Function<210, Status*, SessionOptions*, const char* const*, const Value* const*,
                          size_t>
    add_external_initializers;

}  // namespace portrt::ort
