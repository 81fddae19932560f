// Compatibility of TensorRT engines with the installed TensorRT libraries.
#pragma once

#include "core/format/engine_spec.h"
#include "core/targets/machine.h"

namespace portrt {

// The library that runs a "tensorrt" engine on a machine ("tensorrt", "tensorrt_lean" or
// "tensorrt_dispatch"), or a no with the reason. A machine that states the version of none of the
// three accepts every engine; where it states that of one, the others count as not installed.
LibraryOrNo tensorrt_runtime_for(const Requirements& requires_, const Machine& machine);

}  // namespace portrt
