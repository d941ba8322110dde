#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "common/base/result.h"
#include "common/base/types.h"

// What curated asks the ingestds over their sockets (common/proto/shard.proto). Calls go to all shards at
// once and return when the last one has answered, or not: a shard that does not is named, never hidden. Any
// thread.
namespace arancini::curated {

struct ShardProblem {
  std::uint32_t shard = 0;
  std::string text;
};

struct ShardAnswer {
  bool restoring = false;
  std::string restore_text;
  std::uint64_t snapshot_realtime_ns = 0, snapshot_routes = 0, snapshot_bytes = 0;
  std::string snapshot_error;
  std::string problem;  // why the rest is empty
};

struct LookupWanted {
  IpAddress address;
  std::uint8_t length = 0;
  enum class Match : std::uint8_t { Longest, Exact, Longer } match = Match::Longest;
  bool one_router = false;
  IpAddress router;
  std::string router_name;  // empty: all routers of that address
  std::uint64_t limit = 0;
};
struct LookupFound {
  std::vector<std::string> routes;  // framed Updates, longest prefix first
  bool truncated = false;           // by the limit, or by what is held here at most
  std::vector<ShardProblem> problems;
};

struct DumpDone {
  std::uint32_t shard = 0;
  std::uint64_t routers = 0, routes = 0;
  std::string writer;  // 32 hex digits
  std::uint64_t start_event = 0, end_event = 0;
};

struct SnapshotDone {
  std::uint32_t shard = 0;
  std::string name;
  std::uint64_t routes = 0, bytes = 0, duration_ms = 0, longest_pause_us = 0;
};

struct DrainLeft {
  std::uint32_t shard = 0;
  bool draining = false;
  std::uint32_t sessions_blocked = 0;  // with a message that waits for room in the ring
  std::uint64_t ring_used_bytes = 0;   // not acked
  std::uint64_t sessions = 0;
  [[nodiscard]] bool empty() const { return draining && sessions_blocked == 0 && ring_used_bytes == 0; }
};

class ShardsClient {
 public:
  using Cancelled = std::function<bool()>;  // nobody waits for the answer any more

  explicit ShardsClient(const Config& config) : config_(config) {}

  // By shard, within half a second.
  [[nodiscard]] std::vector<ShardAnswer> states() const;
  // Holds what it finds: kMostRoutes of each shard at most, kMostBytes of all.
  static constexpr std::uint64_t kMostRoutes = 100'000;
  static constexpr std::uint64_t kMostBytes = 128U << 20;
  [[nodiscard]] LookupFound lookup(const LookupWanted& wanted, const Cancelled& cancelled) const;
  // `router` null: of all. Those that do not know the router are left out.
  [[nodiscard]] std::vector<DumpDone> dump(const IpAddress* router, const Cancelled& cancelled,
                                           std::vector<ShardProblem>& problems) const;
  [[nodiscard]] std::vector<SnapshotDone> snapshot(const Cancelled& cancelled,
                                                   std::vector<ShardProblem>& problems) const;
  // Of one shard; the error is one line.
  [[nodiscard]] Result<SnapshotDone, std::string> snapshot(std::uint32_t shard, std::chrono::seconds patience,
                                                           const Cancelled& cancelled) const;
  enum class Drain : std::uint8_t { Look, Begin, End };
  // Of one shard, or of all; returns at once.
  [[nodiscard]] std::vector<DrainLeft> drain(std::optional<std::uint32_t> shard, Drain action,
                                             std::vector<ShardProblem>& problems) const;

 private:
  const Config& config_;
};

}  // namespace arancini::curated
