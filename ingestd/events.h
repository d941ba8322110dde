#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "common/schema/event_build.h"
#include "common/schema/event_fields.h"
#include "ingestd/shard_context.h"

// What happens beside the updates, into the ring (docs/stream.md). Events are never dropped for want of room:
// a message whose event finds none waits, what cannot wait (a session that closed) is kept here, in order,
// and written when there is room. While something is kept, nothing else is written: an event stands behind
// just the updates that were told before it happened.
namespace arancini::ingestd {

// Room that an event without raw message and long lists needs at most.
inline constexpr std::uint32_t kSmallEventBytes = 1024;
// A longer message is not copied into its event.
inline constexpr std::size_t kMostRawBytes = 64 * 1024;

class Events {
 public:
  // So many are kept at most; what is left out beyond that is counted, and said in an event of its own.
  static constexpr std::size_t kMostKept = 65536;
  // With drop-newest messages do not wait for room of their events until so many are kept.
  static constexpr std::size_t kKeptOfMessages = 1024;

  explicit Events(ShardContext& context) : context_(context) {}

  // Writes what is kept. False: something still is. One branch when there is nothing.
  [[nodiscard]] bool flush() { return (kept_.empty() && lost_ == 0 && !held_) || flush_kept(); }
  // While true nothing is written.
  void hold(bool held) { held_ = held; }

  // Makes sure that events of together so many bytes can be written, records and all. False: not now.
  [[nodiscard]] bool reserve(std::uint32_t bytes);
  // After reserve(), before any other record; or, what cannot wait, at any time. Fills in who, when and after
  // which update. Allocates only if it has to be kept.
  void write(std::uint32_t router_row, schema::EventParts& event);
  // The process ends: says what was not written.
  void finish();

  // Bytes of its record at most.
  static std::uint32_t record_bytes(const schema::EventParts& event);
  // The message as an event's `raw`: whole, or nothing if it is too long.
  static std::span<const std::byte> raw_of(std::span<const std::byte> message) {
    return message.size() <= kMostRawBytes ? message : std::span<const std::byte>{};
  }

  [[nodiscard]] std::size_t kept() const { return kept_.size(); }

 private:
  struct Kept {
    std::uint32_t router_row;
    schema::EventFields event;
  };
  bool flush_kept();
  void keep(std::uint32_t router_row, const schema::EventParts& event);

  ShardContext& context_;
  std::deque<Kept> kept_;
  std::uint64_t lost_ = 0;  // since the event that said so
  bool held_ = false;
};

}  // namespace arancini::ingestd
