// The cases of conformance/*.json: `conformance NAME FILE`.
#include <functional>
#include <map>

#include "tests/cases.h"

namespace portrt::tests {
namespace {

using Check = std::function<void(const Json&, const std::string&, Checks&)>;

const std::map<std::string, Check> kChecks = {
    {"manifests", check_manifest},       {"size_expressions", check_size_expression},
    {"requirements", check_requirement}, {"policies", check_policy},
    {"weights", check_weights},          {"calls", check_call},
};

int run(const std::string& kind, const std::string& path) {
  const Json cases = Json::parse(read_file(path));
  Checks checks;
  for (const Json& given : *cases.array()) {
    kChecks.at(kind)(given, text_field(given, "name"), checks);
  }
  std::cout << cases.array()->size() << " cases, ";
  return checks.status();
}

}  // namespace
}  // namespace portrt::tests

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: conformance NAME FILE\n";
    return 2;
  }
  return portrt::tests::run(arguments[1], arguments[2]);
}
