#include "core/format/engine_calls.h"

#include <map>

#include "core/error.h"
#include "core/format/fields.h"
#include "core/format/graph_json.h"

namespace portrt {
namespace {

using Names = std::map<std::string, std::string>;

const Json* graph_of(const Json& input) { return member(input, "arg").find("as_graph"); }

// The name of an operand; "" for a number and for what has none.
std::string operand_name(const Json& item) {
  if (item.object() == nullptr || item.object()->empty()) return "";
  const Json* found = item.find("name");
  if (found == nullptr) found = (*item.object())[0].value.find("name");
  return found == nullptr || found->string() == nullptr ? "" : *found->string();
}

// The name of each operand in an argument, which is an object with one value, or with a list.
void add_operands(const Json& argument, std::vector<std::string>& names) {
  if (argument.object() == nullptr) throw UnknownForm{argument.brief() + " is no argument"};
  for (const Json::Member& entry : *argument.object()) {
    if (entry.value.array() == nullptr) {
      names.push_back(operand_name(entry.value));
      continue;
    }
    for (const Json& item : *entry.value.array()) names.push_back(operand_name(item));
  }
}

struct Call {
  std::string text;
  std::vector<std::string> blobs;  // their names in the top graph
};

std::string outer_name(const Names& outer, const std::string& name) {
  const auto found = outer.find(name);
  return found == outer.end() ? name : found->second;
}

Call call_of(const Json& node, const Names& outer) {
  const Json *blobs = nullptr, *manifest = nullptr;
  for (const Json& input : list(member(node, "inputs"))) {
    const std::string& name = text(member(input, "name"));
    if (name == "blobs") blobs = &member(input, "arg");
    if (name == "manifest") manifest = &member(input, "arg");
  }
  if (blobs == nullptr || manifest == nullptr) throw UnknownForm{"a call without its arguments"};
  Call found;
  found.text = text(member(*manifest, "as_string"));
  const Json* tensors = blobs->find("as_tensors");
  if (tensors != nullptr && !tensors->is_null()) {
    for (const Json& tensor : list(*tensors)) {
      found.blobs.push_back(outer_name(outer, text(member(tensor, "name"))));
    }
  }
  return found;
}

// The calls of a graph and of the graphs inside it; `outer` maps names of this graph to those of
// the top graph.
void add_calls(const Json& graph, const Names& outer, std::vector<Call>& calls) {
  for (const Json& node : list(member(graph, "nodes"))) {
    if (text(member(node, "target")) == kOperator) calls.push_back(call_of(node, outer));
    std::vector<const Json*> inner;
    std::vector<std::string> given;  // operands behind the first graph
    for (const Json& input : list(member(node, "inputs"))) {
      if (const Json* nested = graph_of(input)) {
        inner.push_back(&member(*nested, "graph"));
      } else if (!inner.empty()) {
        add_operands(member(input, "arg"), given);
      }
    }
    for (const Json* nested : inner) {
      std::vector<std::string> own;
      for (const Json& item : list(member(*nested, "inputs"))) add_operands(item, own);
      Names known;
      for (size_t index = 0; index < own.size() && index < given.size(); ++index) {
        if (own[index].empty() || given[index].empty()) continue;
        known[own[index]] = outer_name(outer, given[index]);
      }
      add_calls(*nested, known, calls);
    }
  }
}

// Name of each tensor constant in the top graph -> its name in the program.
Names constant_names(const Json& specs) {
  Names found;
  for (const Json& spec : list(specs)) {
    const Json* constant = spec.find("tensor_constant");
    if (constant == nullptr) continue;
    const std::string& name = text(member(member(*constant, "arg"), "name"));
    found[name] = text(member(*constant, "tensor_constant_name"));
  }
  return found;
}

std::map<std::string, Record> constant_records(const Archive& archive) {
  const Json raw = archive.json(kConstantsConfig);
  const Json& config = member(raw, "config");
  if (config.object() == nullptr) throw UnknownForm{"constants that are no object"};
  std::map<std::string, Record> found;
  for (const Json::Member& entry : *config.object()) {
    const std::string& path = text(member(entry.value, "path_name"));
    found[entry.key] = archive.record(kConstantsFolder + path);
  }
  return found;
}

std::vector<Record> records_of(const Call& call, const Names& names,
                               const std::map<std::string, Record>& constants,
                               const std::string& block) {
  std::vector<Record> found;
  for (const std::string& blob : call.blobs) {
    const auto name = names.find(blob);
    const auto record = name == names.end() ? constants.end() : constants.find(name->second);
    if (record == constants.end()) {
      throw Error(
          ErrorCode::package,
          "a blob of block " + quoted(block) + " is not a constant of the program: " + quoted(blob),
          "a uint8 constant", kFileRemedy);
    }
    found.push_back(record->second);
  }
  return found;
}

}  // namespace

std::vector<EngineCall> engine_calls(const Archive& archive, const Json& model) {
  std::vector<Call> calls;
  Names names;
  std::map<std::string, Record> constants;
  try {
    const Json& module = member(model, "graph_module");
    add_calls(member(module, "graph"), {}, calls);
    if (!calls.empty()) names = constant_names(member(member(module, "signature"), "input_specs"));
    constants = constant_records(archive);
  } catch (const UnknownForm& form) {
    throw Error(ErrorCode::load,
                quoted(archive.label()) + " has a graph of an unknown form: " + form.what,
                "a graph as torch.export writes it", "load it with torch.export.load");
  }
  std::vector<EngineCall> found;
  for (Call& call : calls) {
    Manifest manifest = decode(call.text);
    std::vector<Record> blobs = records_of(call, names, constants, manifest.name);
    std::vector<uint64_t> sizes;
    for (const Record& blob : blobs) sizes.push_back(blob.size);
    check_blob_sizes(manifest, sizes);
    found.push_back({std::move(call.text), std::move(manifest), std::move(blobs)});
  }
  return found;
}

std::vector<EngineCall> engine_calls(const Archive& archive) {
  return engine_calls(archive, archive.json(kModelRecord));
}

}  // namespace portrt
