#pragma once

#include <cstdint>

#include "common/wire/bgp_update.h"

namespace arancini::ingestd {

// One NLRI field of an UPDATE.
struct NlriField {
  wire::Bytes nlri;
  Family family = kIpv4Unicast;
  bool via_mp = false;
  bool announced = false;
  wire::Bytes next_hop;  // of MP_REACH
};

// Of an UPDATE, in the order in which they take effect: withdrawals before announcements (RFC 4271 3.1).
inline constexpr std::uint8_t kNlriFields = 4;

// From `field` on, the next one that says something; kNlriFields if there is none.
inline std::uint8_t next_field(const wire::Update& update, std::uint8_t field) {
  const bool there[kNlriFields] = {!update.withdrawn.empty(), !update.mp_unreach.nlri.empty(),
                                   !update.announced.empty(), !update.mp_reach.nlri.empty()};
  while (field < kNlriFields && !there[field]) ++field;
  return field;
}

// `field` below kNlriFields. What cannot be announced is withdrawn (RFC 7606 2).
inline NlriField field_of(const wire::Update& update, std::uint8_t field) {
  const bool announced = update.disposition != wire::Update::Disposition::TreatAsWithdraw;
  switch (field) {
    case 0: return {update.withdrawn, kIpv4Unicast, false, false, {}};
    case 1: return {update.mp_unreach.nlri, update.mp_unreach.family, true, false, {}};
    case 2: return {update.announced, kIpv4Unicast, false, announced, {}};
    default: return {update.mp_reach.nlri, update.mp_reach.family, true, announced, update.mp_reach.next_hop};
  }
}

}  // namespace arancini::ingestd
