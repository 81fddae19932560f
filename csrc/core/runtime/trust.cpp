#include "core/runtime/trust.h"

#include <algorithm>
#include <mutex>
#include <set>

#include "core/targets/trust.h"
#include "core/text.h"

namespace portrt {
namespace {

// Digests of the engines trusted in this process, so that it applies to copies of a program too.
struct Trusted {
  std::mutex lock;
  std::set<std::string> digests;
};

Trusted& trusted() {
  static Trusted& found = *new Trusted;  // never destroyed: other threads may run at the end
  return found;
}

bool is_trusted(const std::string& sha256, const Policy& policy) {
  if (policy.trust) return contains(*policy.trust, kHostCode);
  Trusted& marked = trusted();
  const std::lock_guard<std::mutex> guard(marked.lock);
  return marked.digests.count(sha256) != 0;
}

}  // namespace

void mark_trusted(const std::string& sha256) {
  Trusted& marked = trusted();
  const std::lock_guard<std::mutex> guard(marked.lock);
  marked.digests.insert(sha256);
}

bool trusts_host_code(const EngineSpec& engine, const Policy& policy) {
  const std::vector<Blob> blobs = engine.blobs();
  return std::all_of(blobs.begin(), blobs.end(),
                     [&](const Blob& blob) { return is_trusted(blob.sha256, policy); });
}

Verdict host_code_verdict(const EngineSpec& engine, const Policy& policy, Verdict verdict) {
  if (!verdict || !engine.requires_.host_code || trusts_host_code(engine, policy)) return verdict;
  return Verdict::no(VerdictCode::untrusted_code,
                     "it carries host code: refused unless trust='host-code'",
                     "load it with trust='host-code' if you trust the source of the file");
}

}  // namespace portrt
