#pragma once

#include <cstdint>

#include "common/base/error.h"
#include "common/base/types.h"
#include "common/ring/ring_reader.h"

namespace arancini::publishd {

// What one ring has on disk: the continuation of the ring towards older records. Positions are those of the
// ring, so that [begin, end) here and [head, tail) there are one space. Never blocks: files are the business
// of other threads (journal_store.h); the simulator has a store of its own.
//
// The ring's head follows end(): what is below it lives here alone.
class SpillStore {
 public:
  virtual ~SpillStore() = default;

  // Everything before begin() is published and acked; records in [begin, end) are durable. Equal: empty.
  [[nodiscard]] virtual RingPosition begin() const = 0;
  [[nodiscard]] virtual RingPosition end() const = 0;
  // Frames of this ring that are numbered up to here (journal::FrameHeader::order) lie below end(), which is
  // to be read after this. 0: none.
  [[nodiscard]] virtual std::uint64_t durable_order() const { return 0; }
  // Where the next record to be appended may begin at the earliest: end() and what is on its way to the disk.
  [[nodiscard]] virtual RingPosition appended() const = 0;

  // Only when empty and nothing is on its way: begin() = end() = appended() = `at`, with the floor of the
  // ring. Durable before anything that is appended later.
  virtual void restart(RingPosition at, std::uint64_t floor_stream_sequence,
                       std::uint64_t floor_created_ns) = 0;

  // Copies one record (never padding), which begins at appended() or, where padding lies between, behind it.
  // False: no room now, the same record comes again later; trouble() says why if it is not just the disk's
  // pace.
  [[nodiscard]] virtual bool append(const RingRecord& record) = 0;
  // What was appended is to go to the disk now, though the frame is not full.
  virtual void flush() = 0;

  // Reading, in [begin, end). Payloads stay valid until the next call of next() or seek().
  virtual void seek(RingPosition at) = 0;
  // Empty: at end(), or not read from the disk yet (the wake is bumped when there is more). Corrupt: records
  // are lost; what follows the damaged part can be read by calling again, cursor() then stands behind it.
  [[nodiscard]] virtual RingReader::Status next(RingRecord& out) = 0;
  [[nodiscard]] virtual RingPosition cursor()
      const = 0;  // end of the last record that next() gave, or of seek()

  // Heads first, then the floor, in one step: a crash leaves this pair or the one before (RingReaderLine). At
  // most end().
  virtual void set_published(RingPosition begin, std::uint64_t floor_stream_sequence,
                             std::uint64_t floor_created_ns) = 0;
  [[nodiscard]] virtual std::uint64_t floor_stream_sequence() const = 0;
  [[nodiscard]] virtual std::uint64_t floor_created_ns() const = 0;

  // JournalFull, JournalFailed, or None.
  [[nodiscard]] virtual ErrorCode trouble() const = 0;
};

}  // namespace arancini::publishd
