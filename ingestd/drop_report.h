#pragma once

#include <cstdint>
#include <vector>

#include "ingestd/log_limiter.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"

// Counts what is dropped, and says so: in the routers' rows, the metrics, the log, and by events of the kinds
// `dropped` and `reconciled` (docs/stream.md).
namespace arancini::ingestd {

class DropReport {
 public:
  // An event about drops comes at most so often for a router; an episode ends when nothing was dropped for so
  // long and all is told.
  static constexpr std::uint64_t kIntervalNs = 1'000'000'000;

  DropReport(ShardContext& context, PeerTable& peers) : context_(context), peers_(peers) {}

  // So many changes of the router's were not told.
  void note(Router& router, std::uint64_t announcements, std::uint64_t withdraws);
  // Writes the events that are due. Returns the boot time of the next one, 0 if none. With `room_ahead` (the
  // reconciler is about to begin) what was dropped is said at once.
  std::uint64_t run(bool room_ahead);
  // Writes what can be written of what was dropped: the process ends.
  void finish();

 private:
  bool write_dropped(Router& router);
  bool write_reconciled(Router& router);

  ShardContext& context_;
  PeerTable& peers_;
  std::vector<Router*> routers_;  // with an episode
  LogLimiter lines_;
};

}  // namespace arancini::ingestd
