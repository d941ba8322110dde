#include "curated/router_diagnosis.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <tuple>

#include "common/base/error.h"
#include "curated/process_name.h"

namespace arancini::curated {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000U;
constexpr std::uint64_t kSettlesNs = 10 * kSecond;  // a new session may not have said all yet
// BMP has no keepalive: a router without Statistics Reports and without changes says nothing.
constexpr std::uint64_t kQuietNs = 900 * kSecond;

std::uint64_t since(std::uint64_t now, std::uint64_t then) {
  return now > then ? now - then : 0;
}

std::string counted(std::uint64_t n, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}

// Why a router without a session was refused is in its last error.
std::string_view advice_for_refused(std::uint32_t code) {
  constexpr std::pair<ErrorCode, std::string_view> kAdvice[] = {
      {ErrorCode::RouterRefused,
       "Add its address to bmp.allow, or a [[router]] with its address and sys_name, and reload; or "
       "take this collector out of the router's configuration."},
      {ErrorCode::RouterSessionLimit,
       "Raise max_sessions of its [[router]] (or bmp.max_sessions_per_router), or configure this "
       "collector only once on the router."},
      {ErrorCode::RouterUnidentified,
       "Remove sys_name from the [[router]] entries of its address, or find out why the router does "
       "not "
       "begin with an Initiation message (RFC 7854, 4.3)."},
  };

  const auto it =
      std::ranges::find(kAdvice, static_cast<ErrorCode>(code), [](const auto& a) { return a.first; });
  return it == std::end(kAdvice) ? "See the log of its ingestd for the reason." : it->second;
}

RouterDiagnosis without_session(const StatsReader::Router& row, std::uint64_t now) {
  if (row.state == shm::RouterState::Refused) {
    return {RouterCondition::Refused, Concern::Problem,
            fmt::format("It connected, and was refused: {}.",
                        row.last_error_text.empty() ? "no reason is known" : row.last_error_text),
            std::string(advice_for_refused(row.last_error))};
  }
  std::string what = "It has no session any more";
  what += row.last_message_realtime_ns == 0
              ? "; nothing ever came from it."
              : fmt::format("; its last message came {} ago.",
                            spoken_duration(since(now, row.last_message_realtime_ns)));
  return {RouterCondition::Lost, Concern::Problem, std::move(what),
          "Check that the router is up, that it reaches this collector's address and port, and that BMP is "
          "still configured on it."};
}

RouterDiagnosis without_peer(const StatsReader::Router& row, const PeerTally& peers, std::uint64_t now) {
  const std::uint64_t age = since(now, row.connected_realtime_ns);
  const std::string connected = spoken_duration(age);
  const bool has_spoken =
      row.last_message_realtime_ns >= row.connected_realtime_ns && row.last_message_realtime_ns != 0;
  if (age < kSettlesNs) {
    return {RouterCondition::Starting,
            Concern::None,
            fmt::format("It connected {} ago and has not reported a BGP peer yet.", connected),
            {}};
  }
  if (row.state == shm::RouterState::Connected && !has_spoken) {
    return {
        RouterCondition::Silent, Concern::Problem,
        fmt::format("It connected {} ago and has not sent a single BMP message.", connected),
        "Look at the state of the BMP session on the router; what connects may also be no router (a health "
        "check, a port scan, a proxy in between)."};
  }
  if (row.state == shm::RouterState::Connected) {
    return {RouterCondition::NoInitiation, Concern::Problem,
            fmt::format("It connected {} ago and speaks, but has neither introduced itself (Initiation) nor "
                        "reported a BGP peer.",
                        connected),
            "Check that it is BMP version 3 (RFC 7854) that the router sends here, and let it connect anew."};
  }
  if (peers.seen != 0) {
    return {RouterCondition::PeersDown, Concern::Problem,
            fmt::format("{} down.", peers.seen == 1
                                        ? std::string("The only BGP peer that it reports is")
                                        : fmt::format("All {} BGP peers that it reports are", peers.seen)),
            "Look at BGP on the router; aranctl peers says since when, and the reason that the router gave."};
  }
  return {
      RouterCondition::NoPeers, Concern::Problem,
      fmt::format("It introduced itself (Initiation) {} ago and has not reported a single BGP peer.",
                  connected),
      "Activate BMP monitoring for its BGP neighbours (IOS XR: bmp-activate under each neighbor; Junos: bmp "
      "monitor enable; FRR: bmp monitor; GoBGP: route-monitoring-policy), and check that they are up."};
}

RouterDiagnosis without_routes(const StatsReader::Router& row) {
  const std::string peers =
      row.peers_up == 1 ? "1 BGP peer is up" : fmt::format("{} BGP peers are up", row.peers_up);
  if (row.malformed != 0 && row.updates_published == 0) {
    return {RouterCondition::NoRoutes, Concern::Problem,
            fmt::format("{}, but no route could be read: {} malformed.", peers,
                        counted(row.malformed, "message is", "messages are")),
            "See its last error; a recording of its session can be read with aranctl decode --explain."};
  }
  return {
      RouterCondition::NoRoutes, Concern::Problem,
      fmt::format("{}, but {}.", peers,
                  row.updates_published == 0 ? "no route came from the router"
                                             : "all routes that came are withdrawn"),
      "Activate route monitoring on the router for the wanted address families, pre- or post-policy; then "
      "check that its peers announce something, and that no policy takes it away."};
}

}  // namespace

