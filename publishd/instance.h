#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/metrics/stats_file.h"
#include "publishd/attacher.h"
#include "publishd/drain.h"
#include "publishd/jetstream.h"
#include "publishd/journal_store.h"
#include "publishd/log_service.h"
#include "publishd/ring_source.h"
#include "publishd/wake.h"

namespace arancini::publishd {

// Nearly everything that the process owns. The thread that calls run() is the hot thread; the loggers have
// one writer each.
class Instance {
 public:
  // Throws std::runtime_error when the runtime directory cannot be used.
  // `flags` as the process was started with, `config` what came of them.
  Instance(Config config, ConfigFlags flags);

  // Until a signal asked for the end and what was under way is settled, or given up.
  void run();
  // From a signal handler.
  void request_stop() {
    stop_.store(true, std::memory_order_relaxed);
    wake_.bump();
  }

 private:
  void open_stats();
  // Rings that wait for the journal to say what it has of them, and what other lives left in it.
  void take_rings();
  void add_left();
  void beat(std::uint64_t now_ns);
  void write_stats(std::uint64_t now_ns);
  void sleep(std::uint32_t wake_seen);
  void reload(const Config& next);

  Config config_;
  const ConfigFlags flags_;
  SystemClock clock_;
  Logger log_;            // hot thread
  Logger jetstream_log_;  // JetStream's thread
  Logger attacher_log_;   // Attacher's thread
  Logger journal_log_;    // Journal's threads
  Logger service_log_;    // LogService's threads
  Wake wake_;
  std::optional<StatsWriter> stats_;
  std::uint32_t other_pid_ = 0;  // of a publishd that lives here
  JetStream jetstream_;
  std::unique_ptr<Journal> journal_;  // null: none
  Drain drain_;                       // its sources use the journal
  LogService service_;
  Attacher attacher_;
  std::vector<Attacher::Ring> parked_;    // attached, not given to the drain yet
  std::map<std::string, WriterId> left_;  // names in the drain of what other lives left
  std::set<std::string> missed_;          // of parked_: their records in the journal are not there
  bool left_added_ = false;
  std::vector<FutexWait> waits_;
  std::uint64_t next_beat_ns_ = 0;
  std::uint64_t next_status_ns_ = 0;
  std::string status_;
  std::atomic<bool> stop_{false};
};

}  // namespace arancini::publishd
