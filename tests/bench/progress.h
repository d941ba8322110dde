#pragma once

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <thread>

#include "common/base/clock.h"

namespace arancini::bench {

// How a measuring script asks a program how far it is. A line `wait N` on standard input is answered, as soon
// as N are done, with one line `DONE MONOTONIC_NS CPU_NS`: what is done, when the last of it was
// (CLOCK_MONOTONIC, not when the question came), and the process's CPU time. The end of standard input ends
// the process.
class Progress {
 public:
  Progress() : commands_([this] { read_commands(); }) { commands_.detach(); }

  // The working thread, after each step: `done` in all. The clock is asked only when that has changed.
  void at(std::uint64_t done) {
    if (done != done_) {
      done_ = done;
      at_ns_ = clock_ns(CLOCK_MONOTONIC);
    }
    // pairs with the release in read_commands()
    if (done_ < wanted_.load(std::memory_order_acquire)) return;
    wanted_.store(kNothing, std::memory_order_relaxed);
    fmt::print("{} {} {}\n", done_, at_ns_, clock_ns(CLOCK_PROCESS_CPUTIME_ID));
    std::fflush(stdout);
  }

 private:
  static constexpr std::uint64_t kNothing = std::numeric_limits<std::uint64_t>::max();

  void read_commands() {
    unsigned long long wanted = 0;
    while (std::scanf(" wait %llu", &wanted) == 1) wanted_.store(wanted, std::memory_order_release);
    std::_Exit(0);
  }

  std::atomic<std::uint64_t> wanted_{kNothing};
  std::uint64_t done_ = 0;
  std::uint64_t at_ns_ = 0;
  std::thread commands_;
};

}  // namespace arancini::bench