std::string_view to_string(RouterCondition condition) {
  switch (condition) {
    case RouterCondition::Receiving: return "receiving";
    case RouterCondition::Starting: return "starting";
    case RouterCondition::Refused: return "refused";
    case RouterCondition::Lost: return "lost";
    case RouterCondition::Silent: return "silent";
    case RouterCondition::NoInitiation: return "no-init";
    case RouterCondition::NoPeers: return "no-peers";
    case RouterCondition::PeersDown: return "peers-down";
    case RouterCondition::NoRoutes: return "no-routes";
    case RouterCondition::Throttled: return "throttled";
    case RouterCondition::NotRead: return "not-read";
    case RouterCondition::Limited: return "limited";
    case RouterCondition::Behind: return "behind";
    case RouterCondition::Quiet: return "quiet";
    case RouterCondition::Unknown: return "unknown";
  }
  return "unknown";
}

std::string_view to_string(Concern concern) {
  switch (concern) {
    case Concern::None: return "none";
    case Concern::Notice: return "notice";
    case Concern::Problem: return "problem";
  }
  return "problem";
}

std::string spoken_duration(std::uint64_t ns) {
  const std::uint64_t s = ns / kSecond;
  if (s < 120) return fmt::format("{} s", s);
  if (s < 7200) return fmt::format("{} min", s / 60);
  if (s < 172'800) return fmt::format("{} h", s / 3600);
  return fmt::format("{} days", s / 86'400);
}

PeerTallies tally_peers(const std::vector<PeerView>& peers) {
  // A peer has a row for each of its views.
  std::set<std::tuple<std::uint32_t, std::uint32_t, std::uint8_t, std::uint64_t, std::string>> known;
  PeerTallies out;
  for (const PeerView& p : peers) {
    if (known.emplace(p.shard, p.row.router, p.row.peer_type, p.row.distinguisher, p.row.address).second)
      ++out[{p.shard, p.row.router}].seen;
  }
  return out;
}

ShardReading shard_reading(const FleetView& view, std::uint32_t shard) {
  if (const ProcessView* process = view.process(ingestd_name(shard)); process != nullptr) {
    if (process->verdict == Verdict::Draining) return ShardReading::Drains;
    if (process->verdict == Verdict::Dead || process->verdict == Verdict::Stuck ||
        process->verdict == Verdict::Stopped)
      return ShardReading::Down;
  }
  const ShardView* page = view.shard(shard);
  if (page != nullptr && page->value(IngestMetric::RestoreState) != 0) return ShardReading::Restores;
  return ShardReading::Reads;
}

RouterDiagnosis diagnose(const RouterView& router, const PeerTally& peers, const DiagnosisContext& context) {
  const StatsReader::Router& row = router.row;
  const std::uint64_t now = context.now_realtime_ns;
  if (context.shard == ShardReading::Down) {
    return {
        RouterCondition::Unknown, Concern::Problem,
        fmt::format("ingestd@{}, which owns it, does not run: what is shown is from before.", router.shard),
        fmt::format("See why with aranctl status, and the log of ingestd@{}.", router.shard)};
  }
  if (row.sessions == 0) return without_session(row, now);
  if (context.shard == ShardReading::Restores) {
    return {
        RouterCondition::NotRead, Concern::Notice,
        fmt::format("It is connected and not read yet: shard {} restores its tables first.", router.shard),
        "Wait; aranctl status says what the restore waits for."};
  }
  if (context.shard == ShardReading::Drains) {
    return {RouterCondition::NotRead, Concern::Notice,
            fmt::format("It is connected and not read: shard {} is draining.", router.shard),
            "Let it read on with aranctl drain --undo, or restart that ingestd."};
  }
  if (row.throttled) {
    return {RouterCondition::Throttled, Concern::Notice,
            fmt::format("It is not read for now: its session waits for room in the ring of shard {}.",
                        router.shard),
            "Nothing is lost; if it lasts, publishing is slower than the routers: look at NATS and at the "
            "fill of "
            "the rings."};
  }
  if (row.peers_up == 0) return without_peer(row, peers, now);
  const bool has_routes = context.curation ? row.routes != 0 : row.updates_published != 0;
  if (!has_routes) {
    if (since(now, row.connected_realtime_ns) < kSettlesNs) {
      return {RouterCondition::Starting,
              Concern::None,
              fmt::format("It connected {} ago; {} up, and no route came yet.",
                          spoken_duration(since(now, row.connected_realtime_ns)),
                          counted(row.peers_up, "BGP peer is", "BGP peers are")),
              {}};
    }
    return without_routes(row);
  }
  if (row.last_error == number(ErrorCode::RouterRouteLimit)) {
    return {
        RouterCondition::Limited, Concern::Problem, fmt::format("It is limited: {}.", row.last_error_text),
        "Raise max_routes of its [[router]] (or bmp.max_routes_per_router), or find out why the router has "
        "more routes than expected."};
  }
  if (row.routes_untold != 0) {
    return {RouterCondition::Behind, Concern::Problem,
            fmt::format("The stream does not have the latest of {}, because the ring was full.",
                        counted(row.routes_untold, "route", "routes")),
            "It is told when there is room again; look at NATS and at the fill of the rings, or choose "
            "ring.when_full = \"block\"."};
  }
  const std::uint64_t quiet = since(now, row.last_message_realtime_ns);
  if (quiet >= kQuietNs) {
    return {RouterCondition::Quiet, Concern::Notice,
            fmt::format("Its session is open, but no message came for {}.", spoken_duration(quiet)),
            "BMP has no keepalive: switch Statistics Reports on at the router, and check there that its BMP "
            "session is still up."};
  }
  std::string what = row.peers_up < peers.seen
                         ? fmt::format("{} of {} BGP peers are up", row.peers_up, peers.seen)
                         : counted(row.peers_up, "BGP peer is up", "BGP peers are up");
  what += fmt::format("; the last message came {} ago.", spoken_duration(quiet));
  return {RouterCondition::Receiving, Concern::None, std::move(what), {}};
}

std::vector<RouterDiagnosis> diagnose_all(const FleetView& view, const std::vector<RouterView>& routers,
                                          const std::vector<PeerView>& peers, bool curation,
                                          std::uint64_t now_realtime_ns) {
  const PeerTallies tallies = tally_peers(peers);
  std::map<std::uint32_t, ShardReading> shards;
  std::vector<RouterDiagnosis> out;
  out.reserve(routers.size());
  for (const RouterView& r : routers) {
    const auto [shard, is_new] = shards.try_emplace(r.shard);
    if (is_new) shard->second = shard_reading(view, r.shard);
    const auto tally = tallies.find({r.shard, r.row.index});
    out.push_back(diagnose(r, tally == tallies.end() ? PeerTally() : tally->second,
                           {shard->second, curation, now_realtime_ns}));
  }
  return out;
}

}  // namespace arancini::curated
