#include "publishd/journal_sink.h"

#include <algorithm>

#include "common/base/log.h"
#include "common/schema/batch_expander.h"
#include "common/schema/event_decode.h"
#include "shm-layout/record.h"
#include "shm-layout/ring_header.h"

namespace arancini::publishd {

namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kDetachCheckNs = 100 * kMillisecond;
constexpr std::uint64_t kStopNs = 5'000 * kMillisecond;
constexpr std::size_t kRoundBytes = 1 << 20;  // from one ring before the next has its turn

}  // namespace

struct JournalSink::Ring {
  std::string name;
  std::unique_ptr<RecordSource> source;
  std::uint64_t created_ns = 0;
  std::unique_ptr<SpillStore> store;  // null until the journal is ready

  bool has_record = false;  // at hand: there was no room
  RingRecord record;
  schema::BatchExpander expander;
  bool empty = false;
  bool corrupt = false;
  RingPosition head{};
  std::uint64_t log_order = 0;  // as the ring's header has it

  // What was appended up to a position and when; so updates are counted when they are durable.
  struct Mark {
    RingPosition end{};
    std::uint64_t updates = 0;
    std::uint64_t appended_ns = 0;
  };
  static constexpr std::size_t kMarks = 1024;
  std::array<Mark, kMarks> marks;
  std::size_t mark_first = 0;
  std::size_t mark_count = 0;
  std::uint64_t unmarked_updates = 0;

  [[nodiscard]] bool all_durable() const { return store != nullptr && store->appended() == store->end(); }
};

JournalSink::JournalSink(Journal& journal, Logger* log) : journal_(journal), log_(log) {}
JournalSink::~JournalSink() = default;

void JournalSink::add_ring(std::unique_ptr<RecordSource> source, std::string name,
                           std::uint64_t created_realtime_ns) {
  auto ring = std::make_unique<Ring>();
  ring->name = std::move(name);
  ring->source = std::move(source);
  ring->created_ns = created_realtime_ns;
  ring->source->rewind();
  ring->head = ring->source->head();
  rings_.push_back(std::move(ring));
}

std::optional<JournalSink::Detached> JournalSink::poll_detached() {
  if (detached_.empty()) return std::nullopt;
  Detached d = std::move(detached_.back());
  detached_.pop_back();
  return d;
}

std::size_t JournalSink::do_work(std::uint64_t now_ns) noexcept {
  now_ns_ = now_ns;
  if (stopped_) return 0;
  add(PublishMetric::LoopIterations);
  std::size_t work = 0;
  if (journal_.ready()) {
    for (std::size_t k = 0; k < rings_.size(); ++k) {
      Ring& r = *rings_[(first_ring_ + k) % rings_.size()];
      if (!r.store) begin(r);
      if (!r.corrupt && !stopping_) work += read(r);
      settle(r);
    }
    if (!rings_.empty()) first_ring_ = (first_ring_ + 1) % rings_.size();
  }
  if (now_ns_ >= detach_check_ns_) {
    detach_check_ns_ = now_ns_ + kDetachCheckNs;
    run_detach();
  }
  std::uint64_t lag = 0;
  std::uint64_t queued = 0;
  for (const auto& r : rings_) {
    for (std::size_t i = 0; i < r->mark_count; ++i)
      queued += r->marks[(r->mark_first + i) % Ring::kMarks].updates;
    if (r->mark_count > 0)
      lag = std::max(lag, now_ns_ - std::min(now_ns_, r->marks[r->mark_first].appended_ns));
  }
  set(PublishMetric::AckLagNs, lag);
  set(PublishMetric::QueuedUpdates, queued);
  if (stopping_) {
    const bool quiet = std::all_of(rings_.begin(), rings_.end(),
                                   [](const auto& r) { return !r->store || r->all_durable(); });
    stopped_ = quiet || now_ns_ >= stop_deadline_ns_;
  }
  return work;
}

// The journal may have more of a ring than the ring's head says: a publishd that died in between.
void JournalSink::begin(Ring& r) {
  const std::uint64_t identity = journal_.identity();
  const bool other = identity != 0 && r.source->log_identity() != 0 && r.source->log_identity() != identity;
  r.store = journal_.open(r.source->writer_id(), r.source->shard(), r.created_ns);
  if (raw(r.store->end()) == 0 && r.store->appended() == r.store->end())
    r.store->restart(r.source->head(), r.source->floor_stream_sequence(),
                     r.source->floor_stream_created_ns());
  const bool gap = r.store->appended() < r.source->head();
  if (gap && log_ != nullptr) {
    log_->warn(
        "{}: the journal ends at position {}, the ring begins at {}: what lay between went to another sink, "
        "or is lost",
        r.name, raw(r.store->appended()), raw(r.source->head()));
  }
  // This journal lacks what its readers need to fold to the tables.
  if (other || gap) r.source->request_dump();
  if (r.source->log_identity() != identity) r.source->set_log_mark(0, identity);
  // The ring may lag behind the journal, never the other way round but for a gap.
  r.source->set_published(r.source->head());
}

