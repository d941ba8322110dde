#include "publishd/event_sender.h"

namespace arancini::publishd {

namespace {
constexpr std::size_t kMostSubjects = 65536;  // remembered; routers and peers are somebody else's to number
}

bool EventSender::send(EventStore& store, const OutgoingEvent& event) {
  if (last_.size() >= kMostSubjects) last_.clear();
  auto it = last_.find(event.subject);
  if (it == last_.end()) {
    const auto last = store.last_on(event.subject);
    if (!last) return false;
    it = last_.emplace(event.subject, *last).first;
  }
  if (it->second.writer == event.writer && it->second.sequence >= event.sequence) return true;
  const auto stored = store.put(event, it->second.stream_sequence);
  if (!stored) {
    last_.erase(it);
    return false;
  }
  it->second = {*stored, event.writer, event.sequence};
  return true;
}

}  // namespace arancini::publishd
