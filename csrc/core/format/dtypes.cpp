#include "core/format/dtypes.h"

#include <array>

namespace portrt {
namespace {

struct Row {
  const char* name;
  size_t size;
};

constexpr std::array<Row, 18> kRows = {{
    {"bool", 1},
    {"uint8", 1},
    {"int8", 1},
    {"int16", 2},
    {"int32", 4},
    {"int64", 8},
    {"uint16", 2},
    {"uint32", 4},
    {"uint64", 8},
    {"float16", 2},
    {"bfloat16", 2},
    {"float32", 4},
    {"float64", 8},
    {"float8_e4m3fn", 1},
    {"float8_e5m2", 1},
    {"complex64", 8},
    {"complex128", 16},
    {"another dtype", 0},
}};
constexpr size_t kKnown = static_cast<size_t>(DType::other);
static_assert(kRows.size() == kKnown + 1);

}  // namespace

const char* dtype_name(DType dtype) { return kRows[static_cast<size_t>(dtype)].name; }

size_t item_size(DType dtype) { return kRows[static_cast<size_t>(dtype)].size; }

std::optional<DType> dtype_named(std::string_view name) {
  for (size_t index = 0; index < kKnown; ++index) {
    if (name == kRows[index].name) return static_cast<DType>(index);
  }
  return std::nullopt;
}

std::string dtype_names() {
  std::string found;
  for (size_t index = 0; index < kKnown; ++index) {
    found += (index ? ", " : "") + std::string(kRows[index].name);
  }
  return found;
}

}  // namespace portrt
