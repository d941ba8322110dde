#pragma once

#include <memory>
#include <string>

#include "common/base/result.h"
#include "common/nats/stream_reader.h"
#include "tools/nats_flags.h"

namespace arancini::tools {

// A journal as a stream: each record of updates (batch-v2), or each event, is a message, in the order in
// which publishd wrote them; the stream sequence is the number of its frame. Needs no broker and no publishd,
// and disturbs none.
Result<std::unique_ptr<StreamReader>, StreamError> open_journal_stream(const std::string& directory,
                                                                       StreamKind kind);

}  // namespace arancini::tools
