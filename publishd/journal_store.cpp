#include "publishd/journal_store.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "publishd/journal_impl.h"
#include "shm-layout/record.h"
#include "shm-layout/ring_header.h"

namespace arancini::publishd {

namespace {

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "arancini: journal: %s\n", what);
  std::abort();
}

// What the hot thread does of a writer's journal: copies and atomics.
class JournalStore final : public SpillStore {
 public:
  JournalStore(Journal::Impl& journal, std::shared_ptr<JournalWriter> writer)
      : journal_(journal), w_(std::move(writer)) {
    w_->cursor = begin();
  }
  ~JournalStore() override {
    flush();
    w_->seek_generation.store(0, std::memory_order_release);
    w_->has_store.store(false, std::memory_order_release);
    journal_.keep_wake.bump();
  }
  JournalStore(const JournalStore&) = delete;
  JournalStore& operator=(const JournalStore&) = delete;

  [[nodiscard]] RingPosition begin() const override {
    return RingPosition{w_->begin.load(std::memory_order_acquire)};
  }
  // Pairs with the release in Impl::sync: what lies below is on the disk.
  [[nodiscard]] RingPosition end() const override {
    return RingPosition{w_->end.load(std::memory_order_acquire)};
  }
  // Pairs with the release in Impl::sync, which comes after that of the end.
  [[nodiscard]] std::uint64_t durable_order() const override {
    return w_->durable_order.load(std::memory_order_acquire);
  }
  [[nodiscard]] RingPosition appended() const override { return std::max(w_->append_position, end()); }

  void restart(RingPosition at, std::uint64_t floor_stream_sequence,
               std::uint64_t floor_created_ns) override {
    if (begin() != end() || w_->append_offset != w_->written.load(std::memory_order_acquire))
      broken("restart() of a store that is not empty");
    w_->append_position = w_->cursor = at;
    w_->run_wanted = w_->restart_wanted = true;
    w_->end.store(raw(at), std::memory_order_release);
    publish({at, floor_stream_sequence, floor_created_ns});
  }

  [[nodiscard]] bool append(const RingRecord& record) override {
    JournalWriter& w = *w_;
    const std::uint32_t size = record.header.size_bytes;
    if (record.begin < appended() || raw(record.end) - raw(record.begin) != size ||
        size < sizeof record.header + record.payload.size() || size > shm::kRecordMaxBytes) {
      broken("append() of a record that does not follow, or of an impossible size");
    }
    const bool new_run = w.run_wanted || record.begin != w.append_position;
    if (w.append_offset + size - w.written.load(std::memory_order_acquire) > SpillBuffer::kBytes ||
        (new_run &&
         w.runs_pushed.load(std::memory_order_relaxed) - w.runs_popped.load(std::memory_order_acquire) >=
             JournalWriter::kRuns)) {
      flush();
      return false;
    }
    if (new_run) {
      const std::uint64_t n = w.runs_pushed.load(std::memory_order_relaxed);
      w.runs[n % JournalWriter::kRuns] = {w.append_offset, record.begin, w.restart_wanted, w.published};
      w.runs_pushed.store(n + 1, std::memory_order_release);
      w.run_wanted = w.restart_wanted = false;
    }
    std::byte* out = w.buffer->at(w.append_offset);
    std::memcpy(out, &record.header, sizeof record.header);
    std::memcpy(out + sizeof record.header, record.payload.data(), record.payload.size());
    const std::size_t used = sizeof record.header + record.payload.size();
    std::memset(out + used, 0, size - used);
    w.append_offset += size;
    w.append_position = record.end;
    w.committed.store(w.append_offset, std::memory_order_release);
    if (w.append_offset - w.woken_at >= journal_.options.frame_bytes) {
      w.woken_at = w.append_offset;
      journal_.write_wake.bump();
    }
    return true;
  }

  void flush() override {
    if (w_->flush_to.load(std::memory_order_relaxed) == w_->append_offset) return;
    w_->flush_to.store(w_->append_offset, std::memory_order_release);
    w_->woken_at = w_->append_offset;
    journal_.write_wake.bump();
  }

  void seek(RingPosition at) override {
    w_->cursor = at;
    ++w_->read_generation;
    w_->slot_open = false;
    w_->seek_at.store(raw(at), std::memory_order_relaxed);
    w_->seek_generation.store(w_->read_generation, std::memory_order_release);
    journal_.read_wake.bump();
  }

