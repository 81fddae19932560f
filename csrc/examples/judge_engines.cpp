// Prints which engines of a block could run on this machine: `judge_engines MANIFEST [DEVICE]`.
#include <fstream>
#include <iostream>
#include <iterator>

#include "core/error.h"
#include "core/format/manifest.h"
#include "core/runtime/choice.h"
#include "core/targets/requirements.h"
#include "core/targets/this_machine.h"

int main(int count, char** arguments) try {
  if (count < 2) {
    std::cerr << "usage: judge_engines MANIFEST [cpu|cuda]\n";
    return 2;
  }
  std::ifstream file(arguments[1], std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const std::string device = count > 2 ? arguments[2] : "cpu";

  const portrt::Manifest manifest = portrt::decode(text);
  const portrt::Machine machine = portrt::this_machine();
  const portrt::Policy policy = portrt::effective_policy(manifest.policy, {});
  std::vector<std::pair<std::string, portrt::Verdict>> verdicts;
  for (const portrt::EngineSpec& engine : manifest.engines) {
    const auto on_machine = [&] {
      return portrt::check_requirements(engine.backend, engine.requires_, machine, device);
    };
    const portrt::Verdict verdict = portrt::engine_verdict(engine, policy, device, on_machine);
    std::cout << engine.backend << ": " << verdict.text() << "\n";
    verdicts.emplace_back(engine.backend, verdict);
  }
  const portrt::Choice choice = portrt::choose(verdicts, policy, manifest.source.has_value());
  std::cout << manifest.name
            << " runs as: " << (choice.name.empty() ? choice.verdict.text() : choice.name) << "\n";
} catch (const portrt::Error& error) {
  std::cerr << portrt::error_name(error.code()) << ": " << error.what() << "\n";
  return 1;
}
