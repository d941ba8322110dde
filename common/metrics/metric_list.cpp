#include "common/metrics/metric_list.h"

#include <array>

#include "shm-layout/stats_page.h"

namespace arancini {
namespace {

constexpr MetricType kCounter = MetricType::Counter;
constexpr MetricType kGauge = MetricType::Gauge;

template <class Metric>
constexpr MetricInfo entry(Metric metric, std::string_view name, MetricType type, std::string_view help,
                           double scale = 1) {
  return {static_cast<std::size_t>(metric), name, type, scale, help};
}

using I = IngestMetric;
constexpr std::array kIngest{
    entry(I::SessionsAccepted, "arancini_ingest_sessions_accepted_total", kCounter, "BMP sessions accepted."),
    entry(I::SessionsOpen, "arancini_ingest_sessions_open", kGauge, "BMP sessions open now."),
    entry(I::SessionsClosed, "arancini_ingest_sessions_closed_total", kCounter, "BMP sessions that ended."),
    entry(I::SessionsHandedOver, "arancini_ingest_sessions_handed_over_total", kCounter,
          "Sessions passed to the shard that owns the router."),
    entry(I::SessionsRefused, "arancini_ingest_sessions_refused_total", kCounter,
          "Connections refused by a limit."),
    entry(I::SessionsThrottled, "arancini_ingest_sessions_throttled", kGauge,
          "Sessions that wait for room in the ring now."),
    entry(I::BytesReceived, "arancini_ingest_received_bytes_total", kCounter, "BMP bytes received."),
    entry(I::MessagesRouteMonitoring, "arancini_ingest_messages_route_monitoring_total", kCounter,
          "BMP Route Monitoring messages."),
    entry(I::MessagesStatistics, "arancini_ingest_messages_statistics_total", kCounter,
          "BMP Statistics Report messages."),
    entry(I::MessagesPeerDown, "arancini_ingest_messages_peer_down_total", kCounter,
          "BMP Peer Down Notification messages."),
    entry(I::MessagesPeerUp, "arancini_ingest_messages_peer_up_total", kCounter,
          "BMP Peer Up Notification messages."),
    entry(I::MessagesInitiation, "arancini_ingest_messages_initiation_total", kCounter,
          "BMP Initiation messages."),
    entry(I::MessagesTermination, "arancini_ingest_messages_termination_total", kCounter,
          "BMP Termination messages."),
    entry(I::MessagesRouteMirroring, "arancini_ingest_messages_route_mirroring_total", kCounter,
          "BMP Route Mirroring messages."),
    entry(I::MessagesUnknown, "arancini_ingest_messages_unknown_total", kCounter,
          "BMP messages of an unknown type."),
    entry(I::MessagesMalformed, "arancini_ingest_messages_malformed_total", kCounter,
          "BMP messages skipped or cut short because they are malformed."),
    entry(I::AttributesDiscarded, "arancini_ingest_attributes_discarded_total", kCounter,
          "Malformed path attributes discarded (RFC 7606)."),
    entry(I::TreatedAsWithdraw, "arancini_ingest_treated_as_withdraw_total", kCounter,
          "UPDATEs treated as withdraw (RFC 7606)."),
    entry(I::AddPathMismatch, "arancini_ingest_add_path_mismatch_total", kCounter,
          "NLRI fields that parse only against what ADD-PATH negotiation says."),
    entry(I::AsWidthMismatch, "arancini_ingest_as_width_mismatch_total", kCounter,
          "AS_PATHs that parse only against what the AS width flag says."),
    entry(I::UnsupportedFamily, "arancini_ingest_unsupported_family_total", kCounter,
          "NLRI fields skipped because their family is not supported."),
    entry(I::EndOfRib, "arancini_ingest_end_of_rib_total", kCounter, "End-of-RIB markers."),
    entry(I::UpdatesAnnounced, "arancini_ingest_updates_announced_total", kCounter,
          "Announcements written to the ring."),
    entry(I::UpdatesWithdrawn, "arancini_ingest_updates_withdrawn_total", kCounter,
          "Withdraws written to the ring."),
    entry(I::UpdatesSynthetic, "arancini_ingest_updates_synthetic_total", kCounter,
          "Withdraws made by the collector; also counted as withdrawn."),
    entry(I::UpdatesSuppressedDuplicate, "arancini_ingest_updates_suppressed_duplicate_total", kCounter,
          "Announcements that changed nothing and were suppressed."),
    entry(I::UpdatesSuppressedUnknown, "arancini_ingest_updates_suppressed_unknown_total", kCounter,
          "Withdraws of routes that were never told."),
    entry(I::Routes, "arancini_ingest_routes", kGauge, "Routes in the tables of this shard."),
    entry(I::AttributeSets, "arancini_ingest_attribute_sets", kGauge,
          "Distinct sets of path attributes held."),
    entry(I::RibBytes, "arancini_ingest_rib_bytes", kGauge, "Memory of the route tables."),
    entry(I::RingUsedBytes, "arancini_ingest_ring_used_bytes", kGauge,
          "Bytes in the ring that are not durable downstream yet."),
    entry(I::RingCapacityBytes, "arancini_ingest_ring_capacity_bytes", kGauge, "Size of the ring."),
    entry(I::RingRecords, "arancini_ingest_ring_records_total", kCounter, "Records written to the ring."),
    entry(I::RingFullEvents, "arancini_ingest_ring_full_total", kCounter, "Times that the ring had no room."),
    entry(I::SweepsRunning, "arancini_ingest_sweeps_running", kGauge, "Table sweeps in progress."),
    entry(I::LoopIterations, "arancini_ingest_loop_iterations_total", kCounter, "Rounds of the event loop."),
    entry(I::HandoversFailed, "arancini_ingest_handovers_failed_total", kCounter,
          "Sessions closed because the shard that owns the router did not take them."),
    entry(I::AcceptErrors, "arancini_ingest_accept_errors_total", kCounter,
          "Connections that could not be accepted for lack of descriptors or memory."),
    entry(I::UnknownPeers, "arancini_ingest_unknown_peers_total", kCounter,
          "Peers whose routes came without Peer Up, accepted."),
    entry(I::MessagesSuperseded, "arancini_ingest_messages_superseded_total", kCounter,
          "Route Monitoring messages skipped because a newer session tells that table."),
    entry(I::OverLimit, "arancini_ingest_over_limit_total", kCounter,
          "Sessions and messages skipped because there are too many routers or peers."),
    entry(I::RecordsTooLarge, "arancini_ingest_records_too_large_total", kCounter,
          "Announcements withdrawn because no ring record can hold their attributes."),
    entry(I::IoSyscalls, "arancini_ingest_io_syscalls_total", kCounter, "System calls made for sockets."),
    entry(I::AnnouncementsDropped, "arancini_ingest_announcements_dropped_total", kCounter,
          "Announcements not told when they came because the ring was full (ring.when_full = drop-newest)."),
    entry(I::WithdrawsDropped, "arancini_ingest_withdraws_dropped_total", kCounter,
          "Withdraws not told when they came because the ring was full (ring.when_full = drop-newest)."),
    entry(
        I::RoutesUntold, "arancini_ingest_routes_untold", kGauge,
        "Routes of which downstream was told something else than the router says now; they are told when the "
        "ring has room."),
    entry(I::UpdatesReconciled, "arancini_ingest_updates_reconciled_total", kCounter,
          "Updates that tell what was dropped; also counted as announced or withdrawn."),
    entry(I::EventsWritten, "arancini_ingest_events_total", kCounter, "Events written to the ring."),
    entry(
        I::SnapshotTimeNs, "arancini_ingest_snapshot_time_seconds", kGauge,
        "Unix time as of which the last snapshot of the tables is good, 0 if there was none since the start.",
        1e-9),
    entry(I::SnapshotRoutes, "arancini_ingest_snapshot_routes", kGauge, "Routes in the last snapshot."),
    entry(I::SnapshotBytes, "arancini_ingest_snapshot_bytes", kGauge, "Size of the last snapshot."),
    entry(I::SnapshotDurationNs, "arancini_ingest_snapshot_duration_seconds", kGauge,
          "From the begin of the last snapshot until it was in force.", 1e-9),
    entry(I::SnapshotPauseNs, "arancini_ingest_snapshot_longest_pause_seconds", kGauge,
          "Longest time that the data thread worked for the last snapshot without looking at sessions.",
          1e-9),
    entry(I::SnapshotsTaken, "arancini_ingest_snapshots_total", kCounter, "Snapshots that came in force."),
    entry(I::SnapshotsFailed, "arancini_ingest_snapshots_failed_total", kCounter,
          "Snapshots that could not be written (801)."),
    entry(I::UpdatesDumped, "arancini_ingest_updates_dumped_total", kCounter,
          "Updates of table dumps; also counted as announced."),
    entry(I::Dumps, "arancini_ingest_dumps_total", kCounter, "Table dumps of routers that were completed."),
    entry(I::RestoreState, "arancini_ingest_restore_state", kGauge,
          "Restore of the tables at start: 0 done, 1 under way, 2 waits; until it is done, routers wait."),
    entry(I::RestoredRoutes, "arancini_ingest_restored_routes", kGauge,
          "Routes that the last restore found."),
    entry(I::RestoreDurationNs, "arancini_ingest_restore_seconds", kGauge, "How long the last restore took.",
          1e-9),
    entry(I::SessionsRefusedByRule, "arancini_ingest_sessions_refused_by_rule_total", kCounter,
          "Sessions closed by bmp.allow, [[router]], or the number that a router may have."),
    entry(I::RoutesOverLimit, "arancini_ingest_routes_over_limit_total", kCounter,
          "Announcements of new prefixes that were skipped because the router has max_routes."),
    entry(I::RestartSessionsKept, "arancini_ingest_restart_sessions_kept", kGauge,
          "Sessions that this process took over from the one before, without a break."),
    entry(I::RestartSessionsClosed, "arancini_ingest_restart_sessions_closed", kGauge,
          "Sessions that the last restart could not keep (308)."),
    entry(I::RestartPauseNs, "arancini_ingest_restart_pause_seconds", kGauge,
          "How long kept sessions were not read during the last restart.", 1e-9),
    entry(I::MessagesAhead, "arancini_ingest_messages_ahead_total", kCounter,
          "Messages with a time of the router that is later than ours: one of the clocks is wrong. They are "
          "not in "
          "arancini_ingest_bmp_lag_seconds."),
};

using P = PublishMetric;
constexpr std::array kPublish{
    entry(P::RecordsRead, "arancini_publish_records_read_total", kCounter, "Records read from the rings."),
    entry(P::UpdatesRead, "arancini_publish_updates_read_total", kCounter, "Updates in the records read."),
    entry(P::MessagesSent, "arancini_publish_messages_sent_total", kCounter, "Messages sent to JetStream."),
    entry(P::MessagesAcked, "arancini_publish_messages_acked_total", kCounter,
          "Messages acked by JetStream."),
    entry(P::BytesSent, "arancini_publish_sent_bytes_total", kCounter, "Payload bytes sent to JetStream."),
    entry(P::UpdatesAcked, "arancini_publish_updates_acked_total", kCounter,
          "Updates in the messages acked."),
    entry(P::PublishErrors, "arancini_publish_errors_total", kCounter, "Messages that JetStream rejected."),
    entry(P::AckTimeouts, "arancini_publish_ack_timeouts_total", kCounter,
          "Messages without an ack in time."),
    entry(P::Recoveries, "arancini_publish_recoveries_total", kCounter,
          "Times that the end of the stream was read again."),
    entry(P::UpdatesAlreadyStored, "arancini_publish_updates_already_stored_total", kCounter,
          "Updates not sent again after a recovery because the stream had them."),
    entry(P::MessagesInFlight, "arancini_publish_messages_in_flight", kGauge, "Messages sent and not acked."),
    entry(P::NatsConnected, "arancini_publish_nats_connected", kGauge, "1 while connected to NATS."),
    entry(P::NatsReconnects, "arancini_publish_nats_reconnects_total", kCounter, "Reconnects to NATS."),
    entry(P::RingsConnected, "arancini_publish_rings_connected", kGauge, "Rings attached now."),
    entry(P::RingsCorrupt, "arancini_publish_rings_corrupt_total", kCounter, "Rings given up as corrupt."),
    entry(P::AckLatencyNs, "arancini_publish_ack_latency_seconds", kGauge,
          "Time from sending to ack, last message.", 1e-9),
    entry(P::StreamLastSequence, "arancini_publish_stream_last_sequence", kGauge,
          "Stream sequence of the last message acked."),
    entry(P::BatchUpdates, "arancini_publish_batch_updates", kGauge, "Updates in the last message sent."),
    entry(P::LoopIterations, "arancini_publish_loop_iterations_total", kCounter, "Rounds of the drain loop."),
    entry(P::Trouble, "arancini_publish_trouble_code", kGauge,
          "Error code of what keeps publishd from publishing (5xx: docs/nats.md, 6xx: docs/stream.md), 0 if "
          "nothing does."),
    entry(P::QueuedUpdates, "arancini_publish_queued_updates", kGauge,
          "Updates read from the rings and not sent yet."),
    entry(P::OpenGroups, "arancini_publish_open_groups", kGauge, "Messages being filled."),
    entry(P::UpdatesResent, "arancini_publish_updates_resent_total", kCounter,
          "Updates sent again because their message was not acked."),
    entry(P::AckLagNs, "arancini_publish_ack_lag_seconds", kGauge, "Age of the oldest message without ack.",
          1e-9),
    entry(P::JournalBytes, "arancini_publish_journal_bytes", kGauge,
          "Bytes in the journal that are not published yet."),
    entry(P::JournalSpilledBytes, "arancini_publish_journal_spilled_bytes_total", kCounter,
          "Bytes written to the journal."),
    entry(P::JournalReplayedBytes, "arancini_publish_journal_replayed_bytes_total", kCounter,
          "Bytes read back from the journal."),
    entry(P::JournalSegments, "arancini_publish_journal_segments", kGauge, "Files of the journal."),
    entry(P::JournalTrouble, "arancini_publish_journal_trouble_code", kGauge,
          "Error code of what keeps the journal from working (601: full, 602: the disk refuses, 603: "
          "corrupt), 0 if "
          "nothing does."),
    entry(P::EventsPublished, "arancini_publish_events_total", kCounter,
          "Events stored in the events stream."),
    entry(P::StreamEpochs, "arancini_publish_stream_epochs_total", kCounter,
          "Times that the stream was found created anew or gone back."),
};

// Every enumerator once, in order.
template <std::size_t N>
constexpr bool in_order(const std::array<MetricInfo, N>& list) {
  for (std::size_t i = 0; i < N; ++i) {
    if (list[i].index != i) return false;
  }
  return true;
}
static_assert(kIngest.size() == static_cast<std::size_t>(I::Count) && in_order(kIngest));
static_assert(kPublish.size() == static_cast<std::size_t>(P::Count) && in_order(kPublish));
static_assert(kIngest.size() <= shm::kStatsValues && kPublish.size() <= shm::kStatsValues);

}  // namespace

std::span<const MetricInfo> ingest_metrics() {
  return kIngest;
}
std::span<const MetricInfo> publish_metrics() {
  return kPublish;
}

}  // namespace arancini
