#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

// The list of metrics: what `values[i]` of a stats page means, and the name under which curated exports it. A
// contract: docs/metrics.md is checked against it by a test. Add at the end of a group's enum, never re-use.
namespace arancini {

enum class MetricType : std::uint8_t { Counter, Gauge, Histogram };

struct MetricInfo {
  std::size_t index;      // in StatsPage::values
  std::string_view name;  // "arancini_…", unit and _total by Prometheus convention
  MetricType type;
  double scale;  // exported value = stored value * scale (e.g. ns to seconds: 1e-9)
  std::string_view help;
};

enum class IngestMetric : std::size_t {
  SessionsAccepted,
  SessionsOpen,
  SessionsClosed,
  SessionsHandedOver,
  SessionsRefused,
  SessionsThrottled,  // now waiting for room in the ring
  BytesReceived,
  MessagesRouteMonitoring,
  MessagesStatistics,
  MessagesPeerDown,
  MessagesPeerUp,
  MessagesInitiation,
  MessagesTermination,
  MessagesRouteMirroring,
  MessagesUnknown,
  MessagesMalformed,
  AttributesDiscarded,  // RFC 7606
  TreatedAsWithdraw,    // RFC 7606, UPDATEs
  AddPathMismatch,
  AsWidthMismatch,
  UnsupportedFamily,  // NLRI fields skipped
  EndOfRib,
  UpdatesAnnounced,  // written to the ring
  UpdatesWithdrawn,
  UpdatesSynthetic,  // withdraws made by the collector (also in UpdatesWithdrawn)
  UpdatesSuppressedDuplicate,
  UpdatesSuppressedUnknown,  // withdraws of what was not told
  Routes,
  AttributeSets,
  RibBytes,
  RingUsedBytes,
  RingCapacityBytes,
  RingRecords,
  RingFullEvents,
  SweepsRunning,
  LoopIterations,
  HandoversFailed,       // misplaced sessions closed because their owner did not take them
  AcceptErrors,          // no descriptors or no memory for a new connection
  UnknownPeers,          // routes without Peer Up, accepted
  MessagesSuperseded,    // skipped: a newer session tells that table
  OverLimit,             // messages and sessions skipped for want of a row
  RecordsTooLarge,       // attributes that no ring record can hold; routes withdrawn
  IoSyscalls,            // of the socket backend
  AnnouncementsDropped,  // not told when they came, for want of room (ring.when_full = "drop-newest")
  WithdrawsDropped,
  RoutesUntold,       // what was told of them differs from what the router has
  UpdatesReconciled,  // told later; also in UpdatesAnnounced and UpdatesWithdrawn
  EventsWritten,      // to the ring
  SnapshotTimeNs,     // CLOCK_REALTIME of the last one in force, 0: none of this process
  SnapshotRoutes,
  SnapshotBytes,
  SnapshotDurationNs,
  SnapshotPauseNs,  // longest slice of it on the hot thread
  SnapshotsTaken,
  SnapshotsFailed,
  UpdatesDumped,  // told again by a dump; also in UpdatesAnnounced
  Dumps,          // of routers, complete
  RestoreState,   // 0 done, 1 under way, 2 waits for the log
  RestoredRoutes,
  RestoreDurationNs,
  SessionsRefusedByRule,  // allow-list, [[router]], sessions of one router
  RoutesOverLimit,        // announcements of new prefixes that were skipped: max_routes
  RestartSessionsKept,    // taken over from the process before
  RestartSessionsClosed,  // that the restart could not keep
  RestartPauseNs,         // from the last read of the process before to the first of this one
  MessagesAhead,          // whose time by the router's clock is later than ours
  Count
};

enum class PublishMetric : std::size_t {
  RecordsRead,
  UpdatesRead,
  MessagesSent,
  MessagesAcked,
  BytesSent,
  UpdatesAcked,
  PublishErrors,
  AckTimeouts,
  Recoveries,            // times the stream's tail was read again
  UpdatesAlreadyStored,  // skipped after a recovery because the stream had them
  MessagesInFlight,
  NatsConnected,  // 0 or 1
  NatsReconnects,
  RingsConnected,
  RingsCorrupt,
  AckLatencyNs,  // last
  StreamLastSequence,
  BatchUpdates,  // updates in the last message
  LoopIterations,
  Trouble,               // ErrorCode of what keeps it from publishing now, 0 if nothing
  QueuedUpdates,         // read from the rings, not sent yet
  OpenGroups,            // messages being filled
  UpdatesResent,         // sent again in a new session
  AckLagNs,              // age of the oldest message without ack
  JournalBytes,          // in the journal, not published yet
  JournalSpilledBytes,   // ever written to it
  JournalReplayedBytes,  // ever read back from it
  JournalSegments,
  JournalTrouble,  // ErrorCode, 0 if none
  EventsPublished,
  StreamEpochs,  // times that the stream was found created anew or gone back
  Count
};

std::span<const MetricInfo> ingest_metrics();
std::span<const MetricInfo> publish_metrics();

}  // namespace arancini
