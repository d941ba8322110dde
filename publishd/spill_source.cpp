#include "publishd/spill_source.h"

#include <algorithm>

namespace arancini::publishd {

namespace {
constexpr std::size_t kSpillStepBytes = 4UL * 1024 * 1024;  // in one call: the hot thread has other rings
}

SpillSource::SpillSource(std::unique_ptr<RecordSource> ring, std::unique_ptr<SpillStore> store,
                         const WriterId& writer, ShardId shard)
    : ring_(std::move(ring)), store_(std::move(store)), writer_(writer), shard_(shard) {
  // A life that died between the disk and the ring's head.
  if (ring_ == nullptr || !store_empty()) {
    mode_ = Mode::Journal;
    if (ring_ != nullptr) {
      ring_->rewind();
      release_durable();
    }
  }
  if (ring_ != nullptr && store_empty()) ring_->set_journal_end(RingPosition{0});
  rewind();
}

RingReader::Status SpillSource::next(RingRecord& out) {
  while (mode_ == Mode::Journal) {
    if (store_->cursor() < store_->end()) {
      const auto status = store_->next(out);
      if (status == RingReader::Status::Corrupt) continue;  // named and counted there; what follows is read
      return status;
    }
    // Caught up: with what is still on its way to the disk, too?
    if (ring_ == nullptr || !store_idle()) return RingReader::Status::Empty;
    release_durable();
    if (ring_->head() != store_->end()) return RingReader::Status::Corrupt;  // they are not of one history
    ring_->rewind();
    has_record_ = false;
    mode_ = Mode::Direct;
  }
  return ring_->next(out);
}

RingPosition SpillSource::cursor() const {
  return mode_ == Mode::Journal ? store_->cursor() : ring_->cursor();
}

RingPosition SpillSource::head() const {
  return ring_ == nullptr || !store_empty() ? store_->begin() : ring_->head();
}

RingPosition SpillSource::tail() const {
  return ring_ == nullptr ? store_->end() : ring_->tail();
}

void SpillSource::release(RingPosition position) {
  if (!store_empty()) {
    // First: a crash in between leaves a journal that nobody insists on, not one that is missed.
    if (position >= store_->end() && ring_ != nullptr) ring_->set_journal_end(RingPosition{0});
    store_->set_published(std::min(position, store_->end()), store_->floor_stream_sequence(),
                          store_->floor_created_ns());
  }
  // While spilling, the ring's head belongs to the disk.
  if (mode_ == Mode::Direct && position > ring_->head()) ring_->release(position);
}

void SpillSource::rewind() {
  if (mode_ == Mode::Direct) ring_->rewind();
  if (ring_ == nullptr || !store_empty() || !store_idle()) {
    mode_ = Mode::Journal;
    store_->seek(store_->begin());
  } else if (mode_ == Mode::Journal) {
    ring_->rewind();
    has_record_ = false;
    mode_ = Mode::Direct;
  }
}

void SpillSource::set_floor(std::uint64_t stream_sequence, std::uint64_t stream_created_ns) {
  if (mode_ == Mode::Journal || !store_empty())
    store_->set_published(store_->begin(), stream_sequence, stream_created_ns);
  if (ring_ != nullptr) ring_->set_floor(stream_sequence, stream_created_ns);
}

std::uint64_t SpillSource::floor_stream_sequence() const {
  return ring_ == nullptr || !store_empty() ? store_->floor_stream_sequence()
                                            : ring_->floor_stream_sequence();
}

std::uint64_t SpillSource::floor_stream_created_ns() const {
  return ring_ == nullptr || !store_empty() ? store_->floor_created_ns() : ring_->floor_stream_created_ns();
}

void SpillSource::set_published(RingPosition position) {
  if (ring_ != nullptr) ring_->set_published(position);
}

void SpillSource::set_log_mark(std::uint64_t sequence, std::uint64_t identity) {
  if (ring_ != nullptr) ring_->set_log_mark(sequence, identity);
}

std::uint64_t SpillSource::log_identity() const {
  return ring_ == nullptr ? 0 : ring_->log_identity();
}

void SpillSource::request_dump() {
  if (ring_ != nullptr) ring_->request_dump();
}

std::uint64_t SpillSource::capacity_bytes() const {
  return ring_ == nullptr ? 0 : ring_->capacity_bytes();
}

void SpillSource::heartbeat(std::uint64_t boottime_ns) {
  if (ring_ != nullptr) ring_->heartbeat(boottime_ns);
}

bool SpillSource::abandoned() const {
  return ring_ == nullptr || ring_->abandoned();
}

std::optional<FutexWait> SpillSource::arm() {
  // In the journal the store's threads wake, and spill() is called by time.
  return mode_ == Mode::Direct ? ring_->arm() : std::nullopt;
}

void SpillSource::disarm() {
  if (ring_ != nullptr) ring_->disarm();
}

bool SpillSource::ready() const {
  if (mode_ == Mode::Direct) return ring_->ready();
  return store_->cursor() == store_->end() && store_idle() && ring_ != nullptr &&
         ring_->tail() > store_->end();
}

bool SpillSource::ring_half_full() const {
  return raw(ring_->tail()) - raw(ring_->head()) >= ring_->capacity_bytes() / 2;
}

bool SpillSource::wants_spill() const {
  return ring_ != nullptr && ring_half_full();
}

void SpillSource::enter_journal() {
  ring_->rewind();
  if (store_empty())
    store_->restart(ring_->head(), ring_->floor_stream_sequence(), ring_->floor_stream_created_ns());
  store_->seek(store_->begin());
  has_record_ = false;
  mode_ = Mode::Journal;
}

// What is durable leaves the ring.
void SpillSource::release_durable() {
  const RingPosition durable = store_->end();
  if (durable <= ring_->head()) return;
  // After a crash the ring's cursor is still at its head.
  while (ring_->cursor() < durable) {
    if (ring_->next(record_) != RingReader::Status::Record) return;
  }
  ring_->set_journal_end(durable);
  ring_->release(durable);
}

std::size_t SpillSource::spill(bool stuck) {
  if (ring_ == nullptr) return 0;
  if (mode_ == Mode::Direct) {
    if (!stuck || !ring_half_full()) return 0;
    enter_journal();
  }
  release_durable();
  // A reader that has nearly caught up is let through: else the last bit would go by way of the disk for
  // ever.
  const std::uint64_t behind = raw(store_->appended()) - raw(store_->cursor());
  if (!ring_half_full() || !(stuck || behind >= ring_->capacity_bytes() / 4)) return 0;
  std::size_t bytes = 0;
  while (bytes < kSpillStepBytes) {
    if (!has_record_ && ring_->next(record_) != RingReader::Status::Record) break;
    has_record_ = !store_->append(record_);
    if (has_record_) break;
    bytes += record_.header.size_bytes;
  }
  if (bytes > 0) store_->flush();
  return bytes;
}

}  // namespace arancini::publishd
