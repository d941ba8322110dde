#include "common/schema/canonical.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "common/schema/as_path.h"
#include "common/schema/bytes.h"

namespace arancini::schema {

namespace {

using wire::AttrType;

constexpr std::uint8_t kExtendedLength = 0x10;

// What the type's definition says: well-known, optional non-transitive, optional transitive.
constexpr std::uint8_t flags_of(AttrType type) {
  switch (type) {
    case AttrType::Origin:
    case AttrType::AsPath:
    case AttrType::NextHop:
    case AttrType::LocalPref:
    case AttrType::AtomicAggregate: return 0x40;
    case AttrType::Med:
    case AttrType::OriginatorId:
    case AttrType::ClusterList:
    case AttrType::MpReach:
    case AttrType::MpUnreach: return 0x80;
    case AttrType::Aggregator:
    case AttrType::Communities:
    case AttrType::ExtendedCommunities:
    case AttrType::As4Path:
    case AttrType::As4Aggregator:
    case AttrType::LargeCommunities:
    case AttrType::OnlyToCustomer: return 0xc0;
  }
  return 0;
}

// Types with a field in Update, in their order.
constexpr AttrType kTypes[] = {AttrType::Origin,
                               AttrType::AsPath,
                               AttrType::NextHop,
                               AttrType::Med,
                               AttrType::LocalPref,
                               AttrType::AtomicAggregate,
                               AttrType::Aggregator,
                               AttrType::Communities,
                               AttrType::OriginatorId,
                               AttrType::ClusterList,
                               AttrType::ExtendedCommunities,
                               AttrType::As4Path,
                               AttrType::As4Aggregator,
                               AttrType::LargeCommunities,
                               AttrType::OnlyToCustomer};

// Bytes behind one another, as far as there is room.
class Out {
 public:
  explicit Out(std::span<std::byte> to) : to_(to) {}

  void u8(std::uint32_t v) {
    if (room(1)) to_[at_++] = static_cast<std::byte>(v);
  }
  void be32(std::uint32_t v) {
    for (int shift = 24; shift >= 0; shift -= 8) u8((v >> shift) & 0xffU);
  }
  void bytes(wire::Bytes b) {
    if (b.empty() || !room(b.size())) return;
    std::memcpy(to_.data() + at_, b.data(), b.size());
    at_ += b.size();
  }

  // Between these two comes the value; it is at most 65535 bytes long (left(): what may still come).
  void begin(AttrType type) {
    start_ = at_;
    u8(flags_of(type) | kExtendedLength);
    u8(static_cast<std::uint32_t>(type));
    u8(0);
    u8(0);
  }
  [[nodiscard]] std::size_t left() const { return 65535 - std::min<std::size_t>(65535, at_ - start_ - 4); }
  void end() {
    if (!ok_) return;
    const std::size_t size = at_ - start_ - 4;
    if (size > 65535) {
      ok_ = false;
      return;
    }
    std::byte* const p = to_.data() + start_;
    if (size > 255) {
      p[2] = static_cast<std::byte>(size >> 8);
      p[3] = static_cast<std::byte>(size & 0xffU);
      return;
    }
    p[0] &= ~std::byte{kExtendedLength};
    p[2] = static_cast<std::byte>(size);
    std::memmove(p + 3, p + 4, size);
    --at_;
  }

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::size_t size() const { return at_; }

 private:
  bool room(std::size_t n) {
    ok_ = ok_ && n <= to_.size() - at_;
    return ok_;
  }

  std::span<std::byte> to_;
  std::size_t at_ = 0;
  std::size_t start_ = 0;
  bool ok_ = true;
};

// AS numbers into sequences of 255 at most, whole or cut where the attribute is full.
class SequenceOut {
 public:
  explicit SequenceOut(Out& out, std::size_t members) : out_(out), rest_(members) {}
  void add(std::uint32_t asn) {
    if (in_segment_ == 0) {
      if (out_.left() < 6) cut_ = true;
      if (cut_) return;
      in_segment_ = std::min({rest_, std::size_t{255}, (out_.left() - 2) / 4});
      out_.u8(static_cast<std::uint32_t>(SegmentType::Sequence));
      out_.u8(static_cast<std::uint32_t>(in_segment_));
    }
    out_.be32(asn);
    --in_segment_;
    --rest_;
  }
  [[nodiscard]] bool cut() const { return cut_; }

 private:
  Out& out_;
  std::size_t rest_;
  std::size_t in_segment_ = 0;
  bool cut_ = false;
};

// As a router said it.
struct FromWire {
  const wire::Attributes& a;

  [[nodiscard]] std::uint64_t present() const { return a.present; }
  [[nodiscard]] bool value(AttrType type, Out& out, const IpAddress& next_hop, bool via_mp) const;
  void others(Out& out) const {
    if (!a.has_other) return;
    wire::Bytes rest = a.all;
    wire::RawAttribute attribute;
    while (wire::next_attribute(rest, attribute)) {
      if (!wire::has_update_field(attribute.type)) out.bytes(attribute.whole);
    }
  }

 private:
  bool path(Out& out) const;
};

// As consumers see it.
struct FromUpdate {
  const DecodedUpdate& u;

  [[nodiscard]] std::uint64_t present() const { return u.attributes_present; }
  [[nodiscard]] bool value(AttrType type, Out& out, const IpAddress& next_hop, bool via_mp) const;
  void others(Out& out) const { out.bytes(std::as_bytes(std::span(u.raw_attributes))); }

