#include "common/wire/bgp_update.h"

#include <algorithm>

#include "common/wire/big_endian.h"

namespace arancini::wire {
namespace {

constexpr std::size_t kBgpHeaderBytes = 19;
constexpr std::uint8_t kOptional = 0x80;
constexpr std::uint8_t kTransitive = 0x40;

constexpr std::uint64_t bit(AttrType t) {
  return 1ULL << static_cast<unsigned>(t);
}

// How bad an attribute is; grows with severity.
enum class Fault : std::uint8_t { None, Discard, Withdraw, Fatal };

constexpr Fault when_not(bool good, Fault fault) {
  return good ? Fault::None : fault;
}
constexpr bool is_multiple(std::size_t size, std::size_t unit) {
  return size != 0 && size % unit == 0;
}

bool parse_mp_reach(Bytes value, MpNlri& out) {
  if (value.size() < 5) return false;
  const std::size_t next_hop = load_u8(&value[3]);
  if (value.size() < 5 + next_hop) return false;
  out.family = Family{load_be16(value.data()), load_u8(&value[2])};
  out.next_hop = value.subspan(4, next_hop);
  out.nlri = value.subspan(5 + next_hop);  // behind the reserved octet
  return true;
}

bool parse_mp_unreach(Bytes value, MpNlri& out) {
  if (value.size() < 3) return false;
  out.family = Family{load_be16(value.data()), load_u8(&value[2])};
  out.nlri = value.subspan(3);
  return true;
}

// The walk over the path attributes of one message.
struct Walk {
  Update& u;
  const std::byte* message;
  bool as2_flag;
  std::uint64_t seen = 0;
  Fault worst = Fault::None;

  void report(Fault fault, const std::byte* where) {
    if (fault <= worst) return;
    worst = fault;
    u.error_offset = static_cast<std::uint32_t>(where - message);
  }

