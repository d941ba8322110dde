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
  virtual void release(RingPosition position) = 0;
  virtual void rewind() = 0;
  virtual void set_floor(std::uint64_t stream_sequence, std::uint64_t stream_created_ns) = 0;
  [[nodiscard]] virtual std::uint64_t floor_stream_sequence() const = 0;
  [[nodiscard]] virtual std::uint64_t floor_stream_created_ns() const = 0;
  [[nodiscard]] virtual const WriterId& writer_id() const = 0;
  [[nodiscard]] virtual ShardId shard() const = 0;
  [[nodiscard]] virtual std::uint64_t capacity_bytes() const = 0;
  virtual void heartbeat(std::uint64_t boottime_ns) = 0;
  // No writer will add to this ring any more: once it is drained it can be given up. May cost a system call.
  [[nodiscard]] virtual bool abandoned() const = 0;
  // Before sleeping: what to wait for, if there is a doorbell; then look at tail() once more.
  virtual std::optional<FutexWait> arm() { return std::nullopt; }
  virtual void disarm() {}
};

}  // namespace arancini::publishd
