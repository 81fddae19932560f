#include "torch/held_blocks.h"

#include <algorithm>
#include <mutex>
#include <string>

#include "core/error.h"
#include "portrt/runtime.h"

namespace portrt::torch_abi {
namespace {

// On the CPU and contiguous; of a tensor that is no blob a size that no manifest has.
Bytes bytes_of(Tensor& blob) {
  if (!blob.is_defined()) {
    throw Error(ErrorCode::package, "the blobs of a block that was let go of are gone",
                "the tensors that the program was loaded with",
                "load the program again, or keep more blocks with portrt_keep_blocks");
  }
  if (blob.dtype() != DType::uint8 || blob.rank() != 1) return {nullptr, UINT64_MAX};
  const int32_t cpu = aoti_torch_device_type_cpu();
  if (blob.device_type() != cpu || !blob.is_contiguous()) blob = blob.copied(cpu, 0);
  return {static_cast<const uint8_t*>(blob.data()), static_cast<uint64_t>(blob.numel())};
}

}  // namespace

std::shared_ptr<Block> HeldBlocks::find(std::string_view text, std::vector<Tensor> blobs) {
  const uint64_t call = calls_.fetch_add(1, std::memory_order_relaxed) + 1;
  {
    const std::shared_lock<std::shared_mutex> guard(lock_);
    const auto found = blocks_.find(text);
    if (found != blocks_.end()) {
      found->second->last_call.store(call, std::memory_order_relaxed);
      return {found->second, found->second->block.get()};
    }
  }
  // One thread makes a block: torch gives the blobs of a constant list to the first call alone.
  const std::unique_lock<std::shared_mutex> guard(lock_);
  const auto found = blocks_.find(text);
  if (found != blocks_.end()) return {found->second, found->second->block.get()};
  auto held = std::make_shared<Held>();
  std::vector<Bytes> bytes;
  for (Tensor& blob : blobs) bytes.push_back(bytes_of(blob));
  held->block = std::make_unique<Block>(std::string(text), std::move(bytes));
  held->blobs = std::move(blobs);
  held->last_call = call;
  shrink(kept_ == 0 ? 0 : kept_ - 1);
  blocks_[held->block->text()] = held;
  return {held, held->block.get()};
}

void HeldBlocks::shrink(size_t count) {
  while (blocks_.size() > count) {
    blocks_.erase(std::min_element(blocks_.begin(), blocks_.end(), [](const auto& a,
                                                                      const auto& b) {
      return a.second->last_call < b.second->last_call;
    }));
  }
}

size_t HeldBlocks::release_all() {
  const std::unique_lock<std::shared_mutex> guard(lock_);
  const size_t count = blocks_.size();
  blocks_.clear();
  return count;
}

void HeldBlocks::keep(size_t count) {
  const std::unique_lock<std::shared_mutex> guard(lock_);
  kept_ = count;
  shrink(count);
}

HeldBlocks& held_blocks() {
  static HeldBlocks& found = *new HeldBlocks;  // never destroyed: torch may be gone by then
  return found;
}

}  // namespace portrt::torch_abi

size_t portrt_release_blocks(void) { return portrt::torch_abi::held_blocks().release_all(); }

void portrt_keep_blocks(size_t count) { portrt::torch_abi::held_blocks().keep(count); }
