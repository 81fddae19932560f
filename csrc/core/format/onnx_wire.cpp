#include "core/format/onnx_wire.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string_view>

#include "core/format/fields.h"
#include "core/text.h"

namespace portrt {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxShown = 80;
constexpr uint64_t kFirstFieldEnd = uint64_t{1} << 29;
const char* const kWeightsLocation = "weights.safetensors";
const std::string_view kLocationKey = "location";
const std::string_view kOrtFormat = "ORTM";  // at byte 4 of a model in ONNX Runtime's own format

enum class Wire { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

// Messages of onnx.proto from which a TensorProto can be reached. A weight is an initializer of the
// model's own graph.
enum class Kind {
  model,
  main,
  training,
  graph,
  function,
  node,
  attribute,
  sparse,
  tensor,
  weight,
};

struct Inner {
  Kind outer;
  uint64_t number;
  Kind inner;
};
constexpr Inner kInner[] = {
    {Kind::model, 7, Kind::main},        {Kind::model, 20, Kind::training},
    {Kind::model, 25, Kind::function},   {Kind::main, 1, Kind::node},
    {Kind::main, 5, Kind::weight},       {Kind::main, 15, Kind::sparse},
    {Kind::training, 1, Kind::graph},    {Kind::training, 2, Kind::graph},
    {Kind::graph, 1, Kind::node},        {Kind::graph, 5, Kind::tensor},
    {Kind::graph, 15, Kind::sparse},     {Kind::function, 7, Kind::node},
    {Kind::function, 11, Kind::attribute}, {Kind::node, 5, Kind::attribute},
    {Kind::attribute, 5, Kind::tensor},  {Kind::attribute, 6, Kind::graph},
    {Kind::attribute, 10, Kind::tensor}, {Kind::attribute, 11, Kind::graph},
    {Kind::attribute, 22, Kind::sparse}, {Kind::attribute, 23, Kind::sparse},
    {Kind::sparse, 1, Kind::tensor},     {Kind::sparse, 2, Kind::tensor},
};
constexpr uint64_t kTensorName = 8, kExternalData = 13, kDataLocation = 14;

class WireError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Range {
  uint64_t first = 0, last = 0;
};

// Gives the fields of a message, one after the other, and checks their form.
class Reader {
 public:
  Reader(const uint8_t* data, Range range) : data_(data), place_(range.first), end_(range.last) {}

  // Of an integer `content.first` is its value.
  bool next(uint64_t& number, Wire& wire, Range& content) {
    if (place_ >= end_) return false;
    const uint64_t tag = varint();
    number = tag >> 3;
    if (number == 0 || number >= kFirstFieldEnd) throw WireError("a field has no number");
    wire = static_cast<Wire>(tag & 7);
    uint64_t length = 0;
    switch (wire) {
      case Wire::varint:
        content.first = content.last = varint();
        return true;
      case Wire::bytes: length = varint(); break;
      case Wire::fixed32: length = 4; break;
      case Wire::fixed64: length = 8; break;
      default: throw WireError("a field is of an unknown kind");
    }
    if (length > end_ - place_) throw WireError("a field ends after its message");
    content = {place_, place_ + length};
    place_ += length;
    return true;
  }

 private:
  uint64_t varint() {
    uint64_t found = 0;
    for (int count = 0; count < 10; ++count) {
      if (place_ >= end_) throw WireError("an integer ends after its message");
      const uint8_t byte = data_[place_++];
      // Bits beyond 64 are refused: Python's integers keep them, so no field could be equal.
      if (count == 9 && byte > 1) throw WireError("an integer has more than 64 bits");
      found |= static_cast<uint64_t>(byte & 0x7F) << (7 * count);
      if (byte < 0x80) return found;
    }
    throw WireError("an integer has more than ten bytes");
  }

