// The errors of portrt, for its own sources.
#pragma once

#include "portrt/error.h"

namespace portrt {

// What to do about a damaged file.
extern const char* const kFileRemedy;

}  // namespace portrt
