// The backend "onnxruntime": which of its engines run here, and how one is opened.
#pragma once

#include <memory>

#include "core/verdict.h"
#include "engines/onnxruntime/session.h"

namespace portrt {

// Whether this machine runs the engine on tensors of a device type.
Verdict onnxruntime_accepts(const EngineSpec& engine, const std::string& device);

// Open an engine that was accepted; see `open_onnxruntime`. Calls with sizes that the library
// cannot run end in Error (out_of_profile).
std::unique_ptr<Session> open_onnxruntime_engine(const EngineSpec& engine,
                                                 const Signature& signature, const uint8_t* data,
                                                 const WeightsImage* weights,
                                                 const OnnxRuntimeOptions& options);

}  // namespace portrt
