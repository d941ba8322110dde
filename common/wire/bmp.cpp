#include "common/wire/bmp.h"

#include <algorithm>
#include <cstring>

#include "common/wire/big_endian.h"

namespace arancini::wire {
namespace {

constexpr std::size_t kPeerBodyOffset = kBmpCommonHeaderBytes + kBmpPerPeerHeaderBytes;
constexpr std::size_t kBgpHeaderBytes = 19;
constexpr std::size_t kOpenFixedBytes = kBgpHeaderBytes + 10;
constexpr std::uint8_t kCapabilitiesParameter = 2;  // RFC 5492 4
constexpr std::uint8_t kFlagV = 0x80;
constexpr std::uint8_t kFlagL = 0x40;
constexpr std::uint8_t kFlagO = 0x10;

constexpr bool has_per_peer_header(std::uint8_t type) {
  constexpr std::uint32_t kWith = (1U << 0) | (1U << 1) | (1U << 2) | (1U << 3) | (1U << 6);
  return type < 32 && ((kWith >> type) & 1U) != 0;
}

// A 16-byte address field of which IPv4 uses the last four bytes (RFC 7854 4.2).
IpAddress address_field(const std::byte* p, bool v6) {
  IpAddress a;
  const bool high_zero = load_be64(p) == 0 && load_be32(p + 8) == 0;
  if (v6 || !high_zero)
    std::memcpy(a.bytes.data(), p, 16);
  else
    a = IpAddress::from_v4(load_be32(p + 12));
  return a;
}

Family load_family(const std::byte* p, std::size_t safi_at) {
  return Family{load_be16(p), load_u8(p + safi_at)};
}

void add_family(OpenInfo& open, Family f) {
  for (std::uint32_t i = 0; i < open.family_count; ++i)
    if (open.families[i] == f) return;
  if (open.family_count < OpenInfo::kMaxFamilies) open.families[open.family_count++] = f;
}

void add_addpath(OpenInfo& open, Family f, std::uint8_t mode) {
  // RFC 7911 4: other values are ignored; of several for one family the last counts.
  if (mode < 1 || mode > 3) return;
  for (std::uint32_t i = 0; i < open.addpath_count; ++i)
    if (open.addpath[i].family == f) {
      open.addpath[i].send_receive = mode;
      return;
    }
  if (open.addpath_count < OpenInfo::kMaxFamilies) open.addpath[open.addpath_count++] = {f, mode};
}

void parse_capability(std::uint8_t code, Bytes value, OpenInfo& open) {
  switch (code) {
    case 1:  // multiprotocol, RFC 4760 8
      if (value.size() == 4) add_family(open, load_family(value.data(), 3));
      break;
    case 6: open.extended_message = true; break;
    case 65:  // RFC 6793 3
      if (value.size() == 4) {
        open.four_byte_as = true;
        open.asn = load_be32(value.data());
      }
      break;
    case 69:
      for (; value.size() >= 4; value = value.subspan(4))
        add_addpath(open, load_family(value.data(), 2), load_u8(value.data() + 3));
      break;
    case 70: open.enhanced_refresh = true; break;
    default: break;
  }
}

// Capabilities one after the other in a parameter. False if one overruns.
bool parse_capabilities(Bytes rest, OpenInfo& open) {
  while (!rest.empty()) {
    if (rest.size() < 2) return false;
    const std::size_t length = load_u8(&rest[1]);
    if (length > rest.size() - 2) return false;
    parse_capability(load_u8(rest.data()), rest.subspan(2, length), open);
    rest = rest.subspan(2 + length);
  }
  return true;
}

// Optional parameters; `length_bytes` is 1, or 2 in the extended format (RFC 9072). False if one overruns.
bool parse_parameters(Bytes rest, std::size_t length_bytes, OpenInfo& open) {
  while (!rest.empty()) {
    const std::size_t header = 1 + length_bytes;
    if (rest.size() < header) return false;
    std::size_t length = length_bytes == 2 ? load_be16(&rest[1]) : load_u8(&rest[1]);
    const bool overruns = length > rest.size() - header;
    if (overruns) length = rest.size() - header;
    if (load_u8(rest.data()) == kCapabilitiesParameter &&
        !parse_capabilities(rest.subspan(header, length), open))
      return false;
    if (overruns) return false;
    rest = rest.subspan(header + length);
  }
  return true;
}

bool has_marker(Bytes bytes) {
  return bytes.size() >= 16 && load_be64(bytes.data()) == ~0ULL && load_be64(&bytes[8]) == ~0ULL;
}

// True if an OPEN seems to start here: enough to tell it from capabilities.
bool looks_like_open(Bytes bytes) {
  return bytes.size() >= kOpenFixedBytes && has_marker(bytes) && load_u8(&bytes[18]) == 1 &&
         load_u8(&bytes[19]) == 4;
}

// Bytes that the OPEN at the start of `rest` takes. 0 if there is none.
std::size_t open_extent(Bytes rest) {
  if (rest.size() < kBgpHeaderBytes || !has_marker(rest) || load_u8(&rest[18]) != 1) return 0;
  return load_be16(&rest[16]);
}

}  // namespace

View PerPeerHeader::view() const {
  if (is_loc_rib()) return View::LocRib;
  const bool post = (flags & kFlagL) != 0;
  if ((flags & kFlagO) != 0) return post ? View::AdjOutPost : View::AdjOutPre;
  return post ? View::AdjInPost : View::AdjInPre;
}

bool parse_per_peer_header(Bytes message, PerPeerHeader& out) {
  if (message.size() < kPeerBodyOffset || !has_per_peer_header(load_u8(&message[5]))) return false;
  const std::byte* p = message.data() + kBmpCommonHeaderBytes;
  out.peer_type = load_u8(p);
  out.flags = load_u8(p + 1);
  out.distinguisher = load_be64(p + 2);
  out.address = address_field(p + 10, !out.is_loc_rib() && (out.flags & kFlagV) != 0);
  out.asn = load_be32(p + 26);
  out.bgp_id = load_be32(p + 30);
  out.timestamp_ns = load_be32(p + 34) * 1'000'000'000ULL + load_be32(p + 38) * 1'000ULL;
  return true;
}

bool TlvReader::next(Tlv& out) {
  if (rest_.empty()) return false;
  if (rest_.size() < 4 || load_be16(&rest_[2]) > rest_.size() - 4) {
    ok_ = false;
    rest_ = {};
    return false;
  }
  const std::size_t length = load_be16(&rest_[2]);
  out.type = load_be16(rest_.data());
  out.value = rest_.subspan(4, length);
  rest_ = rest_.subspan(4 + length);
  return true;
}

Bytes information_tlvs(Bytes message) {
  return message.size() <= kBmpCommonHeaderBytes ? Bytes{} : message.subspan(kBmpCommonHeaderBytes);
}

std::uint8_t OpenInfo::addpath_mode(Family f) const {
  for (std::uint32_t i = 0; i < addpath_count; ++i)
    if (addpath[i].family == f) return addpath[i].send_receive;
  return 0;
}

OpenInfo parse_open(Bytes bgp_message) {
  OpenInfo open;
  if (bgp_message.size() < kOpenFixedBytes || open_extent(bgp_message) < kOpenFixedBytes) return open;
  const std::size_t claimed = load_be16(&bgp_message[16]);
  bool fits = claimed <= bgp_message.size();
  if (claimed < bgp_message.size()) bgp_message = bgp_message.first(claimed);
  open.valid = true;
  open.asn = load_be16(&bgp_message[20]);
  open.hold_time = load_be16(&bgp_message[22]);
  open.bgp_id = load_be32(&bgp_message[24]);
  std::size_t length = load_u8(&bgp_message[28]);
  Bytes rest = bgp_message.subspan(kOpenFixedBytes);
  std::size_t length_bytes = 1;
  if (length != 0 && rest.size() >= 3 && load_u8(rest.data()) == 255) {  // RFC 9072 2
    length = load_be16(&rest[1]);
    length_bytes = 2;
    rest = rest.subspan(3);
  }
  // The message's length wins over the parameters' length.
  fits = fits && length == rest.size();
  // GoBGP with many families writes one parameter of more than 255 bytes, and both one-byte lengths wrap.
  if (length_bytes == 1 && rest.size() > 257 && load_u8(rest.data()) == kCapabilitiesParameter &&
      load_u8(&rest[1]) == ((rest.size() - 2) & 0xffU)) {
    parse_capabilities(rest.subspan(2), open);
    return open;
  }
  open.complete = parse_parameters(rest, length_bytes, open) && fits;
  return open;
}

void merge_capabilities(OpenInfo& into, const OpenInfo& from) {
  for (std::uint32_t i = 0; i < from.family_count; ++i) add_family(into, from.families[i]);
  for (std::uint32_t i = 0; i < from.addpath_count; ++i)
    add_addpath(into, from.addpath[i].family, from.addpath[i].send_receive);
}

ErrorCode parse_peer_up(Bytes message, const PerPeerHeader& peer, PeerUp& out, std::uint32_t* error_offset) {
  constexpr std::size_t kOpensOffset = kPeerBodyOffset + 20;
  out = PeerUp{};
  std::size_t at = kPeerBodyOffset;
  const auto fail = [&] {
    if (error_offset != nullptr) *error_offset = static_cast<std::uint32_t>(std::min(at, message.size()));
    return ErrorCode::BmpMalformedPeerUp;
  };
  if (message.size() < kOpensOffset) return fail();
  const std::byte* p = message.data() + at;
  out.local_address = address_field(p, !peer.is_loc_rib() && (peer.flags & kFlagV) != 0);
  out.local_port = load_be16(p + 16);
  out.remote_port = load_be16(p + 18);

  bool complete = true;
  at = kOpensOffset;
  for (OpenInfo* open : {&out.sent, &out.received}) {
    const Bytes rest = message.subspan(at);
    std::size_t extent = open_extent(rest);
    if (extent < kOpenFixedBytes) return fail();
    const bool overruns = extent > rest.size();
    // When the first OPEN's length is wrong the second one is found by its marker.
    if (open == &out.sent && (overruns || !looks_like_open(rest.subspan(extent)))) {
      for (std::size_t i = kOpenFixedBytes; i + kOpenFixedBytes <= rest.size(); ++i)
        if (looks_like_open(rest.subspan(i))) {
          extent = i;
          break;
        }
    }
    if (extent > rest.size()) extent = rest.size();
    *open = parse_open(rest.first(extent));
    if (complete && (overruns || !open->complete)) {
      complete = false;
      if (error_offset != nullptr) *error_offset = static_cast<std::uint32_t>(at);
    }
    at += extent;
  }
  out.tlvs = message.subspan(at);
  return complete ? ErrorCode::None : ErrorCode::BmpMalformedPeerUp;
}

bool addpath_negotiated_in(const PeerUp& up, Family family) {
  return (up.sent.addpath_mode(family) & 1U) != 0 && (up.received.addpath_mode(family) & 2U) != 0;
}

bool addpath_negotiated_out(const PeerUp& up, Family family) {
  return (up.sent.addpath_mode(family) & 2U) != 0 && (up.received.addpath_mode(family) & 1U) != 0;
}

bool addpath_negotiated(const PeerUp& up, View view, Family family) {
  switch (view) {
    case View::AdjInPre:
    case View::AdjInPost: return addpath_negotiated_in(up, family);
    case View::AdjOutPre:
    case View::AdjOutPost: return addpath_negotiated_out(up, family);
    case View::LocRib: return up.sent.addpath_mode(family) != 0 || up.received.addpath_mode(family) != 0;
  }
  return false;
}

ErrorCode parse_peer_down(Bytes message, PeerDown& out) {
  out = PeerDown{};
  if (message.size() <= kPeerBodyOffset) return ErrorCode::BmpMalformedPeerDown;
  out.reason = load_u8(&message[kPeerBodyOffset]);
  const Bytes data = message.subspan(kPeerBodyOffset + 1);
  switch (out.reason) {
    case 1:
    case 3:
      out.data = data;
      return data.size() >= kBgpHeaderBytes && has_marker(data) && load_be16(&data[16]) <= data.size()
                 ? ErrorCode::None
                 : ErrorCode::BmpMalformedPeerDown;
    case 2:
      out.data = data.first(std::min<std::size_t>(2, data.size()));
      return data.size() >= 2 ? ErrorCode::None : ErrorCode::BmpMalformedPeerDown;
    case 6: {
      out.data = data;
      TlvReader tlvs(data);
      for (Tlv tlv; tlvs.next(tlv);) {
      }
      return tlvs.ok() ? ErrorCode::None : ErrorCode::BmpMalformedPeerDown;
    }
    default: return ErrorCode::None;
  }
}

Bytes statistics_tlvs(Bytes message, std::uint32_t& announced_count) {
  announced_count = 0;
  if (message.size() < kPeerBodyOffset + 4) return {};
  announced_count = load_be32(&message[kPeerBodyOffset]);
  return message.subspan(kPeerBodyOffset + 4);
}

Bytes mirroring_tlvs(Bytes message) {
  return message.size() < kPeerBodyOffset ? Bytes{} : message.subspan(kPeerBodyOffset);
}

std::string_view bmp_type_name(std::uint8_t type) {
  static constexpr std::string_view kNames[] = {"route monitoring", "statistics report", "peer down",
                                                "peer up",          "initiation",        "termination",
                                                "route mirroring"};
  return type < std::size(kNames) ? kNames[type] : "unknown";
}

}  // namespace arancini::wire
