#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/wire/bgp_update.h"
#include "common/wire/bmp.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"

// What the next messages will touch is asked for before it is needed: tables and attribute sets are far away
// in memory, and a message with one route would wait for each of them in turn. Says nothing and changes
// nothing: a message that was shown is parsed, and that is kept until its turn.
namespace arancini::ingestd {

// A Route Monitoring message that parsed as far as its fields. Spans point into the message.
struct KnownMessage {
  static constexpr std::size_t kMostRoutes = 8;

  wire::Bytes message;
  bool parsed = false;  // what follows is there
  wire::PerPeerHeader header;
  wire::Update update;

  // The first field with routes, if its table is there and its routes are not more than kMostRoutes: guesses
  // that hold where `epoch` is PeerTable::epoch(), and `path_ids` what is judged when it is its turn.
  RibTable* table = nullptr;
  std::uint64_t epoch = 0;
  wire::Bytes nlri;
  bool path_ids = false;
  bool announced = false;
  std::uint32_t tag = 0;  // of the attributes, when `announced`
  std::uint32_t routes = 0;
  std::array<Prefix, kMostRoutes> prefixes;
  std::array<std::uint64_t, kMostRoutes> hashes;
  AttrId old = AttrId::None;  // that the first of them had when this was looked up
};

class LookAhead {
 public:
  static constexpr std::size_t kMessages = Shard::kLookAhead;

  LookAhead(ShardContext& context, PeerTable& peers) : context_(context), peers_(peers) {}

  // `message` of the session is among the next kMessages to be taken.
  void show(Session& session, wire::Bytes message);
  // What is known of `message`, which must be the one that was shown first and not taken yet: else nullptr,
  // and all is forgotten. Valid until kMessages more are shown.
  const KnownMessage* take(wire::Bytes message) {
    if (count_ == 0) return nullptr;
    const KnownMessage& known = known_[first_ % kMessages];
    if (known.message.data() != message.data() || known.message.size() != message.size()) {
      count_ = 0;
      return nullptr;
    }
    ++first_;
    --count_;
    return known.parsed ? &known : nullptr;
  }
  // The bytes of what was shown may be gone.
  void forget() { count_ = 0; }

 private:
  void find_routes(Session& session, KnownMessage& known);
  // The one that was shown `back` messages ago, if it waits still.
  KnownMessage* shown(std::size_t back) {
    return back < count_ ? &known_[(first_ + count_ - 1 - back) % kMessages] : nullptr;
  }

  ShardContext& context_;
  PeerTable& peers_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  std::array<KnownMessage, kMessages> known_;
};

}  // namespace arancini::ingestd
