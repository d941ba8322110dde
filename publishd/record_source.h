#pragma once

#include <cstdint>
#include <optional>

#include "common/base/types.h"
#include "common/ring/futex.h"
#include "common/ring/ring_reader.h"

namespace arancini::publishd {

// The read side of a ring as the drain sees it, so that tests and the simulator can stand in for shared
// memory. The contracts are those of RingReader.
class RecordSource {
 public:
  virtual ~RecordSource() = default;
  [[nodiscard]] virtual RingReader::Status next(RingRecord& out) = 0;
  [[nodiscard]] virtual RingPosition cursor() const = 0;
  [[nodiscard]] virtual RingPosition head() const = 0;
  [[nodiscard]] virtual RingPosition tail() const = 0;
  // May do less than asked; head() tells.
  virtual void release(RingPosition position) = 0;
  virtual void rewind() = 0;
  virtual void set_floor(std::uint64_t stream_sequence, std::uint64_t stream_created_ns) = 0;
  [[nodiscard]] virtual std::uint64_t floor_stream_sequence() const = 0;
  [[nodiscard]] virtual std::uint64_t floor_stream_created_ns() const = 0;
  // Up to there records may be in the journal alone (RingReaderLine); 0: none. Nothing where there is no
  // ring.
  virtual void set_journal_end(RingPosition position) { static_cast<void>(position); }
  // What of it consumers have (RingReaderLine: published, log_sequence, log_identity, dump_request). Nothing
  // where there is no ring.
  virtual void set_published(RingPosition position) { static_cast<void>(position); }
  virtual void set_log_mark(std::uint64_t sequence, std::uint64_t identity) {
    static_cast<void>(sequence);
    static_cast<void>(identity);
  }
  [[nodiscard]] virtual std::uint64_t log_identity() const { return 0; }
  virtual void request_dump() {}
  [[nodiscard]] virtual const WriterId& writer_id() const = 0;
  [[nodiscard]] virtual ShardId shard() const = 0;
  [[nodiscard]] virtual std::uint64_t capacity_bytes() const = 0;
  virtual void heartbeat(std::uint64_t boottime_ns) = 0;
  // No writer will add to this ring any more: once it is drained it can be given up. May cost a system call.
  [[nodiscard]] virtual bool abandoned() const = 0;
  // Before sleeping: what to wait for, if there is a doorbell; then look at ready() once more.
  virtual std::optional<FutexWait> arm() { return std::nullopt; }
  virtual void disarm() {}
  // next() would give a record that is there now; false where the owner is woken otherwise.
  [[nodiscard]] virtual bool ready() const { return tail() > cursor(); }

  // The payload that next() gave last stays where it is until release() passes it; false: until the next
  // call.
  [[nodiscard]] virtual bool stable() const { return true; }
  // Moves what nobody takes out of the ring's way, to the disk; a bounded step, its size is returned.
  // `stuck`: the broker takes nothing, and no record that next() gave before is in use. Without that only
  // what was begun is continued.
  virtual std::size_t spill(bool stuck) {
    static_cast<void>(stuck);
    return 0;
  }
  // spill(true) would have something to do: the ring is filling up.
  [[nodiscard]] virtual bool wants_spill() const { return false; }
  // What was written is, or may be, on the disk rather than in the ring: spill() wants to be called every few
  // milliseconds.
  [[nodiscard]] virtual bool spilling() const { return false; }
};

}  // namespace arancini::publishd
