// Properties of the machine that this process runs on, without a vendor library.
#pragma once

#include "core/targets/machine.h"

namespace portrt {

// OS, architecture, CPU features, GPU and driver. `versions` is empty: the code that opens a
// library sets its entry, "" where it cannot be opened.
Machine this_machine();

}  // namespace portrt
