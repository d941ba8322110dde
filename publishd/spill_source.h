#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "publishd/record_source.h"
#include "publishd/spill_store.h"

namespace arancini::publishd {

// A ring and what lies of it on the disk, as one source (docs/decisions/0007). Positions are the ring's; from
// old to new:
//
//   head() = store.begin() … store.end() = ring.head() … ring.tail()
//
// Direct: the drain reads the ring. Journal: the drain reads the store, and what the ring takes in is moved
// to the store when it is half full; once the drain has caught up with the store it reads the ring again.
// Records are in one order, the floor goes with the head, and the ring's own head is only ever raised to what
// is durable: so recovery is the same as without a journal.
class SpillSource final : public RecordSource {
 public:
  // `ring` null: what another life left; its ring is gone.
  SpillSource(std::unique_ptr<RecordSource> ring, std::unique_ptr<SpillStore> store, const WriterId& writer,
              ShardId shard);

  [[nodiscard]] RingReader::Status next(RingRecord& out) override;
  [[nodiscard]] RingPosition cursor() const override;
  [[nodiscard]] RingPosition head() const override;
  [[nodiscard]] RingPosition tail() const override;
  void release(RingPosition position) override;
  void rewind() override;
  void set_floor(std::uint64_t stream_sequence, std::uint64_t stream_created_ns) override;
  [[nodiscard]] std::uint64_t floor_stream_sequence() const override;
  [[nodiscard]] std::uint64_t floor_stream_created_ns() const override;
  void set_published(RingPosition position) override;
  void set_log_mark(std::uint64_t sequence, std::uint64_t identity) override;
  [[nodiscard]] std::uint64_t log_identity() const override;
  void request_dump() override;
  [[nodiscard]] const WriterId& writer_id() const override { return writer_; }
  [[nodiscard]] ShardId shard() const override { return shard_; }
  [[nodiscard]] std::uint64_t capacity_bytes() const override;
  void heartbeat(std::uint64_t boottime_ns) override;
  [[nodiscard]] bool abandoned() const override;
  std::optional<FutexWait> arm() override;
  void disarm() override;
  [[nodiscard]] bool ready() const override;
  [[nodiscard]] bool stable() const override { return mode_ == Mode::Direct; }
  std::size_t spill(bool stuck) override;
  [[nodiscard]] bool wants_spill() const override;
  [[nodiscard]] bool spilling() const override { return mode_ == Mode::Journal; }

 private:
  enum class Mode : std::uint8_t { Direct, Journal };
  [[nodiscard]] bool store_empty() const { return store_->begin() == store_->end(); }
  [[nodiscard]] bool store_idle() const { return store_->appended() == store_->end(); }
  void enter_journal();
  void release_durable();
  [[nodiscard]] bool ring_half_full() const;

  std::unique_ptr<RecordSource> ring_;
  std::unique_ptr<SpillStore> store_;
  WriterId writer_;
  ShardId shard_;
  Mode mode_ = Mode::Direct;
  // Journal: read from the ring, to be appended (the store had no room).
  bool has_record_ = false;
  RingRecord record_;
};

}  // namespace arancini::publishd