std::size_t JournalSink::read(Ring& r) {
  std::size_t work = 0;
  std::size_t bytes = 0;
  while (bytes < kRoundBytes) {
    if (!r.has_record && !load_record(r)) break;
    if (r.record.begin >= r.store->appended()) {
      if (!r.store->append(r.record)) break;  // comes again
      if (static_cast<shm::RecordKind>(r.record.header.kind) == shm::RecordKind::UpdateBatch)
        r.unmarked_updates += r.record.header.count;
    } else {
      add(PublishMetric::UpdatesAlreadyStored, r.record.header.count);
    }
    r.has_record = false;
    bytes += r.record.header.size_bytes;
    ++work;
  }
  if (work > 0 || !r.all_durable()) r.store->flush();
  if (r.unmarked_updates > 0) {
    if (r.mark_count == Ring::kMarks) {
      Ring::Mark& last = r.marks[(r.mark_first + r.mark_count - 1) % Ring::kMarks];
      last.end = r.store->appended();
      last.updates += r.unmarked_updates;
    } else {
      r.marks[(r.mark_first + r.mark_count++) % Ring::kMarks] = {r.store->appended(), r.unmarked_updates,
                                                                 now_ns_};
    }
    r.unmarked_updates = 0;
  }
  return work;
}

bool JournalSink::load_record(Ring& r) {
  switch (r.source->next(r.record)) {
    case RingReader::Status::Empty: r.empty = true; return false;
    case RingReader::Status::Corrupt: mark_corrupt(r, "record header"); return false;
    case RingReader::Status::Record: break;
  }
  r.empty = false;
  add(PublishMetric::RecordsRead);
  const shm::RecordHeader& h = r.record.header;
  const auto kind = static_cast<shm::RecordKind>(h.kind);
  bool valid = true;
  switch (kind) {
    case shm::RecordKind::UpdateBatch:
      valid = h.format == shm::kRecordFormat && r.expander.open(h, r.record.payload);
      if (valid) add(PublishMetric::UpdatesRead, h.count);
      break;
    case shm::RecordKind::Event: valid = schema::event_view(r.record.payload).has_value(); break;
    case shm::RecordKind::Barrier: break;
    case shm::RecordKind::Padding:
    default: valid = false;
  }
  if (!valid) {
    mark_corrupt(r, "record");
    return false;
  }
  r.has_record = true;
  return true;
}

// What is durable leaves the ring and is counted.
void JournalSink::settle(Ring& r) {
  const std::uint64_t order = r.store->durable_order();  // before the end
  const RingPosition end = r.store->end();
  while (r.mark_count > 0 && r.marks[r.mark_first].end <= end) {
    const Ring::Mark& m = r.marks[r.mark_first];
    add(PublishMetric::UpdatesAcked, m.updates);
    set(PublishMetric::AckLatencyNs, since(m.appended_ns));
    // Read and appended in one go.
    observe(PublishHistogram::AckLatency, since(m.appended_ns));
    observe(PublishHistogram::RingToAck, since(m.appended_ns));
    r.mark_first = (r.mark_first + 1) % Ring::kMarks;
    --r.mark_count;
  }
  if (const RingPosition to = std::min(end, r.source->cursor()); to > r.head) {
    r.source->set_journal_end(to);
    r.source->release(to);
    r.head = to;
    r.source->set_published(to);
  }
  // The name comes later where the directory could not be made at first.
  if (const std::uint64_t identity = journal_.identity();
      r.head >= end && (order != r.log_order || r.source->log_identity() != identity)) {
    r.log_order = order;
    r.source->set_log_mark(order, identity);
  }
}

void JournalSink::run_detach() {
  for (auto& r : rings_) {
    if (!r->store || !r->all_durable() || r->has_record) continue;
    if (!r->corrupt) {
      // Looked at in this order: what is empty after the writer has gone stays empty. Padding may be left.
      if (!r->source->abandoned() || r->source->tail() != r->source->cursor()) continue;
      r->source->release(r->source->cursor());
    }
    detached_.push_back({r->name, r->corrupt});
    r.reset();
  }
  std::erase(rings_, nullptr);
  set(PublishMetric::RingsConnected, rings_.size());
}

void JournalSink::mark_corrupt(Ring& r, std::string_view why) {
  r.corrupt = true;
  r.has_record = false;
  r.store->flush();
  if (log_ != nullptr) {
    log_->error("{} ({}): {}: {} invalid at position {}; this ring is given up, the others go on",
                arancini::to_string(ErrorCode::RingCorrupt), number(ErrorCode::RingCorrupt), r.name, why,
                raw(r.store->appended()));
  }
  add(PublishMetric::RingsCorrupt);
}

std::uint64_t JournalSink::idle_ns() const {
  return kDetachCheckNs;
}

bool JournalSink::arm(std::vector<FutexWait>& waits) {
  if (stopping_ || !journal_.ready()) return true;
  for (const auto& r : rings_) {
    // A record at hand waits for the journal, which wakes by itself.
    if (r->corrupt || r->has_record) continue;
    if (const auto wait = r->source->arm()) waits.push_back(*wait);
    if (r->source->ready()) return false;
  }
  return true;
}

void JournalSink::disarm() {
  for (const auto& r : rings_) r->source->disarm();
}

void JournalSink::heartbeat(std::uint64_t boottime_ns) {
  for (const auto& r : rings_) r->source->heartbeat(boottime_ns);
}

void JournalSink::stop(std::uint64_t now_ns) {
  if (stopping_) return;
  stopping_ = true;
  stop_deadline_ns_ = now_ns + kStopNs;
  for (const auto& r : rings_) {
    if (r->store) r->store->flush();
  }
}

ErrorCode JournalSink::trouble() const {
  if (!journal_.ready()) return journal_.trouble();
  for (const auto& r : rings_) {
    if (!r->store) continue;
    if (const ErrorCode e = r->store->trouble(); e != ErrorCode::None) return e;
  }
  return ErrorCode::None;
}

}  // namespace arancini::publishd
