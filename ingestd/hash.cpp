#include "ingestd/hash.h"

#include <cstring>

namespace arancini::ingestd {

namespace {

template <class T>
T load(const std::byte* p) {
  T v = 0;
  std::memcpy(&v, p, sizeof v);
  return v;
}

}  // namespace

std::uint64_t hash_bytes(std::span<const std::byte> bytes, std::uint64_t state,
                         const HashSeed& seed) noexcept {
  // The length first: parts that run into one another differ.
  std::uint64_t h = hash_fold(state ^ seed.a ^ kHashOdd1, bytes.size() ^ seed.b);
  const std::byte* p = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  if (left >= 16) [[likely]] {
    for (; left > 16; left -= 16, p += 16)
      h = hash_fold(load<std::uint64_t>(p) ^ seed.a, load<std::uint64_t>(p + 8) ^ h);
    // The last 16 bytes, some of them again.
    first = load<std::uint64_t>(p + left - 16);
    last = load<std::uint64_t>(p + left - 8);
  } else if (left >= 8) {
    first = load<std::uint64_t>(p);
    last = load<std::uint64_t>(p + left - 8);
  } else if (left >= 4) {
    first = load<std::uint32_t>(p);
    last = load<std::uint32_t>(p + left - 4);
  } else if (left > 0) {
    first = std::uint64_t{load<std::uint8_t>(p)} << 16 |
            std::uint64_t{load<std::uint8_t>(p + left / 2)} << 8 | load<std::uint8_t>(p + left - 1);
  }
  h = hash_fold(first ^ seed.b, last ^ h);
  return hash_fold(h ^ seed.a, kHashOdd2);
}

}  // namespace arancini::ingestd
