// Cases of weights.json.
#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/format/weights_image.h"
#include "tests/cases.h"

namespace portrt::tests {
namespace {

std::string image_of(const Json& given) {
  const std::string& header = text_field(given, "header");
  const Json* told = given.find("length");
  const Json* total = given.find("total");
  // A length of 64 bits may be beyond those of an integer.
  uint64_t length = header.size();
  if (told != nullptr) length = std::stoull(told->dump());
  std::string found(8, '\0');
  for (size_t index = 0; index < found.size(); ++index) {
    found[index] = static_cast<char>(length >> (8 * index) & 0xff);
  }
  found += header + std::string(static_cast<size_t>(*field(given, "data").integer()), 'd');
  if (total != nullptr)
    found.resize(std::min(found.size(), static_cast<size_t>(*total->integer())));
  return found;
}

Json entry_facts(const WeightEntry& entry) {
  return Json::Object{{"dtype", dtype_name(entry.dtype)},
                      {"shape", Json::Array(entry.shape.begin(), entry.shape.end())},
                      {"offset", static_cast<int64_t>(entry.offset)},
                      {"size", static_cast<int64_t>(entry.size)}};
}

}  // namespace

void check_weights(const Json& given, const std::string& name, Checks& checks) {
  const std::string bytes = image_of(given);
  const std::vector<char> exact(bytes.begin(), bytes.end());  // a sanitizer sees what is beyond
  const bool valid = *field(given, "valid").boolean();
  try {
    const WeightsImage image(exact.data(), exact.size());
    checks.that(valid, name, "it is taken");
    if (!valid) return;
    Json::Object found;
    for (const WeightEntry& entry : image.entries()) {
      found.push_back({entry.name, entry_facts(image.entry(entry.name))});
    }
    checks.that(Json(found) == field(given, "entries"), name, Json(found).dump());
  } catch (const Error& error) {
    checks.that(!valid && error.code() == ErrorCode::package, name, error.what());
  }
}

}  // namespace portrt::tests
