#pragma once

#include <cstddef>

#include "common/base/types.h"
#include "common/schema/canonical.h"
#include "common/wire/bgp_update.h"
#include "ingestd/attribute_store.h"

// What the routes' interned attributes mean: path attributes without MP_REACH and MP_UNREACH and the next hop
// of MP_REACH, as a router sent them or, where they were restored from the log, in their canonical form.
namespace arancini::ingestd {

// Bits of the one byte of AttrKey::flags. kAttributesCanonical is in attribute_store.h.
inline constexpr std::byte kAttributesAs2{0x01};  // wire::Attributes::as2; never with the canonical form
// IPv4 unicast in an MP_REACH that has no next hop; elsewhere the family or the next hop says so.
inline constexpr std::byte kAttributesViaMp{0x04};

inline AttrKey canonical_key(const schema::CanonicalAttributes& form) {
  static constexpr std::byte kFlags[1] = {kAttributesCanonical};
  return {form.next_hop(), kFlags, form.attributes()};
}

// The key of what a router announces. Borrows: next_hop as it stands in MP_REACH (empty: none), `but_mp` the
// path attributes without MP_REACH and MP_UNREACH.
class AnnouncedKey {
 public:
  AnnouncedKey(Family family, bool via_mp, wire::Bytes next_hop, const wire::Attributes& attributes,
               wire::Bytes but_mp)
      : next_hop_(next_hop),
        but_mp_(but_mp),
        flags_((attributes.as2 ? kAttributesAs2 : std::byte{0}) |
               (via_mp && family == kIpv4Unicast && next_hop.empty() ? kAttributesViaMp : std::byte{0})) {}

  [[nodiscard]] AttrKey parts() const { return {next_hop_, {&flags_, 1}, but_mp_}; }

 private:
  wire::Bytes next_hop_, but_mp_;
  std::byte flags_;
};

// An interned set for whoever tells it (again). The spans point into it.
struct AttributeSet {
  AttributeSet(const AttrKey& parts, Family family)
      : attributes(
            wire::parse_attributes(parts.attributes, (parts.flags.front() & kAttributesAs2) != std::byte{0})),
        via_mp(family != kIpv4Unicast || !parts.next_hop.empty() ||
               (parts.flags.front() & kAttributesViaMp) != std::byte{0}),
        next_hop(wire::next_hop_address(parts.next_hop.empty() ? attributes.next_hop : parts.next_hop)) {
    if (via_mp) attributes.present |= std::uint64_t{1} << static_cast<unsigned>(wire::AttrType::MpReach);
  }

  wire::Attributes attributes;
  bool via_mp;         // BatchMeta::via_mp
  IpAddress next_hop;  // BatchAttributes::next_hop
};

}  // namespace arancini::ingestd
