#pragma once

#include "common/schema/event_fields.h"
#include "ingestd/shard_context.h"

namespace arancini::ingestd {

// Fills in who, when and after which update, and appends the event to the ring. False: no room now. Events
// are rare: this allocates.
[[nodiscard]] bool write_event(ShardContext& context, std::uint32_t router_row, schema::EventFields& event);

}  // namespace arancini::ingestd
