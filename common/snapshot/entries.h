#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/base/types.h"

// What a snapshot of a shard's told tables holds (docs/decisions/0009-snapshots.md). Ids name entries within
// one snapshot. Spans and string views belong to whoever gives the entry.
namespace arancini::snapshot {

struct Header {
  std::uint32_t shard = 0;
  std::uint32_t shard_count = 0;
  std::uint64_t number = 0;  // of this shard's snapshots: newer ones have higher numbers
  WriterId writer;           // the shard's ring
  // Everything that this ring wrote below it is in the tables.
  RingPosition ring_position{};
  Sequence next_sequence{};  // of the record there
  // And so is everything about the shard's routers in the log of that identity at or below this sequence
  // (RingReaderLine). Identity 0: not known, then only the ring position counts.
  std::uint64_t log_identity = 0;
  std::uint64_t log_sequence = 0;
  std::uint64_t started_realtime_ns = 0;
  friend bool operator==(const Header&, const Header&) = default;
};

// Ids of routers, views and tables are 0, 1, 2 … in the order in which they come.
struct RouterEntry {
  std::uint32_t id = 0;
  IpAddress address;
  std::string_view name;  // as configured, empty: none
  std::string_view sys_name, sys_descr;
};

struct ViewEntry {
  std::uint32_t id = 0;
  std::uint32_t router = 0;
  std::uint8_t peer_type = 0;
  View view = View::AdjInPre;
  std::uint64_t distinguisher = 0;
  IpAddress address;
  // As they were told; where nothing was, as the router says them.
  bool told = false;
  std::uint32_t asn = 0;
  std::uint32_t bgp_id = 0;
  std::uint16_t router_port = 0;
};

// Ids of attributes are any from 1 to kMaxAttributesId; each comes once, before the first route with it.
inline constexpr std::uint32_t kMaxAttributesId = 1U << 27;
struct AttributesEntry {
  std::uint32_t id = 0;
  std::span<const std::byte> next_hop, flags, attributes;  // as in ingestd's AttrKey
};

// The routes that follow are of this table. It may come more than once with the same view and family.
struct TableEntry {
  std::uint32_t id = 0;
  std::uint32_t view = 0;
  Family family = kIpv4Unicast;  // is_plain_prefix_family
  bool without_ids = false;      // routes came without path id
};

struct RouteEntry {
  Prefix prefix;
  std::uint32_t attributes = 0;
  std::uint8_t paths = 0;  // how many announcements without path id said it, 0 to 3 (rib_shard.cpp)
  friend bool operator==(const RouteEntry&, const RouteEntry&) = default;
};

struct End {
  std::uint64_t routes = 0;
  // Changes below may be in the tables, too: the walk takes a while, and the tables go on.
  RingPosition ring_position{};
  Sequence next_sequence{};
  friend bool operator==(const End&, const End&) = default;
};

}  // namespace arancini::snapshot
