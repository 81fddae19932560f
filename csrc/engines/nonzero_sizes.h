// Refuses calls without elements, for engines whose library cannot run them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/format/signature.h"
#include "engines/session.h"

namespace portrt {

// A session that throws Error (out_of_profile) where one of these sizes is 0; the session itself if
// there are none.
//   library: its name, for messages
std::unique_ptr<Session> with_nonzero_sizes(std::unique_ptr<Session> session,
                                            const Signature& signature,
                                            std::vector<SizeExpr> sizes, std::string library);

}  // namespace portrt
