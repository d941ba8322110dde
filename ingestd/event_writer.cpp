#include "ingestd/event_writer.h"

#include "common/metrics/metric_list.h"
#include "shm-layout/record.h"

namespace arancini::ingestd {

namespace {

template <class Event>
bool append_event(ShardContext& context, std::uint32_t router_row, Event& event) {
  RingWriter& ring = context.ring;
  const std::span<std::byte> at =
      ring.claim(static_cast<std::uint32_t>(sizeof(shm::RecordHeader)) + schema::max_event_bytes(event));
  if (at.empty()) return false;
  event.writer = ring.writer_id();
  event.sequence = ring.next_event_sequence();
  if (event.time_ns == 0) event.time_ns = context.realtime_ns;
  event.last_update_sequence = raw(ring.next_sequence()) - 1;
  shm::RecordHeader header{};
  header.payload_bytes = schema::build_event(event, at.subspan(sizeof header));
  header.size_bytes = static_cast<std::uint32_t>(sizeof header) + header.payload_bytes;
  header.kind = static_cast<std::uint8_t>(shm::RecordKind::Event);
  header.format = shm::kRecordFormat;
  header.first_sequence = raw(ring.next_sequence());
  header.received_realtime_ns = context.realtime_ns;
  header.router_id = router_row;
  header.event_sequence = event.sequence;
  ring.append(header);
  context.stats.add(IngestMetric::RingRecords);
  context.stats.add(IngestMetric::EventsWritten);
  return true;
}

}  // namespace

bool write_event(ShardContext& context, std::uint32_t router_row, schema::EventFields& event) {
  return append_event(context, router_row, event);
}

bool write_event(ShardContext& context, std::uint32_t router_row, schema::EventParts& event) {
  return append_event(context, router_row, event);
}

}  // namespace arancini::ingestd
