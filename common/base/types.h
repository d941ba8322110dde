#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// Identifiers and values that every part of Arancini speaks about. No bare integer crosses a header as one of
// these.
namespace arancini {

// An IPv4 or IPv6 address as 16 bytes in network order; IPv4 is mapped into IPv6 (::ffff:a.b.c.d, RFC
// 4291 2.5.5.2).
struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};

  static IpAddress from_v4(std::uint32_t host_order);
  // Accepts dotted IPv4 and IPv6 text, without zone; nullopt for anything else.
  static std::optional<IpAddress> parse(std::string_view text);

  [[nodiscard]] bool is_v4() const;
  // Host order; meaningful only when is_v4().
  [[nodiscard]] std::uint32_t v4() const;
  [[nodiscard]] bool is_zero() const { return bytes == std::array<std::uint8_t, 16>{}; }
  // "192.0.2.1", or RFC 5952 text for IPv6.
  [[nodiscard]] std::string to_string() const;

  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;
};

// Address family pair (RFC 4760), by IANA number: unknown ones are carried, not refused.
struct Family {
  std::uint16_t afi = 0;
  std::uint8_t safi = 0;
  friend auto operator<=>(const Family&, const Family&) = default;
};
inline constexpr Family kIpv4Unicast{1, 1};
inline constexpr Family kIpv4Multicast{1, 2};
inline constexpr Family kIpv6Unicast{2, 1};
inline constexpr Family kIpv6Multicast{2, 2};

// Families whose NLRI is <length, prefix> (RFC 4271 4.3), optionally with a path id (RFC 7911).
constexpr bool is_plain_prefix_family(Family f) {
  return (f.afi == 1 || f.afi == 2) && (f.safi == 1 || f.safi == 2);
}

// Which table of the router a route belongs to (RFC 7854, RFC 8671, RFC 9069). Values are wire values of
// update.capnp.
enum class View : std::uint8_t { AdjInPre = 0, AdjInPost = 1, AdjOutPre = 2, AdjOutPost = 3, LocRib = 4 };
inline constexpr std::size_t kViewCount = 5;
// "adj-in-pre", "adj-in-post", "adj-out-pre", "adj-out-post", "loc-rib".
std::string_view to_string(View view);

// Why an update is synthetic. Values are wire values of update.capnp.
enum class Reason : std::uint16_t {
  None = 0,
  PeerDown = 1,
  SessionLost = 2,
  ResyncMissing = 3,
  GraceExpired = 4,
  Policy = 5,
  Operator = 6,
  Dump = 7,
};
std::string_view to_string(Reason reason);

// A prefix of an <length, prefix> family. `high`/`low` are the 16 address bytes (IPv4 mapped into IPv6) as
// two big-endian numbers; bits beyond `length` are zero. `length` counts from the start of the IPv4 or IPv6
// address.
struct Prefix {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  std::uint32_t path_id = 0;  // 0 when the NLRI has none (RFC 7911 3)
  std::uint8_t length = 0;
  friend auto operator<=>(const Prefix&, const Prefix&) = default;
};
inline constexpr std::uint64_t kV4MappedLow = 0x0000ffff00000000ULL;
IpAddress prefix_address(const Prefix& prefix);

// Names one ring instance (UUID); with a sequence it identifies an update for ever (DESIGN 4.3).
struct WriterId {
  std::array<std::uint8_t, 16> bytes{};
  [[nodiscard]] std::string to_hex() const;  // 32 lower-case hex digits
  static std::optional<WriterId> from_hex(std::string_view hex);
  friend auto operator<=>(const WriterId&, const WriterId&) = default;
};

// Dense number of an update within its writer; the first is 1, so 0 can mean "none".
enum class Sequence : std::uint64_t {};
constexpr std::uint64_t raw(Sequence s) {
  return static_cast<std::uint64_t>(s);
}
constexpr Sequence operator+(Sequence s, std::uint64_t n) {
  return Sequence{raw(s) + n};
}

// Byte position in a ring: counts from the ring's creation, never wraps.
enum class RingPosition : std::uint64_t {};
constexpr std::uint64_t raw(RingPosition p) {
  return static_cast<std::uint64_t>(p);
}
constexpr RingPosition operator+(RingPosition p, std::uint64_t n) {
  return RingPosition{raw(p) + n};
}

enum class ShardId : std::uint32_t {};
constexpr std::uint32_t raw(ShardId s) {
  return static_cast<std::uint32_t>(s);
}

// The shard that owns a router by its address. The reuseport program of the listener
// (common/base/reuseport.h) computes the same function in the kernel; keep both in step (a test does).
ShardId owner_of(const IpAddress& router, std::uint32_t shard_count);

// A route or peer distinguisher as operators write it (RFC 4364 4.2): "65000:7", "192.0.2.1:7"; "0:0" for
// none.
std::string distinguisher_text(std::uint64_t distinguisher);

// `<router>` of a subject: "v4_192_0_2_1", "v6_2001_db8_0_0_0_0_0_1" (DESIGN 4.2).
std::string subject_token(const IpAddress& router);
// The address whose token that is; nullopt: of none.
std::optional<IpAddress> address_of_token(std::string_view token);

}  // namespace arancini
