#pragma once

#include <cstdint>
#include <span>

namespace arancini {

// Futexes on words in shared memory (process-shared). A word is a std::atomic<uint32_t> of a shared page.

// Wakes everyone who sleeps on `word`.
void futex_wake_all(const std::uint32_t* word);

struct FutexWait {
  const std::uint32_t* word = nullptr;
  std::uint32_t expected = 0;  // returns at once when the word is another
};
// Sleeps until one of the words changes and is woken, or `timeout_ns` passes. Uses futex_waitv (Linux 5.16);
// where it is missing, sleeps on the first word, for at most a millisecond when there are more. May return
// early.
void futex_wait_any(std::span<const FutexWait> words, std::uint64_t timeout_ns);

}  // namespace arancini
