#include "common/ring/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "common/base/clock.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef FUTEX_32
#define FUTEX_32 2
#endif

namespace arancini {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000U;
constexpr std::uint64_t kFallbackNs = 1'000'000U;
constexpr std::size_t kMaxWords = 128;  // FUTEX_WAITV_MAX

struct WaitvEntry {  // struct futex_waitv of linux/futex.h, which older headers lack
  std::uint64_t value;
  std::uint64_t address;
  std::uint32_t flags;
  std::uint32_t reserved;
};

timespec to_timespec(std::uint64_t ns) {
  timespec ts{};
  ts.tv_sec = static_cast<time_t>(ns / kSecondNs);
  ts.tv_nsec = static_cast<long>(ns % kSecondNs);
  return ts;
}

}  // namespace

void futex_wake_all(const std::uint32_t* word) {
  // Not FUTEX_PRIVATE: the sleeper is another process.
  ::syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void futex_wait_any(std::span<const FutexWait> words, std::uint64_t timeout_ns) {
  constexpr std::uint64_t kLongestNs = 3600 * kSecondNs;
  timeout_ns = std::min(timeout_ns, kLongestNs);
  if (words.empty()) {
    const timespec ts = to_timespec(timeout_ns);
    ::nanosleep(&ts, nullptr);
    return;
  }
  // Beyond what the kernel takes, the rest is looked at again soon.
  if (words.size() > kMaxWords) timeout_ns = std::min(timeout_ns, kFallbackNs);
  std::array<WaitvEntry, kMaxWords> entries{};
  const std::size_t n = std::min(words.size(), kMaxWords);
  for (std::size_t i = 0; i < n; ++i) {
    entries[i] = {words[i].expected, reinterpret_cast<std::uintptr_t>(words[i].word), FUTEX_32, 0};
  }
  const timespec deadline = to_timespec(clock_ns(CLOCK_MONOTONIC) + timeout_ns);
  const long r = ::syscall(SYS_futex_waitv, entries.data(), n, 0, &deadline, CLOCK_MONOTONIC);
  // Some container seccomp filters answer EPERM for what they do not know.
  if (r < 0 && (errno == ENOSYS || errno == EPERM)) {
    const timespec ts = to_timespec(std::min(timeout_ns, n == 1 ? timeout_ns : kFallbackNs));
    ::syscall(SYS_futex, words[0].word, FUTEX_WAIT, words[0].expected, &ts, nullptr, 0);
  }
}

}  // namespace arancini
