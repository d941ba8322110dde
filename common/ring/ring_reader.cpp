#include "common/ring/ring_reader.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/ring/prefetch.h"

namespace arancini {
namespace {

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "arancini: ring reader: %s\n", what);
  std::abort();
}

}  // namespace

RingReader::RingReader(RingFile file)
    : file_(std::move(file)),
      header_(&file_.header()),
      data_(file_.data()),
      capacity_(header_->identity.capacity_bytes) {
  std::copy_n(std::begin(header_->identity.writer_id), writer_id_.bytes.size(), writer_id_.bytes.begin());
  // The former reader is dead and its lock is ours; only readers store head.
  head_ = header_->reader.head.load(std::memory_order_acquire);
  cursor_ = RingPosition{head_};
  cached_tail_ = head_;
  const std::uint64_t epoch = header_->reader.epoch.load(std::memory_order_relaxed);
  header_->reader.epoch.store(epoch + 1, std::memory_order_release);
  disarm();  // a reader that died asleep
}

RingReader::Status RingReader::corrupt(std::uint64_t at, const char* text) {
  corrupt_at_ = RingPosition{at};
  corrupt_text_ = text;
  return Status::Corrupt;
}

RingReader::Status RingReader::next(RingRecord& out) {
  if (corrupt_text_ != nullptr) return Status::Corrupt;
  std::uint64_t at = raw(cursor_);
  for (;;) {
    if (at == cached_tail_) {
      // Pairs with the release in RingWriter::publish: every record below is complete.
      const std::uint64_t tail = header_->writer.tail.load(std::memory_order_acquire);
      if (tail == at) {
        cursor_ = RingPosition{at};
        return Status::Empty;
      }
      if (tail < at || tail - head_ > capacity_ || tail % shm::kRecordAlignBytes != 0 ||
          at % shm::kRecordAlignBytes != 0) {
        return corrupt(at, "impossible tail");
      }
      cached_tail_ = tail;
    }
    const std::uint64_t offset = at & (capacity_ - 1);
    const std::uint64_t to_end = capacity_ - offset;
    const std::uint64_t there = std::min(cached_tail_ - at, to_end);  // at least 8: both are multiples of 8
    // Copied before it is checked: the writer may change it under us.
    shm::RecordHeader h;
    if (there >= sizeof h) [[likely]] {
      std::memcpy(&h, data_ + offset, sizeof h);
    } else {
      h = {};
      std::memcpy(&h, data_ + offset, sizeof(std::uint64_t));
    }
    if (h.kind == static_cast<std::uint8_t>(shm::RecordKind::Padding)) {
      // Padding fills exactly what is left, and something follows it.
      if (h.size_bytes != to_end || to_end > there)
        return corrupt(at, "padding that does not end at the buffer's end");
      at += to_end;
      continue;
    }
    if (h.kind != static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch) &&
        h.kind != static_cast<std::uint8_t>(shm::RecordKind::Barrier) &&
        h.kind != static_cast<std::uint8_t>(shm::RecordKind::Event)) {
      return corrupt(at, "record of an unknown kind");
    }
    if (h.size_bytes < sizeof h || h.size_bytes > there || h.size_bytes > shm::kRecordMaxBytes ||
        h.size_bytes % shm::kRecordAlignBytes != 0) {
      return corrupt(at, "record with an impossible size");
    }
    if (h.payload_bytes > h.size_bytes - sizeof h) return corrupt(at, "payload larger than its record");
    if (h.template_offset_bytes > h.payload_bytes ||
        h.template_bytes > h.payload_bytes - h.template_offset_bytes) {
      return corrupt(at, "template outside of its payload");
    }
    if (h.first_sequence == 0 || h.first_sequence + h.count < h.first_sequence ||
        (expected_sequence_ != 0 && h.first_sequence != expected_sequence_)) {
      return corrupt(at, "record that does not continue the sequence");
    }
    if (h.count == 0 && h.kind == static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch)) {
      return corrupt(at, "batch without updates");
    }
    if (h.kind == static_cast<std::uint8_t>(shm::RecordKind::Event)) {
      if (h.count != 0) return corrupt(at, "event with updates");
      if (h.event_sequence == 0 ||
          (expected_event_sequence_ != 0 && h.event_sequence != expected_event_sequence_)) {
        return corrupt(at, "event that does not continue the sequence");
      }
      expected_event_sequence_ = h.event_sequence + 1;
    }
    expected_sequence_ = h.first_sequence + h.count;
    out.header = h;
    out.payload = {data_ + offset + sizeof h, h.payload_bytes};
    out.begin = RingPosition{at};
    cursor_ = out.end = RingPosition{at + h.size_bytes};
    if (cached_tail_ - raw(cursor_) >= kPrefetchBytes + h.size_bytes) {
      for_lines_ahead(data_, capacity_, raw(cursor_), h.size_bytes,
                      [](const std::byte* line) { __builtin_prefetch(line); });
    }
    return Status::Record;
  }
}

