#pragma once

#include <cstddef>
#include <vector>

#include "common/base/types.h"
#include "ingestd/drop_report.h"
#include "ingestd/life_cycle.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"
#include "ingestd/untold.h"

// Synthetic withdraws in bounded steps (docs/decisions/0006-resync-and-sweeps.md). A sweep withdraws the
// routes that are older than the moment at which it was asked for; what is announced meanwhile is newer and
// stays.
namespace arancini::ingestd {

class RibSweep {
 public:
  RibSweep(ShardContext& context, PeerTable& peers, Untold& untold, DropReport& drop_report,
           LifeCycle& life_cycle)
      : context_(context),
        peers_(peers),
        untold_(untold),
        drop_report_(drop_report),
        life_cycle_(life_cycle) {}

  // Withdraws all routes of the table that are not of its current generation, and says when that is done (or
  // that there was nothing to do, if a re-sync ends with it). One sweep runs per table; another one waits for
  // its end.
  void request(RibTable& table, Reason reason, SyncCause cause);
  // Withdraws all that is there now: request() behind a new generation.
  void request_all(RibTable& table, Reason reason, SyncCause cause);

  // Does up to `steps` steps of kSliceRoutes routes, tables in turn. False: nothing could be done, the ring
  // is full.
  bool run(std::size_t steps);
  // A step of each sweep of the view.
  void run_view(PeerView& view);
  [[nodiscard]] bool idle() const { return running_.empty(); }
  [[nodiscard]] std::size_t running() const { return running_.size(); }

 private:
  enum class Step { More, Done, NoRoom };
  Step step(RibTable& table);
  void ended(RibTable& table);
  // One slice of routes that are older than the sweep's moment. False: no room.
  bool withdraw_slice(RibTable& table);

  ShardContext& context_;
  PeerTable& peers_;
  Untold& untold_;
  DropReport& drop_report_;
  LifeCycle& life_cycle_;
  std::vector<RibTable*> running_;
  std::size_t next_ = 0;
};

}  // namespace arancini::ingestd
