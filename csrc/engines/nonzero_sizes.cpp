#include "engines/nonzero_sizes.h"

#include "core/error.h"
#include "core/runtime/input_check.h"
#include "core/text.h"

namespace portrt {
namespace {

std::string shape_text(const Shape& shape) {
  std::string found = "(";
  for (size_t axis = 0; axis < shape.rank; ++axis) {
    found += (axis ? ", " : "") + std::to_string(shape.sizes[axis]);
  }
  return found + (shape.rank == 1 ? ",)" : ")");
}

class NonzeroSession : public Session {
 public:
  NonzeroSession(std::unique_ptr<Session> session, const Signature& signature,
                 std::vector<SizeExpr> sizes, std::string library)
      : session_(std::move(session)),
        name_(signature.name),
        sizes_(std::move(sizes)),
        library_(std::move(library)) {
    for (const InputSpec& spec : signature.inputs) inputs_.push_back(spec.name);
  }

  void run(const std::vector<TensorView>& inputs, const std::vector<std::vector<int64_t>>& shapes,
           Outputs& outputs) override {
    std::vector<InputInfo> infos;
    infos.reserve(inputs.size());
    for (const TensorView& input : inputs) infos.push_back(input.info);
    if (has_zero_size(sizes_, infos)) refuse(infos);
    session_->run(inputs, shapes, outputs);
  }

 private:
  [[noreturn]] void refuse(const std::vector<InputInfo>& infos) const {
    std::vector<std::string> found;
    for (size_t index = 0; index < infos.size(); ++index) {
      found.push_back(inputs_[index] + " " + shape_text(infos[index].shape));
    }
    throw Error(ErrorCode::out_of_profile,
                name_ + " was called with " + joined(found, ", ") +
                    ", of which an operator gets a size of 0",
                "sizes from 1 on, where " + library_ + " needs elements",
                "leave the call out, or run the file in Python, where its sources run such calls");
  }

  std::unique_ptr<Session> session_;
  std::string name_;
  std::vector<std::string> inputs_;
  std::vector<SizeExpr> sizes_;
  std::string library_;
};

}  // namespace

std::unique_ptr<Session> with_nonzero_sizes(std::unique_ptr<Session> session,
                                            const Signature& signature,
                                            std::vector<SizeExpr> sizes, std::string library) {
  if (sizes.empty()) return session;
  return std::make_unique<NonzeroSession>(std::move(session), signature, std::move(sizes),
                                          std::move(library));
}

}  // namespace portrt
