#pragma once

#include <algorithm>
#include <cstdint>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/metrics/stats_file.h"
#include "common/ring/ring_writer.h"
#include "ingestd/attribute_store.h"
#include "ingestd/segment_pool.h"
#include "ingestd/shard_witness.h"

// What the parts of one shard share: where they write, and what time it is.
namespace arancini::ingestd {

// Entries of the tables' `untold`: all, those that downstream knows, and those that have no route any more.
struct UntoldCounts {
  std::uint64_t entries = 0, told = 0, gone = 0;
};

struct ShardContext {
  ShardContext(const Config& config, RingWriter& ring_writer, StatsWriter& stats_writer, Logger& logger,
               const Clock& time_source, const HashSeed& seed)
      : ring(ring_writer),
        stats(stats_writer),
        log(logger),
        clock(time_source),
        pool({.huge_pages = config.ring.hugepages != HugepageMode::Never, .seed = seed}),
        attributes(pool),
        rules(config.routers),
        curate(config.curation.enabled),
        drop_newest(config.ring.when_full == WhenRingFull::DropNewest) {
    set_timers(config);
    read_clock();
  }

  // What may change while the shard runs.
  void set_timers(const Config& config) {
    grace_ns = to_ns(config.curation.session_grace_s);
    resync_timeout_ns = to_ns(config.curation.resync_timeout_s);
    resync_settle_ns = to_ns(config.curation.resync_settle_s);
    dump_interval_ns = to_ns(config.dump.interval_s);
  }

  void read_clock() {
    const Clock::Times times = clock.times();
    now_ns = times.boottime_ns;
    realtime_ns = times.realtime_ns;
  }

  RingWriter& ring;
  StatsWriter& stats;
  Logger& log;
  const Clock& clock;
  SegmentPool pool;
  AttributeStore attributes;
  RouterRules rules;  // routers point to its entries
  // False: what comes is forwarded as it is, and there are no tables.
  const bool curate;
  // What finds no room in the ring is applied and not told, instead of making the session wait.
  const bool drop_newest;
  std::uint64_t grace_ns = 0;
  std::uint64_t resync_timeout_ns = 0;
  std::uint64_t resync_settle_ns = 0;
  std::uint64_t dump_interval_ns = 0;  // 0: only on demand

  ShardWitness* witness = nullptr;  // borrowed; of recordings
  std::uint64_t now_ns = 0;         // CLOCK_BOOTTIME, as of the last read_clock()
  std::uint64_t realtime_ns = 0;    // CLOCK_REALTIME
  std::uint64_t routes = 0;         // of all tables
  UntoldCounts untold;

 private:
  static std::uint64_t to_ns(double seconds) {
    return static_cast<std::uint64_t>(std::max(0.0, seconds) * 1e9);
  }
};

}  // namespace arancini::ingestd
