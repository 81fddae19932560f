// Random changes, the same ones for one seed on every system.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace portrt::tests {

// Numbers of the standard's engine are the same everywhere, those of its distributions are not.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  size_t below(size_t limit) { return limit == 0 ? 0 : engine_() % limit; }
  template <class Items>
  const auto& one_of(const Items& items) {
    return *(std::begin(items) + static_cast<std::ptrdiff_t>(below(std::size(items))));
  }

 private:
  std::mt19937 engine_;
};

inline const char* const kTokens[] = {"null",
                                      "true",
                                      "-1",
                                      "0",
                                      "1",
                                      "4611686018427387904",
                                      "4611686018427387905",
                                      "9223372036854775808",
                                      "-9223372036854775808",
                                      "1e308",
                                      "1e999",
                                      "0.5",
                                      "-0.0",
                                      "NaN",
                                      "\"\"",
                                      "[]",
                                      "{}",
                                      "[[[[",
                                      "{\"a\":",
                                      "\"dim\"",
                                      "[\"dim\",0,0]",
                                      "[\"truediv\",1,0]",
                                      "[\"floordiv\",-1,0]",
                                      "[\"pow\",[\"dim\",0,0],16]",
                                      "[\"mul\",[\"dim\",0,0],[\"dim\",0,0]]",
                                      "[\"floor\",[\"mul\",1e18,1e18]]",
                                      "[\"mod\",-7,-3]",
                                      "\\ud800",
                                      "\\u0000",
                                      "\xf0\x9f\x98\x80",
                                      "\xed\xa0\x80",
                                      "\xff",
                                      ",",
                                      ":",
                                      "\"",
                                      "}",
                                      "]",
                                      "-",
                                      "\"shape\":",
                                      "\"parts\":null"};

// JSON text with a few bytes or values changed.
inline std::string changed(std::string text, const std::vector<std::string>& others,
                           Random& random) {
  for (size_t left = random.below(4) == 0 ? 3 : 1; left > 0; --left) {
    const size_t at = random.below(text.size() + 1);
    const size_t length = std::min(random.below(12), text.size() - at);
    switch (random.below(10)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(random.below(256));
        break;
      case 1: text.erase(at, length); break;
      case 2: text.insert(at, text.substr(at, length)); break;
      case 3: text.insert(at, random.one_of(kTokens)); break;
      case 4: {
        const std::string& other = random.one_of(others);
        const size_t from = random.below(other.size() + 1);
        text.insert(at, other.substr(from, random.below(200)));
        break;
      }
      default: {  // another value, up to the next comma or bracket
        const size_t begin = text.find(':', at);
        if (begin == std::string::npos) break;
        const size_t end = std::min(text.find_first_of(",]}", begin), text.size());
        text.replace(begin + 1, end - begin - 1, random.one_of(kTokens));
      }
    }
  }
  return text;
}

}  // namespace portrt::tests
