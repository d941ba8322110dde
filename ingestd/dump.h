#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "common/base/types.h"
#include "ingestd/barriers.h"
#include "ingestd/event_encode.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"
#include "ingestd/told_walk.h"

// Publishes routers' tables again, so that a consumer can begin there (docs/decisions/0012-dumps.md): event
// dump_start; once that is in the log, announcements with reason `dump` of all that downstream was told,
// while changes go on; event dump_end.
namespace arancini::ingestd {

// Who waits for dumps: counts what was done for it. Withdraw it (Dump::forget) before it goes.
struct DumpWaiter {
  std::uint64_t left = 0;  // routers
  std::uint64_t routers = 0;
  std::uint64_t routes = 0;
  std::uint64_t start_event = 0;  // of the first dump_start
  std::uint64_t end_event = 0;    // of the last dump_end
};

class Dump {
 public:
  Dump(ShardContext& context, PeerTable& peers, Barriers& barriers);

  // All routers that are known now; each is dumped once for all requests that came before its turn. `waiter`
  // may be null.
  void request_all(DumpWaiter* waiter);
  // All routers behind that address. False: there is none.
  bool request(const IpAddress& router, DumpWaiter* waiter);
  // Consumers were told things that nobody knows any more: all routers are dumped when they have told their
  // tables again, or had the time for it (grace time, then the re-syncs' timeout). Should this process end
  // before, its successor dumps at once.
  void owe_all();
  // `dump.interval_s` has changed: the next one comes an interval from now, or none does.
  void interval_changed();
  // The dumps go on, nobody waits.
  void forget(const DumpWaiter& waiter);

  enum class Progress : std::uint8_t {
    Idle,
    More,
    Wait,  // for room in the ring, or for the log
  };
  // Asks itself when the log began anew or `dump.interval_s` has passed, then does one step of at most
  // 2 * ToldWalk::kStep routes. Only while the ring is less than half full: the other half is for what comes.
  Progress run();
  // When run() should be called again though nothing else happens: after Wait, and for the dump of the next
  // interval. Boot time, 0: never.
  [[nodiscard]] std::uint64_t next_deadline_ns() const { return next_deadline_ns_; }
  // Routers that wait for their turn, or are at it.
  [[nodiscard]] std::size_t waiting() const { return queue_.size(); }

 private:
  struct Job {
    RouterKey router;
    std::vector<DumpWaiter*> waiters;
    std::optional<std::uint64_t> answers{};  // the ring's dump_request that is answered with its end
  };
  enum class State : std::uint8_t {
    Start,   // nothing was said
    Mark,    // dump_start is in the ring
    Tables,  // and in the log
    End,     // dump_end is to be written
  };

  void ask_itself();
  // All that are known now; the end of the last one answers the request of the ring.
  void answer(std::uint64_t request);
  // Unless there is more to be done that a successor knows of by nothing else.
  void answered(std::uint64_t request);
  // No view waits for its router, or is being re-synced or swept.
  [[nodiscard]] bool settled();
  void add(const Router& router, DumpWaiter* waiter);
  Progress work();
  [[nodiscard]] bool has_room() const {
    return context_.ring.used_bytes() < context_.ring.capacity_bytes() / 2;
  }
  [[nodiscard]] bool write_start(const Router& router);
  [[nodiscard]] bool write_end(const Router& router);
  void finished();
  // Some routes of the router, or the end of its tables.
  Progress step(const Router& router);
  // Goes to the router's next table, looking at a bounded number of rows.
  void next_table(const Router& router);
  // The table at the cursor, if it is still the one that the cursor is about.
  [[nodiscard]] RibTable* table_at_cursor();
  // Appends the routes, which are sorted by attributes; returns how many found room.
  std::uint32_t tell(RibTable& table, std::span<const ToldRoute> routes);

  ShardContext& context_;
  PeerTable& peers_;
  Barriers& barriers_;
  std::deque<Job> queue_;  // the first one is at work
  State state_ = State::Start;
  RingPosition mark_{};  // end of the dump_start event
  std::uint64_t start_event_ = 0;
  std::uint64_t start_realtime_ns_ = 0;
  std::uint64_t routes_ = 0;
  std::size_t row_ = 0, table_index_ = 0;
  const RibTable* table_ = nullptr;  // null: the next one is to be found
  WalkCursor cursor_;
  ToldWalk walk_;
  bool part_left_ = false;  // the last part of the walk found no room behind its first `taken_` routes
  std::uint32_t taken_ = 0;
  std::uint64_t asked_;  // the ring's dump_request that is on its way or answered
  std::uint64_t next_due_ns_ = 0;
  std::uint64_t owed_check_ns_ = 0, owed_latest_ns_ = 0;  // boot time, 0: nothing is owed
  std::uint64_t waits_since_ns_ = 0;
  std::uint64_t next_deadline_ns_ = 0;
};

}  // namespace arancini::ingestd
