#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ingestd/peer_table.h"
#include "ingestd/restore_batch.h"
#include "ingestd/resync.h"
#include "ingestd/shard_context.h"

// Puts into the tables what consumers were told (docs/decisions/0010-restore.md), without telling anything.
// The last word about a route counts, so what is applied may begin earlier than it must, and may come again.
namespace arancini::ingestd {

class Restore {
 public:
  Restore(ShardContext& context, PeerTable& peers, Resync& resync)
      : context_(context), peers_(peers), resync_(resync) {}
  // All steps must have been applied, or the shard goes as well.
  ~Restore();
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

  // How far a batch is applied; zero at its start.
  struct Cursor {
    std::size_t step = 0;
    std::uint32_t route = 0;
  };
  enum class Outcome : std::uint8_t {
    Applied,   // the whole batch
    More,      // call again
    NoMemory,  // for a route or its attributes: call again later
  };
  // One slice.
  Outcome apply(const RestoreBatch& batch, Cursor& cursor) noexcept;

  // Everything was applied: views are stale, and are given up when nobody tells them before their grace time
  // ends. Those under which nothing is told are forgotten. Views of routers that `go_on` (sorted) stay
  // as they are.
  void finish(std::span<const Router* const> go_on = {}) noexcept;

  [[nodiscard]] std::uint64_t routers() const { return routers_.size(); }
  // Routes for which there was no row of the stats page: consumers have them, this shard does not.
  [[nodiscard]] std::uint64_t unplaced() const { return unplaced_; }

 private:
  using Kind = RestoreBatch::Kind;
  // The view's tables, made if needed; null: no row.
  PeerView* view_of(std::uint32_t number) noexcept;
  Outcome routes(const RestoreBatch& batch, const RestoreBatch::Step& step, Cursor& cursor,
                 std::uint32_t& budget) noexcept;
  // False: no memory.
  bool put(RibTable& table, const RestoredRoute& route, AttrId attr) noexcept;
  void take(RibTable& table, const Prefix& prefix) noexcept;
  void count(RibTable& table, std::uint64_t added, std::uint64_t erased) noexcept;
  // A slice of it; true when nothing is left.
  bool clear(std::uint32_t& budget) noexcept;
  void forget_attributes() noexcept;

  ShardContext& context_;
  PeerTable& peers_;
  Resync& resync_;
  std::vector<RestoredRouter> routers_;
  std::vector<RestoredView> views_;
  std::vector<AttrId> attributes_;  // by the snapshot's number; a reference is held
  std::uint64_t unplaced_ = 0;
  bool unplaced_said_ = false;
};

}  // namespace arancini::ingestd
