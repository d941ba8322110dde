#pragma once

#include <cstddef>
#include <vector>

#include "common/schema/event_fields.h"

namespace arancini::schema {

// One framed Event: the payload of a ring record and of the published message, a multiple of 8 bytes.
// Allocates: events are rare.
std::vector<std::byte> build_event(const EventFields& event);

}  // namespace arancini::schema