  [[gnu::always_inline]] inline Fault as_path(Bytes value);
  [[gnu::always_inline]] inline Fault take(std::uint8_t type, Bytes value);
  // What is left without `attribute`, if that stands at one end.
  void leave_out(Bytes attribute) {
    Attributes& a = u.attributes;
    if (attribute.data() == a.but_mp.data()) {
      a.but_mp = a.but_mp.subspan(attribute.size());
    } else if (attribute.data() + attribute.size() == a.but_mp.data() + a.but_mp.size()) {
      a.but_mp = a.but_mp.first(a.but_mp.size() - attribute.size());
    } else {
      a.mp_inside = true;
    }
  }
  // Hot in parse_update(), which is not to pay for its second caller.
  [[gnu::always_inline]] inline void run(Bytes attributes);
  void mandatory(const std::byte* where);
};

Fault Walk::as_path(Bytes value) {
  Attributes& a = u.attributes;
  a.as_path = value;
  a.as2 = as2_flag;
  // Nearly always one segment that fills the attribute.
  const unsigned width = as2_flag ? 2 : 4;
  if (value.size() > 2 && load_u8(value.data()) - 1U < 4 &&
      value.size() == 2 + std::size_t{load_u8(&value[1])} * width) [[likely]]
    return Fault::None;
  if (as_path_parses(value, width)) return Fault::None;
  if (!as_path_parses(value, as2_flag ? 4 : 2)) return Fault::Withdraw;
  a.as2 = !as2_flag;
  u.as_width_mismatch = true;
  return Fault::None;
}

// Checks are those of RFC 7606 7, RFC 8092 5, RFC 9234 5, RFC 6793 6. A next hop of another length than 4
// keeps its bytes: next_hop_address() knows what can be made of it.
Fault Walk::take(std::uint8_t type, Bytes value) {
  Attributes& a = u.attributes;
  const std::size_t size = value.size();
  switch (static_cast<AttrType>(type)) {
    case AttrType::Origin:
      a.origin = value;
      return when_not(size == 1 && load_u8(value.data()) <= 2, Fault::Withdraw);
    case AttrType::AsPath: return as_path(value);
    case AttrType::NextHop: a.next_hop = value; return when_not(size == 4, Fault::Withdraw);
    case AttrType::Med: a.med = value; return when_not(size == 4, Fault::Withdraw);
    case AttrType::LocalPref: a.local_pref = value; return when_not(size == 4, Fault::Withdraw);
    case AttrType::AtomicAggregate: return when_not(size == 0, Fault::Discard);
    case AttrType::Aggregator: a.aggregator = value; return when_not(size == 6 || size == 8, Fault::Discard);
    case AttrType::Communities: a.communities = value; return when_not(is_multiple(size, 4), Fault::Withdraw);
    case AttrType::OriginatorId: a.originator_id = value; return when_not(size == 4, Fault::Withdraw);
    case AttrType::ClusterList:
      a.cluster_list = value;
      return when_not(is_multiple(size, 4), Fault::Withdraw);
    case AttrType::MpReach:
      u.has_mp_reach = parse_mp_reach(value, u.mp_reach);
      return when_not(u.has_mp_reach, Fault::Fatal);
    case AttrType::MpUnreach:
      u.has_mp_unreach = parse_mp_unreach(value, u.mp_unreach);
      return when_not(u.has_mp_unreach, Fault::Fatal);
    case AttrType::ExtendedCommunities:
      a.extended_communities = value;
      return when_not(is_multiple(size, 8), Fault::Withdraw);
    case AttrType::As4Path: a.as4_path = value; return when_not(as_path_parses(value, 4), Fault::Discard);
    case AttrType::As4Aggregator: a.as4_aggregator = value; return when_not(size == 8, Fault::Discard);
    case AttrType::LargeCommunities:
      a.large_communities = value;
      return when_not(is_multiple(size, 12), Fault::Withdraw);
    case AttrType::OnlyToCustomer: a.only_to_customer = value; return when_not(size == 4, Fault::Withdraw);
  }
  a.has_other = true;
  return Fault::None;
}

// RFC 7606 3.c: Optional and Transitive must be what the attribute's definition says; Partial and the unused
// bits are not judged. Only for types with a field of their own. AS4_* in front of a 2-byte peer are
// discarded as for any other fault (RFC 6793 6).
constexpr Fault flag_fault(std::uint8_t type, std::uint8_t flags) {
  constexpr auto kExpected = [] {
    // ORIGIN, AS_PATH, NEXT_HOP, LOCAL_PREF and ATOMIC_AGGREGATE are well-known: transitive, not optional.
    constexpr std::uint64_t kWellKnown = 1ULL << 1 | 1ULL << 2 | 1ULL << 3 | 1ULL << 5 | 1ULL << 6;
    // MED, ORIGINATOR_ID, CLUSTER_LIST and the MP attributes are optional and not transitive, the others are
    // both.
    constexpr std::uint64_t kNonTransitive = 1ULL << 4 | 1ULL << 9 | 1ULL << 10 | 1ULL << 14 | 1ULL << 15;
    std::array<std::uint8_t, 64> expected{};
    for (unsigned t = 0; t < expected.size(); ++t) {
      expected[t] = (kWellKnown >> t & 1U) != 0       ? kTransitive
                    : (kNonTransitive >> t & 1U) != 0 ? kOptional
                                                      : kOptional | kTransitive;
    }
    return expected;
  }();
  if (!has_update_field(type) || (flags & (kOptional | kTransitive)) == kExpected[type]) [[likely]]
    return Fault::None;
  return type == 17 || type == 18 ? Fault::Discard : Fault::Withdraw;
}

// A discarded attribute is as if it had not been there.
void forget(Attributes& a, std::uint8_t type) {
  switch (static_cast<AttrType>(type)) {
    case AttrType::Aggregator: a.aggregator = {}; break;
    case AttrType::As4Path: a.as4_path = {}; break;
    case AttrType::As4Aggregator: a.as4_aggregator = {}; break;
    case AttrType::Origin:
    case AttrType::AsPath:
    case AttrType::NextHop:
    case AttrType::Med:
    case AttrType::LocalPref:
    case AttrType::AtomicAggregate:
    case AttrType::Communities:
    case AttrType::OriginatorId:
    case AttrType::ClusterList:
    case AttrType::MpReach:
    case AttrType::MpUnreach:
    case AttrType::ExtendedCommunities:
    case AttrType::LargeCommunities:
    case AttrType::OnlyToCustomer: break;
  }
}

void Walk::run(Bytes attributes) {
  constexpr std::uint64_t kMp = bit(AttrType::MpReach) | bit(AttrType::MpUnreach);
  u.attributes.all = u.attributes.but_mp = attributes;
  while (!attributes.empty()) {
    const std::byte* start = attributes.data();
    RawAttribute raw;
    if (!next_attribute(attributes, raw)) [[unlikely]] {
      // RFC 7606 4: what is left cannot be parsed, but the NLRI behind the attributes, or MP NLRI in front,
      // were located.
      const bool located = !u.announced.empty() || !u.withdrawn.empty() || u.has_mp_reach || u.has_mp_unreach;
      report(located ? Fault::Withdraw : Fault::Fatal, start);
      return;
    }
    const std::uint64_t mask = raw.type < 64 ? 1ULL << raw.type : 0;
    if ((seen & mask) != 0) [[unlikely]] {
      // RFC 7606 3.g: the first one counts, except that two MP attributes leave the NLRI in doubt.
      if ((mask & kMp) != 0) {
        report(Fault::Fatal, start);
        return;
      }
      report(Fault::Discard, start);
      continue;
    }
    seen |= mask;
    if ((mask & kMp) != 0) leave_out(raw.whole);
    const Fault fault = std::max(take(raw.type, raw.value), flag_fault(raw.type, raw.flags));
    if (fault == Fault::None) [[likely]] {
      u.attributes.present |= mask;
      continue;
    }
    report(fault, start);
    if (fault == Fault::Discard) forget(u.attributes, raw.type);
    if (fault == Fault::Fatal) return;
  }
}

// RFC 7606 3.d. An absent AS_PATH is as good as an empty one: GoBGP reports its local routes so
// (docs/decisions/0003).
void Walk::mandatory(const std::byte* where) {
  const bool announces = !u.announced.empty() || (u.has_mp_reach && !u.mp_reach.nlri.empty());
  const bool missing =
      (seen & bit(AttrType::Origin)) == 0 || (!u.announced.empty() && (seen & bit(AttrType::NextHop)) == 0);
  if (announces && missing) report(Fault::Withdraw, where);
}

}  // namespace

bool next_as_segment(Bytes& rest, unsigned as_bytes, AsSegment& out) {
  if (rest.size() < 2) return false;
  const std::size_t size = std::size_t{load_u8(&rest[1])} * as_bytes;
  if (size > rest.size() - 2) return false;
  out.type = load_u8(rest.data());
  out.asns = rest.subspan(2, size);
  rest = rest.subspan(2 + size);
  return true;
}

bool as_path_parses(Bytes path, unsigned as_bytes) {
  while (!path.empty()) {
    AsSegment segment;
    if (!next_as_segment(path, as_bytes, segment)) return false;
    if (segment.type < 1 || segment.type > 4 || segment.asns.empty()) return false;
  }
  return true;
}

Update parse_update(Bytes bgp_message, bool as2_flag) {
  Update u;
  const auto malformed = [&](ErrorCode code, std::size_t offset) {
    u = Update{};
    u.disposition = Update::Disposition::Malformed;
    u.error = code;
    u.error_offset = static_cast<std::uint32_t>(offset);
  };
  if (bgp_message.size() < kBgpHeaderBytes) {
    malformed(ErrorCode::BgpBadLength, bgp_message.size());
    return u;
  }
  const std::size_t size = load_be16(&bgp_message[16]);
  if (size < kBgpHeaderBytes || size > bgp_message.size()) {
    malformed(ErrorCode::BgpBadLength, 16);
    return u;
  }
  if (load_u8(&bgp_message[18]) != 2) {
    malformed(ErrorCode::BgpNotUpdate, 18);
    return u;
  }
  const std::byte* message = bgp_message.data();
  if (size < kBgpHeaderBytes + 4) {
    malformed(ErrorCode::BgpUpdateMalformed, size);
    return u;
  }
  const std::size_t withdrawn = load_be16(message + kBgpHeaderBytes);
  const std::size_t attributes_at = kBgpHeaderBytes + 2 + withdrawn;
  if (attributes_at + 2 > size) {
    malformed(ErrorCode::BgpUpdateMalformed, kBgpHeaderBytes);
    return u;
  }
  const std::size_t attributes = load_be16(message + attributes_at);
  if (attributes_at + 2 + attributes > size) {
    malformed(ErrorCode::BgpUpdateMalformed, attributes_at);
    return u;
  }
  u.withdrawn = bgp_message.subspan(kBgpHeaderBytes + 2, withdrawn);
  const std::size_t announced_at = attributes_at + 2 + attributes;
  u.announced = bgp_message.subspan(announced_at, size - announced_at);

  if (attributes == 0 && u.withdrawn.empty() && u.announced.empty()) {
    u.end_of_rib = true;
    u.end_of_rib_family = kIpv4Unicast;
    return u;
  }
  Walk walk{u, message, as2_flag};
  walk.run(bgp_message.subspan(attributes_at + 2, attributes));
  walk.mandatory(bgp_message.data() + attributes_at);
  switch (walk.worst) {
    case Fault::None: break;
    case Fault::Discard:
      u.disposition = Update::Disposition::AttributeDiscard;
      u.error = ErrorCode::BgpAttributeDiscarded;
      break;
    case Fault::Withdraw:
      u.disposition = Update::Disposition::TreatAsWithdraw;
      u.error = ErrorCode::BgpAttributeMalformed;
      break;
    case Fault::Fatal: malformed(ErrorCode::BgpUpdateMalformed, u.error_offset); return u;
  }
  if (walk.seen == bit(AttrType::MpUnreach) && !u.attributes.has_other && u.mp_unreach.nlri.empty() &&
      u.withdrawn.empty() && u.announced.empty() && u.disposition == Update::Disposition::Good) {
    u.end_of_rib = true;
    u.end_of_rib_family = u.mp_unreach.family;
  }
  return u;
}

Attributes parse_attributes(Bytes attributes, bool as2) {
  Update u;
  Walk walk{u, attributes.data(), as2};
  walk.run(attributes);
  return u.attributes;
}

Bytes route_monitoring_pdu(Bytes bmp_message, ErrorCode& error) {
  constexpr std::size_t kAt = kBmpCommonHeaderBytes + kBmpPerPeerHeaderBytes;
  error = ErrorCode::None;
  if (bmp_message.size() < kAt + kBgpHeaderBytes) {
    error = ErrorCode::BgpBadLength;
    return {};
  }
  const Bytes pdu = bmp_message.subspan(kAt);
  if (load_be64(pdu.data()) != ~0ULL || load_be64(&pdu[8]) != ~0ULL) {
    error = ErrorCode::BgpBadMarker;
    return {};
  }
  const std::size_t size = load_be16(&pdu[16]);
  if (size < kBgpHeaderBytes || size > pdu.size()) {
    error = ErrorCode::BgpBadLength;
    return {};
  }
  return pdu.first(size);
}

std::int64_t count_prefixes(Bytes nlri, Family family, bool path_ids) {
  PrefixReader reader(nlri, family, path_ids);
  std::int64_t n = 0;
  for (Prefix p; reader.next(p);) ++n;
  return reader.ok() ? n : -1;
}

IpAddress next_hop_address(Bytes next_hop) {
  IpAddress a;
  const std::byte* p = next_hop.data();
  switch (next_hop.size()) {
    case 12: p += 8; [[fallthrough]];
    case 4: a = IpAddress::from_v4(load_be32(p)); break;
    case 48:
    case 24: p += 8; [[fallthrough]];
    case 32:
    case 16: std::memcpy(a.bytes.data(), p, 16); break;
    default: break;
  }
  if (a.is_zero() && next_hop.size() == 32) std::memcpy(a.bytes.data(), next_hop.data() + 16, 16);
  if (a.is_zero() && next_hop.size() == 48) std::memcpy(a.bytes.data(), next_hop.data() + 32, 16);
  return a;
}

}  // namespace arancini::wire