  [[nodiscard]] RingReader::Status next(RingRecord& out) override {
    JournalWriter& w = *w_;
    for (;;) {
      if (w.slot_open) {
        const journal::Frame& frame = w.slots[w.slot_taken % JournalWriter::kReadAhead].frame;
        while (w.slot_at < frame.payload.size()) {
          // Checked by the reader thread: whole records, in bounds.
          std::memcpy(&out.header, frame.payload.data() + w.slot_at, sizeof out.header);
          out.payload = frame.payload.subspan(w.slot_at + sizeof out.header, out.header.payload_bytes);
          out.begin = w.slot_position;
          out.end = w.slot_position + out.header.size_bytes;
          w.slot_at += out.header.size_bytes;
          w.slot_position = out.end;
          if (out.end <= w.cursor) continue;  // before what seek() asked for
          w.cursor = out.end;
          return RingReader::Status::Record;
        }
        w.slot_open = false;
        take_slot();
      }
      if (w.slot_taken == w.slots_filled.load(std::memory_order_acquire)) return RingReader::Status::Empty;
      const JournalWriter::Slot& slot = w.slots[w.slot_taken % JournalWriter::kReadAhead];
      if (slot.generation != w.read_generation) {
        take_slot();
        continue;
      }
      if (slot.damaged) {
        w.cursor = std::max(w.cursor, slot.resume);
        take_slot();
        return RingReader::Status::Corrupt;
      }
      w.slot_open = true;
      w.slot_at = 0;
      w.slot_position = slot.frame.begin();
    }
  }
  [[nodiscard]] RingPosition cursor() const override { return w_->cursor; }

  void set_published(RingPosition begin, std::uint64_t floor_stream_sequence,
                     std::uint64_t floor_created_ns) override {
    if (journal_.options.sink) broken("set_published() of a journal that is the sink");
    if (begin > end()) broken("set_published() beyond end()");
    publish({begin, floor_stream_sequence, floor_created_ns});
  }
  [[nodiscard]] std::uint64_t floor_stream_sequence() const override {
    return w_->published.floor_stream_sequence;
  }
  [[nodiscard]] std::uint64_t floor_created_ns() const override { return w_->published.floor_created_ns; }

  [[nodiscard]] ErrorCode trouble() const override {
    if (const ErrorCode e = journal_.open_trouble.load(); e != ErrorCode::None) return e;
    if (!w_->blocked.load(std::memory_order_relaxed)) return ErrorCode::None;
    const ErrorCode e = journal_.write_trouble.load();
    return e != ErrorCode::None ? e : journal_.space_trouble.load();
  }

 private:
  void take_slot() {
    w_->slots_taken.store(++w_->slot_taken, std::memory_order_release);
    journal_.read_wake.bump();
  }

  void publish(const journal::Published& value) {
    JournalWriter& w = *w_;
    w.published = value;
    w.begin.store(raw(value.begin), std::memory_order_release);
    if (journal::CheckpointPage* page = w.page.load(std::memory_order_acquire)) {
      journal::store(*page, value);
      w.checkpointed_begin.store(raw(value.begin), std::memory_order_release);
    }
  }

  Journal::Impl& journal_;
  std::shared_ptr<JournalWriter> w_;
};

}  // namespace

SpillBuffer::SpillBuffer() {
  const Fd fd(::memfd_create("arancini-spill", MFD_CLOEXEC));
  const auto failed = [](const char* what) { throw std::system_error(errno, std::system_category(), what); };
  if (!fd || ::ftruncate(fd.get(), kBytes) != 0) failed("memfd of the journal's buffer");
  void* base = ::mmap(nullptr, 2 * kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) failed("mmap of the journal's buffer");
  base_ = static_cast<std::byte*>(base);
  for (std::byte* at : {base_, base_ + kBytes}) {
    if (::mmap(at, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd.get(), 0) == MAP_FAILED) {
      const int error = errno;
      ::munmap(base_, 2 * kBytes);
      errno = error;
      failed("mmap of the journal's buffer");
    }
  }
}

SpillBuffer::~SpillBuffer() {
  ::munmap(base_, 2 * kBytes);
}

JournalWriter::~JournalWriter() {
  if (auto* p = page.load(std::memory_order_relaxed); p != nullptr) ::munmap(p, sizeof *p);
}

void sleep_on(Wake& wake, std::uint32_t seen, std::uint64_t timeout_ns) {
  wake.set_sleeping(true);
  if (wake.value() == seen) {
    const FutexWait wait{wake.word(), seen};
    futex_wait_any({&wait, 1}, timeout_ns);
  }
  wake.set_sleeping(false);
}

JournalOptions JournalOptions::from(const Config& config) {
  JournalOptions o;
  o.directory = config.journal_dir();
  o.segment_bytes = config.journal.segment_bytes;
  o.max_bytes = config.journal.max_bytes;
  o.sink = config.sink.kind == SinkKind::Journal;
  o.discard_old = config.journal.when_full == WhenJournalFull::DiscardOld;
  return o;
}

Journal::Journal(JournalOptions options, Wake& wake, Logger& log)
    : impl_(std::make_unique<Impl>(std::move(options), wake, log)) {}

Journal::~Journal() = default;

