#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/error.h"
#include "common/base/types.h"
#include "common/ring/ring_file.h"
#include "shm-layout/record.h"
#include "shm-layout/ring_header.h"

namespace arancini {

// A record as the reader sees it; the payload lies in the ring and stays valid until release() passes `end`.
struct RingRecord {
  shm::RecordHeader header;  // a checked copy: the writer cannot change it under the reader
  std::span<const std::byte> payload;
  RingPosition begin{};
  RingPosition end{};
};

// The read side of a ring: one thread of one process. Contents are untrusted: every length is checked before use.
class RingReader {
 public:
  // Takes over the mapping; `file` holds the reader lock. Starts at head: what was read but not released is seen again.
  explicit RingReader(RingFile file);

  enum class Status : std::uint8_t { Record, Empty, Corrupt };
  // The next record after the cursor. Corrupt is final for this attachment: error_offset() tells where.
  [[nodiscard]] Status next(RingRecord& out);
  [[nodiscard]] RingPosition cursor() const { return cursor_; }
  [[nodiscard]] RingPosition head() const;
  [[nodiscard]] RingPosition tail() const;  // fresh (acquire)
  [[nodiscard]] RingPosition corrupt_at() const { return corrupt_at_; }

  // Everything before `position` is durable; the writer may overwrite it. Never beyond the cursor, never backwards.
  void release(RingPosition position);
  // Back to head: to send again what is not durable.
  void rewind() ;

  // See RingReaderLine: stored after head.
  void set_floor(std::uint64_t stream_sequence, std::uint64_t stream_created_ns);
  [[nodiscard]] std::uint64_t floor_stream_sequence() const;
  [[nodiscard]] std::uint64_t floor_stream_created_ns() const;

  // Sleeping on several rings at once: arm() each, look at each once more, then wait on all doorbells (futex_waitv in
  // common/ring/futex.h), then disarm() each.
  void arm();
  void disarm();
  [[nodiscard]] std::uint32_t doorbell_value() const;
  [[nodiscard]] const std::uint32_t* doorbell_word() const;

  [[nodiscard]] const WriterId& writer_id() const { return writer_id_; }
  [[nodiscard]] std::uint32_t shard() const;
  [[nodiscard]] std::uint64_t writer_epoch() const;
  [[nodiscard]] std::uint64_t capacity_bytes() const { return capacity_; }
  void heartbeat(std::uint64_t boottime_ns);
  [[nodiscard]] const RingFile& file() const { return file_; }

 private:
  RingFile file_;
  shm::RingHeader* header_;
  const std::byte* data_;
  std::uint64_t capacity_;
  WriterId writer_id_;
  RingPosition cursor_{};
  std::uint64_t cached_tail_ = 0;
  RingPosition corrupt_at_{};
};

}  // namespace arancini
