#pragma once

#include <time.h>

#include <cstdint>

namespace arancini {

inline std::uint64_t clock_ns(clockid_t id) {
  timespec ts{};
  ::clock_gettime(id, &ts);
  return static_cast<std::uint64_t>(ts.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(ts.tv_nsec);
}

// Time is passed in, never asked for: tests and replays drive it.
class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since 1970 (CLOCK_REALTIME): what consumers see. May jump; order and suppression never use
  // it.
  [[nodiscard]] virtual std::uint64_t realtime_ns() const = 0;
  // Nanoseconds since boot, with sleep (CLOCK_BOOTTIME): timers and heartbeats.
  [[nodiscard]] virtual std::uint64_t boottime_ns() const = 0;

  struct Times {
    std::uint64_t boottime_ns = 0;
    std::uint64_t realtime_ns = 0;
  };
  // Both, for what a shard writes: a recording keeps what this gave, and nothing else of a clock.
  [[nodiscard]] virtual Times times() const { return {boottime_ns(), realtime_ns()}; }
};

class SystemClock final : public Clock {
 public:
  [[nodiscard]] std::uint64_t realtime_ns() const override { return clock_ns(CLOCK_REALTIME); }
  [[nodiscard]] std::uint64_t boottime_ns() const override { return clock_ns(CLOCK_BOOTTIME); }
};

class FakeClock final : public Clock {
 public:
  [[nodiscard]] std::uint64_t realtime_ns() const override { return kEpochNs + now_ns; }
  [[nodiscard]] std::uint64_t boottime_ns() const override { return now_ns; }
  static constexpr std::uint64_t kEpochNs = 1'700'000'000'000'000'000U;
  std::uint64_t now_ns = 1'000'000'000U;
};

}  // namespace arancini
