#pragma once

#include <cstdint>
#include <vector>

#include "ingestd/peer_table.h"
#include "ingestd/rib_sweep.h"
#include "ingestd/shard_context.h"

// The timers of a shard: when a re-sync is over and what it did not mention is withdrawn, and when a lost
// session's tables are given up (docs/decisions/0006-resync-and-sweeps.md).
namespace arancini::ingestd {

class Resync {
 public:
  Resync(ShardContext& context, RibSweep& sweep, LifeCycle& life_cycle)
      : context_(context), sweep_(sweep), life_cycle_(life_cycle) {}

  // The routes that are told for the view are expected to be announced again from now on; so are those of a
  // table that is new. Says so: LifeCycle::room_for() for each table comes first.
  void begin(PeerView& view);
  void begin(RibTable& table);
  // Something about this table arrived.
  void news(RibTable& table) {
    if (table.resync.active) table.resync.news_ns = context_.now_ns;
  }
  void end_of_rib(RibTable& table);
  // The session that tells the view is gone.
  void lost(PeerView& view);
  // After a restart: it goes on as it was, its times are of this boot.
  void take_over(RibTable& table, const ResyncState& was);
  void take_over_grace(PeerView& view, std::uint64_t deadline_ns);
  // Somebody tells it again.
  void found(PeerView& view) { view.grace_active = false; }
  // Re-syncs were ended from outside: their timers are forgotten with the next run().
  void ended() { next_due_ns_ = 0; }
  // A session reads again: what it has in store is heard before anything is taken as missing.
  void resumed() { next_due_ns_ = 0; }

  // Acts on what is due. Returns the boot time of the next timer (it may have moved by then), 0 if none.
  std::uint64_t run();

 private:
  static constexpr std::uint64_t kNever = ~std::uint64_t{0};
  [[nodiscard]] std::uint64_t due(const RibTable& table) const;
  [[nodiscard]] std::uint64_t due(const PeerView& view) const;

  ShardContext& context_;
  RibSweep& sweep_;
  LifeCycle& life_cycle_;
  std::vector<RibTable*> resyncs_;  // in order of their begin; inactive ones are taken out by run()
  std::vector<PeerView*> graces_;
  std::uint64_t next_due_ns_ = kNever;  // nothing is due before
};

}  // namespace arancini::ingestd
