#include "torch/opened_engines.h"

#include <array>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>

#include "core/error.h"
#include "engines/onnxruntime/library.h"
#include "torch/call.h"

namespace portrt::torch_abi {
namespace {

class OpenedEngines {
 public:
  int64_t add(std::shared_ptr<Block> block) {
    const std::unique_lock<std::shared_mutex> guard(lock_);
    blocks_[++last_] = std::move(block);
    return last_;
  }
  std::shared_ptr<Block> find(int64_t opened) {
    const std::shared_lock<std::shared_mutex> guard(lock_);
    const auto found = blocks_.find(opened);
    if (found != blocks_.end()) return found->second;
    throw Error(ErrorCode::engine, "no opened engine has the number " + std::to_string(opened),
                "a number that portrt's Python package has from this library",
                "call portrt::execute_engine instead");
  }
  void remove(int64_t opened) {
    std::shared_ptr<Block> ended;  // ends after the lock
    const std::unique_lock<std::shared_mutex> guard(lock_);
    const auto found = blocks_.find(opened);
    if (found == blocks_.end()) return;
    ended = std::move(found->second);
    blocks_.erase(found);
  }

 private:
  std::shared_mutex lock_;
  std::unordered_map<int64_t, std::shared_ptr<Block>> blocks_;
  int64_t last_ = 0;
};

OpenedEngines& opened_engines() {
  static OpenedEngines& found = *new OpenedEngines;  // never destroyed: torch may be gone by then
  return found;
}

thread_local std::array<std::string, 4> last_error;

int python_interface = 0;

void keep(const Error& error) {
  last_error = {error_name(error.code()), error.happened(), error.expected(), error.remedy()};
}

}  // namespace

void set_python_interface() { python_interface = 1; }

const char* const kRunOpenedSchema =
    "run_opened_engine(Tensor[] inputs, int opened) -> Tensor[]";

void run_opened_engine(StableIValue* stack, uint64_t /*arguments*/, uint64_t /*results*/) {
  std::vector<Tensor> inputs = take_list(stack[0]);
  try {
    const std::shared_ptr<Block> block = opened_engines().find(static_cast<int64_t>(stack[1]));
    stack[0] = give_list(call(*block, std::move(inputs)));
  } catch (const Error& error) {
    keep(error);
    throw;
  }
}

}  // namespace portrt::torch_abi

using namespace portrt;
using namespace portrt::torch_abi;

int portrt_python_interface(void) { return python_interface; }

int64_t portrt_open_engine(const char* manifest, size_t size, const void* const* blobs,
                           const uint64_t* sizes, size_t count, size_t engine, int threads) {
  try {
    std::vector<Bytes> bytes;
    for (size_t index = 0; index < count; ++index) {
      bytes.push_back({static_cast<const uint8_t*>(blobs[index]), sizes[index]});
    }
    auto block = std::make_shared<Block>(std::string(manifest, size), std::move(bytes));
    block->open(engine, threads);
    return opened_engines().add(std::move(block));
  } catch (const Error& error) {
    keep(error);
  } catch (const std::exception& error) {
    keep(Error(ErrorCode::engine, error.what(), "an engine that opens", "use runtime='python'"));
  }
  return 0;
}

void portrt_close_engine(int64_t opened) { opened_engines().remove(opened); }

const char* portrt_error_text(int part) {
  return part < 0 || part > 3 ? "" : last_error[static_cast<size_t>(part)].c_str();
}

void portrt_forget_error(void) { last_error = {}; }

void portrt_set_onnxruntime(const char* path) {
  const char* given = std::getenv("PORTRT_ONNXRUNTIME_LIBRARY");
  if (given == nullptr || *given == '\0') ort::set_search({path, {}});
}
