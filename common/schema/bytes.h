#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/wire/big_endian.h"

// Unaligned loads and stores. Cap'n Proto is little-endian, BGP is big-endian.
namespace arancini::schema {

static_assert(std::endian::native == std::endian::little, "words are written in native order");

using wire::load_be16;
using wire::load_be32;

inline std::uint64_t load_u64(const std::byte* p) {
  std::uint64_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline std::uint32_t load_u32(const std::byte* p) {
  std::uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store_u64(std::byte* p, std::uint64_t v) {
  std::memcpy(p, &v, sizeof v);
}
inline void store_u32(std::byte* p, std::uint32_t v) {
  std::memcpy(p, &v, sizeof v);
}
inline void store_be64(std::byte* p, std::uint64_t v) {
  store_u64(p, __builtin_bswap64(v));
}

}  // namespace arancini::schema
