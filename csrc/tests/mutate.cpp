// Changed manifests and weights images, always the same ones: each is read, or refused with an
// error of ours. `mutate COUNT MANIFESTS [SEED]`; built with sanitizers, it also finds what those
// see.
#include <algorithm>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/format/manifest.h"
#include "core/format/weights_image.h"
#include "core/runtime/choice.h"
#include "core/runtime/input_check.h"
#include "core/runtime/policy.h"
#include "core/targets/requirements.h"
#include "tests/changes.h"
#include "tests/check.h"

namespace portrt::tests {
namespace {

struct Outcomes {
  int taken = 0, refused = 0;
};

// Everything that is done with a manifest before an engine is opened.
void use(const Manifest& manifest, Random& random) {
  const Signature signature = manifest.signature();
  std::vector<std::vector<int64_t>> sizes;
  std::vector<InputInfo> inputs;
  const int64_t kSizes[] = {0, 1, 2, 3, 4, 8, 1000, INT64_MAX};
  for (const InputSpec& spec : signature.inputs) {
    sizes.emplace_back();
    for (size_t axis = 0; axis < spec.shape.size(); ++axis) {
      const Size& size = spec.shape[axis];
      const int64_t* fixed = std::get_if<int64_t>(&size);
      const Dimension* range = std::get_if<Dimension>(&size);
      sizes.back().push_back(fixed ? *fixed : range ? range->opt : random.one_of(kSizes));
    }
  }
  for (size_t index = 0; index < sizes.size(); ++index) {
    inputs.push_back({signature.inputs[index].dtype,
                      {sizes[index].data(), sizes[index].size()},
                      random.below(9) == 0 ? "cuda:0" : "cpu"});
  }
  Machine machine;
  machine.os = "linux";
  machine.compute_capability = "8.9";
  machine.versions = {{"onnxruntime", "1.23"}, {"tensorrt", "10.13.3.9"}};
  const Policy policy = effective_policy(manifest.policy, {},
                                         [](const char*) { return std::optional<std::string>(); });
  std::vector<std::pair<std::string, Verdict>> verdicts;
  for (const EngineSpec& engine : manifest.engines) {
    verdicts.emplace_back(engine.backend, engine_verdict(engine, policy, "cuda", [&] {
                            return check_requirements(engine.backend, engine.requires_, machine,
                                                      "cuda");
                          }));
    has_zero_size(engine.requires_.nonzero_sizes, inputs);
  }
  choose(verdicts, policy, manifest.source.has_value());
  output_shapes(signature, inputs);
  check_inputs(signature, inputs);
  check_blob_sizes(manifest, std::vector<uint64_t>(manifest.blob_count, 64));
}

template <class Use>
void run_one(Use use_it, const std::string& what, Outcomes& outcomes, Checks& checks) {
  try {
    use_it();
    ++outcomes.taken;
  } catch (const Error& error) {
    ++outcomes.refused;
    const bool has_texts =
        !error.happened().empty() && !error.expected().empty() && !error.remedy().empty();
    checks.that(has_texts, what, error.what());
  }  // any other exception ends the run
}

std::string image_of(const std::string& header, size_t data) {
  std::string found(8, '\0');
  for (size_t index = 0; index < 8; ++index) {
    found[index] = static_cast<char>(header.size() >> (8 * index) & 0xff);
  }
  return found + header + std::string(data, 'd');
}

void read_image(const std::string& bytes) {
  // Exactly as long as the image: a read beyond it is seen.
  const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
  const WeightsImage image(exact.data(), exact.size());
  unsigned sum = 0;
  for (const WeightEntry& entry : image.entries()) {
    for (uint64_t at = 0; at < entry.size; ++at) sum += image.bytes(entry)[at];
  }
  if (sum == 1) throw std::logic_error("the bytes are all 'd' or changed ones");
  image.entry("b");
}

int run(size_t count, const std::string& path, uint32_t seed) {
  Checks checks;
  std::vector<std::string> texts;
  const Json cases = Json::parse(read_file(path));
  for (const Json& given : *cases.array()) {
    const std::string text = manifest_text(field(given, "manifest"));
    if (*field(given, "valid").boolean() && text.size() < 20000) texts.push_back(text);
  }
  Random random(seed);
  Outcomes manifests, calls, images;
  for (size_t index = 0; index < count; ++index) {
    const std::string text = changed(random.one_of(texts), texts, random);
    std::optional<Manifest> manifest;
    run_one([&] { manifest = decode(text); }, text, manifests, checks);
    if (manifest) run_one([&] { use(*manifest, random); }, text, calls, checks);
  }
  const std::string header =
      R"({"__metadata__":{"a":"b"},"a":{"dtype":"F64","shape":[2,3],"data_offsets":[0,48]},)"
      R"("b":{"dtype":"BF16","shape":[0],"data_offsets":[48,48]},)"
      R"("c":{"dtype":"U8","shape":[],"data_offsets":[48,49]}} )";
  const std::vector<std::string> headers = {header};
  for (size_t index = 0; index < count; ++index) {
    std::string bytes = image_of(changed(header, headers, random), 49);
    if (random.below(4) == 0) bytes.resize(random.below(bytes.size() + 1));
    if (random.below(4) == 0 && bytes.size() >= 8) {
      bytes[random.below(8)] = static_cast<char>(random.below(256));
    }
    run_one([&] { read_image(bytes); }, "an image", images, checks);
  }
  for (const auto& [what, outcomes] :
       {std::pair{"manifests", manifests}, {"calls", calls}, {"images", images}}) {
    std::cout << what << ": " << outcomes.taken << " taken, " << outcomes.refused << " refused\n";
    checks.that(outcomes.taken > 0 && outcomes.refused > 0, what, "all are taken, or none");
  }
  return checks.status();
}

}  // namespace
}  // namespace portrt::tests

int main(int count, char** arguments) {
  if (count < 3) {
    std::cerr << "usage: mutate COUNT MANIFESTS [SEED]\n";
    return 2;
  }
  const uint32_t seed = count > 3 ? static_cast<uint32_t>(std::stoul(arguments[3])) : 0;
  return portrt::tests::run(std::stoul(arguments[1]), arguments[2], seed);
}
