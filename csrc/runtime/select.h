// Selection of an engine: stored engines are judged in order; the first accepted one runs.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/format/manifest.h"
#include "core/format/weights_image.h"
#include "core/runtime/policy.h"
#include "core/verdict.h"
#include "engines/session.h"

namespace portrt {

// The bytes of one blob, which the caller keeps.
struct Bytes {
  const uint8_t* data = nullptr;
  uint64_t size = 0;
};

// The session that runs a block, and the verdicts that led to it.
struct Selection {
  std::shared_ptr<Session> session;
  std::string name;                                        // backend of the engine
  std::vector<std::pair<std::string, Verdict>> verdicts;   // of each engine that was judged
};

// Open a stored engine, whatever the policy is; the digest of its bytes was checked.
//   data: its bytes
// Throws Error: this machine does not run it (backend_unavailable), or its library cannot open it
// (engine).
std::shared_ptr<Session> open_stored(const Manifest& manifest, const EngineSpec& engine,
                                     const Bytes& data, const WeightsImage* weights, int threads);

// Open the first engine that this machine accepts.
//   blobs: of the block's call, with the sizes of the manifest
//   weights: the image among them; null for a block without weights
//   device: device type of the inputs
//   policy: with every field set
//   threads: that an engine on the CPU may use
// Throws Error: no engine can run (no_usable_engine), or the bytes of an engine do not match the
// digest in the manifest (package).
Selection select(const Manifest& manifest, const std::vector<Bytes>& blobs,
                 const WeightsImage* weights, const std::string& device, const Policy& policy,
                 int threads);

}  // namespace portrt
