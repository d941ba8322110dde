#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/metrics/stats_file.h"
#include "curated/control_counters.h"
#include "curated/process_manager.h"

namespace arancini::curated {

// What a process is, judged from outside where it cannot say so itself.
enum class Verdict : std::uint8_t {
  Starting,
  Running,
  Draining,
  Degraded,
  Dead,     // it ended without a word: its lock is free, or the supervisor saw it end
  Stuck,    // it holds its lock but its heartbeat is older than kStuckAfterNs
  Stopped,  // it was stopped, or never started
};
std::string_view to_string(Verdict verdict);
// It does its work and answers calls, even if not all is well or it reads nothing: running, degraded,
// draining.
bool answers(Verdict verdict);
inline constexpr std::array kVerdicts{Verdict::Starting, Verdict::Running, Verdict::Draining,
                                      Verdict::Degraded, Verdict::Dead,    Verdict::Stuck,
                                      Verdict::Stopped};

inline constexpr std::uint64_t kStuckAfterNs = 3'000'000'000U;

struct ProcessView {
  std::string name;
  int pid = 0;
  Verdict verdict = Verdict::Stopped;
  std::uint64_t uptime_s = 0;
  std::string version;
  std::uint32_t restarts = 0;
  std::string detail;
};

struct ShardView {
  std::uint32_t shard = 0;
  std::vector<std::uint64_t>
      values;              // by IngestMetric, then histograms (histogram_list.h); empty when there is no page
  std::string ring_state;  // "connected", "waiting", "disconnected: ..."
  // 0 when there is no page.
  [[nodiscard]] std::uint64_t value(IngestMetric m) const {
    return values.empty() ? 0 : values[static_cast<std::size_t>(m)];
  }
};

struct RouterView {
  std::uint32_t shard = 0;
  StatsReader::Router row;
};

struct PeerView {
  std::uint32_t shard = 0;
  std::string router, router_name;  // its row's
  StatsReader::Peer row;
};

struct FleetView {
  std::vector<ProcessView> processes;
  std::vector<ShardView> shards;
  std::vector<std::uint64_t> publish;  // by PublishMetric, then histograms; empty when there is no page
  // "connected", "disconnected", "TLS failed", "not authorized", "stream unusable", "stream full", "unknown";
  // "not used" where the journal is the sink
  std::string nats_state;

  // 0 when there is no page.
  [[nodiscard]] std::uint64_t value(PublishMetric m) const {
    return publish.empty() ? 0 : publish[static_cast<std::size_t>(m)];
  }
  // Null: there is none.
  [[nodiscard]] const ProcessView* process(std::string_view name) const;
  [[nodiscard]] const ShardView* shard(std::uint32_t number) const;
};

// Names what does not run ("publishd dead, ingestd@1 starting"), empty if everything does.
std::string not_running(const FleetView& view);

// What a reload changes in curated itself.
struct LiveConfig {
  RouterRules routers;
  std::uint32_t max_routers = 0;  // that have series of their own
  double session_grace_s = 0;
};

// Everything that curated knows about the daemons comes from their shared-memory pages and locks: looking
// never disturbs them, and it works the same after curated was away. Any thread.
class Fleet {
 public:
  // Borrows all; `manager` may be null (the daemons are somebody else's children).
  Fleet(const Config& config, const Clock& clock, const ProcessManager* manager);

  [[nodiscard]] FleetView view();
  [[nodiscard]] std::vector<RouterView> routers();
  [[nodiscard]] std::vector<PeerView> peers();
  [[nodiscard]] ControlCounters& control() { return control_; }
  [[nodiscard]] std::shared_ptr<const LiveConfig> live() const;
  void set_live(const Config& config);

 private:
  struct Page {
    std::string name;
    std::string path;
    std::unique_ptr<StatsReader> reader;
    std::string error;  // why there is none
  };
  void refresh(Page& page) const;
  void refresh_all();
  [[nodiscard]] ProcessView judge(const Page& page, const ManagedProcess* managed) const;
  [[nodiscard]] std::string ring_state(std::uint32_t shard) const;

  const Config& config_;
  const Clock& clock_;
  const ProcessManager* manager_;
  const std::uint64_t started_realtime_ns_;
  ControlCounters control_;
  mutable std::mutex live_mutex_;
  std::shared_ptr<const LiveConfig> live_;
  std::mutex mutex_;
  std::map<std::uint32_t, Page> ingestd_;  // by shard
  Page publishd_;
};

}  // namespace arancini::curated
