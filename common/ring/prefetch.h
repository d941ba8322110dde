#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

// Lines of a ring's buffer, fetched some records before they are needed. Each crosses from one core to the
// other, twice a round: 50 to 250 ns, unless several are under way at once. The processor's own prefetchers
// stop at each page, and do not fetch for writing (ring_bench).
namespace arancini {

// How far ahead of the position.
inline constexpr std::uint64_t kPrefetchBytes = 1024;
inline constexpr std::uint64_t kMostPrefetchedBytes = 1024;  // after one record

// Calls `prefetch(address)` for as many lines as a record of `size_bytes` at `position` moves the position
// on, kPrefetchBytes ahead of it. `data`: of a power of two `capacity`, itself at the start of a line.
template <class F>
void for_lines_ahead(const std::byte* data, std::uint64_t capacity, std::uint64_t position,
                     std::uint64_t size_bytes, F&& prefetch) {
  constexpr std::uint64_t kLine = 64;
  const std::uint64_t end = position + kPrefetchBytes;
  const std::uint64_t begin = end - std::min(size_bytes, kMostPrefetchedBytes);
  for (std::uint64_t at = (begin + kLine - 1) / kLine * kLine; at < end; at += kLine)
    prefetch(data + (at & (capacity - 1)));
}

inline void prefetch_to_write(const std::byte* line) {
#ifdef __x86_64__
  // What __builtin_prefetch(line, 1) becomes only for CPUs that surely have it; the others ignore it.
  asm volatile("prefetchw %0" : : "m"(*line));
#else
  __builtin_prefetch(line, 1);
#endif
}

}  // namespace arancini
