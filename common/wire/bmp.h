#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/base/error.h"
#include "common/base/types.h"
#include "common/wire/big_endian.h"

// BMP messages (RFC 7854, RFC 8671, RFC 9069): bytes in, values out. No I/O, no clock, no allocation. Spans
// in results point into the input and live as long as it does.
namespace arancini::wire {

using Bytes = std::span<const std::byte>;

inline constexpr std::size_t kBmpCommonHeaderBytes = 6;
inline constexpr std::size_t kBmpPerPeerHeaderBytes = 42;

enum class BmpType : std::uint8_t {
  RouteMonitoring = 0,
  StatisticsReport = 1,
  PeerDown = 2,
  PeerUp = 3,
  Initiation = 4,
  Termination = 5,
  RouteMirroring = 6,
};

// What stands at the start of `bytes`.
struct Frame {
  enum class Status : std::uint8_t { NeedMore, Ready, Bad };
  Status status = Status::NeedMore;
  ErrorCode error = ErrorCode::None;  // when Bad: the session cannot go on (no way to find the next message)
  std::uint8_t type = 0;              // raw, may be unknown; valid when Ready
  std::uint32_t size_bytes =
      0;  // whole message with common header; valid when Ready, and as soon as 6 bytes are there
};
// RFC 7854 4.1. Bad: version other than 3, length below the headers that the type needs, length above
// `max_message_bytes`. The version is judged as soon as one byte is there.
inline Frame next_frame(Bytes bytes, std::uint32_t max_message_bytes) {
  // Types 0 to 3 and 6 have a per-peer header.
  constexpr std::uint32_t kWithPeer = 0x4fU;
  Frame f;
  if (bytes.empty()) return f;
  if (load_u8(bytes.data()) != 3) [[unlikely]] {
    f.status = Frame::Status::Bad;
    f.error = ErrorCode::BmpBadVersion;
    return f;
  }
  if (bytes.size() < kBmpCommonHeaderBytes) return f;
  f.size_bytes = load_be32(&bytes[1]);
  f.type = load_u8(&bytes[5]);
  const std::size_t least =
      kBmpCommonHeaderBytes + (f.type < 32 && ((kWithPeer >> f.type) & 1U) != 0 ? kBmpPerPeerHeaderBytes : 0);
  if (f.size_bytes < least || f.size_bytes > max_message_bytes) [[unlikely]] {
    f.status = Frame::Status::Bad;
    f.error = f.size_bytes < least ? ErrorCode::BmpTooShort : ErrorCode::BmpTooLong;
    return f;
  }
  if (bytes.size() >= f.size_bytes) f.status = Frame::Status::Ready;
  return f;
}

// RFC 7854 4.2.
struct PerPeerHeader {
  std::uint8_t peer_type = 0;  // 0 global, 1 RD, 2 local, 3 Loc-RIB; others as they came
  std::uint8_t flags = 0;
  std::uint64_t distinguisher = 0;
  // IPv4 mapped into IPv6. The V flag says which it is, but bytes win where they contradict it: with V clear
  // (or Loc-RIB, whose flag in that place is F) an address with anything in its first 12 bytes is taken as
  // IPv6.
  IpAddress address;
  std::uint32_t asn = 0;
  std::uint32_t bgp_id = 0;
  std::uint64_t timestamp_ns = 0;  // seconds and microseconds of the header, 0 if absent

