#include "ingestd/event_writer.h"

#include <cstring>

#include "common/metrics/metric_list.h"
#include "common/schema/event_build.h"
#include "shm-layout/record.h"

namespace arancini::ingestd {

bool write_event(ShardContext& context, std::uint32_t router_row, schema::EventFields& event) {
  // Does not build it again and again while the ring is full.
  constexpr std::uint32_t kLeastBytes = 512;
  RingWriter& ring = context.ring;
  if (!ring.has_room(kLeastBytes)) return false;
  event.writer = ring.writer_id();
  event.sequence = ring.next_event_sequence();
  event.time_ns = context.realtime_ns;
  event.last_update_sequence = raw(ring.next_sequence()) - 1;
  const std::vector<std::byte> payload = schema::build_event(event);
  const auto size = static_cast<std::uint32_t>(sizeof(shm::RecordHeader) + payload.size());
  const std::span<std::byte> at = ring.claim(size);
  if (at.empty()) return false;
  std::memcpy(at.data() + sizeof(shm::RecordHeader), payload.data(), payload.size());
  shm::RecordHeader header{};
  header.size_bytes = size;
  header.kind = static_cast<std::uint8_t>(shm::RecordKind::Event);
  header.format = shm::kRecordFormat;
  header.first_sequence = raw(ring.next_sequence());
  header.payload_bytes = static_cast<std::uint32_t>(payload.size());
  header.received_realtime_ns = context.realtime_ns;
  header.router_id = router_row;
  header.event_sequence = event.sequence;
  ring.append(header);
  context.stats.add(IngestMetric::RingRecords);
  context.stats.add(IngestMetric::EventsWritten);
  return true;
}

}  // namespace arancini::ingestd
