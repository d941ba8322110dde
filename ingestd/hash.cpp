#include "ingestd/hash.h"

#include <cstring>

namespace arancini::ingestd {

namespace {

std::uint64_t load(const std::byte* p) {
  std::uint64_t v = 0;
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
  for (; left > 16; left -= 16, p += 16) h = hash_fold(load(p) ^ seed.a, load(p + 8) ^ h);
  std::uint64_t tail[2] = {};
  if (left != 0) std::memcpy(tail, p, left);
  h = hash_fold(tail[0] ^ seed.b, tail[1] ^ h);
  return hash_fold(h ^ seed.a, kHashOdd2);
}

}  // namespace arancini::ingestd
