#include "ingestd/events.h"

#include "ingestd/event_writer.h"
#include "shm-layout/record.h"

namespace arancini::ingestd {

std::uint32_t Events::record_bytes(const schema::EventParts& event) {
  return static_cast<std::uint32_t>(sizeof(shm::RecordHeader)) + schema::max_event_bytes(event);
}

bool Events::flush_kept() {
  if (held_) return false;
  while (!kept_.empty()) {
    if (!write_event(context_, kept_.front().router_row, kept_.front().event)) return false;
    kept_.pop_front();
  }
  if (lost_ > 0) {
    schema::EventFields event;
    event.kind = schema::EventKind::Limit;
    event.scope = schema::EventScope::Collector;
    event.time_ns = context_.realtime_ns;
    event.counters = {{"events_lost", lost_}};
    event.text = fmt::format("{} events about sessions were left out while the ring was full", lost_);
    if (!write_event(context_, shm::kAllRouters, event)) return false;
    lost_ = 0;
  }
  return true;
}

bool Events::reserve(std::uint32_t bytes) {
  if (flush() && context_.ring.has_room(bytes)) return true;
  return context_.drop_newest && kept_.size() < kKeptOfMessages;
}

void Events::write(std::uint32_t router_row, schema::EventParts& event) {
  event.time_ns = context_.realtime_ns;
  if (!flush() || !write_event(context_, router_row, event)) keep(router_row, event);
}

void Events::keep(std::uint32_t router_row, const schema::EventParts& event) {
  if (kept_.size() >= kMostKept) {
    if (lost_++ == 0) {
      context_.log.error("the ring is full and {} events wait: further ones are counted only", kept_.size());
    }
    return;
  }
  kept_.push_back({router_row, schema::fields_of(event)});
}

void Events::finish() {
  if (flush() || kept_.size() + lost_ == 0) return;
  context_.log.warn("{} events found no room in the ring and are lost", kept_.size() + lost_);
}

}  // namespace arancini::ingestd
