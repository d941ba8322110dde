#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "common/base/types.h"
#include "publishd/broker.h"

// Which messages are under way, and what their acks allow. No NATS, no clock and no ring in here.
namespace arancini::publishd {

enum class HoldId : std::uint64_t {};
constexpr std::uint64_t raw(HoldId h) {
  return static_cast<std::uint64_t>(h);
}

// What keeps the head of a ring back on behalf of one lane: each group, and then its message, holds the begin
// of the first record it has a part of. Groups of a lane are opened in reading order, so the holds are
// ordered by position.
class HoldQueue {
 public:
  HoldId add(RingPosition begin) {
    holds_.push_back({begin, false});
    return HoldId{base_ + holds_.size() - 1};
  }
  void done(HoldId id);
  // Everything that was added before is done.
  [[nodiscard]] bool is_front(HoldId id) const { return !holds_.empty() && raw(id) == base_; }
  // The head may go up to here; nullopt: nothing holds it.
  [[nodiscard]] std::optional<RingPosition> front() const {
    return holds_.empty() ? std::nullopt : std::optional(holds_.front().begin);
  }
  void clear();

 private:
  struct Hold {
    RingPosition begin;
    bool done;
  };
  std::deque<Hold> holds_;
  std::uint64_t base_ = 0;
};

// A message that was handed to the broker.
struct InFlight {
  std::uint32_t ring = 0;
  std::uint32_t lane = 0;  // within the ring
  HoldId hold{};
  RingPosition end{};  // of the last record it has a part of
  std::uint32_t bytes = 0;
  std::uint32_t updates = 0;
  std::uint64_t sent_ns = 0;
  std::uint64_t read_ns = 0;  // of its first record
};

// The messages of one session, in publish order. Message k of the session must get stream sequence `last + 1
// + k`: that is predicted, sent along, and checked in the ack.
class AckWindow {
 public:
  struct Limits {
    std::size_t messages = 256;
    std::size_t bytes = 16U * 1024 * 1024;
  };
  explicit AckWindow(Limits limits) : limits_(limits) {}

  // A new session on a stream that ends with `last_sequence`. The floor cannot pass that before
  // base_passed(). `one_by_one`: nothing is sent before the message before is acked.
  void reset(std::uint64_t last_sequence, bool one_by_one = false);
  // Told when the heads of all rings have passed every record that the stream held at reset().
  void base_passed() { base_open_ = false; }
  [[nodiscard]] bool base_open() const { return base_open_; }

  // One message of any size is always let through when nothing is under way. The first of a session goes
  // alone: that it is stored proves that the stream's end was told right (a new leader may tell an older one,
  // docs/decisions/0002).
  [[nodiscard]] bool has_room(std::size_t bytes) const {
    return pending_ == 0 || (proven_ && !one_by_one_ && pending_ < limits_.messages &&
                             pending_bytes_ + bytes <= limits_.bytes);
  }
  // The stream sequence after which the next message must come.
  [[nodiscard]] std::uint64_t expected_last() const { return base_sequence_ + next_index_; }
  [[nodiscard]] std::uint64_t next_index() const { return next_index_; }
  void push(const InFlight& message);

  enum class Verdict : std::uint8_t {
    Stored,   // as predicted; `message` is set
    Unknown,  // not of this session, or answered before
    Failed,   // not stored as predicted: the session must be given up
  };
  Verdict ack(const Ack& ack, InFlight& message);

  [[nodiscard]] std::size_t pending() const { return pending_; }
  [[nodiscard]] std::size_t pending_bytes() const { return pending_bytes_; }
  // When the oldest message without an answer was sent.
  [[nodiscard]] std::optional<std::uint64_t> oldest_pending_ns() const;
  [[nodiscard]] std::size_t unretired() const { return messages_.size(); }

  // A message is retired when it is stored and the head of its ring has passed all its records.
  // `head_of(ring)` gives the stored heads. Returns the floor: the stream sequence of the last message that
  // is retired with all before it, or nullopt as long as even the base has not been passed.
  template <class HeadOf>
  std::optional<std::uint64_t> retire(HeadOf&& head_of) {
    if (base_open_) return std::nullopt;
    while (!messages_.empty()) {
      const Slot& m = messages_.front();
      if (m.state != State::Stored || head_of(m.message.ring) < m.message.end) break;
      pop_front();
    }
    return base_sequence_ + first_index_;
  }

 private:
  enum class State : std::uint8_t { Pending, Stored, Failed };
  struct Slot {
    InFlight message;
    State state = State::Pending;
  };
  void pop_front();

  Limits limits_;
  std::deque<Slot> messages_;
  std::uint64_t base_sequence_ = 0;  // the stream's last at reset
  std::uint64_t first_index_ = 0;    // of messages_.front()
  std::uint64_t next_index_ = 0;
  std::uint64_t oldest_pending_ = 0;  // no message before this index is pending
  std::size_t pending_ = 0;
  std::size_t pending_bytes_ = 0;
  bool base_open_ = true;
  bool one_by_one_ = false;
  bool proven_ = false;  // a message of this session is stored
};

}  // namespace arancini::publishd
