#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "curated/fleet.h"

// "It runs, but there is no data": what is the matter with a router, in plain words. One judgement for
// aranctl, the status page and the metrics.
namespace arancini::curated {

enum class RouterCondition : std::uint8_t {
  Receiving,     // all is well
  Starting,      // connected just now
  Refused,       // its connection was closed by a rule
  Lost,          // no session any more
  Silent,        // connected, and never said anything
  NoInitiation,  // speaks, but not who it is, and reports no peer
  NoPeers,       // only Initiation came
  PeersDown,     // all peers that it reports are down
  NoRoutes,      // peers are up, no route came
  Throttled,     // waits for room in the ring
  NotRead,       // its shard restores or drains
  Limited,       // routes were skipped: max_routes
  Behind,        // downstream does not have all that it said: drop-newest
  Quiet,         // no message for long
  Unknown,       // its shard does not run
};
std::string_view to_string(RouterCondition condition);

enum class Concern : std::uint8_t { None, Notice, Problem };
std::string_view to_string(Concern concern);

struct RouterDiagnosis {
  RouterCondition condition = RouterCondition::Unknown;
  Concern concern = Concern::None;
  std::string what;    // one sentence
  std::string advice;  // one sentence; empty: nothing to do
};

struct PeerTally {
  std::uint32_t seen = 0;  // peers that the router has ever reported and that still have a row
};
// By shard and index of the router's row.
using PeerTallies = std::map<std::pair<std::uint32_t, std::uint32_t>, PeerTally>;
PeerTallies tally_peers(const std::vector<PeerView>& peers);

// What a router's shard does with it.
enum class ShardReading : std::uint8_t { Reads, Restores, Drains, Down };
ShardReading shard_reading(const FleetView& view, std::uint32_t shard);

struct DiagnosisContext {
  ShardReading shard = ShardReading::Reads;
  bool curation = true;  // else nobody counts routes
  std::uint64_t now_realtime_ns = 0;
};

RouterDiagnosis diagnose(const RouterView& router, const PeerTally& peers, const DiagnosisContext& context);

// Of each router, in the order of `routers`.
std::vector<RouterDiagnosis> diagnose_all(const FleetView& view, const std::vector<RouterView>& routers,
                                          const std::vector<PeerView>& peers, bool curation,
                                          std::uint64_t now_realtime_ns);

// "12 s", "5 min", "3 h", "4 days".
std::string spoken_duration(std::uint64_t ns);

}  // namespace arancini::curated
