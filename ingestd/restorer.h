#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/ring/ring_writer.h"
#include "common/schema/event_fields.h"
#include "common/snapshot/snapshot_store.h"
#include "ingestd/hot_task.h"
#include "ingestd/log_reader.h"
#include "ingestd/restore_feed.h"
#include "ingestd/restore_plan.h"
#include "ingestd/restore_task.h"

// Restores a shard at its start to what consumers were told (docs/decisions/0010-restore.md): snapshots, the
// log behind them, what is left in the own ring. A thread of its own, until that is done.
namespace arancini::ingestd {

struct RestoreState {
  bool restoring = true;
  // Something must come back or be done first: the log cannot be read (ErrorCode::RestoreWaiting).
  bool waiting = false;
  // Consumers were told things that the log no longer has (ErrorCode::LogIncomplete).
  bool incomplete = false;
  std::string text;  // one line for the operator
};

class Restorer final : private BatchSink, private LogVisitor {
 public:
  struct Options {
    std::uint32_t shard = 0;
    std::uint32_t shard_count = 1;
    // See layout_began(); 0: not known, then the log is always asked.
    std::uint64_t layout_began_ns = 0;
    // Snapshots that cannot be had for so long are left out, where the log alone has everything.
    std::uint64_t snapshot_patience_ns = 30'000'000'000;
    RestartAdoption* adoption = nullptr;  // borrowed; see RestoreTask::set_adoption()
    std::string log_name = "ingestd";
    LogLevel log_level = LogLevel::Info;
  };
  // Borrowed, but for the options; `store` may be null: no snapshots. Call before the shard's thread runs,
  // with nothing appended to the ring yet and RingWriter::set_layout() called; the shard takes no messages
  // until the end.
  Restorer(const Options& options, Shard& shard, const RingWriter& ring, snapshot::SnapshotStore* store,
           LogReader& log_reader, const Clock& clock);
  ~Restorer() override;  // stops it; the shard has ended its tasks, or still runs
  Restorer(const Restorer&) = delete;
  Restorer& operator=(const Restorer&) = delete;

  // Any thread.
  [[nodiscard]] RestoreState state() const;

 private:
  void run() noexcept;
  // Once from the beginning. True: done, or given up because the shard goes.
  bool attempt();
  // False: not now.
  bool find_snapshots();
  // With snapshots that are whole. False: not now.
  bool plan();
  enum class Look : std::uint8_t { Good, Useless, Wait };
  // `read(source)` is what must be possible with it. Useless: refused or left out.
  template <class Read>
  Look look_at(const snapshot::SnapshotName& name, Read&& read);
  // Snapshots cannot be had. True: they are to be left out, see left_out_.
  bool do_without(std::string trouble);
  bool load_snapshots(bool own_only);
  void refuse_others(std::uint64_t last_sequence);
  void refuse(const snapshot::SnapshotName& name, const snapshot::ReadError& why);
  bool read_log();
  bool read_ring(RingPosition from);
  // One payload of the log or of a record; `where()` names it. False: nothing is taken any more.
  template <class Where>
  bool take(schema::PayloadFormat format, std::span<const std::byte> payload, Where&& where);
  void complete();
  void note_problem(std::string_view where, const std::string& what);
  void say(bool waiting, std::string text);
  // Waits; false when it should stop.
  bool pause(std::uint64_t ns);
  [[nodiscard]] bool stopping() const { return stop_.load(std::memory_order_acquire) || task_.gone(); }
  void add_moved(schema::EventKind kind, const snapshot::RouterEntry& router, const snapshot::Header& from);

  // BatchSink
  RestoreBatch* batch() override;
  void give() override;
  // LogVisitor
  bool begin(const LogBegin& begin) override;
  bool message(std::uint64_t log_sequence, std::string_view format,
               std::span<const std::byte> payload) override;
  bool record(std::span<const std::byte> header, std::span<const std::byte> payload) override;
  bool waiting(std::string_view text) override;
  bool done(const LogDone& done) override;

  const Options options_;
  Shard& shard_;
  const RingWriter& ring_;
  snapshot::SnapshotStore* store_;
  LogReader& reader_;
  const Clock& clock_;
  const RingPosition ring_end_;
  Logger log_;
  RestoreTask task_;
  RestoreFeed feed_;
  std::uint64_t started_ns_ = 0;

  std::set<snapshot::SnapshotName> refused_;
  std::vector<KnownSnapshot> known_;
  std::uint64_t identity_ = 0;  // of the log, once publishd has said it
  RestorePlan plan_;
  // Since when snapshots cannot be had (boot time), and why; left_out_: of the present plan.
  std::optional<std::uint64_t> trouble_since_ns_;
  std::string left_out_;
  bool listed_ = true;   // they could be, for the present plan
  bool needed_ = false;  // what is left out: the log does not have everything
  bool given_ = false;   // the hot thread has something
  bool loaded_ = false;  // the plan's snapshots were given
  bool replan_ = false;
  bool local_ = false;
  // Up to there the log was read, of identity_; the next read goes on.
  std::optional<std::uint64_t> read_to_;
  std::optional<LogDone> done_;
  bool incomplete_ = false;
  std::string incomplete_text_;
  std::uint64_t messages_ = 0, records_ = 0, problems_ = 0;
  std::uint64_t missing_from_ = 0, missing_to_ = 0;
  std::string loaded_text_;
  std::vector<schema::EventFields> events_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  RestoreState state_;
  std::optional<std::uint64_t> waits_since_ns_;
  std::string said_;  // of what it waits for, in the log
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace arancini::ingestd
