#pragma once

#include <algorithm>
#include <cstdint>

namespace arancini::ingestd {

// The earlier of two times, of which 0 is never.
constexpr std::uint64_t sooner(std::uint64_t a, std::uint64_t b) {
  return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b);
}

}  // namespace arancini::ingestd
