#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/base/error.h"
#include "common/base/types.h"
#include "common/wire/big_endian.h"
#include "common/wire/bmp.h"

// BGP UPDATE (RFC 4271 4.3, RFC 4760, RFC 7606): one pass over the lengths, no copy, no allocation. Values
// stay in network order in their spans until somebody needs them.
namespace arancini::wire {

// Path attribute types with a field of their own in Update.
enum class AttrType : std::uint8_t {
  Origin = 1,
  AsPath = 2,
  NextHop = 3,
  Med = 4,
  LocalPref = 5,
  AtomicAggregate = 6,
  Aggregator = 7,
  Communities = 8,
  OriginatorId = 9,
  ClusterList = 10,
  MpReach = 14,
  MpUnreach = 15,
  ExtendedCommunities = 16,
  As4Path = 17,
  As4Aggregator = 18,
  LargeCommunities = 32,
  OnlyToCustomer = 35,
};

// The path attributes of one UPDATE. A span is empty when the attribute is absent; `present` tells absent
// from empty.
struct Attributes {
  std::uint64_t present = 0;  // bit N: type N (N < 64) was there and well-formed (discarded ones are cleared)
  Bytes origin, as_path, next_hop, med, local_pref, aggregator, communities, originator_id, cluster_list,
      extended_communities, as4_path, as4_aggregator, large_communities, only_to_customer;
  Bytes all;  // the whole path attribute field, as received
  // The same without MP_REACH and MP_UNREACH, which differ from message to message with the same routes;
  // `mp_inside`: they stand between others, and `all` has to be walked for it.
  Bytes but_mp;
  bool mp_inside = false;
  // Attributes without a field of their own, in the order of the message; they lie in `all` but need not be
  // contiguous, so they are found by walking it again (other_attributes()).
  bool has_other = false;
  // AS_PATH is in the 2-byte format (decided by the A flag and by what parses). AGGREGATOR tells its own
  // format by its length: 6 bytes with a 2-byte AS, 8 with a 4-byte one.
  bool as2 = false;

  [[nodiscard]] bool has(AttrType t) const { return ((present >> static_cast<unsigned>(t)) & 1U) != 0; }
};

// Walks an AS_PATH or AS4_PATH (RFC 4271 4.3, RFC 5065): segments of `as_bytes` (2 or 4) per AS.
struct AsSegment {
  std::uint8_t type = 0;  // 1 AS_SET, 2 AS_SEQUENCE, 3 AS_CONFED_SEQUENCE, 4 AS_CONFED_SET
  Bytes asns;             // big-endian, as_bytes each
};
bool next_as_segment(Bytes& rest, unsigned as_bytes, AsSegment& out);
// True if the path parses to its end in that width: types 1 to 4, no empty segment (RFC 7606 7.2).
bool as_path_parses(Bytes path, unsigned as_bytes);

// One whole attribute (flags, type, length, value) at the start of `rest`, which is advanced. False at the
// end or when it overruns. For walking `Attributes::all`.
struct RawAttribute {
  std::uint8_t flags = 0;
  std::uint8_t type = 0;
  Bytes value;
  Bytes whole;
};
inline bool next_attribute(Bytes& rest, RawAttribute& out) {
  constexpr std::uint8_t kExtendedLength = 0x10;
  if (rest.size() < 3) return false;
  out.flags = load_u8(rest.data());
  out.type = load_u8(&rest[1]);
  std::size_t header = 3;
  std::size_t length = load_u8(&rest[2]);
  if ((out.flags & kExtendedLength) != 0) {
    if (rest.size() < 4) return false;
    header = 4;
    length = load_be16(&rest[2]);
  }
  if (length > rest.size() - header) return false;
  out.value = rest.subspan(header, length);
  out.whole = rest.first(header + length);
  rest = rest.subspan(header + length);
  return true;
}
// True if Update has a field for this type (then it is not part of rawAttributes).
constexpr bool has_update_field(std::uint8_t type) {
  // 1 to 10, 14 to 18, 32, 35.
  constexpr std::uint64_t kFields = 0x7feULL | 0x7c000ULL | (1ULL << 32) | (1ULL << 35);
  return type < 64 && ((kFields >> type) & 1U) != 0;
}

struct MpNlri {
  Family family;
  Bytes next_hop;  // MP_REACH only: as it stands in the attribute (4, 12, 16, 24, 32, 48 … bytes)
  Bytes nlri;
};

// What one UPDATE says. Withdrawals take effect before announcements (RFC 4271).
struct Update {
  enum class Disposition : std::uint8_t {
    Good,              // take it as it is
    AttributeDiscard,  // RFC 7606: some attribute was dropped; `error` says so, the rest is good
    TreatAsWithdraw,   // RFC 7606: announced NLRI are to be withdrawn (both kinds; withdrawals stand)
    Malformed,         // the NLRI cannot be located: nothing can be known; skip the message
  };
  Disposition disposition = Disposition::Good;
  ErrorCode error = ErrorCode::None;
  std::uint32_t error_offset = 0;  // of the worst error, from the start of the BGP message

  Bytes withdrawn;  // IPv4 unicast, RFC 4271
  Bytes announced;  // IPv4 unicast, RFC 4271
  bool has_mp_reach = false;
  bool has_mp_unreach = false;
  MpNlri mp_reach;
  MpNlri mp_unreach;
  Attributes attributes;

