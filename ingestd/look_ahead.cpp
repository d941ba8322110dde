#include "ingestd/look_ahead.h"

#include <new>

#include "ingestd/attribute_set.h"
#include "ingestd/nlri_field.h"

namespace arancini::ingestd {

namespace {

// How many messages later the next step of a chain of look-ups is taken: its memory has come by then.
constexpr std::size_t kStep = 2;

}  // namespace

void LookAhead::show(Session& session, wire::Bytes message) {
  if (count_ == kMessages) {  // who shows takes less: what is known is of no use
    count_ = 0;
  }
  KnownMessage& known = known_[(first_ + count_++) % kMessages];
  known.message = message;
  known.parsed = false;
  known.table = nullptr;
  known.old = AttrId::None;
  if (session.router != nullptr &&
      static_cast<std::uint8_t>(message[5]) == static_cast<std::uint8_t>(wire::BmpType::RouteMonitoring) &&
      wire::parse_per_peer_header(message, known.header)) {
    ErrorCode error = ErrorCode::None;
    const wire::Bytes pdu = wire::route_monitoring_pdu(message, error);
    if (!pdu.empty()) {
      // Made where it stays; std::construct_at() would copy it there.
      ::new (&known.update) wire::Update(wire::parse_update(pdu, known.header.as2_format()));
      known.parsed = true;
      find_routes(session, known);
    }
  }
  // Where the routes are is known by now: what they had is next.
  if (KnownMessage* const earlier = shown(kStep);
      earlier != nullptr && earlier->table != nullptr && earlier->epoch == peers_.epoch()) {
    const RouteState* const route = earlier->table->routes.find(earlier->prefixes[0], earlier->hashes[0]);
    if (route != nullptr) {
      earlier->old = route->attr;
      context_.attributes.prefetch(route->attr);
    }
  }
  if (const KnownMessage* const earlier = shown(2 * kStep);
      earlier != nullptr && earlier->old != AttrId::None)
    context_.attributes.prefetch_last(earlier->old);
}

void LookAhead::find_routes(Session& session, KnownMessage& known) {
  if (known.update.disposition == wire::Update::Disposition::Malformed || known.update.end_of_rib) return;
  PeerView* const view = peers_.find_view(session, known.header);
  if (view == nullptr) return;
  const std::uint8_t first = next_field(known.update, 0);
  if (first == kNlriFields) return;
  const NlriField field = field_of(known.update, first);
  const std::size_t index = table_index(field.family);
  if (index == kNoTable || view->tables[index] == nullptr) return;
  RibTable& table = *view->tables[index];
  known.path_ids = table.judge.expects_path_ids();
  known.routes = 0;
  wire::PrefixReader reader(field.nlri, field.family, known.path_ids);
  while (known.routes < KnownMessage::kMostRoutes && reader.next(known.prefixes[known.routes])) {
    const std::uint64_t hash = table.routes.hash(known.prefixes[known.routes]);
    known.hashes[known.routes++] = hash;
    table.routes.prefetch(hash);
  }
  if (known.routes == 0 || reader.offset() != field.nlri.size()) return;
  known.announced = field.announced && !known.update.attributes.mp_inside;
  if (known.announced) {
    const AnnouncedKey key(field.family, field.via_mp, field.next_hop, known.update.attributes,
                           known.update.attributes.but_mp);
    known.tag = context_.attributes.tag_of(key.parts());
    context_.attributes.prefetch_tag(known.tag);
  }
  known.table = &table;
  known.epoch = peers_.epoch();
  known.nlri = field.nlri;
}

}  // namespace arancini::ingestd
