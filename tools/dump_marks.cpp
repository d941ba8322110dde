#include "tools/dump_marks.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "common/schema/event_decode.h"
#include "common/schema/message_headers.h"

namespace arancini::tools {

namespace {

std::uint64_t number(std::string_view text) {
  std::uint64_t v = 0;
  std::from_chars(text.data(), text.data() + text.size(), v);
  return v;
}

// In a journal updates and events are of one order.
std::uint64_t after(const StreamMessage& event) {
  const std::string_view said = event.header(schema::kHeaderAfter);
  return said.empty() ? event.stream_sequence() : number(said);
}

}  // namespace

void DumpMarks::add(const StreamMessage& message) {
  schema::EventFields event;
  if (schema::decode_event(message.payload(), event)) return;
  std::uint64_t& last = last_[event.writer];
  last = std::max(last, event.sequence);
  if (event.kind == schema::EventKind::StreamEpoch) {
    started_.clear();
    complete_.clear();
  } else if (event.kind == schema::EventKind::DumpStart) {
    started_[{event.writer, event.sequence}] = after(message);
  } else if (event.kind == schema::EventKind::DumpEnd) {
    DumpMark mark;
    for (const auto& detail : event.details) {
      if (detail.name == "start") mark.start_event = number(detail.value);
    }
    const auto start = started_.find({event.writer, mark.start_event});
    if (start == started_.end()) return;
    mark.router = event.router_id.empty() ? event.router.to_string() : event.router_id;
    mark.after = start->second;
    mark.complete = after(message);
    mark.writer = event.writer;
    mark.end_event = event.sequence;
    for (const auto& counter : event.counters) {
      if (counter.name == "routes") mark.routes = counter.value;
    }
    started_.erase(start);
    complete_[mark.router] = mark;
  }
}

bool DumpMarks::seen(const WriterId& writer, std::uint64_t event) const {
  const auto found = last_.find(writer);
  return found != last_.end() && found->second >= event;
}

}  // namespace arancini::tools
