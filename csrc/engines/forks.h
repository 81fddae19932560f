// Forks of this process: a child has none of its parent's threads.
#pragma once

#include <cstdint>

namespace portrt {

// How many times this process is a child of the one that loaded the library: what was opened under
// another number has its threads in a parent.
uint32_t fork_generation();

}  // namespace portrt
