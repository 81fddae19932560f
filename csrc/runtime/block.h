// One block of a loaded program: checks inputs, keeps the selected engine, runs it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/format/manifest.h"
#include "core/format/weights_image.h"
#include "engines/session.h"
#include "runtime/select.h"

namespace portrt {

using OutputShapes = std::vector<std::vector<int64_t>>;

// The state behind one `execute_engine` call of one program. Several threads may use it.
class Block {
 public:
  //   text: the manifest in the call
  //   blobs: of the call, in order; their memory must live as long as the block
  //   policy: of the caller, over that of the manifest
  // Throws Error (package): the manifest is malformed or does not describe these blobs.
  Block(std::string text, std::vector<Bytes> blobs, Policy policy = {});
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  const std::string& text() const { return text_; }
  const Manifest& manifest() const { return manifest_; }

  // Run once.
  //   threads: that an engine on the CPU may use, if this call opens it
  // Throws Error (input, package, no_usable_engine, engine, out_of_profile, settings).
  void run(const std::vector<TensorView>& inputs, Outputs& outputs, int threads);

  // Open an engine, by its index, for CPU tensors: no policy is asked in later calls.
  // Throws Error (backend_unavailable, engine).
  void open(size_t engine, int threads);

 private:
  struct Hash {
    size_t operator()(const std::vector<int64_t>& key) const;
  };

  std::shared_ptr<const OutputShapes> shapes_of(const std::vector<TensorView>& inputs);
  std::shared_ptr<Session> session_for(const std::string& device, int threads);

  std::string text_;
  Policy policy_;
  Manifest manifest_;
  Signature signature_;
  std::vector<Bytes> blobs_;
  std::optional<WeightsImage> weights_;
  bool is_measured_;
  std::shared_mutex shapes_lock_, sessions_lock_;
  std::unordered_map<std::vector<int64_t>, std::shared_ptr<const OutputShapes>, Hash> shapes_;
  std::map<std::string, std::shared_ptr<Session>> sessions_;  // by device
};

}  // namespace portrt
