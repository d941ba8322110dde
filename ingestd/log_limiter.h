#pragma once

#include <cstdint>

namespace arancini::ingestd {

// At most `kBurst` lines of one kind a second; the next line that gets through tells how many did not.
class LogLimiter {
 public:
  static constexpr std::uint32_t kBurst = 10;

  // True if a line may be written now. `suppressed` is the number of lines that were not since the last one.
  bool allow(std::uint64_t now_ns, std::uint64_t& suppressed) {
    if (now_ns - window_ns_ >= 1'000'000'000U) {
      window_ns_ = now_ns;
      lines_ = 0;
    }
    if (lines_ >= kBurst) {
      ++suppressed_;
      return false;
    }
    ++lines_;
    suppressed = suppressed_;
    suppressed_ = 0;
    return true;
  }

 private:
  std::uint64_t window_ns_ = 0;
  std::uint64_t suppressed_ = 0;
  std::uint32_t lines_ = 0;
};

}  // namespace arancini::ingestd
