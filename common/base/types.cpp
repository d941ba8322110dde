#include "common/base/types.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace arancini {

namespace {

constexpr std::array<std::uint8_t, 12> kMappedPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

std::uint32_t load_be32(const std::uint8_t* p) {
  return (std::uint32_t{p[0]} << 24) | (std::uint32_t{p[1]} << 16) | (std::uint32_t{p[2]} << 8) | p[3];
}

}  // namespace

IpAddress IpAddress::from_v4(std::uint32_t host_order) {
  IpAddress a;
  std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), a.bytes.begin());
  for (std::size_t i = 0; i < 4; ++i) a.bytes[12 + i] = static_cast<std::uint8_t>(host_order >> (24 - 8 * i));
  return a;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string z(text);
  IpAddress a;
  std::array<std::uint8_t, 4> v4{};
  if (inet_pton(AF_INET, z.c_str(), v4.data()) == 1) return from_v4(load_be32(v4.data()));
  if (inet_pton(AF_INET6, z.c_str(), a.bytes.data()) == 1) return a;
  return std::nullopt;
}

bool IpAddress::is_v4() const {
  return std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin());
}

std::uint32_t IpAddress::v4() const {
  return load_be32(bytes.data() + 12);
}

std::string IpAddress::to_string() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (is_v4()) {
    inet_ntop(AF_INET, bytes.data() + 12, text, sizeof text);
  } else {
    inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
  }
  return text;
}

std::string_view to_string(View view) {
  switch (view) {
    case View::AdjInPre: return "adj-in-pre";
    case View::AdjInPost: return "adj-in-post";
    case View::AdjOutPre: return "adj-out-pre";
    case View::AdjOutPost: return "adj-out-post";
    case View::LocRib: return "loc-rib";
  }
  return "unknown";
}

std::string_view to_string(Reason reason) {
  switch (reason) {
    case Reason::None: return "none";
    case Reason::PeerDown: return "peerDown";
    case Reason::SessionLost: return "sessionLost";
    case Reason::ResyncMissing: return "resyncMissing";
    case Reason::GraceExpired: return "graceExpired";
    case Reason::Policy: return "policy";
    case Reason::Operator: return "operator";
    case Reason::Dump: return "dump";
  }
  return "unknown";
}

IpAddress prefix_address(const Prefix& prefix) {
  IpAddress a;
  for (std::size_t i = 0; i < 8; ++i) {
    a.bytes[i] = static_cast<std::uint8_t>(prefix.high >> (56 - 8 * i));
    a.bytes[8 + i] = static_cast<std::uint8_t>(prefix.low >> (56 - 8 * i));
  }
  return a;
}

std::string WriterId::to_hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string s;
  s.reserve(32);
  for (const std::uint8_t b : bytes) {
    s += kDigits[b >> 4];
    s += kDigits[b & 15];
  }
  return s;
}

std::optional<WriterId> WriterId::from_hex(std::string_view hex) {
  if (hex.size() != 32) return std::nullopt;
  WriterId id;
  for (std::size_t i = 0; i < 32; ++i) {
    const char c = hex[i];
    std::uint8_t v = 0;
    if (c >= '0' && c <= '9') {
      v = static_cast<std::uint8_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      v = static_cast<std::uint8_t>(c - 'a' + 10);
    } else {
      return std::nullopt;
    }
    id.bytes[i / 2] = static_cast<std::uint8_t>((id.bytes[i / 2] << 4) | v);
  }
  return id;
}

ShardId owner_of(const IpAddress& router, std::uint32_t shard_count) {
  if (shard_count <= 1) return ShardId{0};
  std::uint32_t word = 0;
  if (router.is_v4()) {
    word = router.v4();
  } else {
    for (std::size_t i = 0; i < 16; i += 4) word ^= load_be32(router.bytes.data() + i);
  }
  return ShardId{((word * 0x9e3779b1U) >> 16) % shard_count};
}

std::string distinguisher_text(std::uint64_t distinguisher) {
  const auto type = static_cast<std::uint16_t>(distinguisher >> 48);
  const auto word = static_cast<std::uint32_t>(distinguisher >> 16);
  const auto low = static_cast<std::uint16_t>(distinguisher);
  switch (type) {
    case 0:
      return std::to_string((distinguisher >> 32) & 0xffffU) + ":" +
             std::to_string(distinguisher & 0xffffffffU);
    case 1: return IpAddress::from_v4(word).to_string() + ":" + std::to_string(low);
    case 2: return std::to_string(word) + ":" + std::to_string(low);
    default: break;
  }
  // A type that nobody has defined: the parts as numbers, still reversible.
  return std::to_string(type) + ":" + std::to_string(word) + ":" + std::to_string(low);
}

std::optional<IpAddress> address_of_token(std::string_view token) {
  std::string text(token.substr(std::min<std::size_t>(token.size(), 3)));
  const bool v4 = token.starts_with("v4_");
  if (!v4 && !token.starts_with("v6_")) return std::nullopt;
  std::replace(text.begin(), text.end(), '_', v4 ? '.' : ':');
  const auto address = IpAddress::parse(text);
  // What parses in another form is no token.
  return address && subject_token(*address) == token ? address : std::nullopt;
}

std::string subject_token(const IpAddress& router) {
  if (router.is_v4()) {
    std::string s = "v4_" + router.to_string();
    std::replace(s.begin(), s.end(), '.', '_');
    return s;
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string s = "v6";
  for (std::size_t i = 0; i < 16; i += 2) {
    const unsigned group = (unsigned{router.bytes[i]} << 8) | router.bytes[i + 1];
    s += '_';
    bool leading = true;
    for (int shift = 12; shift >= 0; shift -= 4) {
      const unsigned digit = (group >> shift) & 15U;
      if (digit != 0 || !leading || shift == 0) {
        s += kDigits[digit];
        leading = false;
      }
    }
  }
  return s;
}

}  // namespace arancini
