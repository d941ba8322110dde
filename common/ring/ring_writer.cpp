#include "common/ring/ring_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "common/ring/futex.h"
#include "common/ring/prefetch.h"

namespace arancini {
namespace {

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "arancini: ring writer: %s\n", what);
  std::abort();
}

constexpr std::uint64_t align_up(std::uint64_t n) {
  return (n + shm::kRecordAlignBytes - 1) & ~std::uint64_t{shm::kRecordAlignBytes - 1};
}

}  // namespace

RingWriter::RingWriter(RingFile file)
    : file_(std::move(file)),
      header_(&file_.header()),
      data_(file_.data()),
      capacity_(header_->identity.capacity_bytes) {
  std::copy_n(std::begin(header_->identity.writer_id), writer_id_.bytes.size(), writer_id_.bytes.begin());
  // The former writer is dead and its lock is ours; the kernel ordered its stores before the lock was freed.
  const std::uint64_t tail = header_->writer.tail.load(std::memory_order_acquire);
  cached_head_ = header_->reader.head.load(std::memory_order_acquire);  // pairs with RingReader::release
  if (cached_head_ > tail || tail - cached_head_ > capacity_ || tail % shm::kRecordAlignBytes != 0) {
    throw std::runtime_error("ring " + file_.path() + ": corrupt positions");
  }
  std::uint32_t in_force = 0;
  while (header_->writer.commit[in_force].position.load(std::memory_order_relaxed) != tail) {
    if (++in_force == 2) throw std::runtime_error("ring " + file_.path() + ": no commit slot for its tail");
  }
  next_sequence_ = Sequence{header_->writer.commit[in_force].next_sequence.load(std::memory_order_relaxed)};
  next_event_sequence_ = header_->writer.commit[in_force].next_event_sequence.load(std::memory_order_relaxed);
  commit_slot_ = 1 - in_force;
  tail_ = published_ = RingPosition{tail};
  const std::uint64_t epoch = header_->writer.epoch.load(std::memory_order_relaxed);
  header_->writer.epoch.store(epoch + 1, std::memory_order_release);  // pairs with RingReader::writer_epoch
}

std::uint32_t RingWriter::max_record_bytes() const {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(capacity_ / 2, shm::kRecordMaxBytes));
}

std::uint64_t RingWriter::load_head() const {
  // Pairs with RingReader::release: the reader is done with every byte below.
  return seen(Witness::Field::Head, header_->reader.head.load(std::memory_order_acquire));
}

bool RingWriter::fits(std::uint64_t size, std::uint64_t* padding) {
  // A record that needs the whole of the ring behind a padding would never fit at some positions.
  if (size > max_record_bytes()) return false;
  const std::uint64_t tail = raw(tail_);
  const std::uint64_t to_end = capacity_ - (tail & (capacity_ - 1));
  *padding = size <= to_end ? 0 : to_end;
  const std::uint64_t need = size + *padding;
  if (capacity_ - (tail - cached_head_) >= need) return true;
  const std::uint64_t head = load_head();
  // A head that cannot be is not believed: no room is safer than overwriting what is not durable.
  if (head < cached_head_ || head > raw(published_)) return false;
  cached_head_ = head;
  return capacity_ - (tail - cached_head_) >= need;
}

bool RingWriter::has_room(std::uint32_t size_bytes) {
  std::uint64_t padding = 0;
  return fits(align_up(size_bytes), &padding);
}

std::span<std::byte> RingWriter::claim(std::uint32_t max_size_bytes) {
  if (claimed_bytes_ != 0) broken("claim() while another claim is open");
  const std::uint64_t size = align_up(std::max<std::uint64_t>(max_size_bytes, sizeof(shm::RecordHeader)));
  std::uint64_t padding = 0;
  if (!fits(size, &padding)) return {};
  if (padding != 0) {
    // As little as 8 bytes are left: only the first two fields are written.
    std::byte* at = data_ + (raw(tail_) & (capacity_ - 1));
    const std::uint64_t word = padding;  // size_bytes, kind = Padding (0), zeros
    static_assert(static_cast<int>(shm::RecordKind::Padding) == 0);
    std::memcpy(at, &word, sizeof word);
    tail_ = tail_ + padding;
  }
  claimed_bytes_ = static_cast<std::uint32_t>(size);
  return {data_ + (raw(tail_) & (capacity_ - 1)), claimed_bytes_};
}

