#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "common/base/error.h"
#include "common/base/types.h"
#include "common/metrics/metric_list.h"
#include "publishd/spill_store.h"

namespace arancini {
class Logger;
}

// The spill journal on disk (docs/decisions/0007).
namespace arancini::publishd {

class Wake;

struct JournalOptions {
  std::string directory;
  std::uint64_t segment_bytes = 64ULL << 20;  // less where max_bytes has to do for many rings
  std::uint64_t max_bytes = 0;                // of all files; 0: as much as the disk has
  // The journal is the sink: nothing is published from it and set_published() is not called. With
  // discard_old the oldest segments make room, else what is full stays full.
  bool sink = false;
  bool discard_old = false;
  std::size_t frame_bytes = 1 << 20;            // written and checked at once
  std::uint64_t retry_ns = 250'000'000;         // after a failure; doubles up to 5 s
  std::uint64_t drop_empty_ns = 5'000'000'000;  // an emptied ring's last segment leaves after that time
  static JournalOptions from(const Config& config);
};

// Owns the directory, its lock and the threads that do all file work: writing (one fdatasync for a batch of
// frames), reading ahead, preallocating, and retention with opening. What is called here from the hot thread
// never waits for a file.
class Journal {
 public:
  // Opens in the background, and tries again where it cannot: the directory's lock is another publishd's,
  // say. `wake` is bumped when something has become durable, was read, or ready() has changed. `log` is the
  // journal's own. Stores must be gone before the journal is.
  Journal(JournalOptions options, Wake& wake, Logger& log);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // The directory was read: before this nobody knows what is in it, so no ring may be published from. Stays
  // true. Also true, with trouble(), where there is no journal and none can be made.
  [[nodiscard]] bool ready() const;
  // For tests and start-up; false when the time is over.
  bool wait_ready(std::uint64_t timeout_ns) const;

  // What the journal has of that ring, and where it spills to. Only when ready(); one store of a writer at a
  // time. No file work. A writer whose store is destroyed while it is empty is removed from the disk.
  [[nodiscard]] std::unique_ptr<SpillStore> open(const WriterId& writer, ShardId shard,
                                                 std::uint64_t writer_created_ns);

  // What lies before `position` of that writer is here, or was published from here. Only when ready().
  [[nodiscard]] bool holds(const WriterId& writer, RingPosition position) const;

  // Writers with unpublished records that have no store now, in the order in which the records were written.
  struct Orphan {
    WriterId writer;
    ShardId shard{};
    std::uint64_t created_realtime_ns = 0;  // of the ring
    std::uint64_t order = 0;                // of the first unpublished frame; a later frame has a higher one
    RingPosition begin{};
    RingPosition end{};
  };
  // Only when ready(). `rings`: those that are there; their writers are no orphans.
  [[nodiscard]] std::vector<Orphan> orphans(const std::vector<WriterId>& rings) const;

  // Positions of what is here and not published yet; equal: nothing. Only when ready(), from any thread.
  struct Extent {
    WriterId writer;
    RingPosition begin{};
    RingPosition end{};
  };
  [[nodiscard]] std::vector<Extent> unpublished() const;

  // Names this journal as a log: when it was made (ns, wall clock). 0 until ready(), and where there is none.
  [[nodiscard]] std::uint64_t identity() const;

  // JournalFull, JournalFailed, JournalCorrupt (something was set aside) or None, for the operator.
  [[nodiscard]] ErrorCode trouble() const;
  // The directory of the journal, for texts.
  [[nodiscard]] const std::string& directory() const;
  // JournalBytes, JournalSpilledBytes, JournalReplayedBytes, JournalSegments, JournalTrouble; 0 for others.
  [[nodiscard]] std::uint64_t metric(PublishMetric m) const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace arancini::publishd
