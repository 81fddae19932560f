// The parser of `Json::parse`.
#include <cmath>
#include <locale>
#include <sstream>

#include "core/format/json.h"
#include "core/format/utf8.h"

namespace portrt {
namespace {

constexpr size_t kMaxDigits = 4300;  // as Python reads by default

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json parse() {
    Json value = parse_value(0);
    skip_spaces();
    if (at_ != text_.size()) fail("text follows the value");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw JsonError(what + " at byte " + std::to_string(at_));
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool is_digit() const { return peek() >= '0' && peek() <= '9'; }

  bool take(char wanted) {
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void skip_spaces() {
    while (at_ < text_.size() &&
           std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
  }

  Json parse_value(int depth) {
    skip_spaces();
    switch (peek()) {
      case '{': return parse_object(depth);
      case '[': return parse_array(depth);
      case '"': return Json(parse_string());
      case 't': return parse_word("true", Json(true));
      case 'f': return parse_word("false", Json(false));
      case 'n': return parse_word("null", Json());
      default: return parse_number();
    }
  }

  Json parse_word(std::string_view word, Json value) {
    if (text_.substr(at_, word.size()) != word) fail("a value is expected");
    at_ += word.size();
    return value;
  }

  void check_depth(int depth) const {
    if (depth >= kMaxJsonDepth) fail("lists and objects are nested too deep");
  }

  Json parse_array(int depth) {
    check_depth(depth);
    ++at_;
    Json::Array items;
    skip_spaces();
    if (take(']')) return Json(std::move(items));
    while (true) {
      items.push_back(parse_value(depth + 1));
      skip_spaces();
      if (take(']')) return Json(std::move(items));
      if (!take(',')) fail("',' or ']' is expected");
    }
  }

  Json parse_object(int depth) {
    check_depth(depth);
    ++at_;
    Json::Object members;
    skip_spaces();
    if (take('}')) return Json(std::move(members));
    while (true) {
      skip_spaces();
      if (peek() != '"') fail("a key is expected");
      std::string key = parse_string();
      skip_spaces();
      if (!take(':')) fail("':' is expected");
      members.push_back({std::move(key), parse_value(depth + 1)});
      skip_spaces();
      if (take('}')) return Json(std::move(members));
      if (!take(',')) fail("',' or '}' is expected");
    }
  }

  std::string parse_string() {
    ++at_;
    std::string found;
    while (true) {
      if (at_ >= text_.size()) fail("a string has no end");
      if (take('"')) return found;
      if (take('\\')) {
        parse_escape(found);
        continue;
      }
      const size_t begin = at_;
      const char32_t code = next_char(text_, at_);
      if (code == kNoChar || is_surrogate(code)) fail("the text is not UTF-8");
      if (code < 0x20) fail("a string has a control character");
      found.append(text_, begin, at_ - begin);
    }
  }

  void parse_escape(std::string& found) {
    static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    if (take('u')) {
      char32_t code = parse_unit();
      // A pair is one character; a surrogate without a partner stays, and is in no name.
      if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_, 2) == "\\u") {
        const size_t before = at_;
        at_ += 2;
        const char32_t low = parse_unit();
        if (low >= 0xdc00 && low <= 0xdfff) {
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        } else {
          at_ = before;
        }
      }
      append_char(found, code);
      return;
    }
    const size_t index = at_ < text_.size() ? kLetters.find(text_[at_]) : std::string_view::npos;
    if (index == std::string_view::npos) fail("an escape is unknown");
    ++at_;
    found += kMeanings[index];
  }

  char32_t parse_unit() {
    char32_t code = 0;
    for (int digit = 0; digit < 4; ++digit) {
      static constexpr std::string_view kDigits = "0123456789abcdef";
      const char letter = peek();
      const char lower =
          letter >= 'A' && letter <= 'F' ? static_cast<char>(letter - 'A' + 'a') : letter;
      const size_t value = kDigits.find(lower);
      if (at_ >= text_.size() || value == std::string_view::npos)
        fail("four hexadecimal digits are expected");
      code = code * 16 + static_cast<char32_t>(value);
      ++at_;
    }
    return code;
  }

  void skip_digits() {
    if (!is_digit()) fail("a digit is expected");
    while (is_digit()) ++at_;
  }

  Json parse_number() {
    const size_t begin = at_;
    take('-');
    if (!is_digit()) fail("a value is expected");
    if (!take('0')) skip_digits();
    const size_t end = at_;
    bool is_real = false;
    if (take('.')) {
      is_real = true;
      skip_digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      is_real = true;
      ++at_;
      if (!take('+')) take('-');
      skip_digits();
    }
    const std::string digits(text_.substr(begin, (is_real ? at_ : end) - begin));
    return is_real ? real(digits) : integer(digits);
  }

  Json real(const std::string& digits) const {
    std::istringstream stream(digits);
    stream.imbue(std::locale::classic());
    double value = 0;
    stream >> value;
    if (stream.fail() || !std::isfinite(value)) fail("a number is not finite");
    return Json(value);
  }

  Json integer(const std::string& digits) const {
    const bool negative = digits[0] == '-';
    if (digits.size() - negative > kMaxDigits) fail("an integer has too many digits");
    if (digits.size() - negative > 19) return Json(Json::HugeInteger{digits});
    uint64_t value = 0;  // 19 digits are below 2^64
    for (size_t index = negative; index < digits.size(); ++index) {
      value = value * 10 + static_cast<uint64_t>(digits[index] - '0');
    }
    if (value > static_cast<uint64_t>(INT64_MAX)) return Json(Json::HugeInteger{digits});
    const int64_t plain = static_cast<int64_t>(value);
    return Json(negative ? -plain : plain);
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Json Json::parse(std::string_view text) { return Parser(text).parse(); }

}  // namespace portrt
