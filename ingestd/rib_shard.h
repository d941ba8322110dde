#pragma once

#include <array>
#include <cstdint>

#include "common/schema/batch_encoder.h"
#include "common/schema/canonical.h"
#include "common/wire/bgp_update.h"
#include "ingestd/drop_report.h"
#include "ingestd/event_encode.h"
#include "ingestd/look_ahead.h"
#include "ingestd/nlri_field.h"
#include "ingestd/peer_table.h"
#include "ingestd/router_limits.h"
#include "ingestd/shard_context.h"
#include "ingestd/untold.h"

// Curation: what an UPDATE changes of what downstream was told. Announce what is new or has other attributes,
// withdraw what was told, say nothing else.
namespace arancini::ingestd {

// Routes that came without path id in a feed that also has some with (GoBGP dumps without, then sends changes
// with): how many announcements of this generation said the prefix, in the two free bits of
// RouteState::flags. News about the prefix with an id is about one of them; with the last one the route
// without id goes.
inline constexpr std::uint8_t kOnePath = 0x40;
inline constexpr std::uint8_t kMaxPaths = 3;
inline std::uint8_t paths_of(const RouteState& route) {
  return route.flags / kOnePath;
}

class RibShard {
 public:
  RibShard(ShardContext& context, PeerTable& peers, Untold& untold, DropReport& drop_report, Limits& limits)
      : context_(context), peers_(peers), untold_(untold), drop_report_(drop_report), limits_(limits) {}

  enum class Outcome : std::uint8_t {
    Done,
    NoRoom,     // in the ring; `progress` says how far it came
    NoMemory,   // for the table; likewise
    Malformed,  // the NLRI does not parse from progress.offset_bytes on
    TooLarge,   // no ring record can hold the attributes; nothing was applied
  };
  // Applies the field, from `progress` on, in slices of at most kSliceRoutes routes: room in the ring is
  // reserved before a slice changes the table. `meta` comes from batch_meta(), with BMP time and port. With
  // drop-newest a slice without room, or with `tell` false, is applied and remembered as not told. `known`,
  // of the message if it was looked at before, saves work.
  Outcome apply(RibTable& table, const NlriField& field, const wire::Attributes& attributes,
                schema::BatchMeta& meta, Session::Progress& progress, bool tell, const KnownMessage* known);

 private:
  struct Slice {
    const Prefix* prefixes = nullptr;
    const std::uint64_t* hashes = nullptr;  // of them, in the table
    std::uint32_t routes = 0;
    std::uint32_t applied = 0;
    std::uint32_t duplicates = 0;
    std::uint32_t unknown = 0;
    std::uint32_t added = 0;
    std::uint32_t erased = 0;
    std::uint32_t dropped = 0;
    std::uint64_t may_add = 0;  // new routes, until the router has as many as it may
    std::uint32_t skipped = 0;
    // It has room, and downstream knows just what the table says: the way that must be fast.
    bool plain = true;
  };
  struct Announced {
    AttrId id = AttrId::None;
    // The same as it was restored from the log: a route that has it was told just that.
    AttrId alias = AttrId::None;
  };
  // The canonical form of what is announced, if any route has it; a reference is held. Costs nothing once all
  // restored routes were announced anew or are gone.
  AttrId alias_of(const wire::Attributes& attributes, const IpAddress& next_hop, bool via_mp);
  // Attributes::but_mp where they stand inside.
  wire::Bytes without_mp(wire::Bytes all);
  // Where the next routes of `reader` are is looked up, `most` at most.
  void read(const RibTable& table, wire::PrefixReader& reader, std::uint32_t most, Slice& slice);
  // These end early when there is no memory. `writer` is null when the slice is not told.
  void announce(RibTable& table, const Announced& attr, bool path_ids, SliceWriter& writer, Slice& slice);
  void announce_untold(RibTable& table, const Announced& attr, bool path_ids, SliceWriter* writer,
                       Slice& slice);
  void withdraw(RibTable& table, bool path_ids, SliceWriter* writer, Slice& slice);
  // Withdraws what the slice's routes, which have path ids, replace: the same prefixes without one.
  void supersede(RibTable& table, SliceWriter* writer, Slice& slice);
  // False: no memory, nothing has changed.
  bool erase(RibTable& table, const Prefix& prefix, std::uint64_t hash, RouteState& route,
             SliceWriter* writer, Slice& slice);
  enum class Erased : std::uint8_t { Yes, NotThere, NoMemory };
  // One path less of the route without id.
  Erased erase_without_id(RibTable& table, Prefix prefix, SliceWriter* writer, Slice& slice);
  void count(RibTable& table, const Slice& slice, std::uint32_t written, bool announced);

  ShardContext& context_;
  PeerTable& peers_;
  Untold& untold_;
  DropReport& drop_report_;
  Limits& limits_;
  std::array<Prefix, kSliceRoutes> routes_;
  std::array<std::uint64_t, kSliceRoutes> hashes_;
  std::array<std::byte, 65536> scratch_;
  schema::CanonicalAttributes canonical_;
};

}  // namespace arancini::ingestd
