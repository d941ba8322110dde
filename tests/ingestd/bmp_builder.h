#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/types.h"

// BMP and BGP messages for tests, written from the RFCs and not with the product's own code. Header only.
namespace arancini::testing {

using Buffer = std::vector<std::byte>;

// Appends big-endian values.
class ByteWriter {
 public:
  ByteWriter& u8(std::uint64_t v) { return put(v, 1); }
  ByteWriter& u16(std::uint64_t v) { return put(v, 2); }
  ByteWriter& u32(std::uint64_t v) { return put(v, 4); }
  ByteWriter& u64(std::uint64_t v) { return put(v, 8); }
  ByteWriter& raw(std::span<const std::byte> bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  ByteWriter& text(std::string_view s) { return raw(std::as_bytes(std::span(s.data(), s.size()))); }
  ByteWriter& zeros(std::size_t n) {
    out_.resize(out_.size() + n);
    return *this;
  }
  // The 4 or 16 bytes of an address.
  ByteWriter& address(const IpAddress& a) {
    const auto all = std::as_bytes(std::span(a.bytes));
    return raw(a.is_v4() ? all.subspan(12) : all);
  }
  void patch_u16(std::size_t at, std::uint64_t v) {
    out_.at(at) = static_cast<std::byte>(v >> 8U);
    out_.at(at + 1) = static_cast<std::byte>(v);
  }
  [[nodiscard]] std::size_t size() const { return out_.size(); }
  [[nodiscard]] const Buffer& bytes() const { return out_; }
  [[nodiscard]] Buffer take() { return std::move(out_); }

 private:
  ByteWriter& put(std::uint64_t v, unsigned n) {
    for (unsigned i = n; i-- > 0;) out_.push_back(static_cast<std::byte>(v >> (8 * i)));
    return *this;
  }
  Buffer out_;
};

inline IpAddress ip(std::string_view text) {
  const auto a = IpAddress::parse(text);
  if (!a) throw std::invalid_argument("not an address: " + std::string(text));
  return *a;
}

// "192.0.2.0/24" or "2001:db8::/32", with or without path id (RFC 7911).
struct Nlri {
  Nlri(std::string_view text, std::optional<std::uint32_t> id = std::nullopt)
      : path_id(id) {  // NOLINT: terse tests
    const auto slash = text.find('/');
    address = ip(text.substr(0, slash));
    length = static_cast<std::uint8_t>(std::stoi(std::string(text.substr(slash + 1))));
  }
  Nlri(const IpAddress& a, unsigned bits, std::optional<std::uint32_t> id = std::nullopt)
      : address(a), length(static_cast<std::uint8_t>(bits)), path_id(id) {}
  Nlri(const char* text) : Nlri(std::string_view(text)) {}  // NOLINT: terse tests

