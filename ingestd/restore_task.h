#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/schema/event_fields.h"
#include "ingestd/hot_task.h"
#include "ingestd/restart_adopt.h"
#include "ingestd/restore.h"
#include "ingestd/restore_batch.h"

namespace arancini::ingestd {

// Restores the shard's tables from batches that another thread fills; until its end the shard takes no
// messages. Post it once, before the hot thread runs.
class RestoreTask final : public HotTask {
 public:
  // Sessions of the process before go on when all is restored. Borrowed; before the task is posted.
  void set_adoption(RestartAdoption* adoption) { adoption_ = adoption; }

  // --- the other thread

  // An empty batch to be filled, null while all are under way. The same one until it is given.
  [[nodiscard]] RestoreBatch* free_batch();
  void give();
  // All was given. `events` are written before anything else is. Not `complete`: the tables are dumped when
  // the routers have told them again.
  void end(std::vector<schema::EventFields> events, bool complete);
  // Everything that was given is applied.
  [[nodiscard]] bool idle() const;
  // The tables are what was told, the shard goes on.
  [[nodiscard]] bool finished() const { return finished_.load(std::memory_order_acquire); }
  // For metrics: it waits for something outside.
  void set_waiting(bool waiting) { waiting_.store(waiting, std::memory_order_relaxed); }
  // The hot thread goes: nothing is taken any more.
  [[nodiscard]] bool gone() const { return gone_.load(std::memory_order_acquire); }
  // No memory for a route: the restore stands until there is.
  [[nodiscard]] bool no_memory() const { return no_memory_.load(std::memory_order_relaxed); }
  // Valid when finished().
  [[nodiscard]] std::uint64_t routers() const { return routers_; }
  [[nodiscard]] std::uint64_t routes() const { return routes_; }
  [[nodiscard]] std::uint64_t unplaced() const { return unplaced_; }

  // --- the hot thread
  Progress run(Shard::Impl& shard) noexcept override;

 private:
  struct Slot {
    RestoreBatch batch;
    std::atomic<bool> filled{false};
  };
  std::array<Slot, 4> slots_;
  std::size_t next_give_ = 0;
  std::vector<schema::EventFields> events_;
  bool complete_ = true;
  std::atomic<bool> end_{false}, finished_{false}, gone_{false}, no_memory_{false}, waiting_{false};

  RestartAdoption* adoption_ = nullptr;
  std::size_t next_take_ = 0;
  Restore::Cursor cursor_;
  bool begun_ = false;  // the batch at next_take_, for the witness
  bool end_begun_ = false;
  std::size_t next_event_ = 0;
  std::uint64_t started_ns_ = 0;  // boot time
  std::uint64_t routers_ = 0, routes_ = 0, unplaced_ = 0;
};

}  // namespace arancini::ingestd
