// Checks data-dependent output sizes against the signature of the block: what is computed from the
// outputs relies on them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/format/signature.h"
#include "engines/session.h"

namespace portrt {

// Whether an output of the block has a data-dependent size.
bool has_data_dependent_sizes(const Signature& signature);

// The outputs of one call; a size that contradicts the manifest is Error (engine).
class MeasuredOutputs : public Outputs {
 public:
  //   shapes: as a session gets them
  MeasuredOutputs(const Signature& signature, const std::vector<std::vector<int64_t>>& shapes,
                  Outputs& outputs)
      : signature_(signature), shapes_(shapes), outputs_(outputs) {}

  void* make(size_t index, DType dtype, const std::vector<int64_t>& sizes) override;

 private:
  const Signature& signature_;
  const std::vector<std::vector<int64_t>>& shapes_;
  Outputs& outputs_;
  std::map<std::string, int64_t> sizes_;  // symbol -> its size in this call
};

}  // namespace portrt
