#pragma once

#include <atomic>
#include <cstdint>

#include "common/ring/futex.h"

namespace arancini::publishd {

// What wakes the hot thread beside the doorbells of the rings: acks, sessions, attached rings, signals.
// bump() may be called from any thread and from a signal handler.
class Wake {
 public:
  [[nodiscard]] std::uint32_t value() const { return word_.load(std::memory_order_acquire); }
  [[nodiscard]] const std::uint32_t* word() const { return reinterpret_cast<const std::uint32_t*>(&word_); }
  void bump() {
    word_.fetch_add(1, std::memory_order_seq_cst);  // before the look at sleeping_
    if (sleeping_.load(std::memory_order_seq_cst) != 0) futex_wake_all(word());
  }
  // The hot thread brackets its sleep: what is bumped in between costs a system call, what is bumped while it
  // works does not. set_sleeping(true) comes before the last look at what may have arrived.
  void set_sleeping(bool on) { sleeping_.store(on ? 1 : 0, std::memory_order_seq_cst); }

 private:
  std::atomic<std::uint32_t> word_{0};
  std::atomic<std::uint32_t> sleeping_{0};
  static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
};

}  // namespace arancini::publishd
