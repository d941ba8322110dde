#pragma once

#include <cstdint>
#include <string_view>

namespace arancini {

// Stable codes of what can go wrong, for counters, logs, status and scripts. Numbers are never re-used.
enum class ErrorCode : std::uint32_t {
  None = 0,
  // BMP session (1xx)
  BmpBadVersion = 101,   // common header version is not 3 (RFC 7854 4.1); session closed
  BmpTooLong = 102,      // message length above the configured limit; session closed
  BmpTooShort = 103,     // message length below the header that its type needs; session closed
  BmpUnknownType = 104,  // message type not known; message skipped
  BmpMalformedPeerHeader = 105,
  BmpMalformedPeerUp = 106,  // OPENs or lengths do not parse; message used as far as it does
  BmpMalformedPeerDown = 107,
  BmpMalformedTlv = 108,
  BmpUnknownPeer = 109,  // Route Monitoring for a peer without Peer Up; accepted, counted
  BmpTruncated = 110,    // session ended within a message
  BmpMirroredError = 111,
  // BGP in BMP (2xx)
  BgpBadMarker = 201,
  BgpBadLength = 202,  // BGP header length does not fit the BMP message
  BgpNotUpdate = 203,
  BgpUpdateMalformed = 204,     // lengths inside the UPDATE overrun; message skipped
  BgpAttributeMalformed = 205,  // RFC 7606: treat-as-withdraw
  BgpAttributeDiscarded = 206,  // RFC 7606: attribute discard
  BgpNlriMalformed = 207,
  BgpAddPathMismatch = 208,  // NLRI does not parse as negotiated, the other way is used
  BgpAsWidthMismatch = 209,  // AS_PATH does not parse as the A flag says, the other width is used
  BgpUnsupportedFamily = 210,
  // Sessions and ownership (3xx)
  SessionReset = 301,
  SessionLimit = 302,
  HandoverFailed = 303,
  RouterRefused = 304,       // no entry or prefix allows the address; connection closed
  RouterSessionLimit = 305,  // the router has as many sessions as it may; connection closed
  RouterRouteLimit = 306,    // the router has as many routes as it may; new ones are skipped
  RouterUnidentified = 307,  // [[router]] tells it by sysName, and it speaks before its Initiation
  SessionNotKept = 308,      // a restart could not keep the session: its router connects anew
  // Rings (4xx)
  RingCorrupt = 401,
  RingIncompatible = 402,
  RecordTooLarge = 403,
  // Publishing (5xx)
  NatsUnreachable = 501,
  StreamUnusable = 502,
  PublishRejected = 503,
  PublishTimeout = 504,
  PublishOutOfOrder = 505,  // expected last sequence did not match: the tail is read again
  NatsTls = 506,            // TLS: certificate not trusted, expired, or of another host
  NatsUnauthorized = 507,   // the server does not accept who we are, or what we may do
  StreamFull = 508,         // storage or limits of the server are used up
  StreamReplaced = 509,     // the stream is not the one published to before, or has gone back
  PublishStalled = 510,     // no ack while the ring fills: spilling to the journal
  // Journal (6xx)
  JournalFull = 601,     // journal.max_bytes or the disk: the rings fill, the routers wait
  JournalFailed = 602,   // the disk refuses
  JournalCorrupt = 603,  // a segment's checksum does not match: what is in it is lost
  // By choice (7xx)
  UpdatesDropped = 701,  // ring.when_full = "drop-newest"
  // Snapshots and restore (8xx)
  SnapshotFailed = 801,   // cannot be written; the one before stays
  SnapshotCorrupt = 802,  // set aside, not loaded
  SnapshotRefused = 803,  // intact, but of another log, ahead of it, or of another version
  RestoreWaiting = 804,   // the log cannot be read yet: routers of the shard wait
  LogIncomplete = 805,    // retention has discarded what the restore needs
  // Control (9xx)
  CallRefused = 901,    // a certificate that may not call, or may not change anything
  AuditFailed = 902,    // audit.log cannot be written; calls are served, and stand in the log
  RestartFailed = 903,  // a process did not come back, or not all was well before: the restart ends there
  DrainFailed = 904,    // something is left in the rings when the time is over
  ReloadRefused = 905,  // the configuration is not valid for all: the old one stays in force everywhere
};

// As counters, logs and events have it.
constexpr std::uint32_t number(ErrorCode code) {
  return static_cast<std::uint32_t>(code);
}

// Short text for operators, e.g. "BMP message longer than the limit".
std::string_view to_string(ErrorCode code);

}  // namespace arancini
