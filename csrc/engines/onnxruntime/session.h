// Runs an ONNX Runtime engine without copies of inputs, outputs or weights.
#pragma once

#include <cstdint>
#include <memory>

#include "core/format/engine_spec.h"
#include "core/format/signature.h"
#include "core/format/weights_image.h"
#include "engines/session.h"

namespace portrt {

struct OnnxRuntimeOptions {
  int threads = 1;
  bool low_memory = false;  // for a single run: slower, with as little memory as possible
};

// Open an engine on the CPU. The bytes of engine and weights must live as long as the session.
//   weights: the image that holds the engine's weights; null for an engine that takes none
// Throws Error (engine): the library cannot open it, or its inputs and outputs are not those of the
// signature.
std::unique_ptr<Session> open_onnxruntime(const EngineSpec& engine, const Signature& signature,
                                          const uint8_t* data, const WeightsImage* weights,
                                          const OnnxRuntimeOptions& options);

}  // namespace portrt
