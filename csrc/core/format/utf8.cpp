#include "core/format/utf8.h"

namespace portrt {

char32_t next_char(std::string_view text, size_t& at) {
  const auto byte = [&](size_t index) { return static_cast<unsigned char>(text[index]); };
  const unsigned char first = byte(at++);
  if (first < 0x80) return first;
  const size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
  if (first < 0xc2 || first > 0xf4 || text.size() - at < more) return kNoChar;
  char32_t code = first & (0x3f >> more);
  for (size_t index = 0; index < more; ++index) {
    if ((byte(at + index) & 0xc0) != 0x80) return kNoChar;
    code = code << 6 | (byte(at + index) & 0x3f);
  }
  const char32_t least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;
  if (code < least || code > 0x10ffff) return kNoChar;
  at += more;
  return code;
}

void append_char(std::string& text, char32_t code) {
  const auto add = [&](char32_t byte) {
    text += static_cast<char>(static_cast<unsigned char>(byte));
  };
  if (code < 0x80) {
    add(code);
    return;
  }
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr char32_t kLead[] = {0, 0xc0, 0xe0, 0xf0};
  add(kLead[more] | code >> (6 * more));
  for (int left = more - 1; left >= 0; --left) add(0x80 | ((code >> (6 * left)) & 0x3f));
}

}  // namespace portrt
