#pragma once

#include <cstdint>

#include "ingestd/hot_task.h"

namespace arancini::ingestd {

// Where sessions are read, or not (event_loop.h). Hot thread only.
class Drainable {
 public:
  virtual ~Drainable() = default;
  // From the next round on: true: no connection is accepted and no session is read; what was received is
  // still applied. TCP holds the rest, and what is not read is not missed (Shard::set_throttled).
  virtual void drain(bool on) noexcept = 0;
  [[nodiscard]] virtual bool draining() const noexcept = 0;
  // Sessions with a message that found no room in the ring.
  [[nodiscard]] virtual std::uint32_t blocked_sessions() const noexcept = 0;
};

// What a drain still waits for.
struct DrainLeft {
  bool draining = false;
  std::uint32_t sessions_blocked = 0;
  std::uint64_t ring_used_bytes = 0;
  std::uint64_t sessions = 0;
};

// Begins or ends a drain, or only looks. The result is valid once HotTasks::done().
class DrainTask final : public HotTask {
 public:
  enum class Action : std::uint8_t { Look, Begin, End };
  DrainTask(Drainable& sessions, Action action) : sessions_(sessions), action_(action) {}

  Progress run(Shard::Impl& shard) noexcept override;
  [[nodiscard]] const DrainLeft& left() const { return left_; }

 private:
  Drainable& sessions_;
  const Action action_;
  DrainLeft left_;
};

}  // namespace arancini::ingestd
