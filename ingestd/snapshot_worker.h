#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "common/metrics/stats_file.h"
#include "common/ring/ring_writer.h"
#include "common/snapshot/snapshot_store.h"
#include "common/snapshot/snapshot_writer.h"
#include "ingestd/hot_task.h"
#include "ingestd/snapshot_task.h"

namespace arancini::ingestd {

// What is known of a shard's snapshots, for status.
struct SnapshotState {
  std::uint64_t realtime_ns = 0;  // as of which the last one of this process is good; 0: none yet
  std::string name;               // its name
  std::uint64_t routes = 0;
  std::uint64_t bytes = 0;
  std::uint64_t duration_ns = 0;       // from its begin until it was in force
  std::uint64_t longest_pause_ns = 0;  // of the hot thread
  std::string error;                   // of the last attempt, empty if it went well; one line
  std::string waiting;                 // what the present one waits for; one line
};

// Writes a shard's snapshots into a store: every `interval_s` and when asked to. A snapshot gets its name
// once all that may be in it is durable. Two generations are kept, and what other numbers of shards left
// until it is covered by newer ones (docs/decisions/0009-snapshots.md). A thread of its own.
class SnapshotWorker {
 public:
  struct Options {
    std::uint32_t shard = 0;
    std::uint32_t shard_count = 1;
    double interval_s = 60;  // 0: on demand only
  };
  // All references are borrowed. `log` is for this worker's thread alone. Of `stats` it keeps the Snapshot
  // metrics.
  SnapshotWorker(const Options& options, std::unique_ptr<snapshot::SnapshotStore> store, HotTasks& tasks,
                 const RingWriter& ring, StatsWriter& stats, Logger& log, const Clock& clock);
  ~SnapshotWorker();
  SnapshotWorker(const SnapshotWorker&) = delete;
  SnapshotWorker& operator=(const SnapshotWorker&) = delete;

  // The thread that calls makes it: it inherits the cores of that one.
  void start();
  // The present snapshot is given up. While the hot thread runs, or after HotTasks::finish().
  void stop();

  // Any thread: the next one comes an interval from now; 0: on demand only.
  void set_interval(double interval_s);

  [[nodiscard]] SnapshotState state() const;
  // Any thread: a snapshot that begins after this call; returns when it is in force. The error is one line.
  Result<SnapshotState, std::string> take(std::uint64_t timeout_ns);

 private:
  struct Failure {
    ErrorCode code = ErrorCode::None;
    std::string text;
  };
  enum class Taken : std::uint8_t { InForce, Unchanged, Restoring, Failed, Stopped };

  void run();
  // Until the next one is due or wanted; false: stop.
  bool wait_for_work();
  Taken take_one();
  Taken write(const snapshot::SnapshotName& name);
  bool wait_until_durable(RingPosition end);
  void wait_until_done();
  void retire();
  void retire_other_layouts(const std::vector<snapshot::SnapshotName>& names);
  // The header; a corrupt snapshot is set aside.
  std::optional<snapshot::Header> header_of(const snapshot::SnapshotName& name);
  Taken fail(std::string text);
  void publish(Taken taken);
  void say_waiting(std::string text);
  [[nodiscard]] bool stopping() const;

  const Options options_;
  const std::unique_ptr<snapshot::SnapshotStore> store_;
  HotTasks& tasks_;
  const RingWriter& ring_;
  StatsWriter& stats_;
  Logger& log_;
  const Clock& clock_;
  SnapshotTask task_;
  Fd stop_fd_;

  // The worker's own.
  // Of the last one that is there. One that fails leaves its number to the next try: the same failure has the
  // same text.
  std::uint64_t number_ = 0;
  std::optional<SnapshotTask::Mark> last_mark_;
  std::optional<snapshot::Header> last_header_;  // of the last one in force
  SnapshotState current_;                        // what state() says next
  std::string failure_;                          // of this attempt
  std::string failure_said_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  SnapshotState state_;
  std::uint64_t interval_ns_;   // 0: on demand only
  std::uint64_t due_ns_ = 0;    // boot time
  std::uint64_t wanted_ = 0;    // calls of take()
  std::uint64_t answered_ = 0;  // of those
  bool answered_well_ = false;
  std::string answer_;  // to the last of those, if it was not well
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace arancini::ingestd
