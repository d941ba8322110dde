#pragma once

#include <cstddef>
#include <cstdint>

#include "common/base/config.h"
#include "ingestd/hot_task.h"

namespace arancini::ingestd {

// Puts what a reload may change in force in a shard: who may connect and what it is called, limits, timers.
// Routers get their limits and tags at once; sessions of those that may no longer connect, or are called
// otherwise now, are closed and come back as what they are. A timer that runs keeps its end.
class RulesTask final : public HotTask {
 public:
  // `next` is borrowed until the task is done. Freed before that, routers would point into nothing.
  explicit RulesTask(const Config& next) : next_(next), rules_(next.routers) {}

  Progress run(Shard::Impl& shard) noexcept override;

 private:
  // Each looks through the rules.
  static constexpr std::size_t kSlice = 16;

  void take_over(Shard::Impl& shard);

  const Config& next_;
  RouterRules rules_;  // the former ones once they are swapped
  bool taken_over_ = false;
  std::size_t router_ = 0, session_ = 0;  // next to look at
};

}  // namespace arancini::ingestd
