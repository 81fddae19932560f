#include "core/format/dimensions.h"

#include "core/error.h"
#include "core/format/fields.h"

namespace portrt {
namespace {

Error error_at(std::string path, std::string happened, std::string expected) {
  return Error(ErrorCode::package, std::move(happened), std::move(expected), kFileRemedy,
               std::move(path));
}

const Json::Array& sizes_of(const Fields& entry) {
  const Json::Array& sizes = entry.items("shape");
  if (sizes.size() > kMaxRank) {
    throw error_at(entry.at("shape"), entry.where() + " has rank " + std::to_string(sizes.size()),
                   "up to " + std::to_string(kMaxRank));
  }
  return sizes;
}

// An integer, or an expression.
Size read_size(const Json& size, const std::vector<size_t>& ranks, const std::string& where,
               const std::string& path) {
  SizeExpr tree = SizeExpr::read(size, ranks, "a size of " + where, path);
  const int64_t* integer = size.integer();
  if (integer == nullptr) return tree;
  if (*integer < 0) {
    throw error_at(path, "a size of " + where + " is " + size.brief(), "an integer from 0");
  }
  return *integer;
}

bool read_profile(const Json& item, const Dimension& range, std::array<int64_t, 3>& profile) {
  const Json::Array* sizes = item.array();
  if (sizes == nullptr || sizes->size() != profile.size()) return false;
  int64_t least = range.min;
  for (size_t index = 0; index < profile.size(); ++index) {
    const int64_t* size = (*sizes)[index].integer();
    if (size == nullptr || *size < least) return false;
    profile[index] = least = *size;
  }
  return least <= range.max.value_or(kMaxSize);
}

Dimension read_dimension(const Json& size, const std::string& where, const std::string& path) {
  const Fields part(size, "a dimension of " + where, path);
  Dimension found;
  found.min = part.integer("min");
  found.opt = part.integer("opt");
  if (!part.is_null("max")) found.max = part.integer("max");
  if (found.min > found.opt || found.opt > found.max.value_or(kMaxSize)) {
    throw error_at(path,
                   "a dimension of " + where + " has min " + std::to_string(found.min) + ", opt " +
                       std::to_string(found.opt) + ", max " +
                       (found.max ? std::to_string(*found.max) : "null"),
                   "min <= opt <= max");
  }
  if (part.has("profiles")) {
    const Json::Array& items = part.items("profiles");
    for (size_t index = 0; index < items.size(); ++index) {
      std::array<int64_t, 3> profile{};
      if (!read_profile(items[index], found, profile)) {
        throw error_at(pointer(part.at("profiles"), index),
                       "a profile of " + part.where() + " is " + items[index].brief(),
                       "three integers in its range, min <= opt <= max");
      }
      found.profiles.push_back(profile);
    }
  }
  found.symbol = part.text("symbol");
  return found;
}

DataDependentSize read_unknown(const Json& size, const std::string& where,
                               const std::string& path) {
  const Fields part(size, "a dimension of " + where, path);
  DataDependentSize found;
  if (!part.is_null("unknown")) found.max = part.integer("unknown");
  found.symbol = part.text("symbol");
  return found;
}

}  // namespace

std::vector<Size> read_input_shape(const Fields& entry, std::vector<size_t>& ranks) {
  const Json::Array& sizes = sizes_of(entry);
  ranks.push_back(sizes.size());
  std::vector<Size> found;
  for (size_t axis = 0; axis < sizes.size(); ++axis) {
    const std::string path = pointer(entry.at("shape"), axis);
    if (sizes[axis].object() != nullptr) {
      found.emplace_back(read_dimension(sizes[axis], entry.where(), path));
    } else {
      found.push_back(read_size(sizes[axis], ranks, entry.where(), path));
    }
  }
  return found;
}

std::vector<Size> read_output_shape(const Fields& entry, const std::vector<size_t>& ranks) {
  const Json::Array& sizes = sizes_of(entry);
  std::vector<Size> found;
  for (size_t axis = 0; axis < sizes.size(); ++axis) {
    const std::string path = pointer(entry.at("shape"), axis);
    if (sizes[axis].object() != nullptr) {
      found.emplace_back(read_unknown(sizes[axis], entry.where(), path));
    } else {
      found.push_back(read_size(sizes[axis], ranks, entry.where(), path));
    }
  }
  return found;
}

}  // namespace portrt
