#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/metrics/stats_file.h"
#include "publishd/hot_core.h"
#include "publishd/wake.h"

namespace arancini::publishd {

// A publishd, whatever its sink: the loop of the hot thread, with its counters, its status and its sleep. The
// thread that calls run() is the hot thread; the loggers have one writer each.
class HotLoop {
 public:
  virtual ~HotLoop() = default;
  HotLoop(const HotLoop&) = delete;
  HotLoop& operator=(const HotLoop&) = delete;

  // Until a signal asked for the end and what was under way is settled, or given up.
  void run();
  // From a signal handler.
  void request_stop() {
    stop_.store(true, std::memory_order_relaxed);
    wake_.bump();
  }

 protected:
  // `flags` as the process was started with, `config` what came of them.
  HotLoop(Config config, ConfigFlags flags);

  [[nodiscard]] virtual HotCore& core() = 0;
  // Attached rings into the core, and those that it gave up back.
  virtual void take_rings() = 0;
  virtual void give_back() = 0;
  // What only this sink has, beside what the core counts.
  virtual void write_metrics(StatsWriter& stats) = 0;
  // While nobody asked for the end.
  [[nodiscard]] virtual shm::ProcessState state() const = 0;
  // The log is served from now on.
  virtual void listen() = 0;
  // For the log and for systemd, one line each: at the start, now, and at the end what waits for the next
  // start (empty: nothing).
  virtual void say_hello() = 0;
  [[nodiscard]] virtual std::string status() const = 0;
  [[nodiscard]] virtual std::string left() const = 0;

  void open_stats();
  void reload(const Config& next);
  // The counters are due at once.
  void ring_came() { next_beat_ns_ = 0; }

  Config config_;
  const ConfigFlags flags_;
  SystemClock clock_;
  Logger log_;           // hot thread
  Logger attacher_log_;  // Attacher's thread
  Logger journal_log_;   // Journal's threads
  Logger service_log_;   // LogService's threads
  Wake wake_;

 private:
  void beat(std::uint64_t now_ns);
  void sleep(std::uint32_t wake_seen);

  std::optional<StatsWriter> stats_;
  std::uint32_t other_pid_ = 0;  // of a publishd that lives here
  std::vector<FutexWait> waits_;
  std::uint64_t next_beat_ns_ = 0;
  std::uint64_t next_status_ns_ = 0;
  std::string status_;
  std::atomic<bool> stop_{false};
};

}  // namespace arancini::publishd
