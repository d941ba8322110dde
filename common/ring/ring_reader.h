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

// The read side of a ring: one thread of one process. Contents are untrusted: every length of the header is
// checked before use, and records must follow each other densely in sequence, and so must events in theirs.
// `format` and the payload are for their reader to check.
class RingReader {
 public:
  // Takes over the mapping; `file` holds the reader lock. Starts at head: what was read but not released is
  // seen again.
  explicit RingReader(RingFile file);

  enum class Status : std::uint8_t { Record, Empty, Corrupt };
  // The next record after the cursor; padding is skipped. Corrupt is final for this attachment: corrupt_at()
  // tells where, corrupt_text() what.
  [[nodiscard]] Status next(RingRecord& out);
  [[nodiscard]] RingPosition cursor() const { return cursor_; }
  [[nodiscard]] RingPosition head() const;
  [[nodiscard]] RingPosition tail() const;  // fresh (acquire)
  [[nodiscard]] RingPosition corrupt_at() const { return corrupt_at_; }
  [[nodiscard]] const char* corrupt_text() const { return corrupt_text_; }

  // Everything before `position` (the end of a record) is durable; the writer may overwrite it. A position
  // below head changes nothing; one beyond the cursor is a broken invariant and aborts.
  void release(RingPosition position);
  // Back to head: to send again what is not durable.
  void rewind();

  // See RingReaderLine: stored after head.
  void set_floor(std::uint64_t stream_sequence, std::uint64_t stream_created_ns);
  [[nodiscard]] std::uint64_t floor_stream_sequence() const;
  [[nodiscard]] std::uint64_t floor_stream_created_ns() const;
  // See RingReaderLine: stored before head.
  void set_journal_end(RingPosition position);
  [[nodiscard]] RingPosition journal_end() const;
  // See RingReaderLine: everything below `position` is in the log. Before the mark that is about it.
  void set_published(RingPosition position);
  [[nodiscard]] RingPosition published() const;
  // `identity` names the log; a mark of one log is never seen with the name of another.
  void set_log_mark(std::uint64_t sequence, std::uint64_t identity);
  [[nodiscard]] std::uint64_t log_sequence() const;
  [[nodiscard]] std::uint64_t log_identity() const;
  // The log lacks what it had of this ring: the writer is to tell its tables anew.
  void request_dump();

  // Sleeping on several rings at once: arm() each, look at each once more with next(), and if all are empty
  // wait on all doorbells (futex_wait_any in common/ring/futex.h) for another value than doorbell_value(),
  // then disarm() each.
  void arm();
  void disarm();
  [[nodiscard]] std::uint32_t doorbell_value() const { return armed_value_; }  // as of the last arm()
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
  Status corrupt(std::uint64_t at, const char* text);

  WriterId writer_id_;
  RingPosition cursor_{};
  std::uint64_t head_ = 0;  // own copy: what lies in the shared page may have been scribbled on
  std::uint64_t cached_tail_ = 0;
  std::uint64_t expected_sequence_ = 0;        // 0: not known, the next record says it
  std::uint64_t expected_event_sequence_ = 0;  // likewise
  RingPosition corrupt_at_{};
  const char* corrupt_text_ = nullptr;  // not null: corrupt
  std::uint32_t armed_value_ = 0;
};

}  // namespace arancini