  IpAddress address;
  std::uint8_t length = 0;
  std::optional<std::uint32_t> path_id;
};

inline void write_nlri(ByteWriter& w, const Nlri& n) {
  if (n.path_id) w.u32(*n.path_id);
  w.u8(n.length);
  const auto all = std::as_bytes(std::span(n.address.bytes));
  w.raw((n.address.is_v4() ? all.subspan(12) : all).first((n.length + 7U) / 8U));
}

inline Buffer bgp_message(std::uint8_t type, std::span<const std::byte> body) {
  ByteWriter w;
  for (int i = 0; i < 16; ++i) w.u8(0xff);
  return w.u16(19 + body.size()).u8(type).raw(body).take();
}

// One UPDATE (RFC 4271 4.3, RFC 4760). Attributes stand in the order in which they were asked for; mp_* last.
class UpdateBuilder {
 public:
  UpdateBuilder& withdraw(const Nlri& n) { return write_nlri(withdrawn_, n), *this; }
  UpdateBuilder& announce(const Nlri& n) { return write_nlri(announced_, n), *this; }
  UpdateBuilder& mp_announce(Family f, const IpAddress& next_hop, const std::vector<Nlri>& nlri) {
    ByteWriter hop;
    hop.address(next_hop);
    return mp_announce_raw(f, hop.bytes(), nlri);
  }
  UpdateBuilder& mp_announce_raw(Family f, std::span<const std::byte> next_hop,
                                 const std::vector<Nlri>& nlri) {
    ByteWriter v;
    v.u16(f.afi).u8(f.safi).u8(next_hop.size()).raw(next_hop).u8(0);
    for (const Nlri& n : nlri) write_nlri(v, n);
    mp_.push_back(attribute_bytes(0x80, 14, v.bytes()));
    return *this;
  }
  UpdateBuilder& mp_withdraw(Family f, const std::vector<Nlri>& nlri) {
    ByteWriter v;
    v.u16(f.afi).u8(f.safi);
    for (const Nlri& n : nlri) write_nlri(v, n);
    mp_.push_back(attribute_bytes(0x80, 15, v.bytes()));
    return *this;
  }
  UpdateBuilder& attribute(std::uint8_t flags, std::uint8_t type, std::span<const std::byte> value) {
    attributes_.raw(attribute_bytes(flags, type, value));
    return *this;
  }
  UpdateBuilder& attribute_u32(std::uint8_t flags, std::uint8_t type, std::uint32_t value) {
    return attribute(flags, type, ByteWriter().u32(value).bytes());
  }
  UpdateBuilder& origin(std::uint8_t value) { return attribute(0x40, 1, ByteWriter().u8(value).bytes()); }
  // One AS_SEQUENCE; empty list: an empty AS_PATH.
  UpdateBuilder& as_path(const std::vector<std::uint32_t>& members, bool two_byte = false) {
    ByteWriter v;
    if (!members.empty()) {
      v.u8(2).u8(members.size());
      for (const std::uint32_t as : members) two_byte ? v.u16(as) : v.u32(as);
    }
    return attribute(0x40, 2, v.bytes());
  }
  UpdateBuilder& next_hop(const IpAddress& a) { return attribute(0x40, 3, ByteWriter().address(a).bytes()); }
  UpdateBuilder& med(std::uint32_t v) { return attribute_u32(0x80, 4, v); }
  UpdateBuilder& local_pref(std::uint32_t v) { return attribute_u32(0x40, 5, v); }
  UpdateBuilder& communities(const std::vector<std::uint32_t>& values) {
    ByteWriter v;
    for (const std::uint32_t c : values) v.u32(c);
    return attribute(0xc0, 8, v.bytes());
  }
  // ORIGIN IGP, AS_PATH, NEXT_HOP: the least that an announcement needs.
  UpdateBuilder& basics(const std::vector<std::uint32_t>& path, const IpAddress& hop) {
    return origin(0).as_path(path).next_hop(hop);
  }

  // The BGP message with its header.
  [[nodiscard]] Buffer build() const {
    ByteWriter attributes;
    attributes.raw(attributes_.bytes());
    for (const Buffer& a : mp_) attributes.raw(a);
    ByteWriter body;
    body.u16(withdrawn_.size()).raw(withdrawn_.bytes());
    body.u16(attributes.size()).raw(attributes.bytes()).raw(announced_.bytes());
    return bgp_message(2, body.bytes());
  }

 private:
  static Buffer attribute_bytes(std::uint8_t flags, std::uint8_t type, std::span<const std::byte> value) {
    ByteWriter w;
    if (value.size() > 255) {
      w.u8(flags | 0x10U).u8(type).u16(value.size());
    } else {
      w.u8(flags).u8(type).u8(value.size());
    }
    return w.raw(value).take();
  }
  ByteWriter withdrawn_, announced_, attributes_;
  std::vector<Buffer> mp_;
};

// End-of-RIB (RFC 4724 2): an empty UPDATE for IPv4 unicast, else an empty MP_UNREACH_NLRI.
inline Buffer end_of_rib_update(Family f) {
  return f == kIpv4Unicast ? UpdateBuilder().build() : UpdateBuilder().mp_withdraw(f, {}).build();
}

// What an OPEN says (RFC 4271 4.2, RFC 5492).
struct OpenSpec {
  std::uint32_t asn = 65000;
  std::uint32_t bgp_id = 0x0a000001;
  std::uint16_t hold_time = 90;
  bool four_byte_as = true;
  std::vector<Family> families{};
  struct AddPath {
    Family family;
    std::uint8_t send_receive;  // 1 receive, 2 send, 3 both
  };
  std::vector<AddPath> addpath{};
};
inline Buffer open_message(const OpenSpec& spec) {
  ByteWriter caps;
  for (const Family f : spec.families) caps.u8(1).u8(4).u16(f.afi).u8(0).u8(f.safi);
  if (spec.four_byte_as) caps.u8(65).u8(4).u32(spec.asn);
  if (!spec.addpath.empty()) {
    caps.u8(69).u8(4 * spec.addpath.size());
    for (const auto& a : spec.addpath) caps.u16(a.family.afi).u8(a.family.safi).u8(a.send_receive);
  }
  ByteWriter body;
  body.u8(4).u16(spec.asn > 0xffff ? 23456 : spec.asn).u16(spec.hold_time).u32(spec.bgp_id);
  if (caps.size() == 0) {
    body.u8(0);
  } else {
    body.u8(caps.size() + 2).u8(2).u8(caps.size()).raw(caps.bytes());
  }
  return bgp_message(1, body.bytes());
}

// The per-peer header (RFC 7854 4.2). V is set from the address.
struct PeerSpec {
  static constexpr std::uint8_t kPostPolicy = 0x40, kTwoByteAs = 0x20, kAdjRibOut = 0x10;
  std::uint8_t type = 0;
  std::uint8_t flags = 0;
  std::uint64_t distinguisher = 0;
  IpAddress address{};
  std::uint32_t asn = 65001;
  std::uint32_t bgp_id = 0x0a000002;
  std::uint32_t seconds = 1'700'000'000;
  std::uint32_t microseconds = 123456;

