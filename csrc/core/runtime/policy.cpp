#include "core/runtime/policy.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "core/format/fields.h"
#include "core/targets/backends.h"
#include "core/targets/trust.h"
#include "core/text.h"

namespace portrt {
namespace {

using Names = std::vector<std::string>;

const Names kFallbacks = {"eager", "error", "inductor"};
const Names kRebuilds = {"never", "missing"};
const Names kChecks = {"first-open", "off"};
const Names kSelects = {"first", "measured"};
const Names kTrusts = {kHostCode, kPickle};

Error settings_error(std::string happened, std::string expected, std::string remedy) {
  return Error(ErrorCode::settings, std::move(happened), std::move(expected), std::move(remedy));
}

std::string choices(const Names& names) {
  Names found;
  for (const std::string& name : names) found.push_back(quoted(name));
  return "one of " + joined(found, ", ");
}

Names backend_names() {
  Names found;
  for (const BackendInfo& row : known_backends()) found.push_back(row.name);
  return found;
}

void check_one(const char* field, const std::optional<std::string>& value, const Names& allowed) {
  if (!value || contains(allowed, *value)) return;
  throw settings_error(std::string(field) + " is " + quoted(*value), choices(allowed),
                       std::string("choose a ") + field + " from the list");
}

void check_names(const char* what, const std::optional<Names>& given, const Names& known) {
  for (const std::string& name : given.value_or(Names())) {
    if (contains(known, name)) continue;
    throw settings_error(std::string("a policy names the ") + what + " " + quoted(name),
                         choices(known), "correct the name");
  }
}

std::string stripped(const std::string& text) {
  const char* const spaces = " \t\n\r\f\v";
  const size_t first = text.find_first_not_of(spaces);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(spaces) + 1 - first);
}

// The names of a list with commas.
Names listed(const std::string& text) {
  Names found;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string name = stripped(text.substr(at, end - at));
    if (!name.empty()) found.push_back(name);
    at = end + 1;
  }
  return found;
}

int64_t number_of(const std::string& text) {
  const std::string digits = stripped(text);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos) {
    return -1;  // refused by `validate`
  }
  int64_t found = 0;
  for (char digit : digits) {
    if (found > (INT64_MAX - 9) / 10) return INT64_MAX;  // more than any engine keeps
    found = found * 10 + (digit - '0');
  }
  return found;
}

bool flag_of(const std::string& text) {
  if (text == "0" || text == "1") return text == "1";
  throw settings_error("background is " + quoted(text), "1 or 0", "give one of them");
}

Policy of_environment(const Environment& environment) {
  std::string given;
  const auto value_of = [&](const char* name) {
    const std::optional<std::string> value = environment(name);
    if (value) given += (given.empty() ? "" : ", ") + std::string(name) + "=" + quoted(*value);
    return value;
  };
  // An empty variable is none, except the list of engines, which then allows none.
  const auto text_of = [&](const char* name) -> std::optional<std::string> {
    std::optional<std::string> value = value_of(name);
    return value && value->empty() ? std::nullopt : value;
  };
  Policy found;
  found.fallback = text_of("PORTRT_FALLBACK");
  if (const auto text = value_of("PORTRT_ENGINES")) found.engines = listed(*text);
  found.rebuild = text_of("PORTRT_REBUILD");
  if (const auto text = value_of("PORTRT_TRUST")) {
    found.trust = listed(*text);
    if (found.trust->empty()) found.trust.reset();
  }
  if (const auto text = text_of("PORTRT_CUDA_GRAPHS")) found.cuda_graphs = number_of(*text);
  found.check = text_of("PORTRT_CHECK");
  found.select = text_of("PORTRT_SELECT");
  const std::string background = stripped(value_of("PORTRT_BACKGROUND").value_or(""));
  try {
    if (!background.empty()) found.background = flag_of(background);
    found.validate();
  } catch (const Error& error) {
    throw settings_error("the environment has " + given + ": " + error.happened(), error.expected(),
                         "correct or unset the variable");
  }
  return found;
}

// A text of a file if it is one of these; a value of another version is none.
std::optional<std::string> known_text(const Json* value, const Names& allowed) {
  if (value == nullptr || !value->string() || !contains(allowed, *value->string())) {
    return std::nullopt;
  }
  return *value->string();
}

