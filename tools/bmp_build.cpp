#include "tools/bmp_build.h"

#include <cstddef>

namespace arancini::tools {

namespace {

void put8(std::string& out, std::uint64_t v) {
  out += static_cast<char>(v & 0xff);
}
void put16(std::string& out, std::uint64_t v) {
  put8(out, v >> 8);
  put8(out, v);
}
void put32(std::string& out, std::uint64_t v) {
  put16(out, v >> 16);
  put16(out, v);
}
void put64(std::string& out, std::uint64_t v) {
  put32(out, v >> 32);
  put32(out, v);
}
void put_address(std::string& out, const IpAddress& a) {
  for (const std::uint8_t b : a.bytes) put8(out, b);
}

void patch(std::string& out, std::size_t at, std::uint64_t v, int bytes) {
  for (int i = 0; i < bytes; ++i)
    out[at + static_cast<std::size_t>(i)] = static_cast<char>(v >> (8 * (bytes - 1 - i)));
}

// Writes a length field when it goes out of scope: 4 bytes at `at`, counting from `from`.
class BmpMessage {
 public:
  BmpMessage(std::string& out, std::uint8_t type) : out_(out), start_(out.size()) {
    put8(out_, 3);
    put32(out_, 0);
    put8(out_, type);
  }
  ~BmpMessage() { patch(out_, start_ + 1, out_.size() - start_, 4); }
  BmpMessage(const BmpMessage&) = delete;
  BmpMessage& operator=(const BmpMessage&) = delete;

 private:
  std::string& out_;
  std::size_t start_;
};

class BgpMessage {
 public:
  BgpMessage(std::string& out, std::uint8_t type) : out_(out), start_(out.size()) {
    out_.append(16, '\xff');
    put16(out_, 0);
    put8(out_, type);
  }
  ~BgpMessage() { patch(out_, start_ + 16, out_.size() - start_, 2); }
  BgpMessage(const BgpMessage&) = delete;
  BgpMessage& operator=(const BgpMessage&) = delete;

 private:
  std::string& out_;
  std::size_t start_;
};

class Length16 {
 public:
  explicit Length16(std::string& out) : out_(out), start_(out.size()) { put16(out_, 0); }
  ~Length16() { patch(out_, start_, out_.size() - start_ - 2, 2); }
  Length16(const Length16&) = delete;
  Length16& operator=(const Length16&) = delete;

