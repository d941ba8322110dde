#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/metrics/stats_file.h"
#include "common/ring/ring_writer.h"
#include "ingestd/event_loop.h"
#include "ingestd/listener.h"
#include "ingestd/log_reader.h"
#include "ingestd/recording.h"
#include "ingestd/restart_adopt.h"
#include "ingestd/restorer.h"
#include "ingestd/shard.h"
#include "ingestd/shard_sink.h"
#include "ingestd/snapshot_stores.h"
#include "ingestd/snapshot_worker.h"

namespace arancini::ingestd {

// Everything that one ingestd owns, in the order in which it comes to life.
struct Instance {
  const Config& config;
  std::uint32_t shard_number;
  const SystemClock& clock;
  Logger& log;
  Fd signals;
  StatsWriter stats;
  RingWriter ring;
  Recording recording;
  std::unique_ptr<RestartAdoption> adoption;  // what the process before has left; null: nothing
  Shard shard;
  ShardSink sink;
  Listeners listeners;
  EventLoop loop;
  Logger snapshot_log;                        // a logger for each thread
  std::unique_ptr<SnapshotWorker> snapshots;  // null: none are taken, in a life without a restore neither
  // Restores the tables at start; null: --no-restore, or no curation. The store is null where there are no
  // snapshots.
  std::unique_ptr<snapshot::SnapshotStore> restore_from;
  std::unique_ptr<LogReader> log_reader;
  std::unique_ptr<Restorer> restorer;

  Instance(const Config& config_in, std::uint32_t number, const SystemClock& clock_in, Logger& log_in,
           Fd signals_in, StatsWriter stats_in, RingFile ring_file, Listeners listeners_in, bool watchdog,
           bool restore, const std::string& record_to)
      : config(config_in),
        shard_number(number),
        clock(clock_in),
        log(log_in),
        signals(std::move(signals_in)),
        stats(std::move(stats_in)),
        ring(std::move(ring_file)),
        recording(record_to, config, number, stats, ring, clock, log),
        shard(config, ring, stats, log, recording.clock(), recording.seed()),
        sink(shard, ring, stats, watchdog),
        listeners(std::move(listeners_in)),
        loop(EventLoop::Options{.shard = number,
                                .shard_count = config.shards.count,
                                .max_sessions = config.bmp.max_sessions,
                                .max_message_bytes = config.bmp.max_message_bytes,
                                .io = config.bmp.io,
                                .spin_ns = std::uint64_t{config.bmp.spin_us} * 1000},
             recording.front(shard, sink), stats, log, clock),
        snapshot_log(fmt::format("ingestd@{}", number), parse_log_level(config.log.level)) {
    // Tables that began empty are not what the log says.
    if (auto store = restore ? open_snapshot_store(config) : nullptr) {
      snapshots = std::make_unique<SnapshotWorker>(
          SnapshotWorker::Options{number, config.shards.count, config.snapshot.interval_s}, std::move(store),
          shard.tasks(), ring, stats, snapshot_log, clock);
    }
  }
};

}  // namespace arancini::ingestd
