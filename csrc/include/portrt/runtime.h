// Functions of libportrt_runtime besides the operator `portrt::execute_engine`, which the library
// registers with torch when it is loaded.
#pragma once

#include <stddef.h>

#ifdef _WIN32
#define PORTRT_EXPORT __declspec(dllexport)
#else
#define PORTRT_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Let go of every block that was called, with its engine and its weights; return their number. The
// library cannot see when a program ends, so that a process that loads one program after the other
// calls this in between. A program that is called again opens its engines again; one of TorchScript
// must be loaded again (torch has taken its weights out of it).
PORTRT_EXPORT size_t portrt_release_blocks(void);

// Keep at most this number of blocks, at first 4096: the one that was called the longest ago is let
// go of for a new one.
PORTRT_EXPORT void portrt_keep_blocks(size_t count);

#ifdef __cplusplus
}
#endif
