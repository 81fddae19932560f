// Cases of size_expressions.json and calls.json.
#include "core/error.h"
#include "core/format/manifest.h"
#include "core/format/size_expr.h"
#include "core/runtime/input_check.h"
#include "tests/cases.h"

namespace portrt::tests {
namespace {

// Rows of integers as shapes that refer to them.
struct Shapes {
  explicit Shapes(const Json::Array& rows) {
    for (const Json& row : rows) {
      sizes.emplace_back();
      for (const Json& size : *row.array()) sizes.back().push_back(*size.integer());
      ranks.push_back(sizes.back().size());
    }
    for (const std::vector<int64_t>& row : sizes) shapes.push_back({row.data(), row.size()});
  }

  std::vector<std::vector<int64_t>> sizes;
  std::vector<size_t> ranks;
  std::vector<Shape> shapes;
};

// A manifest with these inputs and outputs, and nothing else.
std::string manifest_of(const Json& inputs, const Json& outputs) {
  const Json found = Json::Object{{"format", 2},
                                  {"name", "block_0"},
                                  {"producer", Json::Object()},
                                  {"inputs", inputs},
                                  {"outputs", outputs},
                                  {"weights", nullptr},
                                  {"source", nullptr},
                                  {"source_weights", Json::Array()},
                                  {"node_count", 0},
                                  {"engines", Json::Array()},
                                  {"policy", Json::Object()},
                                  {"blob_count", 0}};
  return found.dump();
}

}  // namespace

void check_size_expression(const Json& given, const std::string& name, Checks& checks) {
  const Shapes given_shapes(list_field(given, "shapes"));
  const Json* error_kind = given.find("error");
  const std::string wanted = error_kind == nullptr ? "" : *error_kind->string();
  try {
    const int64_t found = SizeExpr::read(field(given, "tree"), given_shapes.ranks, "it", "")
                              .evaluate(given_shapes.shapes);
    const Json* value = given.find("value");
    checks.that(value != nullptr && value->integer() && *value->integer() == found, name,
                std::to_string(found));
  } catch (const Error& error) {
    checks.that(wanted == "malformed", name, error.what());
    if (wanted != "malformed") return;
    checks.that(error.field() == text_field(given, "field"), name,
                error.field().value_or("no field") + ": " + error.what());
  } catch (const ArithmeticError& error) {
    checks.that(wanted == "arithmetic", name, error.what());
  }
}

void check_call(const Json& given, const std::string& name, Checks& checks) {
  const Signature signature =
      decode(manifest_of(field(given, "inputs"), field(given, "outputs"))).signature();
  const Shapes shapes(list_field(given, "shapes"));
  std::vector<InputInfo> inputs;
  for (size_t index = 0; index < shapes.shapes.size(); ++index) {
    const std::string& dtype = *list_field(given, "dtypes")[index].string();
    inputs.push_back({dtype_named(dtype).value_or(DType::other), shapes.shapes[index], "cpu"});
  }
  const bool is_refused = given.find("error") != nullptr;
  try {
    check_inputs(signature, inputs);
    Json::Array found;
    for (const std::vector<int64_t>& shape : output_shapes(signature, inputs)) {
      Json::Array sizes;
      for (int64_t size : shape) sizes.push_back(size == kUnknownSize ? Json() : Json(size));
      found.push_back(std::move(sizes));
    }
    checks.that(!is_refused, name, "it is taken");
    if (!is_refused) {
      checks.that(Json(found) == field(given, "output_shapes"), name, Json(found).dump());
    }
  } catch (const Error& error) {
    checks.that(is_refused && error.code() == ErrorCode::input, name, error.what());
  }
}

}  // namespace portrt::tests
