#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tests/ingestd/bmp_builder.h"

// What tests of the shard say most often.
namespace arancini::testing {

inline PeerSpec peer(std::string_view address = "10.0.0.1", std::uint32_t asn = 65001) {
  PeerSpec p;
  p.address = ip(address);
  p.asn = asn;
  return p;
}
inline PeerSpec peer(std::uint32_t asn) {
  return peer("10.0.0.1", asn);
}

// 20.0.0.0/24 and those that follow.
inline Nlri nth(unsigned i, std::optional<std::uint32_t> path_id = std::nullopt) {
  return {IpAddress::from_v4(0x14000000U + (i << 8)), 24U, path_id};
}
inline std::vector<Nlri> many(unsigned n, unsigned first = 0) {
  std::vector<Nlri> out;
  for (unsigned i = first; i < first + n; ++i) out.push_back(nth(i));
  return out;
}

inline Buffer announce(const PeerSpec& p, const std::vector<Nlri>& nlri, std::uint32_t med = 1) {
  UpdateBuilder u;
  u.basics({64999, 65010}, ip("10.0.0.1")).med(med);
  for (const Nlri& n : nlri) u.announce(n);
  return route_monitoring(p, u);
}
inline Buffer withdraw(const PeerSpec& p, const std::vector<Nlri>& nlri) {
  UpdateBuilder u;
  for (const Nlri& n : nlri) u.withdraw(n);
  return route_monitoring(p, u);
}

}  // namespace arancini::testing
