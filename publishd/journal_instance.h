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
#include "publishd/attacher.h"
#include "publishd/journal_sink.h"
#include "publishd/journal_store.h"
#include "publishd/log_service.h"
#include "publishd/wake.h"

namespace arancini::publishd {

// publishd without a broker: everything that the process owns when the journal is the sink.
class JournalInstance {
 public:
  // Throws ConfigError when the state directory cannot be used, std::runtime_error for the runtime directory.
  // `flags` as the process was started with, `config` what came of them.
  JournalInstance(Config config, ConfigFlags flags);

  // Until a signal asked for the end and what was read is durable, or given up.
  void run();
  // From a signal handler.
  void request_stop() {
    stop_.store(true, std::memory_order_relaxed);
    wake_.bump();
  }

 private:
  void beat(std::uint64_t now_ns);
  void write_stats(std::uint64_t now_ns);
  void sleep(std::uint32_t wake_seen);
  void reload(const Config& next);

  Config config_;
  const ConfigFlags flags_;
  SystemClock clock_;
  Logger log_;           // hot thread
  Logger journal_log_;   // the journal's threads
  Logger attacher_log_;  // Attacher's thread
  Logger service_log_;   // LogService's threads
  Wake wake_;
  std::optional<StatsWriter> stats_;
  std::uint32_t stats_told_ = 0;
  Journal journal_;
  LogService service_;
  JournalSink sink_;
  Attacher attacher_;
  std::vector<FutexWait> waits_;
  std::uint64_t next_beat_ns_ = 0;
  std::uint64_t next_status_ns_ = 0;
  std::string status_;
  std::atomic<bool> stop_{false};
};

}  // namespace arancini::publishd