Policy of_manifest(const Json& stored) {
  Policy found;
  found.fallback = known_text(stored.find("fallback"), {"eager", "error"});
  if (found.fallback == "eager" && known_text(stored.find("compile_fallback"), {"inductor"})) {
    found.fallback = "inductor";
  }
  if (const Json* engines = stored.find("engines"); engines != nullptr && engines->array()) {
    found.engines = Names();
    for (const Json& name : *engines->array()) {
      if (const auto known = known_text(&name, backend_names())) found.engines->push_back(*known);
    }
  }
  if (const Json* rebuild = stored.find("rebuild"); rebuild != nullptr && !rebuild->is_null()) {
    found.rebuild = known_text(rebuild, kRebuilds).value_or("never");
  }
  if (const Json* graphs = stored.find("cuda_graphs"); graphs != nullptr) {
    if (graphs->integer() != nullptr && *graphs->integer() >= 0)
      found.cuda_graphs = *graphs->integer();
  }
  found.check = known_text(stored.find("check"), kChecks);
  found.select = known_text(stored.find("select"), kSelects);
  if (const Json* flag = stored.find("background"); flag != nullptr && flag->boolean()) {
    found.background = *flag->boolean();
  }
  return found;
}

[[noreturn]] void refuse(const std::string& key, const Json& value, const std::string& expected) {
  throw settings_error(key + " is " + value.brief(), expected, "give such a value");
}

std::string given_text(const std::string& key, const Json& value) {
  if (!value.string()) refuse(key, value, "a text");
  return *value.string();
}

// One name, or a list of names.
Names given_names(const std::string& key, const Json& value) {
  if (value.string()) return {*value.string()};
  if (!value.array()) refuse(key, value, "names");
  Names found;
  for (const Json& name : *value.array()) found.push_back(given_text(key, name));
  return found;
}

}  // namespace

Policy Policy::over(const Policy& other) const {
  Policy found = other;
  if (fallback) found.fallback = fallback;
  if (engines) found.engines = engines;
  if (rebuild) found.rebuild = rebuild;
  if (trust) found.trust = trust;
  if (cuda_graphs) found.cuda_graphs = cuda_graphs;
  if (check) found.check = check;
  if (select) found.select = select;
  if (background) found.background = background;
  return found;
}

void Policy::validate() const {
  check_one("fallback", fallback, kFallbacks);
  check_one("rebuild", rebuild, kRebuilds);
  check_one("check", check, kChecks);
  check_one("select", select, kSelects);
  check_names("engine", engines, backend_names());
  check_names("trust", trust, kTrusts);
  if (cuda_graphs && *cuda_graphs < 0) {
    throw settings_error(
        "cuda_graphs is " + std::to_string(*cuda_graphs),
        "the number of CUDA graphs that an engine may keep, such as 8, or 0 for none",
        "give such a number");
  }
}

Policy read_policy(const Json& fields) {
  if (!fields.object()) refuse("a policy", fields, "a JSON object");
  Policy found;
  for (const auto& [key, value] : *fields.object()) {
    if (value.is_null()) continue;
    if (key == "fallback") {
      found.fallback = given_text(key, value);
    } else if (key == "engines") {
      found.engines = given_names(key, value);
    } else if (key == "rebuild") {
      found.rebuild = given_text(key, value);
    } else if (key == "trust") {
      found.trust = given_names(key, value);
    } else if (key == "cuda_graphs") {
      if (!value.integer()) refuse(key, value, "a number of CUDA graphs");
      found.cuda_graphs = *value.integer();
    } else if (key == "check") {
      found.check = given_text(key, value);
    } else if (key == "select") {
      found.select = given_text(key, value);
    } else if (key == "background") {
      if (!value.boolean()) refuse(key, value, "true or false");
      found.background = *value.boolean();
    } else {
      throw settings_error("a policy has the field " + quoted(key),
                           "fallback, engines, rebuild, trust, cuda_graphs, check, select or "
                           "background",
                           "correct the name");
    }
  }
  found.validate();
  return found;
}

std::optional<std::string> process_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

Policy effective_policy(const Json& stored, const Policy& call, const Environment& environment) {
  call.validate();
  Policy fallback;
  fallback.fallback = "eager";
  fallback.rebuild = "never";
  fallback.check = "off";
  fallback.select = "first";
  fallback.background = false;
  return call.over(of_manifest(stored)).over(of_environment(environment)).over(fallback);
}

}  // namespace portrt
