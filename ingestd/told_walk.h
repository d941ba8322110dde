#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "common/base/types.h"
#include "ingestd/peer_table.h"

// A walk over what downstream was told of a table, while the table changes.
namespace arancini::ingestd {

struct ToldRoute {
  Prefix prefix;
  AttrId attr = AttrId::None;  // as it was told; the reference is the table's
};

// Downstream knows a route by `routes`, or by `untold` where it changed without a word (untold.h), and a
// route may move between the two without a record. Both are walked by the same positions, so each prefix is
// looked at in one moment: what is told during the whole walk is found exactly once.
class ToldWalk {
 public:
  // Entries of each of the two that a step looks at.
  static constexpr std::uint32_t kStep = 512;

  // The next part, sorted by attributes; `cursor` moves behind it, and is done at the end. It may be empty
  // before. Valid until the table changes.
  std::span<const ToldRoute> next(RibTable& table, WalkCursor& cursor);
  // What is left of the same part behind its first `taken` routes, as it is told now: for later, when the
  // table may have changed.
  std::span<const ToldRoute> again(RibTable& table, std::uint32_t taken);

 private:
  std::span<const ToldRoute> sorted();
  void add(const Prefix& prefix, AttrId attr) { items_[count_++] = {prefix, attr}; }

  std::array<ToldRoute, 2 * kStep> items_;
  std::uint32_t count_ = 0;
};

}  // namespace arancini::ingestd