RingPosition RingReader::head() const {
  return RingPosition{head_};
}

// Pairs with the release in RingWriter::publish.
RingPosition RingReader::tail() const {
  return RingPosition{header_->writer.tail.load(std::memory_order_acquire)};
}

void RingReader::release(RingPosition position) {
  if (position > cursor_) broken("release() beyond the cursor");
  if (raw(position) <= head_) return;
  head_ = raw(position);
  // Pairs with the acquire in RingWriter::fits: our reads of these bytes are over.
  header_->reader.head.store(head_, std::memory_order_release);
}

void RingReader::rewind() {
  cursor_ = RingPosition{head_};
  cached_tail_ = head_;
  expected_sequence_ = 0;
  expected_event_sequence_ = 0;
}

void RingReader::set_floor(std::uint64_t stream_sequence, std::uint64_t stream_created_ns) {
  shm::RingReaderLine& line = header_->reader;
  if (line.floor_stream_created_ns.load(std::memory_order_relaxed) != stream_created_ns) {
    // A floor must never be read together with the creation time of another stream, wherever we are killed.
    line.floor_stream_sequence.store(shm::kNoFloor, std::memory_order_release);
    line.floor_stream_created_ns.store(stream_created_ns, std::memory_order_release);
  }
  // Release: after head; pairs with the acquire in floor_stream_sequence().
  line.floor_stream_sequence.store(stream_sequence, std::memory_order_release);
}

std::uint64_t RingReader::floor_stream_sequence() const {
  return header_->reader.floor_stream_sequence.load(std::memory_order_acquire);
}
std::uint64_t RingReader::floor_stream_created_ns() const {
  return header_->reader.floor_stream_created_ns.load(std::memory_order_acquire);
}

void RingReader::set_journal_end(RingPosition position) {
  // Before head: release() comes after. Pairs with the acquire in journal_end().
  header_->reader.journal_end.store(raw(position), std::memory_order_release);
}
RingPosition RingReader::journal_end() const {
  return RingPosition{header_->reader.journal_end.load(std::memory_order_acquire)};
}

void RingReader::set_published(RingPosition position) {
  // Pairs with the acquire of whoever restores from the log (RingWriter::in_log, RingProbe).
  header_->reader.published.store(raw(position), std::memory_order_release);
}
RingPosition RingReader::published() const {
  return RingPosition{header_->reader.published.load(std::memory_order_acquire)};
}

void RingReader::set_log_mark(std::uint64_t sequence, std::uint64_t identity) {
  shm::RingReaderLine& line = header_->reader;
  if (line.log_identity.load(std::memory_order_relaxed) != identity) {
    // Whoever reads the name of the new log sees no mark of the old one behind it.
    line.log_sequence.store(0, std::memory_order_release);
    line.log_identity.store(identity, std::memory_order_release);
  }
  line.log_sequence.store(sequence, std::memory_order_release);  // pairs with RingWriter::log_mark
}
std::uint64_t RingReader::log_sequence() const {
  return header_->reader.log_sequence.load(std::memory_order_acquire);
}
std::uint64_t RingReader::log_identity() const {
  return header_->reader.log_identity.load(std::memory_order_acquire);
}

void RingReader::request_dump() {
  std::atomic<std::uint64_t>& request = header_->reader.dump_request;  // ours to write
  request.store(request.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

void RingReader::arm() {
  shm::RingDoorbell& bell = header_->reader_doorbell;
  // Taken before the second look at the ring: a bell that rings in between makes the wait return at once.
  // Pairs with the release in RingWriter::publish.
  armed_value_ = bell.futex.load(std::memory_order_acquire);
  bell.waiting.store(1, std::memory_order_relaxed);
  // Dekker with RingWriter::publish: either it sees `waiting`, or the look at tail that follows sees its
  // records.
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void RingReader::disarm() {
  header_->reader_doorbell.waiting.store(0, std::memory_order_relaxed);
}

const std::uint32_t* RingReader::doorbell_word() const {
  return reinterpret_cast<const std::uint32_t*>(&header_->reader_doorbell.futex);
}

std::uint32_t RingReader::shard() const {
  return header_->identity.shard;
}
// Pairs with the release in RingWriter's constructor.
std::uint64_t RingReader::writer_epoch() const {
  return header_->writer.epoch.load(std::memory_order_acquire);
}

void RingReader::heartbeat(std::uint64_t boottime_ns) {
  header_->reader_heartbeat.pid.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_relaxed);
  header_->reader_heartbeat.boottime_ns.store(boottime_ns, std::memory_order_relaxed);
}

}  // namespace arancini
