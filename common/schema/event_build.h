#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "common/schema/event_fields.h"

namespace arancini::schema {

// An event whose texts and lists lie elsewhere: for building without touching the heap. Fields as in
// EventFields.
struct EventParts {
  struct Counter {
    std::string_view name;
    std::uint64_t value = 0;
  };
  struct Detail {
    std::string_view name, value;
  };
  WriterId writer;
  std::uint64_t sequence = 0;
  std::uint64_t time_ns = 0;
  EventKind kind = EventKind::Unspecified;
  EventScope scope = EventScope::Collector;
  bool has_router = false;
  IpAddress router;
  std::string_view router_id;
  std::uint16_t router_port = 0;
  IpAddress peer;
  std::uint32_t peer_asn = 0, peer_bgp_id = 0;
  std::uint8_t peer_type = 0;
  std::uint64_t peer_distinguisher = 0;
  arancini::View view = arancini::View::AdjInPre;
  Family family{};
  arancini::Reason reason = arancini::Reason::None;
  std::uint32_t reason_code = 0, error_code = 0;
  std::string_view text;
  std::span<const Counter> counters;
  std::span<const Detail> details;
  std::uint64_t since_ns = 0, until_ns = 0;
  std::uint64_t last_update_sequence = 0;
  std::span<const std::byte> raw;
};
// A copy of it that owns what it says.
EventFields fields_of(const EventParts& event);

// Bytes of the framed Event at most: what build_event() needs.
std::uint32_t max_event_bytes(const EventParts& event);
std::uint32_t max_event_bytes(const EventFields& event);

// One framed Event, of one segment: the payload of a ring record and of the published message, a multiple of
// 8 bytes. `out` has at least max_event_bytes() and is aligned to 8; returns how many are used. Does not
// allocate.
std::uint32_t build_event(const EventParts& event, std::span<std::byte> out);
std::uint32_t build_event(const EventFields& event, std::span<std::byte> out);

// The same into bytes of its own.
std::vector<std::byte> build_event(const EventFields& event);

}  // namespace arancini::schema
