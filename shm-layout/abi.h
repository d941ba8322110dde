#pragma once

#include <cstddef>
#include <cstdint>

// What every shared-memory file of Arancini has in common.
//
// Rules: fixed widths, standard layout, no pointers, no bool, no bit-fields. One writer per cache line pair;
// lines are 128 bytes because adjacent 64-byte lines are fetched together. Every offset and size is asserted:
// when an assertion here fails, raise the ABI version of the file concerned.
namespace arancini::shm {

// Distance that keeps two writers from sharing a (prefetched pair of) cache line(s), in bytes.
inline constexpr std::size_t kLineBytes = 128;

// FNV-1a over 64-bit words; used to fold the offsets of a layout into one number (`layout_hash`).
constexpr std::uint64_t fold_layout(std::uint64_t hash, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) {
    hash ^= (value >> (8 * i)) & 0xffU;
    hash *= 0x100000001b3ULL;
  }
  return hash;
}

inline constexpr std::uint64_t kLayoutSeed = 0xcbf29ce484222325ULL;

}  // namespace arancini::shm
