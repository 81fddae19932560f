// What the cases of conformance/ have no place for.
#include <cstring>
#include <sstream>
#include <vector>

#include "core/error.h"
#include "core/format/fields.h"
#include "core/format/manifest.h"
#include "core/format/sha256.h"
#include "core/format/utf8.h"
#include "core/runtime/policy.h"
#include "core/runtime/trust.h"
#include "core/targets/this_machine.h"
#include "tests/check.h"

namespace portrt::tests {
namespace {

// The examples of FIPS 180-2, appendix B, and of NIST's "SHA-256 test vectors"; and lengths around
// those where the padding takes a block more, with digests by Python's hashlib.
void check_digests(Checks& checks) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {std::string(55, 'x'), "d5e285683cd4efc02d021a5c62014694958901005d6f71e89e0989fac77e4072"},
      {std::string(56, 'x'), "04c26261370ee7541549d16dee320c723e3fd14671e66a099afe0a377c16888e"},
      {std::string(63, 'x'), "75220b47218278e656f2013bb8f0c455a25eaf01e86c64924e9d48d89776d6f2"},
      {std::string(64, 'x'), "7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c"},
      {std::string(119, 'x'), "000b48d4edf0fa7bee3c6236ecd2785baa5db4eeb8bb54341b029e0d9fa5fb0c"},
      {std::string(120, 'x'), "13f05a0b594787f5ecd315edc96141bd3243203d1b7d4f0836f37308b276ba98"},
      {std::string(1000000, 'a'),
       "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
  for (const auto& [text, digest] : cases) {
    const std::string found = sha256(text.data(), text.size());
    checks.that(found == digest, "digest of " + std::to_string(text.size()) + " bytes", found);
  }
  Blob blob;
  blob.sha256 = sha256("abc", 3);
  check_digest("abc", 3, blob, "it");
  try {
    check_digest("abd", 3, blob, "it");
    checks.that(false, "a damaged blob is taken");
  } catch (const Error& error) {
    checks.that(error.code() == ErrorCode::package && !error.field(), "a damaged blob",
                error.what());
  }
}

// Texts that are JSON, and what `dump` makes of them; null for those that are not.
void check_json(Checks& checks) {
  const std::pair<std::string, const char*> cases[] = {
      {" [1 ,\t-0,\r\n 2.50 ] ", "[1,0,2.5]"},
      {"9223372036854775807", "9223372036854775807"},
      {"-9223372036854775807", "-9223372036854775807"},
      {"9223372036854775808", "9223372036854775808"},
      {"-99999999999999999999999", "-99999999999999999999999"},
      {"1e2", "1e+02"},
      {"1E+2", "1e+02"},
      {"0.1", "0.1"},
      {"5e-324", "5e-324"},
      {"1e-999", "0.0"},
      {"1.7976931348623157e308", "1.7976931348623157e+308"},
      {"1.8e308", nullptr},
      {"{\"b\":1,\"a\":{}}", "{\"a\":{},\"b\":1}"},
      {"{\"a\":1,\"\\u0061\":1}", nullptr},
      {"\"\\ud83d\\ude00\"", "\"\\ud83d\\ude00\""},
      {"\"\xf0\x9f\x98\x80\"", "\"\\ud83d\\ude00\""},
      {"\"\\ud83d\"", "\"\\ud83d\""},
      {"\"\\ude00\\ud83d\"", "\"\\ude00\\ud83d\""},
      {"\"\\ud83d\\u0041\"", "\"\\ud83dA\""},
      {"\"\xed\xa0\x80\"", nullptr},      // a surrogate as bytes
      {"\"\xc0\x80\"", nullptr},          // NUL in two bytes
      {"\"\xf4\x90\x80\x80\"", nullptr},  // above the last character
      {"\"\xe2\x82\"", nullptr},          // cut short
      {"\"\x80\"", nullptr},
      {"\"\\u12g4\"", nullptr},
      {"\"\\u123", nullptr},
      {"\"\\x41\"", nullptr},
      {"\"\\", nullptr},
      {"\"a", nullptr},
      {"\"\t\"", nullptr},
      {"\"\\/\\b\\f\\n\\r\\t\\\\\\\"\"", "\"/\\u0008\\u000c\\u000a\\u000d\\u0009\\\\\\\"\""},
      {std::string("\"a\0\"", 4), nullptr},
      {std::string("1\0", 2), nullptr},
      {"\xef\xbb\xbf"
       "1",
       nullptr},
      {"01", nullptr},
      {"-", nullptr},
      {"+1", nullptr},
      {"1.", nullptr},
      {".5", nullptr},
      {"1e", nullptr},
      {"1e+", nullptr},
      {"tru", nullptr},
      {"True", nullptr},
      {"NaN", nullptr},
      {"[1,]", nullptr},
      {"[1 2]", nullptr},
      {"{\"a\" 1}", nullptr},
      {"{\"a\":1,}", nullptr},
      {"{1:1}", nullptr},
      {"", nullptr},
      {"1 1", nullptr},
      {std::string(1000, '[') + std::string(1000, ']'), "*"},
      {std::string(1001, '[') + std::string(1001, ']'), nullptr},
      {std::string(4300, '9'), "*"},
      {std::string(4301, '9'), nullptr},
  };
  for (const auto& [text, wanted] : cases) {
    try {
      const std::string found = Json::parse(text).dump();
      const std::string same = wanted == nullptr || *wanted != '*' ? "" : text;
      checks.that(wanted != nullptr && found == (same.empty() ? wanted : same), "JSON " + text,
                  found);
    } catch (const JsonError& error) {
      checks.that(wanted == nullptr, "JSON " + text, error.what());
    }
  }
}

void check_text(Checks& checks) {
  checks.that(pointer("/a", "b/c~d") == "/a/b~1c~0d", "escapes of a pointer");
  checks.that(is_printable("Bl\xc3\xb6"
                           "cke \xe5\x9d\x97"),
              "letters are printable");
  checks.that(!is_printable("a\xc2\xa0"), "a no-break space is not printable");
  checks.that(!is_printable("\xee\x80\x80"), "private use is not printable");
  checks.that(!is_printable("\xf4\x8f\xbf\xbf"), "the last character is not printable");
  checks.that(!is_printable("\xed\xa0\x80"), "a surrogate is not printable");
  checks.that(count_chars("\xf0\x9f\x98\x80\xc3\xb6"
                          "a") == 3,
              "characters of several bytes");
  for (char32_t code = 0; code <= 0x10ffff; code += 0x7f) {
    std::string text;
    append_char(text, code);
    size_t at = 0;
    checks.that(next_char(text, at) == code && at == text.size(), "a character and back");
  }
  const Error error(ErrorCode::input, "fact", "wish", "remedy");
  checks.that(std::strcmp(error.what(), "fact\n  Expected: wish\n  Do: remedy") == 0,
              "an error in three lines", error.what());
}

void check_trust(Checks& checks) {
  EngineSpec engine;
  engine.requires_.host_code = true;
  engine.data.sha256 = sha256("engine", 6);
  engine.parts.emplace();
  engine.parts->engines.emplace_back();
  engine.parts->engines[0].engine.data.sha256 = sha256("part", 4);
  const auto code = [&](const Policy& policy) {
    return host_code_verdict(engine, policy, Verdict::yes()).code;
  };
  Policy none, given;
  none.trust.emplace();
  given.trust = {"host-code"};
  checks.that(code({}) == VerdictCode::untrusted_code, "host code without trust");
  mark_trusted(engine.data.sha256);
  checks.that(code({}) == VerdictCode::untrusted_code, "the program alone is trusted");
  mark_trusted(engine.parts->engines[0].engine.data.sha256);
  checks.that(code({}) == VerdictCode::ok, "the program and its part are trusted");
  checks.that(code(none) == VerdictCode::untrusted_code, "a policy withdraws trust");
  checks.that(code(given) == VerdictCode::ok, "a policy gives trust");
  const Verdict no = Verdict::no(VerdictCode::wrong_gpu, "another");
  checks.that(host_code_verdict(engine, none, no).code == no.code, "a no stays what it is");
}

void check_machine(Checks& checks) {
  std::istringstream text(
      "processor\t: 0\nflags\t\t: fpu sse2 avx2 fma hypervisor\n"
      "processor\t: 1\nflags\t\t: fpu sse2 avx2 avx512f\nbugs : none\n");
  const std::set<std::string> both = {"avx2", "sse2"};
  checks.that(cpu_features(text) == both, "what both cores have");
  std::istringstream empty("processor : 0\n");
  checks.that(!cpu_features(empty), "no list of features");
  checks.that(arch_name("AMD64") == "x86_64" && arch_name("arm64") == "aarch64", "names of CPUs");
  const Machine machine = this_machine();
  checks.that(machine.os.has_value() && machine.arch.has_value(), "this machine has a name");
}

}  // namespace
}  // namespace portrt::tests

int main() {
  using namespace portrt::tests;
  Checks checks;
  check_digests(checks);
  check_json(checks);
  check_text(checks);
  check_trust(checks);
  check_machine(checks);
  return checks.status();
}
