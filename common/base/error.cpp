#include "common/base/error.h"

namespace arancini {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::None: return "none";
    case ErrorCode::BmpBadVersion: return "BMP version not supported";
    case ErrorCode::BmpTooLong: return "BMP message longer than the limit";
    case ErrorCode::BmpTooShort: return "BMP message shorter than its headers";
    case ErrorCode::BmpUnknownType: return "BMP message type unknown";
    case ErrorCode::BmpMalformedPeerHeader: return "BMP per-peer header malformed";
    case ErrorCode::BmpMalformedPeerUp: return "BMP Peer Up malformed";
    case ErrorCode::BmpMalformedPeerDown: return "BMP Peer Down malformed";
    case ErrorCode::BmpMalformedTlv: return "BMP information TLV malformed";
    case ErrorCode::BmpUnknownPeer: return "routes for a peer without Peer Up";
    case ErrorCode::BmpTruncated: return "session ended within a BMP message";
    case ErrorCode::BmpMirroredError: return "mirrored PDU with errors";
    case ErrorCode::BgpBadMarker: return "BGP marker is not all ones";
    case ErrorCode::BgpBadLength: return "BGP message length does not fit";
    case ErrorCode::BgpNotUpdate: return "BGP message in Route Monitoring is not an UPDATE";
    case ErrorCode::BgpUpdateMalformed: return "BGP UPDATE malformed";
    case ErrorCode::BgpAttributeMalformed: return "BGP path attribute malformed (treat-as-withdraw)";
    case ErrorCode::BgpAttributeDiscarded: return "BGP path attribute malformed (discarded)";
    case ErrorCode::BgpNlriMalformed: return "BGP NLRI malformed";
    case ErrorCode::BgpAddPathMismatch: return "NLRI not encoded as ADD-PATH was negotiated";
    case ErrorCode::BgpAsWidthMismatch: return "AS_PATH not encoded as the A flag says";
    case ErrorCode::BgpUnsupportedFamily: return "address family not decoded";
    case ErrorCode::SessionReset: return "session reset";
    case ErrorCode::SessionLimit: return "too many sessions";
    case ErrorCode::HandoverFailed: return "session could not be passed to its owner";
    case ErrorCode::RouterRefused: return "router is not allowed to connect";
    case ErrorCode::RouterSessionLimit: return "router has as many sessions as it may";
    case ErrorCode::RouterRouteLimit: return "router has as many routes as it may";
    case ErrorCode::RouterUnidentified: return "router speaks before it says who it is";
    case ErrorCode::SessionNotKept: return "session not kept over a restart";
    case ErrorCode::RingCorrupt: return "ring contents invalid";
    case ErrorCode::RingIncompatible: return "ring layout differs";
    case ErrorCode::RecordTooLarge: return "record larger than the limit";
    case ErrorCode::NatsUnreachable: return "NATS not reachable";
    case ErrorCode::StreamUnusable: return "stream cannot be used";
    case ErrorCode::PublishRejected: return "publish rejected by JetStream";
    case ErrorCode::PublishTimeout: return "no ack in time";
    case ErrorCode::PublishOutOfOrder: return "stream's last sequence is not the expected one";
    case ErrorCode::NatsTls: return "TLS with NATS failed";
    case ErrorCode::NatsUnauthorized: return "NATS refuses the credentials or the permission";
    case ErrorCode::StreamFull: return "stream or server storage is full";
    case ErrorCode::StreamReplaced: return "stream was created anew or has gone back";
    case ErrorCode::PublishStalled: return "no ack while the ring fills";
    case ErrorCode::JournalFull: return "journal is full";
    case ErrorCode::JournalFailed: return "journal cannot be written or read";
    case ErrorCode::JournalCorrupt: return "journal contents invalid";
    case ErrorCode::UpdatesDropped: return "updates were not told because the ring was full";
    case ErrorCode::SnapshotFailed: return "snapshot cannot be written";
    case ErrorCode::SnapshotCorrupt: return "snapshot contents invalid";
    case ErrorCode::SnapshotRefused:
      return "snapshot does not belong to the log, is ahead of it, or of another version";
    case ErrorCode::RestoreWaiting: return "the tables are not restored yet";
    case ErrorCode::LogIncomplete: return "the log no longer holds what the restore needs";
    case ErrorCode::CallRefused: return "call refused";
    case ErrorCode::AuditFailed: return "the audit file cannot be written";
    case ErrorCode::RestartFailed: return "the restart ended early";
    case ErrorCode::DrainFailed: return "not drained in time";
    case ErrorCode::ReloadRefused: return "configuration not taken over, the old one stays in force";
  }
  return "unknown";
}

}  // namespace arancini
