#include "core/format/weights_image.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/format/dimensions.h"
#include "core/format/fields.h"

namespace portrt {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kLengthBytes = 8;

struct Row {
  const char* name;
  DType dtype;
};

constexpr Row kRows[] = {
    {"BOOL", DType::boolean},
    {"U8", DType::uint8},
    {"I8", DType::int8},
    {"I16", DType::int16},
    {"U16", DType::uint16},
    {"I32", DType::int32},
    {"U32", DType::uint32},
    {"I64", DType::int64},
    {"U64", DType::uint64},
    {"F16", DType::float16},
    {"BF16", DType::bfloat16},
    {"F32", DType::float32},
    {"F64", DType::float64},
    {"F8_E4M3", DType::float8_e4m3fn},
    {"F8_E5M2", DType::float8_e5m2},
    {"C64", DType::complex64},
};

Error bad(const std::string& fact, std::string expected) {
  return Error(ErrorCode::package, "the weights image " + fact, std::move(expected), kFileRemedy);
}

DType dtype_of(const Json* value) {
  if (value != nullptr && value->string() != nullptr) {
    for (const Row& row : kRows) {
      if (*value->string() == row.name) return row.dtype;
    }
  }
  return DType::other;
}

// Integers from 0 to kMaxSize; none for anything else.
std::optional<std::vector<int64_t>> sizes_of(const Json* value) {
  if (value == nullptr || value->array() == nullptr) return std::nullopt;
  std::vector<int64_t> found;
  for (const Json& item : *value->array()) {
    const int64_t* size = item.integer();
    if (size == nullptr || *size < 0 || *size > kMaxSize) return std::nullopt;
    found.push_back(*size);
  }
  return found;
}

WeightEntry read_entry(const std::string& name, const Json& item, uint64_t start, uint64_t total) {
  WeightEntry found;
  found.name = name;
  found.dtype = dtype_of(item.find("dtype"));
  std::optional<std::vector<int64_t>> shape = sizes_of(item.find("shape"));
  const std::optional<std::vector<int64_t>> ends = sizes_of(item.find("data_offsets"));
  if (found.dtype == DType::other || !shape || !ends || ends->size() != 2 ||
      shape->size() > kMaxRank) {
    throw bad("describes " + quoted(name) + " as " + item.brief(),
              "dtype, up to " + std::to_string(kMaxRank) + " sizes, and two data_offsets");
  }
  // Strides must fit in 64 bits, even if a size is 0.
  int64_t elements = 1, spread = 1;
  for (int64_t size : *shape) {
    if (size > 1 && spread > kMaxSize / size) {
      throw bad("describes " + quoted(name) + " as " + item.brief(), "strides of 64 bits");
    }
    spread *= std::max<int64_t>(size, 1);
    elements *= size != 0 && elements != 0 ? size : 0;
  }
  const uint64_t first = static_cast<uint64_t>((*ends)[0]),
                 last = static_cast<uint64_t>((*ends)[1]);
  const uint64_t item_bytes = item_size(found.dtype), data = total - start;
  const uint64_t count = static_cast<uint64_t>(elements);
  if (count > data / item_bytes || last < first || last - first != count * item_bytes ||
      last > data) {
    throw bad(
        "puts " + quoted(name) + " at bytes " + std::to_string(first) + " to " +
            std::to_string(last),
        std::to_string(count) + " elements within the " + std::to_string(data) + " bytes of data");
  }
  found.shape = std::move(*shape);
  found.offset = start + first;
  found.size = last - first;
  return found;
}

// The tensors lie side by side, in any order.
void check_cover(const std::vector<WeightEntry>& entries, uint64_t start, uint64_t total) {
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t one, size_t other) {
    const WeightEntry &a = entries[one], &b = entries[other];
    return a.offset != b.offset ? a.offset < b.offset : a.size < b.size;
  });
  uint64_t position = start;
  for (size_t index : order) {
    if (entries[index].offset != position) {
      throw bad("has a hole or an overlap at byte " + std::to_string(position),
                "tensors side by side");
    }
    position += entries[index].size;
  }
  if (position != total) {
    throw bad("ends at byte " + std::to_string(total),
              std::to_string(position) + ", where its last tensor ends");
  }
}

}  // namespace

WeightsImage::WeightsImage(const void* data, uint64_t size)
    : data_(static_cast<const uint8_t*>(data)), size_(size) {
  uint64_t length = 0;
  for (uint64_t index = kLengthBytes; size >= kLengthBytes && index > 0; --index) {
    length = length << 8 | data_[index - 1];
  }
  if (size < kLengthBytes || length < 2 ||
      length > std::min(kMaxHeaderBytes, size - kLengthBytes)) {
    throw bad("has " + std::to_string(size) + " bytes and a header of " + std::to_string(length),
              "a safetensors header");
  }
  const uint64_t start = kLengthBytes + length;
  const std::string_view text(reinterpret_cast<const char*>(data_) + kLengthBytes,
                              static_cast<size_t>(length));
  Json header;
  try {
    header = Json::parse(text);
  } catch (const JsonError& error) {
    throw bad(std::string("has a header that is not JSON: ") + error.what(),
              "a safetensors header");
  }
  if (header.object() == nullptr) {
    throw bad("has a header that is not a JSON object", "a safetensors header");
  }
  for (const Json::Member& member : *header.object()) {  // sorted by key
    if (member.key == "__metadata__") continue;
    entries_.push_back(read_entry(member.key, member.value, start, size));
  }
  check_cover(entries_, start, size);
}

const WeightEntry& WeightsImage::entry(std::string_view name) const {
  const auto found = std::lower_bound(
      entries_.begin(), entries_.end(), name,
      [](const WeightEntry& entry, std::string_view wanted) { return entry.name < wanted; });
  if (found == entries_.end() || found->name != name) {
    throw bad("has no tensor " + quoted(name), "the tensors it was made with");
  }
  return *found;
}

}  // namespace portrt
