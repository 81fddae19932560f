#include "engines/forks.h"

#include <atomic>

#ifndef _WIN32
#include <pthread.h>
#endif

namespace portrt {
namespace {

std::atomic<uint32_t> generation{0};

#ifndef _WIN32
const int registered = pthread_atfork(nullptr, nullptr, [] { generation.fetch_add(1); });
#endif

}  // namespace

uint32_t fork_generation() {
#ifndef _WIN32
  (void)registered;
#endif
  return generation.load(std::memory_order_relaxed);
}

}  // namespace portrt
