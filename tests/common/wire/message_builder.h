#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "common/base/types.h"
#include "common/wire/bmp.h"

// Valid BMP and BGP bytes for tests, one field after the other.
namespace arancini::wire::test {

class Buffer {
 public:
  Buffer() = default;
  Buffer(std::initializer_list<int> bytes) {
    for (int b : bytes) u8(static_cast<unsigned>(b));
  }
  Buffer& u8(unsigned v) {
    bytes_.push_back(static_cast<std::byte>(v));
    return *this;
  }
  Buffer& u16(unsigned v) { return u8(v >> 8 & 0xff).u8(v & 0xff); }
  Buffer& u32(std::uint32_t v) { return u16(v >> 16).u16(v & 0xffff); }
  Buffer& u64(std::uint64_t v) {
    return u32(static_cast<std::uint32_t>(v >> 32)).u32(static_cast<std::uint32_t>(v));
  }
  Buffer& add(const Buffer& other) {
    bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
    return *this;
  }
  Buffer& fill(unsigned value, std::size_t count) {
    bytes_.insert(bytes_.end(), count, static_cast<std::byte>(value));
    return *this;
  }
  Buffer& text(std::string_view s) {
    for (char c : s) u8(static_cast<unsigned char>(c));
    return *this;
  }
  // The 16 bytes of an address text, IPv4 in the last four.
  Buffer& address16(std::string_view text) {
    const IpAddress a = IpAddress::parse(text).value();
    if (a.is_v4()) return fill(0, 12).u32(a.v4());
    for (std::uint8_t b : a.bytes) u8(b);
    return *this;
  }
  // 4 or 16 bytes.
  Buffer& address(std::string_view text) {
    const IpAddress a = IpAddress::parse(text).value();
    return a.is_v4() ? u32(a.v4()) : address16(text);
  }
  // <length, prefix> of "192.0.2.0/24", with a path id in front when `path_id` >= 0.
  Buffer& prefix(std::string_view text, std::int64_t path_id = -1) {
    const auto slash = text.find('/');
    unsigned length = 0;
    for (char c : text.substr(slash + 1)) length = length * 10 + static_cast<unsigned>(c - '0');
    Buffer whole;
    whole.address(text.substr(0, slash));
    if (path_id >= 0) u32(static_cast<std::uint32_t>(path_id));
    u8(length);
    bytes_.insert(bytes_.end(), whole.bytes_.begin(), whole.bytes_.begin() + (length + 7) / 8);
    return *this;
  }

  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }
  std::vector<std::byte>& bytes() { return bytes_; }
  operator Bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

inline Buffer prefixes(std::initializer_list<std::string_view> texts) {
  Buffer b;
  for (auto t : texts) b.prefix(t);
  return b;
}

inline Buffer bgp(unsigned type, const Buffer& body) {
  return Buffer().fill(0xff, 16).u16(static_cast<unsigned>(19 + body.size())).u8(type).add(body);
}

// `flags` without the extended length bit, which is set when the value needs it.
inline Buffer attribute(unsigned flags, unsigned type, const Buffer& value) {
  Buffer b;
  if (value.size() > 255)
    b.u8(flags | 0x10).u8(type).u16(static_cast<unsigned>(value.size()));
  else
    b.u8(flags).u8(type).u8(static_cast<unsigned>(value.size()));
  return b.add(value);
}

// The Optional and Transitive bits that the definition of the type asks for.
inline unsigned attribute_flags(unsigned type) {
  switch (type) {
    case 1:
    case 2:
    case 3:
    case 5:
    case 6: return 0x40;
    case 4:
    case 9:
    case 10:
    case 14:
    case 15: return 0x80;
    default: return 0xc0;
  }
}

inline Buffer update(const Buffer& withdrawn, const Buffer& attributes, const Buffer& announced) {
  return bgp(2, Buffer()
                    .u16(static_cast<unsigned>(withdrawn.size()))
                    .add(withdrawn)
                    .u16(static_cast<unsigned>(attributes.size()))
                    .add(attributes)
                    .add(announced));
}

inline Buffer as_sequence4(std::initializer_list<std::uint32_t> asns) {
  Buffer b;
  b.u8(2).u8(static_cast<unsigned>(asns.size()));
  for (auto a : asns) b.u32(a);
  return b;
}
inline Buffer as_sequence2(std::initializer_list<unsigned> asns) {
  Buffer b;
  b.u8(2).u8(static_cast<unsigned>(asns.size()));
  for (auto a : asns) b.u16(a);
  return b;
}

inline Buffer mp_reach(Family f, const Buffer& next_hop, const Buffer& nlri) {
  return attribute(0x80, 14,
                   Buffer()
                       .u16(f.afi)
                       .u8(f.safi)
                       .u8(static_cast<unsigned>(next_hop.size()))
                       .add(next_hop)
                       .u8(0)
                       .add(nlri));
}
inline Buffer mp_unreach(Family f, const Buffer& nlri) {
  return attribute(0x80, 15, Buffer().u16(f.afi).u8(f.safi).add(nlri));
}

// ORIGIN IGP, a path of 4-byte ASes, NEXT_HOP.
inline Buffer basic_attributes() {
  return attribute(0x40, 1, {0})
      .add(attribute(0x40, 2, as_sequence4({65001, 4200000012})))
      .add(attribute(0x40, 3, Buffer().address("192.0.2.1")));
}

struct PeerFields {
  unsigned type = 0;
  unsigned flags = 0;
  std::uint64_t distinguisher = 0;
  std::string_view address = "192.0.2.1";
  std::uint32_t asn = 65001;
  std::uint32_t bgp_id = 0x0a000001;
  std::uint32_t seconds = 1700000000;
  std::uint32_t microseconds = 123456;
};
inline Buffer per_peer(const PeerFields& p) {
  return Buffer()
      .u8(p.type)
      .u8(p.flags)
      .u64(p.distinguisher)
      .address16(p.address)
      .u32(p.asn)
      .u32(p.bgp_id)
      .u32(p.seconds)
      .u32(p.microseconds);
}

inline Buffer bmp(BmpType type, const Buffer& body) {
  return Buffer()
      .u8(3)
      .u32(static_cast<std::uint32_t>(6 + body.size()))
      .u8(static_cast<unsigned>(type))
      .add(body);
}
inline Buffer tlv(unsigned type, const Buffer& value) {
  return Buffer().u16(type).u16(static_cast<unsigned>(value.size())).add(value);
}
inline Buffer route_monitoring(const PeerFields& peer, const Buffer& pdu) {
  return bmp(BmpType::RouteMonitoring, per_peer(peer).add(pdu));
}

inline Buffer capability(unsigned code, const Buffer& value) {
  return Buffer().u8(code).u8(static_cast<unsigned>(value.size())).add(value);
}
inline Buffer mp_capability(Family f) {
  return capability(1, Buffer().u16(f.afi).u8(0).u8(f.safi));
}
inline Buffer open_with_parameters(unsigned asn, std::uint32_t bgp_id, const Buffer& parameters_with_length) {
  return bgp(1, Buffer().u8(4).u16(asn).u16(180).u32(bgp_id).add(parameters_with_length));
}
// All capabilities in one parameter.
inline Buffer open(unsigned asn, std::uint32_t bgp_id, const Buffer& capabilities) {
  Buffer parameters;
  if (capabilities.size() != 0)
    parameters.u8(2).u8(static_cast<unsigned>(capabilities.size())).add(capabilities);
  return open_with_parameters(asn, bgp_id,
                              Buffer().u8(static_cast<unsigned>(parameters.size())).add(parameters));
}
inline Buffer peer_up(const PeerFields& peer, const Buffer& sent, const Buffer& received,
                      const Buffer& tlvs = {}) {
  return bmp(BmpType::PeerUp,
             per_peer(peer).address16("192.0.2.254").u16(179).u16(40000).add(sent).add(received).add(tlvs));
}

}  // namespace arancini::wire::test
