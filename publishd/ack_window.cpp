#include "publishd/ack_window.h"

namespace arancini::publishd {

void HoldQueue::done(HoldId id) {
  if (raw(id) < base_ || raw(id) - base_ >= holds_.size()) return;
  holds_[raw(id) - base_].done = true;
  while (!holds_.empty() && holds_.front().done) {
    holds_.pop_front();
    ++base_;
  }
}

void HoldQueue::clear() {
  base_ += holds_.size();  // ids from before stay unknown
  holds_.clear();
}

void AckWindow::reset(std::uint64_t last_sequence, bool one_by_one) {
  messages_.clear();
  base_sequence_ = last_sequence;
  first_index_ = next_index_ = oldest_pending_ = 0;
  pending_ = pending_bytes_ = 0;
  base_open_ = true;
  one_by_one_ = one_by_one;
  proven_ = false;
}

void AckWindow::push(const InFlight& message) {
  messages_.push_back({message, State::Pending});
  ++next_index_;
  ++pending_;
  pending_bytes_ += message.bytes;
}

AckWindow::Verdict AckWindow::ack(const Ack& ack, InFlight& message) {
  if (ack.index < first_index_ || ack.index >= next_index_) return Verdict::Unknown;
  Slot& slot = messages_[ack.index - first_index_];
  if (slot.state != State::Pending) return Verdict::Unknown;
  message = slot.message;
  --pending_;
  pending_bytes_ -= slot.message.bytes;
  const bool stored =
      ack.error == AckError::None && !ack.duplicate && ack.stream_sequence == base_sequence_ + ack.index + 1;
  slot.state = stored ? State::Stored : State::Failed;
  proven_ = proven_ || stored;
  while (
      oldest_pending_ < next_index_ &&
      (oldest_pending_ < first_index_ || messages_[oldest_pending_ - first_index_].state != State::Pending)) {
    ++oldest_pending_;
  }
  return stored ? Verdict::Stored : Verdict::Failed;
}

std::optional<std::uint64_t> AckWindow::oldest_pending_ns() const {
  if (pending_ == 0) return std::nullopt;
  return messages_[oldest_pending_ - first_index_].message.sent_ns;
}

void AckWindow::pop_front() {
  messages_.pop_front();
  ++first_index_;
  if (oldest_pending_ < first_index_) oldest_pending_ = first_index_;
}

}  // namespace arancini::publishd
