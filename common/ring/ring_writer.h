#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
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
  // Sees what the writer learns of its reader and goes by, and may replace it: recordings and replays.
  class Witness {
   public:
    enum class Field : std::uint8_t { Head = 0, DumpRequest = 1, DumpAnswered = 2, InLog = 3 };
    virtual ~Witness() = default;
    virtual std::uint64_t saw(Field field, std::uint64_t value) noexcept = 0;
  };
  void set_witness(Witness* witness) { witness_ = witness; }  // borrowed; nullptr: none
  // The reader's position as far as the writer knows.
  [[nodiscard]] RingPosition known_head() const { return RingPosition{cached_head_}; }
  void heartbeat(std::uint64_t boottime_ns);
  [[nodiscard]] const RingFile& file() const { return file_; }

  // Everything below is durable: in the log or in the publisher's journal.
  [[nodiscard]] RingPosition durable() const;
  // What consumers have of this ring, see RingReaderLine. Should the log change just now, the mark bears the
  // name of the old one.
  struct LogMark {
    std::uint64_t sequence = 0;
    std::uint64_t identity = 0;
  };
  [[nodiscard]] LogMark log_mark() const;
  // Everything below is in the log: RingReaderLine::published.
  [[nodiscard]] RingPosition in_log() const;
  // The same, for what records depend on: the writing thread's, seen by the witness.
  [[nodiscard]] RingPosition witnessed_in_log() const;
  // See RingReaderLine::dump_request, and what was answered of it, by whichever writer of this ring.
  [[nodiscard]] std::uint64_t dump_request() const;
  [[nodiscard]] std::uint64_t dump_answered() const;
  void set_dump_answered(std::uint64_t request);
  // The log lacks what the tables say was told, until the dump that was asked for is done.
  [[nodiscard]] bool owes_dump() const;
  // From now on the ring is about the routers of this shard among `shard_count`. Call before anything is
  // written.
  void set_layout(std::uint32_t shard_count);
  // Calls `f(header, payload, begin)` for the committed records from `from` on, up to what is published now;
  // padding is skipped; `f` returns false to end. `from` must be the begin of a record at or above durable()
  // as it was at attach, and nothing may have been written since then by this writer beyond one capacity.
  // False: contents invalid (then `f` was called for what came before).
  template <class F>
  bool scan(RingPosition from, F&& f) const;

 private:
  [[nodiscard]] bool fits(std::uint64_t size_bytes, std::uint64_t* padding_bytes);
  [[nodiscard]] std::uint64_t load_head() const;
  [[nodiscard]] std::uint64_t seen(Witness::Field field, std::uint64_t value) const {
    return witness_ == nullptr ? value : witness_->saw(field, value);
  }

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
  Witness* witness_ = nullptr;
};

template <class F>
bool RingWriter::scan(RingPosition from, F&& f) const {
  std::uint64_t at = raw(from);
  while (at < raw(published_)) {
    shm::RecordHeader header;
    const std::uint64_t offset = at & (capacity_ - 1);
    if (capacity_ - offset < sizeof(std::uint64_t)) return false;
    const std::size_t known = std::min<std::uint64_t>(capacity_ - offset, sizeof header);
    std::memcpy(&header, data_ + offset, known);
    const bool padding = header.kind == static_cast<std::uint8_t>(shm::RecordKind::Padding);
    if (header.size_bytes < shm::kRecordAlignBytes || header.size_bytes % shm::kRecordAlignBytes != 0 ||
        header.size_bytes > capacity_ - offset || header.size_bytes > raw(published_) - at) {
      return false;
    }
    if (!padding) {
      if (known < sizeof header || header.size_bytes < sizeof header + std::uint64_t{header.payload_bytes})
        return false;
      const std::span<const std::byte> payload(data_ + offset + sizeof header, header.payload_bytes);
      if (!f(static_cast<const shm::RecordHeader&>(header), payload, RingPosition{at})) return false;
    }
    at += header.size_bytes;
  }
  return at == raw(published_);
}

}  // namespace arancini