  // Which family's End-of-RIB this is (RFC 4724 2): an UPDATE that carries nothing else.
  bool end_of_rib = false;
  Family end_of_rib_family;
  bool as_width_mismatch = false;  // the A flag and the AS_PATH disagree, the path decided
};

// `bgp_message`: BGP header and body, exactly one message; bytes behind its own length are the caller's (BMP
// trailing TLVs). `as2_flag`: the per-peer header's A flag.
Update parse_update(Bytes bgp_message, bool as2_flag);

// The path attributes of an UPDATE that parse_update() has taken, without those that carry NLRI (MP_REACH,
// MP_UNREACH): as it saw them. `as2`: Attributes::as2 of then.
Attributes parse_attributes(Bytes attributes, bool as2);

// The BGP PDU of a Route Monitoring message: behind the per-peer header, cut to the PDU's own length. Empty
// when the marker or length is bad, with `error` set.
Bytes route_monitoring_pdu(Bytes bmp_message, ErrorCode& error);

// Prefixes of a <length, prefix> family (is_plain_prefix_family). Host bits beyond the length are cleared.
class PrefixReader {
 public:
  PrefixReader(Bytes nlri, Family family, bool path_ids)
      : begin_(nlri.data()),
        at_(nlri.data()),
        end_(nlri.data() + nlri.size()),
        max_length_(family.afi == 1 ? 32 : 128),
        path_ids_(path_ids) {}

  // False at the end or at the first bad prefix; ok() tells which.
  bool next(Prefix& out) {
    if (at_ == end_) [[unlikely]]
      return false;
    // The longest entry is read as a whole; near the end a zero-padded copy stands in for the bytes that are
    // not there.
    std::array<std::byte, kMaxEntryBytes> padded;
    const std::byte* p = at_;
    const auto left = static_cast<std::size_t>(end_ - at_);
    if (left < kMaxEntryBytes) [[unlikely]] {
      padded.fill(std::byte{0});
      std::memcpy(padded.data(), at_, left);
      p = padded.data();
    }
    std::size_t used = 1;
    out.path_id = 0;
    if (path_ids_) {
      out.path_id = load_be32(p);
      p += 4;
      used += 4;
    }
    const auto length = static_cast<unsigned>(*p++);
    used += (length + 7) / 8;
    if (length > max_length_ || used > left) [[unlikely]] {
      ok_ = false;
      return false;
    }
    out.length = static_cast<std::uint8_t>(length);
    if (max_length_ == 32) {
      out.high = 0;
      out.low = kV4MappedLow | (load_be32(p) & ~(0xffffffffULL >> length) & 0xffffffffULL);
    } else {
      out.high = load_be64(p) & mask64(length < 64 ? length : 64);
      out.low = load_be64(p + 8) & mask64(length < 64 ? 0 : length - 64);
    }
    at_ += used;
    return true;
  }
  [[nodiscard]] bool ok() const { return ok_; }
  // Of the next prefix, or of the bad one.
  [[nodiscard]] std::size_t offset() const { return static_cast<std::size_t>(at_ - begin_); }

 private:
  static constexpr std::size_t kMaxEntryBytes = 4 + 1 + 16;
  // The first `bits` (0 to 64) bits set.
  static constexpr std::uint64_t mask64(unsigned bits) { return bits == 0 ? 0 : ~0ULL << (64 - bits); }

  const std::byte* begin_;
  const std::byte* at_;
  const std::byte* end_;
  unsigned max_length_;
  bool path_ids_;
  bool ok_ = true;
};
// Number of prefixes, or -1 if it does not parse.
std::int64_t count_prefixes(Bytes nlri, Family family, bool path_ids);

// Decides per message whether NLRI carry path ids. Peer Up is not enough: FRR negotiates ADD-PATH and sends
// without, GoBGP mixes both in one session (docs/decisions/0004). One judge per (peer, view, family);
// `negotiated` from the OPENs. Families that are not plain prefixes are not judged: as negotiated.
class AddPathJudge {
 public:
  AddPathJudge() = default;
  explicit AddPathJudge(bool negotiated) : negotiated_(negotiated) {}
  struct Verdict {
    bool path_ids = false;
    bool parses = false;    // false: neither way parses
    bool mismatch = false;  // other than negotiated: count it and say it once
  };
  Verdict judge(Bytes nlri, Family family) {
    // One prefix, too short for an id in front of it: most of what routers send once their tables are there.
    if (nlri.size() - 1 < 4 && is_plain_prefix_family(family)) [[likely]] {
      const unsigned length = load_u8(nlri.data());
      if (length <= (family.afi == 1 ? 32U : 128U) && 1 + (length + 7) / 8 == nlri.size()) {
        learned_.any = true;
        learned_.path_ids = false;
        return {false, true, negotiated_};
      }
    }
    return judge_by_bytes(nlri, family);
  }
  // The reading to expect, for those who look ahead.
  [[nodiscard]] bool expects_path_ids() const { return learned_.any ? learned_.path_ids : negotiated_; }

  // What it learned from messages.
  struct Learned {
    bool any = false;             // some message left no doubt
    bool path_ids = false;        // what the last such message said
    bool seen_large_ids = false;  // path ids of 2^24 and above were seen in such a message
    friend bool operator==(const Learned&, const Learned&) = default;
  };
  [[nodiscard]] const Learned& learned() const { return learned_; }
  AddPathJudge(bool negotiated, const Learned& learned) : negotiated_(negotiated), learned_(learned) {}

 private:
  Verdict judge_by_bytes(Bytes nlri, Family family);

  bool negotiated_ = false;
  Learned learned_;
};

// 16 bytes for Update.nextHop from a classic NEXT_HOP or an MP_REACH next hop: global address first (RFC
// 2545; the link-local one if the global is ::), an RD in front is skipped (RFC 4364), RFC 8950 v6-for-v4 as
// it is; zeros when none (length 0), RD only (8) or of an unknown length.
IpAddress next_hop_address(Bytes next_hop);

}  // namespace arancini::wire
