#include <array>
#include <cstdlib>

#include "ingestd/batch_meta.h"
#include "ingestd/shard_impl.h"

// One Route Monitoring message: who it is about, what it says, and in which order that is applied.
namespace arancini::ingestd {

namespace {

constexpr auto kType = static_cast<std::uint8_t>(wire::BmpType::RouteMonitoring);
constexpr std::size_t kPduOffset = wire::kBmpCommonHeaderBytes + wire::kBmpPerPeerHeaderBytes;

}  // namespace

Shard::Applied Shard::Impl::route_monitoring(Session& session, const wire::PerPeerHeader& header,
                                             wire::Bytes message) {
  ErrorCode error = ErrorCode::None;
  const wire::Bytes pdu = wire::route_monitoring_pdu(message, error);
  if (pdu.empty()) {
    malformed(session, peers.find(session, header), nullptr, error, kType, kPduOffset);
    return Applied::Done;
  }
  return route_monitoring(session, header, message, wire::parse_update(pdu, header.as2_format()), nullptr);
}

Shard::Applied Shard::Impl::route_monitoring(Session& session, const wire::PerPeerHeader& header,
                                             wire::Bytes message, const wire::Update& update,
                                             const KnownMessage* known) {
  PeerView* view = peers.view(session, header);
  if (view == nullptr) {
    context.stats.add(IngestMetric::OverLimit);
    fault(session, nullptr, ErrorCode::SessionLimit, kType, wire::kBmpCommonHeaderBytes,
          "no row for another peer; its messages are skipped");
    return Applied::Done;
  }
  if (update.disposition == wire::Update::Disposition::Malformed) {
    malformed(session, &view->peer, view, update.error, kType, kPduOffset + update.error_offset);
    return Applied::Done;
  }
  // It may take the view over, and the tables be told anew.
  if (view->owner != &session && !life_cycle.room_for_small(1 + kTableFamilies.size()))
    return Applied::NoRoom;
  if (!claim(session, *view, header) || session.must_close) return Applied::Done;
  if (!view->peer.up) {
    // GoBGP's Loc-RIB, FRR's local routes: there is no Peer Up for them.
    if (!view->peer.unknown_said) {
      view->peer.unknown_said = true;
      context.stats.add(IngestMetric::UnknownPeers);
      fault(session, &view->peer, ErrorCode::BmpUnknownPeer, kType, wire::kBmpCommonHeaderBytes, "accepted");
    }
    if (view->state == shm::PeerState::Down && update.attributes.present != 0)
      view->state = shm::PeerState::Unknown;
  }
  if (view->routes == 0) (void)adopt_identity(*view, header);
  if (!session.progress.active) note_disposition(session, *view, update);
  if (!settle_identity(*view)) return Applied::NoRoom;

  if (update.end_of_rib) {
    context.stats.add(IngestMetric::EndOfRib);
    const std::size_t index = table_index(update.end_of_rib_family);
    if (index != kNoTable && view->tables[index]) resync.end_of_rib(*view->tables[index]);
    return Applied::Done;
  }
  const bool tell =
      context.drop_newest ? events.flush() && may_tell(*view) : barriers.separate_identities(*view);
  if (!tell && !context.drop_newest) return Applied::NoRoom;
  return apply_fields(session, *view, header, update, message, tell, known);
}

void Shard::Impl::note_disposition(Session& session, PeerView& view, const wire::Update& update) {
  if (update.as_width_mismatch) {
    context.stats.add(IngestMetric::AsWidthMismatch);
    if (!view.as_width_said) {
      view.as_width_said = true;
      fault(session, &view.peer, ErrorCode::BgpAsWidthMismatch, kType, kPduOffset, "the path decides");
    }
  }
  switch (update.disposition) {
    case wire::Update::Disposition::Good:
    case wire::Update::Disposition::Malformed: return;
    case wire::Update::Disposition::AttributeDiscard:
      context.stats.add(IngestMetric::AttributesDiscarded);
      break;
    case wire::Update::Disposition::TreatAsWithdraw:
      context.stats.add(IngestMetric::TreatedAsWithdraw);
      break;
  }
  ++view.malformed;
  peers.touch(view);
  fault(session, &view.peer, update.error, kType, kPduOffset + update.error_offset, {});
}

bool Shard::Impl::judge(Session& session, RibTable& table, const NlriField& field) {
  Session::Progress& progress = session.progress;
  if (progress.judged) return true;
  const wire::AddPathJudge::Verdict verdict = table.judge.judge(field.nlri, field.family);
  progress.judged = true;
  progress.path_ids = verdict.path_ids;
  if (verdict.mismatch) {
    context.stats.add(IngestMetric::AddPathMismatch);
    if (!table.mismatch_said) {
      table.mismatch_said = true;
      fault(session, &table.view.peer, ErrorCode::BgpAddPathMismatch, kType, kPduOffset,
            verdict.path_ids ? "path ids that were not negotiated" : "no path ids, though negotiated");
    }
  }
  return verdict.parses;
}

Shard::Applied Shard::Impl::apply_fields(Session& session, PeerView& view, const wire::PerPeerHeader& header,
                                         const wire::Update& update, wire::Bytes message, bool tell,
                                         const KnownMessage* known) {
  schema::BatchMeta& meta = message_meta(context, view);
  meta.bmp_timestamp_ns = header.timestamp_ns;
  meta.router_port = session.port;

  Session::Progress& progress = session.progress;
  const auto go_to = [&progress](std::uint8_t field) {
    const bool active = progress.active;
    progress = Session::Progress{};
    progress.active = active;
    progress.field = field;
  };
  for (;; go_to(static_cast<std::uint8_t>(progress.field + 1))) {
    if (const std::uint8_t next = next_field(update, progress.field); next != progress.field) {
      if (next == kNlriFields) break;
      go_to(next);
    }
    if (progress.field == kNlriFields) break;
    NlriField field = field_of(update, progress.field);
    const std::size_t index = table_index(field.family);
    if (index == kNoTable) {
      context.stats.add(IngestMetric::UnsupportedFamily);
      continue;
    }
    const bool is_new = view.tables[index] == nullptr;
    if (is_new && !life_cycle.room_for_small(1)) return Applied::NoRoom;
    RibTable& table = peers.table(view, index);
    if (is_new) resync.begin(table);
    resync.news(table);
    const auto malformed_at = [&](std::size_t offset) {
      const auto field_at = static_cast<std::size_t>(field.nlri.data() - message.data());
      malformed(session, &view.peer, &view, ErrorCode::BgpNlriMalformed, kType, field_at + offset);
    };
    if (!judge(session, table, field)) {
      malformed_at(0);
      continue;
    }
    const auto apply = [&] {
      return context.curate ? rib.apply(table, field, update.attributes, meta, progress, tell, known)
                            : forward.apply(view, field, update.attributes, meta, progress);
    };
    RibShard::Outcome outcome = apply();
    if (outcome == RibShard::Outcome::TooLarge && field.announced) {
      // It cannot be told, and what was told is no longer true.
      if (!progress.active) {
        context.stats.add(IngestMetric::RecordsTooLarge);
        fault(session, &view.peer, ErrorCode::RecordTooLarge, kType, kPduOffset, "routes withdrawn");
      }
      field.announced = false;
      outcome = apply();
    }
    switch (outcome) {
      case RibShard::Outcome::Done: break;
      case RibShard::Outcome::NoRoom: return Applied::NoRoom;
      case RibShard::Outcome::NoMemory:
        if (!progress.active) {
          context.log.error("no memory for routes: {} bytes are in use; sessions wait",
                            context.pool.memory_bytes());
        }
        return Applied::NoRoom;
      case RibShard::Outcome::Malformed: malformed_at(progress.offset_bytes); break;
      case RibShard::Outcome::TooLarge:
        std::abort();  // a withdrawal has no attributes: it fits into the smallest ring
    }
  }
  return Applied::Done;
}

}  // namespace arancini::ingestd
