#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "common/base/types.h"
#include "common/ring/ring_file.h"
#include "shm-layout/record.h"
#include "shm-layout/ring_header.h"

namespace arancini {

// The write side of a ring: one thread of one process. Reserve, then mutate: what cannot be written must not
// have happened. Nothing here blocks, locks or allocates.
class RingWriter {
 public:
  // Takes over the mapping; `file` holds the writer lock. Continues at the committed tail with the same
  // sequence, epoch + 1. Throws std::runtime_error when the header is corrupt (RingFile has checked it;
  // someone scribbled since).
  explicit RingWriter(RingFile file);

  // True if a record of up to `size_bytes` (header included), or several that are together not larger, fits
  // contiguously now; reads the reader's position only when the cached one is not enough. Never for more than
  // max_record_bytes().
  [[nodiscard]] bool has_room(std::uint32_t size_bytes);

  // Space for a record of up to `max_size_bytes`, header included, 8-byte aligned; empty if there is no room.
  // Nothing is visible before publish(). At most one claim is open. Skips to the start of the buffer where
  // needed.
  [[nodiscard]] std::span<std::byte> claim(std::uint32_t max_size_bytes);
  // Completes the open claim: `header` is copied to its start. `header.size_bytes` may be smaller than
  // claimed. `header.first_sequence` must be next_sequence(); it advances by `header.count` (at least 1 for
  // UpdateBatch). An Event's `event_sequence` must be next_event_sequence(), which advances by one. A header
  // that the reader would refuse is a broken invariant and aborts.
  void append(const shm::RecordHeader& header);
  // Drops the open claim.
  void abandon() { claimed_bytes_ = 0; }
  // Largest record that an empty ring takes at every position: half of the capacity, at most
  // shm::kRecordMaxBytes.
  [[nodiscard]] std::uint32_t max_record_bytes() const;

  // Makes what was appended visible with one release-store, and wakes the reader if it sleeps.
  void publish();

  [[nodiscard]] Sequence next_sequence() const { return next_sequence_; }
  [[nodiscard]] std::uint64_t next_event_sequence() const { return next_event_sequence_; }
  [[nodiscard]] RingPosition tail() const { return tail_; }  // with what is appended but not published
  [[nodiscard]] std::uint64_t used_bytes() const;            // between head and tail, for metrics
  [[nodiscard]] std::uint64_t capacity_bytes() const { return capacity_; }
  [[nodiscard]] const WriterId& writer_id() const { return writer_id_; }
  [[nodiscard]] std::uint64_t epoch() const;
  void heartbeat(std::uint64_t boottime_ns);
  [[nodiscard]] const RingFile& file() const { return file_; }

 private:
  [[nodiscard]] bool fits(std::uint64_t size_bytes, std::uint64_t* padding_bytes);

  RingFile file_;
  shm::RingHeader* header_;
  std::byte* data_;
  std::uint64_t capacity_;
  WriterId writer_id_;
  RingPosition tail_{};
  RingPosition published_{};
  std::uint64_t cached_head_ = 0;
  Sequence next_sequence_{};
  std::uint64_t next_event_sequence_ = 0;
  std::uint32_t commit_slot_ = 0;
  std::uint32_t claimed_bytes_ = 0;
};

}  // namespace arancini