bool Journal::ready() const {
  return impl_->is_ready.load(std::memory_order_acquire);
}

bool Journal::wait_ready(std::uint64_t timeout_ns) const {
  const std::uint64_t deadline = clock_ns(CLOCK_BOOTTIME) + timeout_ns;
  while (!ready()) {
    if (clock_ns(CLOCK_BOOTTIME) >= deadline) return false;
    ::usleep(1000);  // between two looks
  }
  return true;
}

std::unique_ptr<SpillStore> Journal::open(const WriterId& writer, ShardId shard,
                                          std::uint64_t writer_created_ns) {
  if (!ready()) broken("open() before ready()");
  std::shared_ptr<JournalWriter> w;
  {
    const std::lock_guard lock(impl_->mutex);
    std::shared_ptr<JournalWriter>& there = impl_->writers[writer];
    if (!there) {
      there = std::make_shared<JournalWriter>();
      there->id = writer;
      there->hex = writer.to_hex();
      there->path = impl_->options.directory + "/" + there->hex;
      there->shard = shard;
      there->created_ns = writer_created_ns;
      there->published.floor_stream_sequence = shm::kNoFloor;
    }
    w = there;
    if (w->has_store.exchange(true, std::memory_order_acq_rel)) broken("open() of a writer that has a store");
    impl_->list_version.fetch_add(1, std::memory_order_release);
  }
  if (!w->buffer) w->buffer = std::make_unique<SpillBuffer>();
  w->run_wanted = true;
  w->append_position = std::max(w->append_position, RingPosition{w->end.load(std::memory_order_acquire)});
  return std::make_unique<JournalStore>(*impl_, std::move(w));
}

bool Journal::holds(const WriterId& writer, RingPosition position) const {
  const std::lock_guard lock(impl_->mutex);
  const auto it = impl_->writers.find(writer);
  return it != impl_->writers.end() && it->second->end.load(std::memory_order_acquire) >= raw(position);
}

std::vector<Journal::Orphan> Journal::orphans(const std::vector<WriterId>& rings) const {
  std::vector<Orphan> out;
  const std::lock_guard lock(impl_->mutex);
  for (const auto& [id, w] : impl_->writers) {
    const RingPosition begin{w->begin.load(std::memory_order_acquire)};
    const RingPosition end{w->end.load(std::memory_order_acquire)};
    if (begin == end || w->has_store.load(std::memory_order_acquire) ||
        std::find(rings.begin(), rings.end(), id) != rings.end()) {
      continue;
    }
    out.push_back({id, w->shard, w->created_ns, w->first_order, begin, end});
  }
  std::sort(out.begin(), out.end(), [](const Orphan& a, const Orphan& b) { return a.order < b.order; });
  return out;
}

std::vector<Journal::Extent> Journal::unpublished() const {
  std::vector<Extent> out;
  const std::lock_guard lock(impl_->mutex);
  for (const auto& [id, w] : impl_->writers) {
    // In this order: a journal that empties meanwhile counts as what it was.
    const RingPosition begin{w->begin.load(std::memory_order_acquire)};
    const RingPosition end{w->end.load(std::memory_order_acquire)};
    if (begin < end) out.push_back({id, begin, end});
  }
  return out;
}

std::uint64_t Journal::identity() const {
  return impl_->identity.load(std::memory_order_acquire);
}

ErrorCode Journal::trouble() const {
  const Impl& i = *impl_;
  if (const ErrorCode e = i.open_trouble.load(); e != ErrorCode::None) return e;
  if (const ErrorCode e = i.write_trouble.load(); e != ErrorCode::None) return e;
  if (const ErrorCode e = i.space_trouble.load(); e != ErrorCode::None) return e;
  return i.corrupt_there.load(std::memory_order_relaxed) ? ErrorCode::JournalCorrupt : ErrorCode::None;
}

const std::string& Journal::directory() const {
  return impl_->options.directory;
}

std::uint64_t Journal::metric(PublishMetric m) const {
  const Impl& i = *impl_;
  if (m == PublishMetric::JournalBytes) {
    std::uint64_t bytes = 0;
    const std::lock_guard lock(i.mutex);
    for (const auto& [id, w] : i.writers) {
      const std::uint64_t begin = w->begin.load(std::memory_order_relaxed);
      bytes += std::max(begin, w->end.load(std::memory_order_relaxed)) - begin;
    }
    return bytes;
  }
  if (m == PublishMetric::JournalSpilledBytes) return i.spilled_bytes.load(std::memory_order_relaxed);
  if (m == PublishMetric::JournalReplayedBytes) return i.replayed_bytes.load(std::memory_order_relaxed);
  if (m == PublishMetric::JournalSegments) return i.files.load(std::memory_order_relaxed);
  if (m == PublishMetric::JournalTrouble) return number(trouble());
  return 0;
}

}  // namespace arancini::publishd
