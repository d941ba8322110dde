#pragma once

#include <array>
#include <cstdint>

#include "common/schema/batch_encoder.h"
#include "common/wire/bgp_update.h"
#include "ingestd/event_encode.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"

// Curation: what an UPDATE changes of what downstream was told. Announce what is new or has other attributes,
// withdraw what was told, say nothing else.
namespace arancini::ingestd {

// One NLRI field of an UPDATE.
struct NlriField {
  wire::Bytes nlri;
  Family family = kIpv4Unicast;
  bool via_mp = false;
  bool announced = false;
  wire::Bytes next_hop;  // of MP_REACH
};

class RibShard {
 public:
  RibShard(ShardContext& context, PeerTable& peers) : context_(context), peers_(peers) {}

  enum class Outcome : std::uint8_t {
    Done,
    NoRoom,     // in the ring; `progress` says how far it came
    NoMemory,   // for the table; likewise
    Malformed,  // the NLRI does not parse from progress.offset_bytes on
    TooLarge,   // no ring record can hold the attributes; nothing was applied
  };
  // Applies the field, from `progress` on, in slices of at most kSliceRoutes routes: room in the ring is
  // reserved before a slice changes the table. `meta` comes from batch_meta(), with BMP time and port.
  Outcome apply(RibTable& table, const NlriField& field, const wire::Attributes& attributes,
                schema::BatchMeta& meta, Session::Progress& progress);

 private:
  struct Slice {
    std::uint32_t routes = 0;  // in routes_
    std::uint32_t applied = 0;
    std::uint32_t duplicates = 0;
    std::uint32_t unknown = 0;
    std::uint32_t added = 0;
    std::uint32_t erased = 0;
  };
  // The path attributes but MP_REACH and MP_UNREACH, which differ from message to message with the same
  // routes.
  wire::Bytes without_mp(wire::Bytes all);
  void announce(RibTable& table, AttrId attr, bool path_ids, SliceWriter& writer, Slice& slice);
  void withdraw(RibTable& table, bool path_ids, SliceWriter& writer, Slice& slice);
  // Withdraws what the slice's routes, which have path ids, replace: the same prefixes without one.
  void supersede(RibTable& table, SliceWriter& writer, Slice& slice);
  void erase(RibTable& table, const Prefix& prefix, const RouteState& route, SliceWriter& writer,
             Slice& slice);
  // One path less of the route without id. False if there is none.
  bool erase_without_id(RibTable& table, Prefix prefix, SliceWriter& writer, Slice& slice);
  void count(RibTable& table, const Slice& slice, std::uint32_t written, bool announced);

  ShardContext& context_;
  PeerTable& peers_;
  std::array<Prefix, kSliceRoutes> routes_;
  std::array<std::byte, 65536> scratch_;
};

}  // namespace arancini::ingestd