void RingWriter::append(const shm::RecordHeader& header) {
  if (claimed_bytes_ == 0) broken("append() without a claim");
  if (header.size_bytes > claimed_bytes_) broken("record is larger than its claim");
  if (header.size_bytes < sizeof header || header.size_bytes % shm::kRecordAlignBytes != 0 ||
      header.payload_bytes > header.size_bytes - sizeof header) {
    broken("record has inconsistent sizes");
  }
  if (header.template_offset_bytes > header.payload_bytes ||
      header.template_bytes > header.payload_bytes - header.template_offset_bytes) {
    broken("record's template lies outside of its payload");
  }
  if (header.first_sequence != raw(next_sequence_)) broken("record does not continue the sequence");
  const auto kind = static_cast<shm::RecordKind>(header.kind);
  if (kind == shm::RecordKind::UpdateBatch) [[likely]] {
    if (header.count == 0) broken("batch without updates");
  } else if (kind == shm::RecordKind::Event) {
    if (header.count != 0) broken("event with updates");
    if (header.event_sequence != next_event_sequence_) broken("event does not continue the sequence");
    ++next_event_sequence_;
  } else if (kind != shm::RecordKind::Barrier) {
    broken("record of an unknown kind");
  }
  std::memcpy(data_ + (raw(tail_) & (capacity_ - 1)), &header, sizeof header);
  tail_ = tail_ + header.size_bytes;
  next_sequence_ = next_sequence_ + header.count;
  claimed_bytes_ = 0;
  // Only what the reader has given back, as far as is known: it may still read the rest.
  if (capacity_ - (raw(tail_) - cached_head_) >= kPrefetchBytes + header.size_bytes) {
    for_lines_ahead(data_, capacity_, raw(tail_), header.size_bytes, prefetch_to_write);
  }
}

void RingWriter::publish() {
  if (tail_ == published_) return;
  // Of the two slots this is the one that is not in force, so that a kill between any two of these stores
  // leaves the old tail with its own slot.
  shm::CommitSlot& slot = header_->writer.commit[commit_slot_];
  slot.next_sequence.store(raw(next_sequence_), std::memory_order_relaxed);
  slot.next_event_sequence.store(next_event_sequence_, std::memory_order_relaxed);
  slot.position.store(raw(tail_), std::memory_order_relaxed);
  // Pairs with the acquire in RingReader::next and tail(), and with a later writer's attach.
  header_->writer.tail.store(raw(tail_), std::memory_order_release);
  published_ = tail_;
  commit_slot_ = 1 - commit_slot_;
  // Dekker with RingReader::arm: either the reader's second look sees this tail, or `waiting` is seen here.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  shm::RingDoorbell& bell = header_->reader_doorbell;
  if (bell.waiting.load(std::memory_order_relaxed) == 0) return;
  bell.waiting.store(0, std::memory_order_relaxed);
  bell.futex.fetch_add(1, std::memory_order_release);  // pairs with the acquire in RingReader::arm
  futex_wake_all(reinterpret_cast<const std::uint32_t*>(&bell.futex));
}

std::uint64_t RingWriter::used_bytes() const {
  const std::uint64_t head = load_head();
  const std::uint64_t tail = raw(tail_);
  return head <= tail ? std::min(tail - head, capacity_) : 0;
}

std::uint64_t RingWriter::epoch() const {
  return header_->writer.epoch.load(std::memory_order_relaxed);
}

void RingWriter::heartbeat(std::uint64_t boottime_ns) {
  header_->writer_heartbeat.pid.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_relaxed);
  header_->writer_heartbeat.boottime_ns.store(boottime_ns, std::memory_order_relaxed);
}

RingPosition RingWriter::durable() const {
  // Pairs with RingReader::release.
  return RingPosition{header_->reader.head.load(std::memory_order_acquire)};
}

RingWriter::LogMark RingWriter::log_mark() const {
  // Pairs with RingReader::set_log_mark. The log changes seldom; if it does just now, the old one is named,
  // which nothing will be read of any more.
  LogMark mark;
  mark.identity = header_->reader.log_identity.load(std::memory_order_acquire);
  mark.sequence = header_->reader.log_sequence.load(std::memory_order_acquire);
  return mark;
}

std::uint64_t RingWriter::dump_request() const {
  // Pairs with the reader's store.
  return seen(Witness::Field::DumpRequest, header_->reader.dump_request.load(std::memory_order_acquire));
}

RingPosition RingWriter::in_log() const {
  return RingPosition{header_->reader.published.load(std::memory_order_acquire)};
}

RingPosition RingWriter::witnessed_in_log() const {
  return RingPosition{seen(Witness::Field::InLog, raw(in_log()))};
}

std::uint64_t RingWriter::dump_answered() const {
  return seen(Witness::Field::DumpAnswered, header_->writer.dump_answered.load(std::memory_order_relaxed));
}

bool RingWriter::owes_dump() const {
  // Not for the witness: nothing that is written depends on it.
  return header_->reader.dump_request.load(std::memory_order_acquire) !=
         header_->writer.dump_answered.load(std::memory_order_relaxed);
}

void RingWriter::set_dump_answered(std::uint64_t request) {
  header_->writer.dump_answered.store(request, std::memory_order_relaxed);
}

void RingWriter::set_layout(std::uint32_t shard_count) {
  if (header_->writer.shard_count.load(std::memory_order_relaxed) == shard_count) return;
  header_->writer.layout_since.store(raw(tail_), std::memory_order_release);
  header_->writer.shard_count.store(shard_count, std::memory_order_release);
}

}  // namespace arancini