  const uint8_t* data_;
  uint64_t place_, end_;
};

struct External {
  std::string name;
  std::vector<std::string> locations;
  bool is_weight = false;
};

std::string text_at(const uint8_t* data, Range range) {
  return std::string(reinterpret_cast<const char*>(data) + range.first,
                     static_cast<size_t>(range.last - range.first));
}

// The value of a StringStringEntryProto whose key is "location".
void add_location(const uint8_t* data, Range range, std::vector<std::string>& found) {
  std::string key, value;
  Reader fields(data, range);
  uint64_t number = 0;
  Wire wire = Wire::varint;
  Range content;
  while (fields.next(number, wire, content)) {
    if (wire != Wire::bytes) continue;
    if (number == 1) key = text_at(data, content);
    if (number == 2) value = text_at(data, content);
  }
  if (key == kLocationKey) found.push_back(std::move(value));
}

void add_external(const uint8_t* data, Range range, bool is_weight, std::vector<External>& found) {
  External tensor;
  tensor.is_weight = is_weight;
  bool is_external = false;
  Reader fields(data, range);
  uint64_t number = 0;
  Wire wire = Wire::varint;
  Range content;
  while (fields.next(number, wire, content)) {
    if (number == kDataLocation) {
      is_external = is_external || wire != Wire::varint || content.first != 0;
    } else if (number == kTensorName && wire == Wire::bytes) {
      tensor.name = text_at(data, content);
    } else if (number == kExternalData && wire == Wire::bytes) {
      is_external = true;
      add_location(data, content, tensor.locations);
    }
  }
  if (is_external) found.push_back(std::move(tensor));
}

const Inner* inner_of(Kind outer, uint64_t number) {
  for (const Inner& row : kInner) {
    if (row.outer == outer && row.number == number) return &row;
  }
  return nullptr;
}

std::vector<External> external_tensors(const uint8_t* data, uint64_t size) {
  struct Waiting {
    Kind kind;
    Range range;
    int depth;
  };
  std::vector<External> found;
  std::vector<Waiting> waiting = {{Kind::model, {0, size}, 0}};
  while (!waiting.empty()) {
    const Waiting item = waiting.back();
    waiting.pop_back();
    if (item.depth > kMaxDepth) {
      throw WireError("messages are nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    if (item.kind == Kind::tensor || item.kind == Kind::weight) {
      add_external(data, item.range, item.kind == Kind::weight, found);
      continue;
    }
    Reader fields(data, item.range);
    uint64_t number = 0;
    Wire wire = Wire::varint;
    Range content;
    while (fields.next(number, wire, content)) {
      const Inner* row = wire == Wire::bytes ? inner_of(item.kind, number) : nullptr;
      if (row != nullptr) waiting.push_back({row->inner, content, item.depth + 1});
    }
  }
  return found;
}

std::string shown(const std::string& text) { return quoted(text).substr(0, kMaxShown); }

// As Python writes a tuple.
std::string shown(const std::vector<std::string>& texts) {
  std::vector<std::string> found;
  for (const std::string& text : texts) found.push_back(shown(text));
  return "(" + joined(found, ", ") + (texts.size() == 1 ? ",)" : ")");
}

}  // namespace

std::string external_fault(const uint8_t* data, uint64_t size,
                           const std::vector<std::string>& weights) {
  const uint64_t magic_end = 4 + kOrtFormat.size();
  if (size >= magic_end && std::memcmp(data + 4, kOrtFormat.data(), kOrtFormat.size()) == 0) {
    return "is no ONNX model: the model is in ONNX Runtime's own format";
  }
  // The key of every name of a file: most of a large model is skipped where there is none.
  if (std::search(data, data + size, kLocationKey.begin(), kLocationKey.end()) == data + size) {
    return "";
  }
  std::vector<External> tensors;
  try {
    tensors = external_tensors(data, size);
  } catch (const WireError& error) {
    return std::string("is no ONNX model: ") + error.what();
  }
  std::set<std::string> allowed(weights.begin(), weights.end());
  for (const External& tensor : tensors) {
    if (tensor.locations != std::vector<std::string>{kWeightsLocation}) {
      return "has data in another file: " + shown(tensor.locations);
    }
    if (!tensor.is_weight || allowed.erase(tensor.name) == 0) {  // each once
      return "has " + shown(tensor.name) + " outside of it, which is none of its weights";
    }
  }
  return "";
}

}  // namespace portrt
