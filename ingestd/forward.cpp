#include "ingestd/forward.h"

#include "common/metrics/metric_list.h"

namespace arancini::ingestd {

RibShard::Outcome Forward::apply(PeerView& view, const NlriField& field, const wire::Attributes& attributes,
                                 schema::BatchMeta& meta, Session::Progress& progress) {
  meta.family = field.family;
  meta.via_mp = field.via_mp;
  meta.announced = field.announced;
  schema::BatchAttributes batch;
  if (field.announced) {
    batch.attributes = &attributes;
    batch.next_hop = wire::next_hop_address(field.next_hop.empty() ? attributes.next_hop : field.next_hop);
  }
  SliceWriter writer(context_.ring, meta, batch);
  const std::uint32_t limit = writer.max_routes();
  if (limit == 0) return RibShard::Outcome::TooLarge;
  while (progress.offset_bytes < field.nlri.size()) {
    wire::PrefixReader reader(field.nlri.subspan(progress.offset_bytes), field.family, progress.path_ids);
    std::uint32_t routes = 0;
    while (routes < limit && reader.next(routes_[routes])) ++routes;
    if (routes == 0) return RibShard::Outcome::Malformed;
    if (!writer.reserve(routes)) return RibShard::Outcome::NoRoom;
    for (std::uint32_t i = 0; i < routes; ++i) writer.add(routes_[i]);
    (void)writer.commit();
    progress.offset_bytes += static_cast<std::uint32_t>(reader.offset());
    context_.stats.add(field.announced ? IngestMetric::UpdatesAnnounced : IngestMetric::UpdatesWithdrawn,
                       routes);
    context_.stats.add(IngestMetric::RingRecords);
    view.published += routes;
    view.peer.router->published += routes;
    peers_.touch(view);
  }
  return RibShard::Outcome::Done;
}

}  // namespace arancini::ingestd
