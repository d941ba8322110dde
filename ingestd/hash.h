#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ingestd/segment_pool.h"

// Keyed hashes after wyhash (Wang Yi, "Modern Non-Cryptographic Hash Function and Pseudorandom Number
// Generator"): 64x64 -> 128 bit products folded. Not cryptographic: what keeps an attacker out is that
// neither the seed nor any hash value leaves the process.
namespace arancini::ingestd {

constexpr std::uint64_t hash_fold(std::uint64_t x, std::uint64_t y) noexcept {
  __extension__ using Wide = unsigned __int128;
  const Wide product = Wide{x} * y;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline constexpr std::uint64_t kHashOdd1 = 0xa0761d6478bd642fULL;
inline constexpr std::uint64_t kHashOdd2 = 0xe7037ed1a0b428dbULL;

constexpr std::uint64_t hash_words(std::uint64_t x, std::uint64_t y, const HashSeed& s) noexcept {
  return hash_fold(hash_fold(x ^ s.a, y ^ s.b) ^ s.a, kHashOdd1);
}

constexpr std::uint64_t hash_words(std::uint64_t x, std::uint64_t y, std::uint64_t z,
                                   const HashSeed& s) noexcept {
  return hash_fold(hash_fold(x ^ s.a, y ^ s.b) ^ s.a, z ^ s.b ^ kHashOdd2);
}

// Prefetch for writing. The empty asm keeps GCC from taking a function that only prefetches for one without
// effect, and its calls away.
inline void prefetch_line(const void* p) noexcept {
  __builtin_prefetch(p, 1);
  asm volatile("" : : "r"(p));
}

// `state` chains several parts; start with anything fixed.
std::uint64_t hash_bytes(std::span<const std::byte> bytes, std::uint64_t state,
                         const HashSeed& seed) noexcept;

}  // namespace arancini::ingestd
