#pragma once

#include <utility>

#include "publishd/record_source.h"

namespace arancini::publishd {

// A ring in shared memory.
class RingSource final : public RecordSource {
 public:
  explicit RingSource(RingReader reader) : reader_(std::move(reader)) {}
  [[nodiscard]] RingReader::Status next(RingRecord& out) override { return reader_.next(out); }
  [[nodiscard]] RingPosition cursor() const override { return reader_.cursor(); }
  [[nodiscard]] RingPosition head() const override { return reader_.head(); }
  [[nodiscard]] RingPosition tail() const override { return reader_.tail(); }
  void release(RingPosition position) override { reader_.release(position); }
  void rewind() override { reader_.rewind(); }
  void set_floor(std::uint64_t stream_sequence, std::uint64_t stream_created_ns) override {
    reader_.set_floor(stream_sequence, stream_created_ns);
  }
  [[nodiscard]] std::uint64_t floor_stream_sequence() const override {
    return reader_.floor_stream_sequence();
  }
  [[nodiscard]] std::uint64_t floor_stream_created_ns() const override {
    return reader_.floor_stream_created_ns();
  }
  void set_journal_end(RingPosition position) override { reader_.set_journal_end(position); }
  void set_published(RingPosition position) override { reader_.set_published(position); }
  void set_log_mark(std::uint64_t sequence, std::uint64_t identity) override {
    reader_.set_log_mark(sequence, identity);
  }
  [[nodiscard]] std::uint64_t log_identity() const override { return reader_.log_identity(); }
  void request_dump() override { reader_.request_dump(); }
  [[nodiscard]] const WriterId& writer_id() const override { return reader_.writer_id(); }
  [[nodiscard]] ShardId shard() const override { return ShardId{reader_.shard()}; }
  [[nodiscard]] std::uint64_t capacity_bytes() const override { return reader_.capacity_bytes(); }
  void heartbeat(std::uint64_t boottime_ns) override { reader_.heartbeat(boottime_ns); }
  [[nodiscard]] bool abandoned() const override { return reader_.file().replaced(); }
  std::optional<FutexWait> arm() override {
    reader_.arm();
    return FutexWait{reader_.doorbell_word(), reader_.doorbell_value()};
  }
  void disarm() override { reader_.disarm(); }

 private:
  RingReader reader_;
};

}  // namespace arancini::publishd
