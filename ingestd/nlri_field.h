#pragma once

#include <array>

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

// In the order in which they take effect: withdrawals before announcements (RFC 4271 3.1). What cannot be
// announced is withdrawn (RFC 7606 2).
inline std::array<NlriField, 4> fields_of(const wire::Update& update) {
  const bool announced = update.disposition != wire::Update::Disposition::TreatAsWithdraw;
  return {{{update.withdrawn, kIpv4Unicast, false, false, {}},
           {update.mp_unreach.nlri, update.mp_unreach.family, true, false, {}},
           {update.announced, kIpv4Unicast, false, announced, {}},
           {update.mp_reach.nlri, update.mp_reach.family, true, announced, update.mp_reach.next_hop}}};
}

}  // namespace arancini::ingestd
