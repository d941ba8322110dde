#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shm-layout/abi.h"

// A daemon's window for curated: counters, gauges and the state of its routers and peers. One writer (the
// daemon's hot thread), plain relaxed stores; readers never make it wait. The meaning of `values[i]` is in
// common/metrics/metric_list.h.
namespace arancini::shm {

inline constexpr std::uint64_t kStatsMagic = 0x5354415449434e41ULL;  // "ANCITATS" in memory order
inline constexpr std::uint32_t kStatsAbiVersion = 3;

enum class ProcessKind : std::uint32_t { Ingestd = 1, Publishd = 2, Curated = 3 };

// What the process says of itself; dead or stuck is judged from outside (lock, heartbeat).
enum class ProcessState : std::uint32_t {
  Starting = 0,
  Running = 1,
  Draining = 2,
  Degraded = 3,
  Stopped = 4
};

inline constexpr std::size_t kStatsValues = 256;
inline constexpr std::size_t kStatsTextBytes = 128;

struct alignas(kLineBytes) StatsHeader {
  std::uint64_t magic;
  std::atomic<std::uint32_t> abi_version;  // stored last (release), loaded first (acquire)
  std::uint32_t process_kind;              // ProcessKind
  std::uint64_t layout_hash;
  std::uint32_t shard;
  std::uint32_t pid;
  std::uint64_t started_realtime_ns;
  std::atomic<std::uint64_t> heartbeat_boottime_ns;
  std::atomic<std::uint32_t> state;  // ProcessState
  std::uint32_t router_capacity;
  std::uint32_t peer_capacity;
  std::uint32_t reserved0;
  char version[32];
  std::uint8_t reserved1[24];
};

// A row is valid when `guard` is even and the same before and after it was copied (seqlock); `in_use` 0 means
// free.
struct alignas(kLineBytes) RouterRow {
  std::atomic<std::uint32_t> guard;
  std::uint32_t in_use;
  std::uint8_t address[16];  // IPv4 mapped into IPv6
  std::uint16_t port;        // of the newest session
  std::uint16_t sessions;    // open now
  std::uint32_t state;       // RouterState
  std::uint32_t peers_up;
  std::uint32_t last_error;  // stable error code (common/base/error.h), 0 = none
  std::uint64_t connected_realtime_ns;
  std::uint64_t last_message_realtime_ns;
  std::uint64_t messages;
  std::uint64_t bytes;
  std::uint64_t malformed;
  std::uint64_t updates_published;  // written to the ring
  std::uint64_t updates_suppressed;
  std::uint64_t routes;                 // told and not withdrawn
  std::uint32_t throttled;              // 1 while the session waits for room in the ring
  std::uint32_t routes_untold;          // what was told of them differs from what the router has, for now
  std::uint64_t announcements_dropped;  // not told when they came, for want of room in the ring
  std::uint64_t withdraws_dropped;
  char name[kStatsTextBytes];      // of [[router]], empty: none
  char sys_name[kStatsTextBytes];  // from Initiation, UTF-8, cut, zero-terminated
  char sys_descr[kStatsTextBytes];
  char last_error_text[kStatsTextBytes];
};

enum class RouterState : std::uint32_t { Connected = 1, Initiated = 2, Lost = 3, Refused = 4 };

struct alignas(kLineBytes) PeerRow {
  std::atomic<std::uint32_t> guard;
  std::uint32_t in_use;
  std::uint32_t router;  // index of its RouterRow
  std::uint8_t peer_type;
  std::uint8_t view;   // arancini::View; one row per (peer, view) that has been seen
  std::uint8_t state;  // PeerState
  std::uint8_t reserved0;
  std::uint8_t address[16];
  std::uint64_t distinguisher;
  std::uint32_t asn;
  std::uint32_t bgp_id;
  std::uint64_t changed_realtime_ns;  // last Peer Up or Peer Down
  std::uint64_t routes;
  std::uint64_t updates_published;
  std::uint64_t updates_suppressed;
  std::uint64_t updates_malformed;
  std::uint64_t synthetic_withdraws;
  std::uint32_t down_reason;  // RFC 7854 4.9
  std::uint32_t reserved1;
  std::uint8_t reserved2[16];
};

enum class PeerState : std::uint8_t { Unknown = 0, Up = 1, Down = 2, Stale = 3 };

// In the file: StatsHeader, the values, RouterRow[router_capacity], PeerRow[peer_capacity].
struct StatsPage {
  StatsHeader header;
  std::atomic<std::uint64_t> values[kStatsValues];
};

static_assert(std::is_standard_layout_v<StatsPage> && std::is_standard_layout_v<RouterRow> &&
              std::is_standard_layout_v<PeerRow>);
static_assert(sizeof(StatsHeader) == 128);
static_assert(offsetof(StatsHeader, heartbeat_boottime_ns) == 40 && offsetof(StatsHeader, version) == 64);
static_assert(sizeof(StatsPage) == 128 + 8 * kStatsValues);
static_assert(sizeof(RouterRow) == 640 && offsetof(RouterRow, name) == 128);
static_assert(sizeof(PeerRow) == 128 && offsetof(PeerRow, changed_realtime_ns) == 48);

inline constexpr std::uint64_t kStatsLayoutHash = [] {
  std::uint64_t h = kLayoutSeed;
  for (const std::size_t v : {std::size_t{kStatsAbiVersion},
                              sizeof(StatsPage),
                              offsetof(StatsPage, values),
                              sizeof(RouterRow),
                              sizeof(PeerRow),
                              offsetof(StatsHeader, abi_version),
                              offsetof(StatsHeader, process_kind),
                              offsetof(StatsHeader, layout_hash),
                              offsetof(StatsHeader, shard),
                              offsetof(StatsHeader, pid),
                              offsetof(StatsHeader, started_realtime_ns),
                              offsetof(StatsHeader, heartbeat_boottime_ns),
                              offsetof(StatsHeader, state),
                              offsetof(StatsHeader, router_capacity),
                              offsetof(StatsHeader, peer_capacity),
                              offsetof(StatsHeader, version),
                              offsetof(RouterRow, in_use),
                              offsetof(RouterRow, address),
                              offsetof(RouterRow, port),
                              offsetof(RouterRow, sessions),
                              offsetof(RouterRow, state),
                              offsetof(RouterRow, peers_up),
                              offsetof(RouterRow, last_error),
                              offsetof(RouterRow, connected_realtime_ns),
                              offsetof(RouterRow, last_message_realtime_ns),
                              offsetof(RouterRow, messages),
                              offsetof(RouterRow, bytes),
                              offsetof(RouterRow, malformed),
                              offsetof(RouterRow, updates_published),
                              offsetof(RouterRow, updates_suppressed),
                              offsetof(RouterRow, routes),
                              offsetof(RouterRow, throttled),
                              offsetof(RouterRow, routes_untold),
                              offsetof(RouterRow, announcements_dropped),
                              offsetof(RouterRow, withdraws_dropped),
                              offsetof(RouterRow, name),
                              offsetof(RouterRow, sys_name),
                              offsetof(RouterRow, sys_descr),
                              offsetof(RouterRow, last_error_text),
                              offsetof(PeerRow, in_use),
                              offsetof(PeerRow, router),
                              offsetof(PeerRow, peer_type),
                              offsetof(PeerRow, view),
                              offsetof(PeerRow, state),
                              offsetof(PeerRow, address),
                              offsetof(PeerRow, distinguisher),
                              offsetof(PeerRow, asn),
                              offsetof(PeerRow, bgp_id),
                              offsetof(PeerRow, changed_realtime_ns),
                              offsetof(PeerRow, routes),
                              offsetof(PeerRow, updates_published),
                              offsetof(PeerRow, updates_suppressed),
                              offsetof(PeerRow, updates_malformed),
                              offsetof(PeerRow, synthetic_withdraws),
                              offsetof(PeerRow, down_reason)}) {
    h = fold_layout(h, v);
  }
  return h;
}();

}  // namespace arancini::shm
