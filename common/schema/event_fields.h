#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/types.h"

// An event as plain values; the wire form is event.capnp, whose comments are the contract.
namespace arancini::schema {

// As Event.Kind in event.capnp. Values are stored: only append.
enum class EventKind : std::uint16_t {
  Unspecified = 0,
  SessionUp = 1,
  SessionDown = 2,
  SessionSuperseded = 3,
  Initiation = 4,
  Termination = 5,
  PeerUp = 6,
  PeerDown = 7,
  Statistics = 8,
  SyncStart = 9,
  SyncEnd = 10,
  Dropped = 11,
  Reconciled = 12,
  StreamEpoch = 13,
  RetentionGap = 14,
  DumpStart = 15,
  DumpEnd = 16,
  Limit = 17,
  Released = 18,
  Acquired = 19,
};
// The last part of the subject: "dropped", "peer_up" …; "unspecified" for kinds of a later version. Stable
// names, of letters, digits and '_'.
std::string_view to_string(EventKind kind);

// As Event.Scope.
enum class EventScope : std::uint16_t {
  Collector = 0,
  Router = 1,
  Session = 2,
  Peer = 3,
  View = 4,
  Table = 5
};
std::string_view to_string(EventScope scope);

struct EventFields {
  WriterId writer;
  std::uint64_t sequence = 0;
  std::uint64_t time_ns = 0;
  EventKind kind = EventKind::Unspecified;
  EventScope scope = EventScope::Collector;

  bool has_router = false;
  IpAddress router;
  std::string router_id;
  std::uint16_t router_port = 0;
  IpAddress peer;
  std::uint32_t peer_asn = 0, peer_bgp_id = 0;
  std::uint8_t peer_type = 0;
  std::uint64_t peer_distinguisher = 0;
  arancini::View view = arancini::View::AdjInPre;
  Family family{};

  arancini::Reason reason = arancini::Reason::None;
  std::uint32_t reason_code = 0, error_code = 0;
  std::string text;
  struct Counter {
    std::string name;
    std::uint64_t value = 0;
    friend bool operator==(const Counter&, const Counter&) = default;
  };
  std::vector<Counter> counters;
  struct Detail {
    std::string name, value;
    friend bool operator==(const Detail&, const Detail&) = default;
  };
  std::vector<Detail> details;
  std::uint64_t since_ns = 0, until_ns = 0;
  std::uint64_t last_update_sequence = 0;
  std::vector<std::byte> raw;
  friend bool operator==(const EventFields&, const EventFields&) = default;
};

// Value of the header Arancini-Format of messages with one framed Event.
inline constexpr std::string_view kEventFormat = "event-v1";

}  // namespace arancini::schema