 private:
  std::string& out_;
  std::size_t start_;
};

void put_peer(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns) {
  put8(out, peer.peer_type);
  put8(out, peer.flags | (peer.address.is_v4() || peer.address.is_zero() ? 0U : 0x80U));
  put64(out, peer.distinguisher);
  if (peer.address.is_v4()) {
    out.append(12, '\0');
    put32(out, peer.address.v4());
  } else {
    put_address(out, peer.address);
  }
  put32(out, peer.asn);
  put32(out, peer.bgp_id);
  put32(out, timestamp_ns / 1'000'000'000);
  put32(out, timestamp_ns % 1'000'000'000 / 1000);
}

void put_tlv(std::string& out, std::uint16_t type, std::string_view value) {
  put16(out, type);
  put16(out, value.size());
  out += value;
}

void put_open(std::string& out, std::uint32_t asn, std::uint32_t bgp_id) {
  const BgpMessage open(out, 1);
  put8(out, 4);
  put16(out, asn < 65536 ? asn : 23456);
  put16(out, 90);
  put32(out, bgp_id);
  put8(out, 2 + 6 + 6 + 6);
  put8(out, 2);  // parameter: capabilities
  put8(out, 6 + 6 + 6);
  for (const unsigned afi : {1U, 2U}) {
    put8(out, 1);
    put8(out, 4);
    put16(out, afi);
    put16(out, 1);
  }
  put8(out, 65);
  put8(out, 4);
  put32(out, asn);
}

void put_prefix(std::string& out, const Prefix& p) {
  const IpAddress a = prefix_address(p);
  const std::size_t skip = a.is_v4() ? 12 : 0;
  put8(out, p.length);
  for (std::size_t i = 0; i < (p.length + 7U) / 8U; ++i) put8(out, a.bytes[skip + i]);
}

void put_attribute_header(std::string& out, std::uint8_t flags, std::uint8_t type, std::size_t size) {
  put8(out, size > 255 ? flags | 0x10U : flags);
  put8(out, type);
  if (size > 255) {
    put16(out, size);
  } else {
    put8(out, size);
  }
}

}  // namespace

void append_initiation(std::string& out, std::string_view sys_name, std::string_view sys_descr) {
  const BmpMessage message(out, 4);
  put_tlv(out, 1, sys_descr);
  put_tlv(out, 2, sys_name);
}

void append_peer_up(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns,
                    std::uint32_t local_asn, std::uint32_t local_bgp_id) {
  const BmpMessage message(out, 3);
  put_peer(out, peer, timestamp_ns);
  out.append(16, '\0');  // local address: not known
  put16(out, 179);
  put16(out, 40000);
  put_open(out, local_asn, local_bgp_id);
  put_open(out, peer.asn, peer.bgp_id);
}

void append_peer_down(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns,
                      std::uint8_t reason) {
  const BmpMessage message(out, 2);
  put_peer(out, peer, timestamp_ns);
  put8(out, reason);
  if (reason == 2) put16(out, 0);
}

void append_announce(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns, Family family,
                     const PathAttributes& attributes, const std::vector<Prefix>& prefixes) {
  const BmpMessage message(out, 0);
  put_peer(out, peer, timestamp_ns);
  const BgpMessage update(out, 2);
  put16(out, 0);
  const bool classic = family == kIpv4Unicast;
  {
    const Length16 all(out);
    put_attribute_header(out, 0x40, 1, 1);
    put8(out, attributes.origin);
    const std::size_t path_bytes = attributes.as_path.empty() ? 0 : 2 + 4 * attributes.as_path.size();
    put_attribute_header(out, 0x40, 2, path_bytes);
    if (path_bytes > 0) {
      put8(out, 2);
      put8(out, attributes.as_path.size());
      for (const std::uint32_t asn : attributes.as_path) put32(out, asn);
    }
    if (classic) {
      put_attribute_header(out, 0x40, 3, 4);
      put32(out, attributes.next_hop.v4());
    }
    if (attributes.med != 0) {
      put_attribute_header(out, 0x80, 4, 4);
      put32(out, attributes.med);
    }
    if (attributes.local_pref != 0) {
      put_attribute_header(out, 0x40, 5, 4);
      put32(out, attributes.local_pref);
    }
    if (!attributes.communities.empty()) {
      put_attribute_header(out, 0xc0, 8, 4 * attributes.communities.size());
      for (const std::uint32_t c : attributes.communities) put32(out, c);
    }
    if (!classic) {
      std::string mp;
      put16(mp, family.afi);
      put8(mp, family.safi);
      put8(mp, 16);
      put_address(mp, attributes.next_hop);
      put8(mp, 0);
      for (const Prefix& p : prefixes) put_prefix(mp, p);
      put_attribute_header(out, 0x80, 14, mp.size());
      out += mp;
    }
  }
  if (classic) {
    for (const Prefix& p : prefixes) put_prefix(out, p);
  }
}

void append_withdraw(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns, Family family,
                     const std::vector<Prefix>& prefixes) {
  const BmpMessage message(out, 0);
  put_peer(out, peer, timestamp_ns);
  const BgpMessage update(out, 2);
  if (family == kIpv4Unicast) {
    {
      const Length16 withdrawn(out);
      for (const Prefix& p : prefixes) put_prefix(out, p);
    }
    put16(out, 0);
    return;
  }
  put16(out, 0);
  const Length16 all(out);
  std::string mp;
  put16(mp, family.afi);
  put8(mp, family.safi);
  for (const Prefix& p : prefixes) put_prefix(mp, p);
  put_attribute_header(out, 0x80, 15, mp.size());
  out += mp;
}

void append_end_of_rib(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns,
                       Family family) {
  append_withdraw(out, peer, timestamp_ns, family, {});
}

void append_termination(std::string& out, std::uint16_t reason) {
  const BmpMessage message(out, 5);
  put16(out, 1);
  put16(out, 2);
  put16(out, reason);
}

}  // namespace arancini::tools
