// Verdicts: a yes, or a no with its code, reason and remedy.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace portrt {

// The codes of an engine, a source or a backend, in the order of docs/format.md.
enum class VerdictCode {
  ok,
  policy,
  unknown_backend,
  wrong_device,
  wrong_platform,
  no_gpu,
  wrong_gpu,
  driver_too_old,
  library_missing,
  library_version,
  requirement_missing,
  untrusted_code,
  source_missing,
  open_failed,
  check_failed,
  no_builder,
  build_failed,
};

const char* code_name(VerdictCode code);
std::optional<VerdictCode> code_named(std::string_view name);

struct Verdict {
  VerdictCode code = VerdictCode::ok;
  std::string reason;  // reason of a no, or what was found for a yes; one line
  std::string remedy;  // what would turn a no into a yes; empty if nothing would

  static Verdict yes(std::string found = "") { return {VerdictCode::ok, std::move(found), ""}; }
  static Verdict no(VerdictCode code, std::string reason, std::string remedy = "") {
    return {code, std::move(reason), std::move(remedy)};
  }

  explicit operator bool() const { return code == VerdictCode::ok; }

  // Such as "no: onnxruntime is not installed (pip install onnxruntime)".
  std::string text() const;
};

}  // namespace portrt
