#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

// Network order, unaligned. The caller has checked that the bytes are there.
namespace arancini::wire {

static_assert(std::endian::native == std::endian::little);

inline std::uint8_t load_u8(const std::byte* p) {
  return static_cast<std::uint8_t>(*p);
}
inline std::uint16_t load_be16(const std::byte* p) {
  std::uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_bswap16(v);
}
inline std::uint32_t load_be32(const std::byte* p) {
  std::uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_bswap32(v);
}
inline std::uint64_t load_be64(const std::byte* p) {
  std::uint64_t v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_bswap64(v);
}

}  // namespace arancini::wire
