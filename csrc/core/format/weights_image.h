// The weights image: all weights of a program as one safetensors file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/format/dtypes.h"

namespace portrt {

// One tensor of the image.
struct WeightEntry {
  std::string name;
  DType dtype = DType::other;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // in the image
  uint64_t size = 0;    // bytes
};

// Reads an image, which the caller keeps; nothing is copied.
class WeightsImage {
 public:
  // Throws Error (package): the header is malformed, or tensors have holes between them, overlap
  // or go beyond the image.
  WeightsImage(const void* data, uint64_t size);

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::vector<WeightEntry>& entries() const { return entries_; }  // sorted by name

  // Throws Error (package) where there is no such tensor.
  const WeightEntry& entry(std::string_view name) const;
  // The first byte of a tensor.
  const uint8_t* bytes(const WeightEntry& entry) const { return data_ + entry.offset; }

 private:
  const uint8_t* data_;
  uint64_t size_;
  std::vector<WeightEntry> entries_;
};

}  // namespace portrt
