#include "ingestd/barriers.h"

#include "common/metrics/metric_list.h"
#include "shm-layout/record.h"

namespace arancini::ingestd {

bool Barriers::append(std::uint32_t router_row) {
  constexpr std::uint32_t kBytes = sizeof(shm::RecordHeader);
  if (context_.ring.claim(kBytes).empty()) return false;
  shm::RecordHeader header{};
  header.size_bytes = kBytes;
  header.kind = static_cast<std::uint8_t>(shm::RecordKind::Barrier);
  header.format = shm::kRecordFormat;
  header.first_sequence = raw(context_.ring.next_sequence());
  header.received_realtime_ns = context_.realtime_ns;
  header.router_id = router_row;
  context_.ring.append(header);
  context_.stats.add(IngestMetric::RingRecords);
  return true;
}

bool Barriers::separate_identities(PeerView& view) {
  if (view.told_asn == view.asn) return true;
  if (peers_.forgotten()) {
    // Rows may have changed as well: one barrier for all that was written before.
    if (!append(shm::kAllRouters)) return false;
    peers_.set_forgotten(false);
  } else if (view.told_asn && !append(view.peer.router->row)) {
    return false;
  }
  view.told_asn = view.asn;
  view.told_bgp_id = view.bgp_id;
  return true;
}

}  // namespace arancini::ingestd
