#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/base/types.h"
#include "common/schema/update_decode.h"
#include "common/wire/bgp_update.h"

// One form for the path attributes of a route, whether they come from a router or from the log: what
// consumers can see of them, and nothing else. Two sets that are told alike have the same form, byte for
// byte.
namespace arancini::schema {

// The form is a path attribute field (RFC 4271 4.3) that wire::parse_attributes() takes with 4-byte AS
// numbers and that is told as the original was: one attribute a type, in the order of the types, with the
// flags of the type's definition; behind them those that Update has no field for, as they came. What is told
// in one piece is one piece here: AS_PATH has been put together with AS4_PATH (which stays, empty, since its
// presence is told), a path of sequences only is one sequence. MP_REACH and MP_UNREACH are left out.
class CanonicalAttributes {
 public:
  // `next_hop`: BatchAttributes::next_hop, `via_mp`: BatchMeta::via_mp. No allocation. False: the form would
  // be longer than BGP can say (an AS path of more than 16,000 hops); then nothing equals it.
  [[nodiscard]] bool set(const wire::Attributes& attributes, const IpAddress& next_hop, bool via_mp) noexcept;
  // Of an announcement; false as above, with the AS path cut, or when lists are longer than any UPDATE has.
  [[nodiscard]] bool set(const DecodedUpdate& update) noexcept;

  // 16 bytes of a route that came with MP_REACH; empty where the NEXT_HOP attribute has it.
  [[nodiscard]] wire::Bytes next_hop() const {
    return wire::Bytes(next_hop_).first(via_mp_ ? next_hop_.size() : 0);
  }
  [[nodiscard]] wire::Bytes attributes() const { return wire::Bytes(bytes_).first(size_); }

 private:
  template <class Source>
  bool set_from(const Source& source, const IpAddress& next_hop, bool via_mp) noexcept;

  // All of an UPDATE's attributes, and its AS_PATH with 4 bytes for 2.
  static constexpr std::size_t kMaxBytes = 2 * 65536 + 1024;
  std::array<std::byte, 16> next_hop_{};
  bool via_mp_ = false;
  std::size_t size_ = 0;
  std::array<std::byte, kMaxBytes> bytes_;
};

}  // namespace arancini::schema
