#pragma once

#include <array>
#include <cstdint>

#include "common/base/types.h"
#include "common/schema/batch_encoder.h"
#include "ingestd/barriers.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"
#include "ingestd/untold.h"

// Tells what was dropped (docs/decisions/0008-drop-newest.md), in bounded steps, and only while the ring is
// less than half full: the other half is for what comes.
namespace arancini::ingestd {

class Reconcile {
 public:
  // Routes of one step.
  static constexpr std::uint32_t kStepRoutes = 128;

  Reconcile(ShardContext& context, PeerTable& peers, Untold& untold, Barriers& barriers)
      : context_(context), peers_(peers), untold_(untold), barriers_(barriers) {}

  // Does up to `steps` steps, tables in turn. False: it waits for room.
  bool run(std::size_t steps);
  [[nodiscard]] bool idle() const { return untold_.tables().empty(); }
  [[nodiscard]] bool has_room() const {
    return context_.ring.used_bytes() < context_.ring.capacity_bytes() / 2;
  }

 private:
  enum class Step : std::uint8_t { More, NoRoom };
  // A prefix whose entry is looked at, and the record that it goes into.
  struct Item {
    Prefix prefix;
    AttrId attr = AttrId::None;  // to be announced with; None: to be withdrawn
    std::uint8_t reason = 0;     // of the withdraw
    std::uint8_t order = 0;      // in which it was found
    std::uint8_t record = 0;     // order of the first one of its record
  };
  static_assert(kStepRoutes <= 256);

  Step step(RibTable& table);
  // Fills items_ with entries from the cursor on, sorted by record; `told_only`: those that downstream knows.
  void collect(RibTable& table, bool told_only);
  // Tells the items [first, last), which are of one record. False: no room for all of them.
  bool tell(RibTable& table, schema::BatchMeta meta, std::uint32_t first, std::uint32_t last);
  bool withdraw(RibTable& table, schema::BatchMeta& meta, std::uint32_t first, std::uint32_t last);
  bool announce(RibTable& table, schema::BatchMeta& meta, std::uint32_t first, std::uint32_t last);
  void count(RibTable& table, std::uint32_t written, bool announced, bool synthetic);

  ShardContext& context_;
  PeerTable& peers_;
  Untold& untold_;
  Barriers& barriers_;
  std::array<Item, kStepRoutes> items_;
  std::uint32_t count_ = 0;
  std::size_t next_ = 0;
};

}  // namespace arancini::ingestd
