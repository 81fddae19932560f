// The blocks of this process, found by the text of their manifest.
//
// A manifest has the digest of every blob, so that equal texts are equal blocks. Blobs are held with
// their block: torch 2.11 to 2.14 move the tensors out of a list argument, so that a list that is a
// constant of TorchScript is empty from the second call on. There are no weak references in torch's
// stable interface, so that a block lives until it is let go of.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/block.h"
#include "torch/handles.h"

namespace portrt::torch_abi {

class HeldBlocks {
 public:
  // The block of a manifest; made with these blobs if it is not there.
  // Throws Error (package), also where torch has moved the blobs away.
  std::shared_ptr<Block> find(std::string_view text, std::vector<Tensor> blobs);

  size_t release_all();
  void keep(size_t count);

 private:
  struct Held {
    std::vector<Tensor> blobs;  // declared first: they outlive the block
    std::unique_ptr<Block> block;
    std::atomic<uint64_t> last_call{0};
  };

  void shrink(size_t count);

  std::shared_mutex lock_;
  std::unordered_map<std::string_view, std::shared_ptr<Held>> blocks_;  // keys: texts of blocks
  std::atomic<uint64_t> calls_{0};
  size_t kept_ = 4096;
};

HeldBlocks& held_blocks();

}  // namespace portrt::torch_abi
