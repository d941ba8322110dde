#pragma once

#include <memory>
#include <string>

#include "common/base/result.h"
#include "tools/stream_reader.h"

namespace arancini::tools {

// A journal as a stream: each batch of updates is a message in batch-v2, in the order in which publishd wrote
// them; the stream sequence is the number of its frame. Needs no broker and no publishd, and disturbs none.
Result<std::unique_ptr<StreamReader>, StreamError> open_journal_stream(const std::string& directory);

}  // namespace arancini::tools