  [[nodiscard]] bool is_loc_rib() const { return peer_type == 3; }
  // A flag (RFC 7854 4.2): AS_PATH is in the 2-byte format. Not defined for Loc-RIB (always 4-byte, RFC
  // 9069 4.2).
  [[nodiscard]] bool as2_format() const { return !is_loc_rib() && (flags & 0x20U) != 0; }
  // L and O flags and the peer type tell the table (RFC 8671 4, RFC 9069 4.1).
  [[nodiscard]] View view() const;
};
// `message` is a whole frame with its common header. False if it is too short or carries no per-peer header.
bool parse_per_peer_header(Bytes message, PerPeerHeader& out);

// Information TLVs (RFC 7854 4.4): iterates; `ok()` is false after the end if a TLV overran.
struct Tlv {
  std::uint16_t type = 0;
  Bytes value;
};
class TlvReader {
 public:
  explicit TlvReader(Bytes bytes) : rest_(bytes) {}
  bool next(Tlv& out);
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  Bytes rest_;
  bool ok_ = true;
};
inline constexpr std::uint16_t kInitiationString = 0;
inline constexpr std::uint16_t kInitiationSysDescr = 1;
inline constexpr std::uint16_t kInitiationSysName = 2;
// RFC 7854 4.5; the reason has two bytes.
inline constexpr std::uint16_t kTerminationString = 0;
inline constexpr std::uint16_t kTerminationReason = 1;
// Behind the OPENs of a Peer Up (RFC 7854 4.4, RFC 9069 5.2.1).
inline constexpr std::uint16_t kPeerUpString = 0;
inline constexpr std::uint16_t kPeerUpTableName = 3;

// Body of Initiation and Termination: the TLVs behind the common header.
Bytes information_tlvs(Bytes message);

// What the capabilities of one OPEN say (RFC 5492), bounded.
struct OpenInfo {
  static constexpr std::size_t kMaxFamilies = 32;
  bool valid = false;     // the fixed part is there
  bool complete = false;  // and so are all capabilities; false when the OPEN is cut or its lengths contradict
  std::uint32_t asn = 0;  // 4-byte AS capability applied (RFC 6793)
  std::uint16_t hold_time = 0;
  std::uint32_t bgp_id = 0;
  bool four_byte_as = false;
  bool extended_message = false;  // RFC 8654
  bool enhanced_refresh = false;
  std::uint32_t family_count = 0;  // multiprotocol (RFC 4760)
  Family families[kMaxFamilies];
  std::uint32_t addpath_count = 0;  // RFC 7911 4
  struct AddPath {
    Family family;
    std::uint8_t send_receive = 0;  // 1 receive, 2 send, 3 both
  } addpath[kMaxFamilies];

  // 0 when the family is not listed.
  [[nodiscard]] std::uint8_t addpath_mode(Family f) const;
};
// One BGP OPEN with its 19-byte header (RFC 4271 4.2; RFC 9072 extended optional parameters). Takes what
// parses: an OPEN that claims more than `bgp_message` holds is read to the end of the bytes.
OpenInfo parse_open(Bytes bgp_message);
// Adds the families and ADD-PATH modes of `from`: some routers send one Loc-RIB Peer Up per family for the
// same peer.
void merge_capabilities(OpenInfo& into, const OpenInfo& from);

// RFC 7854 4.10.
struct PeerUp {
  IpAddress local_address;
  std::uint16_t local_port = 0;
  std::uint16_t remote_port = 0;
  OpenInfo sent;      // by the monitored router
  OpenInfo received;  // by the monitored router, from its peer
  Bytes tlvs;         // what follows the OPENs (RFC 9069 table name, and what routers add)
};
// None, or BmpMalformedPeerUp when OPENs or lengths do not parse; fields up to there are valid (GoBGP with
// many families sends an OPEN that overruns the message). `error_offset` (from the start of the BMP message)
// is set with an error.
ErrorCode parse_peer_up(Bytes message, const PerPeerHeader& peer, PeerUp& out,
                        std::uint32_t* error_offset = nullptr);

// NLRI that the router receives from its peer carries path ids: it may receive and the peer may send (RFC
// 7911 4).
bool addpath_negotiated_in(const PeerUp& up, Family family);
// NLRI that the router sends to its peer carries path ids (Adj-RIB-Out, RFC 8671).
bool addpath_negotiated_out(const PeerUp& up, Family family);
// The one that applies to the view. Loc-RIB (RFC 9069 5.2): the OPENs are made up by the router for BMP, so
// any ADD-PATH capability for the family says that path ids are sent.
bool addpath_negotiated(const PeerUp& up, View view, Family family);

// RFC 7854 4.9, RFC 9069 5.3 (reason 6).
struct PeerDown {
  std::uint8_t reason = 0;
  Bytes data;  // NOTIFICATION (1, 3), FSM event code (2), TLVs (6), else empty
};
ErrorCode parse_peer_down(Bytes message, PeerDown& out);

// RFC 7854 4.8. Counters are 32- or 64-bit, or 64-bit per AFI/SAFI; unknown types are TLVs like others.
// TLVs behind the count; `announced_count` is the number the router claims.
Bytes statistics_tlvs(Bytes message, std::uint32_t& announced_count);
// RFC 7854 4.7: TLVs behind the per-peer header; type 0 is a BGP message, type 1 an information code.
Bytes mirroring_tlvs(Bytes message);
inline constexpr std::uint16_t kMirrorBgpMessage = 0;
inline constexpr std::uint16_t kMirrorInformation = 1;

// Name for operators, "route monitoring" …; "unknown" otherwise.
std::string_view bmp_type_name(std::uint8_t type);

}  // namespace arancini::wire
