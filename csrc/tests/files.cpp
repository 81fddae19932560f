// Files that portrt saved under several releases of torch, and changed copies of them:
// `files COUNT FOLDER`.
#include <algorithm>
#include <filesystem>
#include <vector>

#include "core/error.h"
#include "core/format/engine_calls.h"
#include "core/format/mapped_file.h"
#include "core/format/one_call.h"
#include "core/format/weights_image.h"
#include "core/format/zip_directory.h"
#include "tests/changes.h"
#include "tests/check.h"

namespace portrt::tests {
namespace {

// Everything in a file that is read before an engine is opened; the digests tell whether it is
// what was written. Returns the number of engines.
size_t read_all(const void* data, uint64_t size, const std::string& label) {
  const Archive archive(data, size, label);
  const Json model = archive.json(kModelRecord);
  size_t engines = 0;
  for (const EngineCall& call : engine_calls(archive, model)) {
    for (const auto& [name, blob] : labelled_blobs(call.manifest)) {
      const std::string_view bytes = archive.bytes(call.blobs[blob.index]);
      check_digest(bytes.data(), bytes.size(), blob, name);
    }
    if (call.manifest.weights) {
      const Record& record = call.blobs[call.manifest.weights->index];
      const std::string_view bytes = archive.bytes(record);
      const WeightsImage image(bytes.data(), bytes.size());
      for (const std::string& name : call.manifest.source_weights) image.entry(name);
      for (const EngineSpec& engine : call.manifest.engines) {
        for (const std::string& name : engine.weights) image.entry(name);
      }
    }
    if (call.manifest.source) {
      const std::string_view source = archive.bytes(call.blobs[call.manifest.source->index]);
      const Archive nested(source.data(), source.size(), "the source");
      nested.json(kModelRecord);
    }
    engines += call.manifest.engines.size();
  }
  return engines;
}

// A file with a few bytes changed. Most changes are in the directory and the end, which few bytes
// of a file are.
std::string changed_file(std::string found, Random& random) {
  for (size_t left = random.below(3) + 1; left > 0 && !found.empty(); --left) {
    const size_t span = random.below(3) == 0 ? found.size() : std::min<size_t>(found.size(), 1500);
    const size_t at = found.size() - span + random.below(span);
    switch (random.below(5)) {
      case 0: found[at] = static_cast<char>(random.below(256)); break;
      case 1: found[at] = static_cast<char>(random.below(2) == 0 ? 0 : 0xff); break;
      case 2: found.erase(at, random.below(40) + 1); break;
      case 3:
        found.insert(at, found.substr(random.below(found.size()), random.below(40) + 1));
        break;
      default:
        if (random.below(4) == 0) found.resize(at);
    }
  }
  return found;
}

struct Outcomes {
  size_t taken = 0, refused = 0;
};

// Each ends well, or with an error of files; any other exception ends the run.
template <class Read>
void run_one(Read read, const std::string& what, Outcomes& outcomes, Checks& checks) {
  try {
    read();
    ++outcomes.taken;
  } catch (const Error& error) {
    ++outcomes.refused;
    const bool is_of_files = error.code() == ErrorCode::load || error.code() == ErrorCode::package;
    checks.that(is_of_files && !error.happened().empty(), what, error.what());
  }
}

// The program of a file with its JSON changed, whose CRC-32 would not show it.
Json changed_program(const Archive& archive, Random& random) {
  const std::vector<std::string> texts = {std::string(archive.read(kModelRecord))};
  const std::string text = changed(texts[0], texts, random);
  try {
    return Json::parse(text);
  } catch (const JsonError& error) {
    throw Error(ErrorCode::load, error.what(), "JSON", kFileRemedy);
  }
}

void check_missing(Checks& checks, const std::string& folder) {
  for (const std::string& path : {folder + "/absent.pt2", folder}) {
    try {
      const MappedFile file(path);
      checks.that(false, path, "it is mapped");
    } catch (const Error& error) {
      checks.that(error.code() == ErrorCode::load, path, error.what());
    }
  }
  checks.that(crc32("123456789", 9) == 0xcbf43926, "the check value of CRC-32");
}

int run(size_t count, const std::string& folder) {
  Checks checks;
  check_missing(checks, folder);
  std::vector<std::string> originals;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".pt2") continue;
    const MappedFile file(entry.path().string());
    const size_t engines = read_all(file.data(), file.size(), file.path());
    checks.that(engines > 0, file.path(), "it has no engines");
    originals.emplace_back(reinterpret_cast<const char*>(file.data()), file.size());
  }
  std::sort(originals.begin(), originals.end());  // a folder has no order
  checks.that(!originals.empty(), folder, "it has no files");
  Random random(15);
  Outcomes files, programs, calls;
  for (size_t index = 0; index < count && !originals.empty(); ++index) {
    const std::string& original = originals[index % originals.size()];
    const std::string bytes = changed_file(original, random);
    const std::vector<char> exact(bytes.begin(), bytes.end());
    run_one([&] { read_all(exact.data(), exact.size(), "a changed file"); }, "a changed file",
            files, checks);
    const Archive archive(original.data(), original.size(), "a file");
    run_one([&] { engine_calls(archive, changed_program(archive, random)); }, "a changed program",
            programs, checks);
    run_one([&] { one_call(archive, changed_program(archive, random)); }, "a changed single call",
            calls, checks);
  }
  for (const auto& [what, outcomes] : {std::pair{"files", files},
                                      {"programs", programs},
                                      {"single calls", calls}}) {
    std::cout << "changed " << what << ": " << outcomes.taken << " taken, " << outcomes.refused
              << " refused\n";
    checks.that(count == 0 || (outcomes.taken > 0 && outcomes.refused > 0), what,
                "all are taken, or none");
  }
  return checks.status();
}

}  // namespace
}  // namespace portrt::tests

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: files COUNT FOLDER\n";
    return 2;
  }
  return portrt::tests::run(std::stoul(arguments[1]), arguments[2]);
}
