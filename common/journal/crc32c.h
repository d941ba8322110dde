#pragma once

#include <cstdint>
#include <span>

namespace arancini::journal {

// CRC32C (Castagnoli, RFC 3720 B.4), of `bytes` appended to what `before` is the CRC of.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);
// The same without the instructions of the CPU; tests compare both.
std::uint32_t crc32c_portable(std::span<const std::byte> bytes, std::uint32_t before = 0);

// Of a struct whose CRC lies at `crc` within it: with 0 there.
template <class T>
std::uint32_t crc_of_struct(T copy, std::uint32_t T::*crc) {
  copy.*crc = 0;
  return crc32c(std::as_bytes(std::span(&copy, 1)));
}

}  // namespace arancini::journal
