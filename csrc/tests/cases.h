// Cases of the conformance files, as this side reads them.
#pragma once

#include "tests/check.h"

namespace portrt::tests {

void check_manifest(const Json& given, const std::string& name, Checks& checks);
void check_size_expression(const Json& given, const std::string& name, Checks& checks);
void check_requirement(const Json& given, const std::string& name, Checks& checks);
void check_policy(const Json& given, const std::string& name, Checks& checks);
void check_weights(const Json& given, const std::string& name, Checks& checks);
void check_call(const Json& given, const std::string& name, Checks& checks);

}  // namespace portrt::tests
