// Engines that the Python package chose and opened here, for calls with CPU tensors.
//
// Python judges the engines of a block, by its policies, and calls these functions by their names;
// a call of an engine is the operator `portrt::run_opened_engine(Tensor[] inputs, int opened)`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "portrt/runtime.h"
#include "torch/handles.h"

namespace portrt::torch_abi {

extern const char* const kRunOpenedSchema;

// The kernel of the operator. An error is kept for `portrt_error_text`, and thrown.
void run_opened_engine(StableIValue* stack, uint64_t arguments, uint64_t results);

// The operator is registered, with the kernel of this library.
void set_python_interface();

}  // namespace portrt::torch_abi

extern "C" {

// Changes with the functions below and the operator; 0 where another copy of the library has it.
PORTRT_EXPORT int portrt_python_interface(void);

// Open an engine of a block. The memory of the blobs must live until it is closed.
//   manifest: its text, of `size` bytes
//   blobs, sizes: of the block's call, `count` of them; the digests were checked
//   engine: its index
//   threads: that it may use
// Returns a number for the operator, or 0: `portrt_error_text` has the reason.
PORTRT_EXPORT int64_t portrt_open_engine(const char* manifest, size_t size,
                                         const void* const* blobs, const uint64_t* sizes,
                                         size_t count, size_t engine, int threads);
PORTRT_EXPORT void portrt_close_engine(int64_t opened);

// Of the last error in this thread: 0 the name of its class, 1 to 3 what happened, what was
// expected, what to do; "" where there was none. Valid until the next call in this thread.
PORTRT_EXPORT const char* portrt_error_text(int part);
PORTRT_EXPORT void portrt_forget_error(void);

// The library of ONNX Runtime, unless PORTRT_ONNXRUNTIME_LIBRARY names one; without effect once
// one was looked for.
PORTRT_EXPORT void portrt_set_onnxruntime(const char* path);

}  // extern "C"
