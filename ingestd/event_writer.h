#pragma once

#include "common/schema/event_build.h"
#include "common/schema/event_fields.h"
#include "ingestd/shard_context.h"

namespace arancini::ingestd {

// Fills in who, after which update, and when (unless that is given), and appends the event to the ring.
// False: no room now. Does not allocate.
[[nodiscard]] bool write_event(ShardContext& context, std::uint32_t router_row, schema::EventFields& event);
[[nodiscard]] bool write_event(ShardContext& context, std::uint32_t router_row, schema::EventParts& event);

}  // namespace arancini::ingestd
