#pragma once

#include <cstddef>
#include <vector>

#include "common/base/types.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"

// Synthetic withdraws in bounded steps (docs/decisions/0006-resync-and-sweeps.md). A sweep withdraws the
// routes that are older than the moment at which it was asked for; what is announced meanwhile is newer and
// stays.
namespace arancini::ingestd {

class RibSweep {
 public:
  RibSweep(ShardContext& context, PeerTable& peers) : context_(context), peers_(peers) {}

  // Withdraws all routes of the table that are not of its current generation. One sweep runs per table;
  // another one waits for its end.
  void request(RibTable& table, Reason reason);
  // Withdraws all that is there now: request() behind a new generation.
  void request_all(RibTable& table, Reason reason);

  // Does up to `steps` steps of kSliceRoutes routes, tables in turn. False: the ring is full.
  bool run(std::size_t steps);
  [[nodiscard]] bool idle() const { return running_.empty(); }
  [[nodiscard]] std::size_t running() const { return running_.size(); }

 private:
  enum class Step { More, Done, NoRoom };
  Step step(RibTable& table);

  ShardContext& context_;
  PeerTable& peers_;
  std::vector<RibTable*> running_;
  std::size_t next_ = 0;
};

}  // namespace arancini::ingestd