 private:
  bool path(Out& out) const;
};

// NEXT_HOP, where MP_REACH has not taken its place.
void put_next_hop(Out& out, const IpAddress& next_hop, bool via_mp) {
  out.be32(via_mp ? 0 : next_hop.v4());
}

bool FromWire::path(Out& out) const {
  bool plain = true;
  std::size_t members = 0;
  PathSegment s;
  for (AsPathWalk walk(a); walk.next(s);) {
    plain = plain && s.type == static_cast<std::uint8_t>(SegmentType::Sequence);
    members += s.count;
  }
  if (plain) {
    SequenceOut sequence(out, members);
    for (AsPathWalk walk(a); walk.next(s);) {
      for (std::uint32_t i = 0; i < s.count; ++i) sequence.add(s.member(i));
    }
    return !sequence.cut();
  }
  for (AsPathWalk walk(a); walk.next(s);) {
    if (out.left() < 2 + std::size_t{s.count} * 4) return false;
    out.u8(s.type);
    out.u8(s.count);
    for (std::uint32_t i = 0; i < s.count; ++i) out.be32(s.member(i));
  }
  return true;
}

bool FromUpdate::path(Out& out) const {
  if (u.as_segments.empty()) {
    SequenceOut sequence(out, u.as_path.size());
    for (const std::uint32_t asn : u.as_path) sequence.add(asn);
    return !sequence.cut();
  }
  for (const DecodedUpdate::Segment& s : u.as_segments) {
    if (s.members.size() > 255 || out.left() < 2 + s.members.size() * 4) return false;
    if (s.members.empty()) continue;
    out.u8(s.type);
    out.u8(static_cast<std::uint32_t>(s.members.size()));
    for (const std::uint32_t asn : s.members) out.be32(asn);
  }
  return true;
}

bool FromWire::value(AttrType type, Out& out, const IpAddress& next_hop, bool via_mp) const {
  switch (type) {
    case AttrType::Origin: out.bytes(a.origin); return true;
    case AttrType::AsPath: return path(out);
    case AttrType::NextHop: put_next_hop(out, next_hop, via_mp); return true;
    case AttrType::Med: out.bytes(a.med); return true;
    case AttrType::LocalPref: out.bytes(a.local_pref); return true;
    case AttrType::AtomicAggregate: return true;
    case AttrType::Aggregator: {
      const Aggregator aggregator = aggregator_of(a);
      out.be32(aggregator.asn);
      out.be32(aggregator.bgp_id);
      return true;
    }
    case AttrType::Communities: out.bytes(a.communities); return true;
    case AttrType::OriginatorId: out.bytes(a.originator_id); return true;
    case AttrType::ClusterList: out.bytes(a.cluster_list); return true;
    case AttrType::ExtendedCommunities: out.bytes(a.extended_communities); return true;
    case AttrType::As4Path: return true;
    case AttrType::As4Aggregator:
      out.be32(0);
      out.be32(0);
      return true;
    case AttrType::LargeCommunities: out.bytes(a.large_communities); return true;
    case AttrType::OnlyToCustomer: out.bytes(a.only_to_customer); return true;
    case AttrType::MpReach:
    case AttrType::MpUnreach: return true;
  }
  return true;
}

bool FromUpdate::value(AttrType type, Out& out, const IpAddress& next_hop, bool via_mp) const {
  switch (type) {
    case AttrType::Origin: out.u8(u.origin == "IGP" ? 0 : u.origin == "EGP" ? 1 : 2); return true;
    case AttrType::AsPath: return path(out);
    case AttrType::NextHop: put_next_hop(out, next_hop, via_mp); return true;
    case AttrType::Med: out.be32(u.med); return true;
    case AttrType::LocalPref: out.be32(u.local_pref); return true;
    case AttrType::AtomicAggregate: return true;
    case AttrType::Aggregator:
      out.be32(u.aggregator_asn);
      out.be32(u.aggregator_bgp_id);
      return true;
    case AttrType::Communities:
      for (const auto& c : u.communities) out.be32((c.asn << 16) | c.value);
      return true;
    case AttrType::OriginatorId: out.be32(u.originator_id); return true;
    case AttrType::ClusterList:
      for (const std::uint32_t c : u.cluster_list) out.be32(c);
      return true;
    case AttrType::ExtendedCommunities:
      for (const auto& c : u.ext_communities) out.bytes(std::as_bytes(std::span(c)));
      return true;
    case AttrType::As4Path: return true;
    case AttrType::As4Aggregator:
      out.be32(0);
      out.be32(0);
      return true;
    case AttrType::LargeCommunities:
      for (const auto& c : u.large_communities) {
        out.be32(c.global);
        out.be32(c.data1);
        out.be32(c.data2);
      }
      return true;
    case AttrType::OnlyToCustomer: out.be32(u.only_to_customer); return true;
    case AttrType::MpReach:
    case AttrType::MpUnreach: return true;
  }
  return true;
}

}  // namespace

template <class Source>
bool CanonicalAttributes::set_from(const Source& source, const IpAddress& next_hop, bool via_mp) noexcept {
  via_mp_ = via_mp;
  std::memcpy(next_hop_.data(), next_hop.bytes.data(), next_hop_.size());
  Out out(bytes_);
  bool exact = true;
  for (const AttrType type : kTypes) {
    if (((source.present() >> static_cast<unsigned>(type)) & 1U) == 0) continue;
    out.begin(type);
    exact = source.value(type, out, next_hop, via_mp) && exact;
    out.end();
  }
  source.others(out);
  size_ = out.ok() ? out.size() : 0;
  return exact && out.ok();
}

bool CanonicalAttributes::set(const wire::Attributes& attributes, const IpAddress& next_hop,
                              bool via_mp) noexcept {
  return set_from(FromWire{attributes}, next_hop, via_mp);
}

bool CanonicalAttributes::set(const DecodedUpdate& update) noexcept {
  return set_from(FromUpdate{update}, update.next_hop, update.multiprotocol);
}

}  // namespace arancini::schema
