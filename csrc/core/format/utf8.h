// Characters of UTF-8 text. A surrogate that has no partner, which JSON can escape, is kept as the
// three bytes that it would have.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace portrt {

constexpr char32_t kNoChar = 0xffffffff;

// The character at `at`, which is moved behind it; kNoChar (one byte on) where it is malformed.
// Surrogates are characters here.
char32_t next_char(std::string_view text, size_t& at);

void append_char(std::string& text, char32_t code);

constexpr bool is_surrogate(char32_t code) { return code >= 0xd800 && code <= 0xdfff; }

}  // namespace portrt
