#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/ring/ring_reader.h"
#include "publishd/ack_window.h"

// Records on their way from a ring into messages, by router: what one router has waiting does not delay
// another's. No NATS, no clock in here.
namespace arancini::publishd {

// A queue that keeps its memory while it is of ordinary size.
class RecordQueue {
 public:
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] const RingRecord& front() const { return slots_[first_]; }
  void push(const RingRecord& record) {
    if (size_ == slots_.size()) grow();
    slots_[(first_ + size_++) & (slots_.size() - 1)] = record;
  }
  void pop() {
    first_ = (first_ + 1) & (slots_.size() - 1);
    if (--size_ == 0 && slots_.size() > kKeep) clear();
  }
  void clear() {
    size_ = first_ = 0;
    if (slots_.size() > kKeep) std::vector<RingRecord>().swap(slots_);
  }

 private:
  static constexpr std::size_t kFirst = 16, kKeep = 1024;
  void grow() {
    std::vector<RingRecord> bigger(slots_.empty() ? kFirst : 2 * slots_.size());
    for (std::size_t i = 0; i < size_; ++i) bigger[i] = slots_[(first_ + i) & (slots_.size() - 1)];
    slots_.swap(bigger);
    first_ = 0;
  }
  std::vector<RingRecord> slots_;
  std::size_t first_ = 0, size_ = 0;
};

// One router in one ring. Its records go into messages in the order in which they were written.
struct Lane {
  std::uint32_t ring = 0;   // slot
  std::uint32_t index = 0;  // SubjectTable::router_index()
  RecordQueue queue;        // read, not wholly taken; the memory is the ring's
  std::uint32_t taken = 0;  // updates of the record at work that are in groups, messages or the stream
  bool begun = false;       // the record at work was looked at before
  HoldQueue holds;          // of the groups and messages without ack
  bool listed = false;      // among those that may hold the ring's head back
  bool waits = false;       // in the LaneTurn
  Lane* next = nullptr;     // there

  // The ring's head must not pass this; nullopt: nothing is open.
  [[nodiscard]] std::optional<RingPosition> open_from() const {
    const auto held = holds.front();
    if (queue.empty()) return held;
    return held ? std::min(*held, queue.front().begin) : queue.front().begin;
  }
  // Forgets what was read: a new session reads again.
  void reset() {
    queue.clear();
    holds.clear();
    taken = 0;
    begun = waits = false;
    next = nullptr;
  }
};

// Lanes with records that wait for room in the window, each served in its turn.
class LaneTurn {
 public:
  [[nodiscard]] Lane* front() const { return first_; }
  void add(Lane& lane) {
    if (lane.waits) return;
    lane.waits = true;
    lane.next = nullptr;
    (last_ != nullptr ? last_->next : first_) = &lane;
    last_ = &lane;
  }
  void remove_front() {
    Lane& lane = *first_;
    first_ = lane.next;
    if (first_ == nullptr) last_ = nullptr;
    lane.next = nullptr;
    lane.waits = false;
  }
  void clear() { first_ = last_ = nullptr; }  // the lanes are reset by their owner

 private:
  Lane* first_ = nullptr;
  Lane* last_ = nullptr;
};

}  // namespace arancini::publishd
