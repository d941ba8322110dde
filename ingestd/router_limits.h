#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "ingestd/events.h"
#include "ingestd/log_limiter.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"

// Says what the operator's rules, or the shard's size, keep out (docs/configuration.md, Routers): in the log,
// the metrics, the routers' rows, and by events of the kind `limit`. All but the counts are rate-limited.
namespace arancini::ingestd {

class Limits {
 public:
  // An event about one router's routes comes at most so often.
  static constexpr std::uint64_t kIntervalNs = 10'000'000'000;
  // A router whose routes were skipped is asked to tell them at most so often.
  static constexpr std::uint64_t kAgainNs = 300'000'000'000;
  // Room that sweeps made must be left for so long.
  static constexpr std::uint64_t kFreedNs = 10'000'000'000;

  Limits(ShardContext& context, PeerTable& peers, Events& events)
      : context_(context), peers_(peers), events_(events) {}

  // A session is closed, or skipped for want of a row. `detail`: what exactly, for the operator.
  void refused(const IpAddress& source, std::uint16_t port, std::string_view name, ErrorCode code,
               std::string_view detail);
  // So many new prefixes of the router were skipped: it is at its limit.
  void routes_skipped(Router& router, std::uint32_t routes);
  // After a restart: routes of it were skipped.
  void take_over(Router& router) { over_.push_back(&router); }
  // Calls `close(Router&)` for routers that are well below their limit again. Just below is enough where a
  // sweep made the room: what the router told instead of the swept routes was skipped while they stood there.
  template <class F>
  void run(F&& close) {
    if (over_.empty()) return;
    std::erase_if(over_, [&](Router* router) {
      if (!is_below(*router)) return false;
      close(*router);
      below(*router);
      return true;
    });
  }

 private:
  [[nodiscard]] bool is_below(Router& router) const;
  void below(Router& router);
  void tell_routes(Router& router);

  ShardContext& context_;
  PeerTable& peers_;
  Events& events_;
  std::vector<Router*> over_;  // routes of them were skipped since they were last asked to tell
  LogLimiter refused_;
};

}  // namespace arancini::ingestd