  [[nodiscard]] PeerSpec with_flags(std::uint8_t f) const {
    PeerSpec copy = *this;
    copy.flags = f;
    return copy;
  }
};

inline Buffer bmp_message(std::uint8_t type, std::span<const std::byte> body) {
  return ByteWriter().u8(3).u32(6 + body.size()).u8(type).raw(body).take();
}
inline void write_peer_header(ByteWriter& w, const PeerSpec& p) {
  // A Loc-RIB header has the F flag where V is, and a zero address (RFC 9069 4).
  const bool v6 = p.type != 3 && !p.address.is_v4() && !p.address.is_zero();
  w.u8(p.type).u8(p.flags | (v6 ? 0x80U : 0U)).u64(p.distinguisher);
  if (v6) {
    w.address(p.address);
  } else {
    w.zeros(12).raw(std::as_bytes(std::span(p.address.bytes)).subspan(12));
  }
  w.u32(p.asn).u32(p.bgp_id).u32(p.seconds).u32(p.microseconds);
}
inline Buffer peer_message(std::uint8_t type, const PeerSpec& peer, std::span<const std::byte> body) {
  ByteWriter w;
  write_peer_header(w, peer);
  return bmp_message(type, w.raw(body).bytes());
}

inline Buffer information_tlv(std::uint16_t type, std::string_view text) {
  return ByteWriter().u16(type).u16(text.size()).text(text).take();
}
inline Buffer initiation(std::string_view sys_name, std::string_view sys_descr) {
  return bmp_message(
      4, ByteWriter().raw(information_tlv(1, sys_descr)).raw(information_tlv(2, sys_name)).bytes());
}
inline Buffer termination(std::uint16_t reason = 0) {
  return bmp_message(5, ByteWriter().u16(1).u16(2).u16(reason).bytes());
}
// `sent` and `received` as the router sees them; `tlvs` follow the OPENs.
inline Buffer peer_up(const PeerSpec& peer, const OpenSpec& sent, const OpenSpec& received,
                      std::span<const std::byte> tlvs = {}) {
  ByteWriter w;
  w.zeros(12).address(ip("192.0.2.254")).u16(179).u16(40000);
  w.raw(open_message(sent)).raw(open_message(received)).raw(tlvs);
  return peer_message(3, peer, w.bytes());
}
inline Buffer peer_up(const PeerSpec& peer) {
  OpenSpec received;
  received.asn = peer.asn;
  received.bgp_id = peer.bgp_id;
  return peer_up(peer, OpenSpec{}, received);
}
inline Buffer peer_down(const PeerSpec& peer, std::uint8_t reason = 4, std::span<const std::byte> data = {}) {
  return peer_message(2, peer, ByteWriter().u8(reason).raw(data).bytes());
}
inline Buffer statistics_report(const PeerSpec& peer, std::uint16_t type = 7, std::uint64_t value = 0) {
  return peer_message(1, peer, ByteWriter().u32(1).u16(type).u16(8).u64(value).bytes());
}
inline Buffer route_mirroring(const PeerSpec& peer, std::span<const std::byte> bgp) {
  return peer_message(6, peer, ByteWriter().u16(0).u16(bgp.size()).raw(bgp).bytes());
}
inline Buffer route_monitoring(const PeerSpec& peer, std::span<const std::byte> bgp) {
  return peer_message(0, peer, bgp);
}
inline Buffer route_monitoring(const PeerSpec& peer, const UpdateBuilder& update) {
  return route_monitoring(peer, update.build());
}
inline Buffer end_of_rib(const PeerSpec& peer, Family f) {
  return route_monitoring(peer, end_of_rib_update(f));
}

}  // namespace arancini::testing
