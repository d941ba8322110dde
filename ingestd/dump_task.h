#pragma once

#include <optional>

#include "common/base/types.h"
#include "ingestd/dump.h"
#include "ingestd/hot_task.h"

namespace arancini::ingestd {

// Asks for dumps and waits for their end. The results are valid once HotTasks::done().
class DumpTask final : public HotTask {
 public:
  // Nullopt: of all routers.
  explicit DumpTask(std::optional<IpAddress> router) : router_(router) {}

  Progress run(Shard::Impl& shard) noexcept override;

  [[nodiscard]] bool no_such_router() const { return no_such_router_; }
  // It was cancelled before all were done.
  [[nodiscard]] bool given_up() const { return given_up_; }
  [[nodiscard]] const DumpWaiter& result() const { return waiter_; }

 private:
  const std::optional<IpAddress> router_;
  bool asked_ = false;
  bool no_such_router_ = false;
  bool given_up_ = false;
  DumpWaiter waiter_;
};

}  // namespace arancini::ingestd
