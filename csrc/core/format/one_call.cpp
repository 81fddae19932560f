#include "core/format/one_call.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/format/graph_json.h"
#include "core/text.h"

namespace portrt {
namespace {

constexpr int64_t kSchema = 8;  // major version of torch's schema that is read here
constexpr int64_t kUint8 = 1;   // in it

// What makes the program another one than a single call.
struct OtherForm {
  std::string what;
};

void require(bool holds, const std::string& what) {
  if (!holds) throw OtherForm{what};
}

const Json::Member& only(const Json& object) {
  if (object.object() == nullptr || object.object()->size() != 1) {
    throw UnknownForm{object.brief() + " has not one field"};
  }
  return (*object.object())[0];
}

// The names in a list of tensors, which may be absent.
std::vector<std::string> tensor_names(const Json& argument) {
  std::vector<std::string> found;
  const Json* tensors = argument.find("as_tensors");
  if (tensors == nullptr || tensors->is_null()) return found;
  for (const Json& tensor : list(*tensors)) found.push_back(text(member(tensor, "name")));
  return found;
}

std::string node_name(const Json& node) {
  const Json* name = node.find("name");
  if (name != nullptr && name->string() != nullptr) return *name->string();
  const Json* outputs = node.find("outputs");
  if (outputs == nullptr || outputs->array() == nullptr || outputs->array()->empty()) return "";
  const Json& first = (*outputs->array())[0];
  const Json* one = first.find("as_tensor");
  if (one != nullptr) return text(member(*one, "name"));
  const std::vector<std::string> several = tensor_names(first);
  return several.empty() ? "" : several[0];
}

// The only node, which calls the engine.
const Json& only_node(const Json& graph) {
  const Json* found = nullptr;
  std::vector<std::string> calls;
  for (const Json& node : list(member(graph, "nodes"))) {
    const std::string& target = text(member(node, "target"));
    if (target != kOperator) {
      const std::string name = node_name(node);
      throw OtherForm{"it calls " + target + (name.empty() ? "" : ", at " + quoted(name))};
    }
    found = &node;
    calls.push_back(quoted(node_name(node)));
  }
  require(calls.size() == 1, "it has " + std::to_string(calls.size()) + " engine calls" +
                                 (calls.empty() ? "" : ": " + joined(calls, ", ")));
  return *found;
}

// The arguments of the program, whose other placeholders are the constants of the call.
std::vector<std::string> argument_names(const Json& specs) {
  std::vector<std::string> found;
  for (const Json& spec : list(specs)) {
    const Json::Member& entry = only(spec);
    if (entry.key == "tensor_constant") continue;
    if (entry.key != "user_input") {
      const Json* arg = entry.value.find("arg");
      const Json* name = (arg == nullptr ? entry.value : *arg).find("name");
      const std::string which = name == nullptr ? "" : " " + name->brief();
      throw OtherForm{"it has the " + entry.key + which + " beside its engine"};
    }
    const Json& argument = member(entry.value, "arg");
    const Json* tensor = argument.find("as_tensor");
    require(tensor != nullptr, "an argument is no tensor: " + argument.brief());
    found.push_back(text(member(*tensor, "name")));
  }
  return found;
}

const Json& value_of(const Json& graph, const std::string& name) {
  return member(member(graph, "tensor_values"), name.c_str());
}

bool is_integer(const Json& value, int64_t wanted) {
  const Json* found = value.find("as_int");
  return found != nullptr && found->integer() != nullptr && *found->integer() == wanted;
}

std::string expression(const Json& size) {
  const Json* found = size.find("as_expr");
  return found == nullptr ? "" : text(member(*found, "expr_str"));
}

bool is_bound(const Json& bounds, const char* key, const std::optional<int64_t>& wanted) {
  const Json& found = member(bounds, key);
  return wanted ? found.integer() != nullptr && *found.integer() == *wanted : found.is_null();
}

// The block's signature restricts a size as the program does.
bool is_same(const Json& size, const Size& wanted, const Json& ranges) {
  if (const int64_t* fixed = std::get_if<int64_t>(&wanted)) return is_integer(size, *fixed);
  const Dimension* dimension = std::get_if<Dimension>(&wanted);
  // An expression of earlier sizes: the block checks it.
  if (dimension == nullptr) return size.find("as_expr") != nullptr;
  static const std::string kBegin = "Symbol('";
  std::string symbol = expression(size);
  if (symbol.rfind(kBegin, 0) == 0) symbol.erase(0, kBegin.size());
  symbol.erase(std::min(symbol.find('\''), symbol.size()));
  const Json* bounds = ranges.find(symbol);
  return bounds != nullptr && is_bound(*bounds, "min_val", dimension->min) &&
         is_bound(*bounds, "max_val", dimension->max);
}

void check_sizes(const Json& graph, const Json& ranges, const std::vector<std::string>& taken,
                 const Manifest& manifest) {
  require(taken.size() == manifest.inputs.size(), "its engine takes another number of inputs");
  for (size_t index = 0; index < taken.size(); ++index) {
    const Json::Array& sizes = list(member(value_of(graph, taken[index]), "sizes"));
    const std::vector<Size>& shape = manifest.inputs[index].shape;
    bool holds = sizes.size() == shape.size();
    for (size_t axis = 0; holds && axis < shape.size(); ++axis) {
      holds = is_same(sizes[axis], shape[axis], ranges);
    }
    require(holds, "the sizes of " + quoted(taken[index]) + " are other ones than its engine's");
  }
}

// Takes `begin` from the text; false where it is not there.
bool take(std::string_view& text, std::string_view begin) {
  if (text.substr(0, begin.size()) != begin) return false;
  text.remove_prefix(begin.size());
  return true;
}

// The characters up to `end`, which is taken too; none where it is not there.
std::string_view take_until(std::string_view& text, std::string_view end) {
  const size_t size = text.find(end);
  if (size == std::string_view::npos) return {};
  const std::string_view found = text.substr(0, size);
  text.remove_prefix(size + end.size());
  return found;
}

// The expression of a size in a guard, such as "L['x'].size()[0]"; "" for what is no such text.
std::string guarded_size(std::string_view& text, const Json& graph) {
  if (!take(text, "L['")) return "";
  const std::string name(take_until(text, "'].size()["));
  const std::string digits(take_until(text, "]"));
  const bool is_number = !digits.empty() && digits.size() <= 3 &&
                         digits.find_first_not_of("0123456789") == std::string::npos;
  const Json* value = member(graph, "tensor_values").find(name);
  if (!is_number || value == nullptr) return "";
  const Json::Array& sizes = list(member(*value, "sizes"));
  const size_t place = std::stoul(digits);
  return place < sizes.size() ? expression(sizes[place]) : "";
}

// A guard is implied by sizes of one symbol, which the block checks.
void check_guard(const std::string& guard, const Json& graph) {
  std::string_view rest = guard;
  const std::string left = guarded_size(rest, graph);
  const bool is_equation = take(rest, " == ");
  const std::string right = guarded_size(rest, graph);
  require(is_equation && !left.empty() && left == right && rest.empty(),
          "it has the condition " + quoted(guard));
}

// A blob is a whole record of bytes.
void check_blob(const Json& config, const std::string& name, uint64_t size) {
  const Json& entry = member(config, name.c_str());
  const Json& meta = member(entry, "tensor_meta");
  const auto one = [&](const char* key, uint64_t wanted) {
    const Json::Array& values = list(member(meta, key));
    return values.size() == 1 && is_integer(values[0], static_cast<int64_t>(wanted));
  };
  const int64_t* dtype = member(meta, "dtype").integer();
  const bool* pickled = member(entry, "use_pickle").boolean();
  require(size > 0 && pickled != nullptr && !*pickled && dtype != nullptr && *dtype == kUint8 &&
              one("sizes", size) && one("strides", 1) &&
              is_integer(member(meta, "storage_offset"), 0),
          "the constant " + quoted(name) + " is no whole record of bytes");
}

std::vector<size_t> places(const std::vector<std::string>& names,
                           const std::vector<std::string>& among, const char* what) {
  std::vector<size_t> found;
  for (const std::string& name : names) {
    const auto place = std::find(among.begin(), among.end(), name);
    require(place != among.end(), quoted(name) + " is no " + what);
    found.push_back(static_cast<size_t>(place - among.begin()));
  }
  return found;
}

OneCall read(const Archive& archive, const Json& model) {
  const int64_t* schema = member(member(model, "schema_version"), "major").integer();
  require(schema != nullptr && *schema == kSchema, "its schema is of another version");
  const Json& module = member(model, "graph_module");
  const Json& graph = member(module, "graph");
  const Json& node = only_node(graph);
  OneCall found;
  const Json& signature = member(module, "signature");
  found.names = argument_names(member(signature, "input_specs"));
  std::vector<EngineCall> calls = engine_calls(archive, model);
  require(calls.size() == 1, "it has several engine calls");
  found.call = std::move(calls[0]);
  std::vector<std::string> taken;
  for (const Json& input : list(member(node, "inputs"))) {
    if (text(member(input, "name")) == "inputs") taken = tensor_names(member(input, "arg"));
  }
  found.positions = places(taken, found.names, "argument of the program");
  for (const std::string& name : found.names) {
    require(std::count(taken.begin(), taken.end(), name) == 1,
            "its engine takes the argument " + quoted(name) + " not once");
  }
  check_sizes(graph, member(model, "range_constraints"), taken, found.call.manifest);
  if (const Json* guards = model.find("guards_code")) {
    for (const Json& guard : list(*guards)) check_guard(text(guard), graph);
  }
  for (const Json& spec : list(member(signature, "output_specs"))) {
    const Json::Member& entry = only(spec);
    require(entry.key == "user_output", "it has a " + entry.key);
  }
  std::vector<std::string> returned, outputs;
  for (const Json& made : list(member(node, "outputs"))) {
    for (std::string& name : tensor_names(made)) returned.push_back(std::move(name));
  }
  require(returned.size() == found.call.manifest.outputs.size(),
          "its engine has another number of outputs");
  for (const Json& output : list(member(graph, "outputs"))) {
    const Json* tensor = output.find("as_tensor");
    require(tensor != nullptr, "an output is no tensor: " + output.brief());
    outputs.push_back(text(member(*tensor, "name")));
  }
  found.results = places(outputs, returned, "output of its engine");
  return found;
}

void check_blobs(const Archive& archive, const OneCall& found) {
  const Json raw = archive.json(kConstantsConfig);
  const Json& config = member(raw, "config");
  std::map<uint64_t, std::string> names;  // offset of a record -> constant
  for (const Json::Member& entry : *config.object()) {
    names[archive.record(kConstantsFolder + text(member(entry.value, "path_name"))).offset] =
        entry.key;
  }
  for (const Record& blob : found.call.blobs) check_blob(config, names[blob.offset], blob.size);
}

}  // namespace

OneCall one_call(const Archive& archive, const Json& model) {
  std::string what;
  try {
    OneCall found = read(archive, model);
    check_blobs(archive, found);
    return found;
  } catch (const OtherForm& other) {
    what = other.what;
  } catch (const UnknownForm& form) {
    what = "it has a graph of an unknown form: " + form.what;
  }
  throw Error(ErrorCode::load, "'" + archive.label() + "' cannot run without torch: " + what,
              "a program that is one engine call of tensors, as portrt inspect shows",
              "run it in Python, or as TorchScript");
}

}  // namespace portrt
