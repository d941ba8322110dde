#include "publishd/drain.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "common/base/log.h"
#include "shm-layout/record.h"

namespace arancini::publishd {

namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::size_t kAcksPerRound = 4096;
constexpr std::uint64_t kQuiesceNs = 2'000 * kMillisecond;
constexpr std::uint64_t kDetachCheckNs = 100 * kMillisecond;
constexpr std::uint64_t kBackOffFirstNs = 50 * kMillisecond;
constexpr std::uint64_t kFruitlessNs = 10'000 * kMillisecond;  // a session that ended sooner, all in vain
constexpr std::uint64_t kBackOffMostNs = 5'000 * kMillisecond;

}  // namespace

std::string_view to_string(Drain::Phase phase) {
  switch (phase) {
    case Drain::Phase::Opening: return "waiting for NATS";
    case Drain::Phase::Publishing: return "publishing";
    case Drain::Phase::Quiescing: return "waiting for acks";
    case Drain::Phase::BackingOff: return "backing off";
    case Drain::Phase::Stopped: return "stopped";
  }
  return "unknown";
}

DrainOptions DrainOptions::from(const Config& config) {
  DrainOptions o;
  o.subject_prefix = config.nats.subject_prefix;
  o.format = config.publish.format;
  o.batch_bytes = config.publish.batch_bytes;
  o.batch_count = config.publish.batch_count;
  o.in_flight.messages = config.nats.max_in_flight;
  o.ack_timeout_ns = static_cast<std::uint64_t>(config.nats.ack_timeout_s * 1e9);
  return o;
}

struct Drain::Ring {
  std::uint32_t slot = 0;
  std::string name;
  std::unique_ptr<RecordSource> source;
  std::string writer_hex;

  RingPosition head{};      // released up to here
  RingPosition consumed{};  // end of the last record that is wholly in groups, messages or the stream
  HoldQueue holds;

  // The record at hand; `next` of its updates are taken.
  bool has_record = false;
  RingRecord record;
  schema::BatchExpander expander;
  SubjectId subject{};
  std::uint32_t next = 0;

  // What the stream held when the session began: updates up to there are skipped. Cleared once the head is
  // past it.
  std::unordered_map<std::string, Sequence> stored;
  Sequence stored_max{};
  bool base_pending = false;
  std::optional<RingPosition> base_end;  // the records that the stream held end here

  bool known = false;    // the present session knows what the stream has of it
  bool empty = false;    // at the last look
  bool corrupt = false;  // not read any more; leaves when nothing of it is under way
  bool too_large_told = false;

  [[nodiscard]] RingPosition releasable() const {
    const auto held = holds.front();
    return held ? std::min(*held, consumed) : consumed;
  }
};

Drain::Drain(DrainOptions options, Broker& broker, Logger* log)
    : options_(std::move(options)),
      broker_(broker),
      log_(log),
      subjects_(options_.subject_prefix),
      window_(options_.in_flight) {}

Drain::~Drain() = default;

void Drain::add_ring(std::unique_ptr<RecordSource> source, std::string name) {
  auto ring = std::make_unique<Ring>();
  ring->slot = static_cast<std::uint32_t>(rings_.size());
  ring->name = std::move(name);
  ring->writer_hex = source->writer_id().to_hex();
  ring->source = std::move(source);
  ring->source->rewind();
  ring->head = ring->consumed = ring->source->head();
  Ring& r = *ring;
  rings_.push_back(std::move(ring));
  if (phase_ == Phase::Publishing && r.source->floor_stream_sequence() == shm::kNoFloor) {
    // Nothing of it was ever sent: no need to ask the stream.
    r.source->set_floor(floor_, created_ns_);
    r.known = true;
  } else {
    session_wanted_ = true;
  }
}

std::optional<Drain::Detached> Drain::poll_detached() {
  if (detached_.empty()) return std::nullopt;
  Detached d = std::move(detached_.back());
  detached_.pop_back();
  return d;
}

std::size_t Drain::rings_connected() const {
  return static_cast<std::size_t>(
      std::count_if(rings_.begin(), rings_.end(), [](const auto& r) { return r != nullptr; }));
}

std::size_t Drain::do_work(std::uint64_t now_ns) noexcept {
  now_ns_ = now_ns;
  add(PublishMetric::LoopIterations);
  std::size_t work = run_acks();
  switch (phase_) {
    case Phase::Opening:
      if (stopping_) {
        phase_ = Phase::Stopped;
      } else if (!session_requested_) {
        begin_session();
        ++work;
      } else if (auto session = broker_.poll_session()) {
        adopt(std::move(*session));
        ++work;
      }
      break;
    case Phase::Publishing:
      check_session();
      if (phase_ != Phase::Publishing) break;
      if (!stopping_) work += run_records();
      if (phase_ == Phase::Publishing) work += run_flush();
      break;
    case Phase::Quiescing:
      if (window_.pending() == 0 || !broker_.session_alive() || now_ns_ >= deadline_ns_) {
        run_release();
        const std::uint64_t wait =
            fruitless_sessions_ == 0
                ? 0
                : std::min(kBackOffFirstNs << std::min<std::uint32_t>(fruitless_sessions_ - 1, 10),
                           kBackOffMostNs);
        phase_ = Phase::BackingOff;
        deadline_ns_ = now_ns_ + wait;
        ++work;
      }
      break;
    case Phase::BackingOff:
      if (stopping_ || now_ns_ >= deadline_ns_) {
        phase_ = Phase::Opening;
        session_requested_ = false;
        ++work;
      }
      break;
    case Phase::Stopped: return 0;
  }
  if (release_due_) run_release();
  if (now_ns_ >= detach_check_ns_) {
    detach_check_ns_ = now_ns_ + kDetachCheckNs;
    run_detach();
  }
  if (stopping_ && phase_ != Phase::Stopped) {
    const bool quiet = window_.pending() == 0 && groups_.open_groups() == 0;
    if (quiet || now_ns_ >= stop_deadline_ns_) {
      run_release();
      phase_ = Phase::Stopped;
    }
  }
  set(PublishMetric::MessagesInFlight, window_.pending());
  return work;
}

std::uint64_t Drain::idle_ns() const {
  if (phase_ == Phase::Publishing && groups_.open_groups() > 0 && !blocked_) return options_.linger_dry_ns;
  if (phase_ == Phase::BackingOff)
    return std::max<std::uint64_t>(deadline_ns_ - std::min(deadline_ns_, now_ns_), 1);
  return kDetachCheckNs;
}

bool Drain::arm(std::vector<FutexWait>& waits) {
  // Rings are read only while publishing and while the window has room; everything else is woken by the
  // broker.
  if (phase_ != Phase::Publishing || stopping_ || blocked_) return true;
  for (const auto& r : rings_) {
    if (r == nullptr || r->corrupt || !r->known) continue;
    if (const auto wait = r->source->arm()) waits.push_back(*wait);
    if (r->source->tail() > r->consumed) return false;
  }
  return true;
}

void Drain::disarm() {
  for (const auto& r : rings_) {
    if (r != nullptr) r->source->disarm();
  }
}

void Drain::heartbeat(std::uint64_t boottime_ns) {
  for (const auto& r : rings_) {
    if (r != nullptr) r->source->heartbeat(boottime_ns);
  }
}

void Drain::stop(std::uint64_t now_ns) {
  if (stopping_) return;
  stopping_ = true;
  stop_deadline_ns_ = now_ns + options_.stop_timeout_ns;
}

// ---- acks, heads, floor
// ---------------------------------------------------------------------------------------------

std::size_t Drain::run_acks() {
  std::size_t n = 0;
  Ack ack;
  InFlight message;
  while (n < kAcksPerRound && broker_.poll_ack(ack)) {
    ++n;
    switch (window_.ack(ack, message)) {
      case AckWindow::Verdict::Unknown: break;
      case AckWindow::Verdict::Stored:
        if (rings_[message.ring] != nullptr) rings_[message.ring]->holds.done(message.hold);
        release_due_ = true;
        ++stored_in_session_;
        fruitless_sessions_ = 0;
        add(PublishMetric::MessagesAcked);
        add(PublishMetric::UpdatesAcked, message.updates);
        set(PublishMetric::StreamLastSequence, ack.stream_sequence);
        set(PublishMetric::AckLatencyNs, now_ns_ > message.sent_ns ? now_ns_ - message.sent_ns : 0);
        break;
      case AckWindow::Verdict::Failed:
        add(PublishMetric::PublishErrors);
        if (ack.duplicate) ++id_salt_;
        if (phase_ != Phase::Publishing) break;  // successors of the first one fail as a matter of course
        switch (ack.error) {
          case AckError::None:
            give_up(
                ErrorCode::PublishOutOfOrder, false,
                ack.duplicate ? "message id was used before" : "stored at another sequence than predicted");
            break;
          case AckError::WrongLast:
            give_up(ErrorCode::PublishOutOfOrder, false, "stream does not end with the message before");
            break;
          case AckError::Rejected:
            give_up(ack.cause, false, fmt::format("JetStream error {}", ack.server_code));
            break;
          case AckError::NoResponders:
            give_up(ErrorCode::StreamUnusable, false, "no stream takes the subject");
            break;
          case AckError::Malformed:
            give_up(ErrorCode::PublishRejected, true, "the answer is not a JetStream ack");
            break;
        }
        break;
    }
  }
  return n;
}

void Drain::run_release() {
  release_due_ = false;
  bool base_pending = false;
  for (const auto& r : rings_) {
    if (r == nullptr) continue;
    if (const RingPosition to = r->releasable(); to > r->head) {
      r->source->release(to);
      r->head = to;
    }
    if (r->base_pending && r->base_end && r->head >= *r->base_end) {
      r->base_pending = false;
      r->stored.clear();
    }
    base_pending = base_pending || r->base_pending;
  }
  if (created_ns_ == 0 || !session_requested_) return;
  if (window_.base_open() && !base_pending && (phase_ == Phase::Publishing || phase_ == Phase::Quiescing)) {
    window_.base_passed();
  }
  // Heads first, then the floor (RingReaderLine).
  const auto floor = window_.retire([this](std::uint32_t ring) {
    return rings_[ring] == nullptr ? RingPosition{std::numeric_limits<std::uint64_t>::max()}
                                   : rings_[ring]->head;
  });
  if (!floor || *floor == floor_) return;
  floor_ = *floor;
  for (const auto& r : rings_) {
    if (r != nullptr && r->known) r->source->set_floor(floor_, created_ns_);
  }
}

// ---- records, groups, messages
// --------------------------------------------------------------------------------------

std::size_t Drain::run_records() {
  std::size_t work = 0;
  dry_ = true;
  blocked_ = false;
  for (std::size_t k = 0; k < rings_.size() && phase_ == Phase::Publishing; ++k) {
    const std::size_t at = (first_ring_ + k) % rings_.size();
    Ring* r = rings_[at].get();
    if (r == nullptr || r->corrupt || !r->known) continue;
    const RingPosition from = r->consumed;
    while (phase_ == Phase::Publishing && raw(r->consumed) - raw(from) < options_.round_bytes) {
      if (!r->has_record && !load_record(*r)) break;
      const Step step = consume(*r);
      if (step == Step::Done) {
        r->consumed = r->record.end;
        r->has_record = false;
        ++work;
        if (r->base_pending) release_due_ = true;
        continue;
      }
      dry_ = false;
      blocked_ = true;   // the window is full: an ack wakes, not a ring
      first_ring_ = at;  // goes on here
      return work;
    }
    if (r->has_record || !r->empty) dry_ = false;
  }
  if (!rings_.empty()) first_ring_ = (first_ring_ + 1) % rings_.size();
  // Records that needed no message (stored before, barriers) free their room, too.
  if (work > 0) release_due_ = true;
  return work;
}

bool Drain::load_record(Ring& r) {
  switch (r.source->next(r.record)) {
    case RingReader::Status::Empty:
      r.empty = true;
      r.consumed = std::max(r.consumed, r.source->cursor());  // padding alone
      return false;
    case RingReader::Status::Corrupt: mark_corrupt(r, "record header"); return false;
    case RingReader::Status::Record: break;
  }
  r.empty = false;
  r.next = 0;
  add(PublishMetric::RecordsRead);
  const shm::RecordHeader& h = r.record.header;
  const auto kind = static_cast<shm::RecordKind>(h.kind);
  if (kind == shm::RecordKind::UpdateBatch) {
    if (h.format != shm::kRecordFormat || !r.expander.open(h, r.record.payload)) {
      mark_corrupt(r, "update batch");
      return false;
    }
    r.subject = subjects_.find_or_add(h.subject_key, r.expander.router_address(), r.expander.peer_asn(),
                                      r.expander.family());
    add(PublishMetric::UpdatesRead, r.expander.count());
  } else if (kind != shm::RecordKind::Barrier && kind != shm::RecordKind::Event) {
    mark_corrupt(r, "record kind");
    return false;
  }
  r.has_record = true;

  if (!r.base_pending) return true;
  const std::uint64_t first = h.first_sequence;
  if (!r.base_end && first > raw(r.stored_max)) r.base_end = r.record.begin;
  if (!r.base_end && first + h.count > raw(r.stored_max)) r.base_end = r.record.end;
  if (kind == shm::RecordKind::UpdateBatch) {
    if (const auto it = r.stored.find(subjects_.name(r.subject));
        it != r.stored.end() && raw(it->second) >= first) {
      r.next = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(raw(it->second) - first + 1, r.expander.count()));
      add(PublishMetric::UpdatesAlreadyStored, r.next);
    }
  }
  return true;
}

Drain::Step Drain::consume(Ring& r) {
  const auto kind = static_cast<shm::RecordKind>(r.record.header.kind);
  if (kind == shm::RecordKind::Barrier) return consume_barrier(r);
  if (kind == shm::RecordKind::Event) return Step::Done;
  if (r.next >= r.expander.count()) return Step::Done;
  // A batch that is partly in the stream, or larger than a message may be, is published update by update.
  const bool whole = options_.format == PublishFormat::BatchV2 && r.next == 0 &&
                     r.record.payload.size() <= max_payload_bytes_;
  return whole ? consume_whole(r) : consume_expanded(r);
}

// What is open of the router goes first: messages are stored in the order of their sending, after a failure
// as well. The records behind the barrier are not looked at before. Blocked: called again when there is room.
Drain::Step Drain::consume_barrier(Ring& r) {
  const std::uint32_t router = r.record.header.router_id;
  for (Group* g = groups_.oldest(r.slot); g != nullptr;) {
    Group* next = g->next;
    const bool meant = router == shm::kAllRouters || g->router_id == router;
    if (meant && !send(*g)) return Step::Blocked;
    g = next;
  }
  return Step::Done;
}

std::size_t Drain::batch_limit() const {
  return std::min<std::size_t>(options_.batch_bytes, max_payload_bytes_);
}

// The open group of the record's subject if it has room for that much more, else a new one.
Group* Drain::room_in_group(Ring& r, PublishFormat format, std::size_t bytes, std::uint32_t updates,
                            bool& blocked) {
  const std::uint32_t max_count = format == PublishFormat::UpdateV1 ? 1 : options_.batch_count;
  Group* g = groups_.find(r.slot, r.subject);
  if (g != nullptr && (g->format != format || g->bytes + bytes > batch_limit() ||
                       std::size_t{g->count} + updates > max_count)) {
    if (!send(*g)) {
      blocked = true;
      return nullptr;
    }
    g = nullptr;
  }
  if (g == nullptr) {
    g = &groups_.open(r.slot, r.subject);
    g->format = format;
    g->router_id = r.record.header.router_id;
    g->first = r.expander.first_sequence() + r.next;
    g->hold = r.holds.add(r.record.begin);
    g->begin = r.record.begin;
    g->opened_ns = now_ns_;
  }
  return g;
}

Drain::Step Drain::consume_whole(Ring& r) {
  bool blocked = false;
  Group* g = room_in_group(r, PublishFormat::BatchV2, r.record.payload.size(), r.expander.count(), blocked);
  if (blocked) return Step::Blocked;
  std::byte* out = groups_.extend(*g, r.record.payload.size());
  std::copy(r.record.payload.begin(), r.record.payload.end(), out);
  g->count += r.expander.count();
  g->last = r.expander.first_sequence() + (r.expander.count() - 1);
  g->end = r.record.end;
  r.next = r.expander.count();
  return Step::Done;
}

Drain::Step Drain::consume_expanded(Ring& r) {
  const PublishFormat format =
      options_.format == PublishFormat::BatchV2 ? PublishFormat::UpdateV1Concat : options_.format;
  const std::uint32_t max_count = format == PublishFormat::UpdateV1 ? 1 : options_.batch_count;
  const std::size_t each = r.expander.update_bytes();
  const std::uint32_t total = r.expander.count();
  if (each > max_payload_bytes_) {
    // Cannot ever be sent to this broker. Said, counted and skipped: waiting would stop every other route as
    // well.
    add(PublishMetric::PublishErrors, total - r.next);
    if (log_ != nullptr && !r.too_large_told) {
      log_->error(
          "RecordTooLarge ({}): {}: an update of {} bytes for {} is above the server's max_payload, {} "
          "updates from "
          "sequence {} are not published; raise max_payload of nats-server",
          static_cast<std::uint32_t>(ErrorCode::RecordTooLarge), r.name, each, subjects_.name(r.subject),
          total - r.next, raw(r.expander.first_sequence()) + r.next);
    }
    r.too_large_told = true;
    r.next = total;
    return Step::Done;
  }
  while (r.next < total) {
    bool blocked = false;
    Group* g = room_in_group(r, format, each, 1, blocked);
    if (blocked) return Step::Blocked;
    const std::size_t by_bytes = batch_limit() > g->bytes ? (batch_limit() - g->bytes) / each : 0;
    const auto n = static_cast<std::uint32_t>(std::max<std::size_t>(
        1, std::min({std::size_t{total - r.next}, std::size_t{max_count - g->count}, by_bytes})));
    std::byte* out = groups_.extend(*g, n * each);
    for (std::uint32_t i = 0; i < n; ++i) r.expander.write_update(r.next + i, out + i * each);
    r.next += n;
    g->count += n;
    g->last = r.expander.first_sequence() + (r.next - 1);
    g->end = r.record.end;
  }
  return Step::Done;
}

std::size_t Drain::run_flush() {
  std::size_t sent = 0;
  const bool all = stopping_;
  for (const auto& r : rings_) {
    if (r == nullptr) continue;
    const std::uint64_t held_limit = r->source->capacity_bytes() / 4;
    while (Group* g = groups_.oldest(r->slot)) {
      const bool eager = dry_ && window_.pending() <= options_.eager_messages;
      const std::uint64_t age = now_ns_ - g->opened_ns;
      const bool full = g->bytes >= batch_limit() ||
                        g->count >= (g->format == PublishFormat::UpdateV1 ? 1 : options_.batch_count);
      const bool due = all || eager || r->corrupt || full ||
                       age >= (dry_ ? options_.linger_dry_ns : options_.linger_busy_ns) ||
                       raw(r->consumed) - raw(g->begin) > held_limit ||
                       groups_.open_bytes() > options_.open_bytes;
      if (!due || !send(*g)) break;
      ++sent;
    }
    if (phase_ != Phase::Publishing) break;
  }
  return sent;
}

bool Drain::send(Group& g) {
  if (phase_ != Phase::Publishing || !window_.has_room(g.bytes)) return false;
  const Ring& r = *rings_[g.ring];
  Outgoing o;
  o.index = window_.next_index();
  o.subject = subjects_.name(g.subject).c_str();
  o.format = g.format;
  o.writer_hex = r.writer_hex.c_str();
  o.shard = r.source->shard();
  o.first = g.first;
  o.last = g.last;
  o.count = g.count;
  o.expected_last_sequence = window_.expected_last();
  // The salt only ever counts answers "duplicate" for what the stream does not hold (deleted by hand within
  // the duplicate window): the same id again would be swallowed again.
  const auto end =
      id_salt_ == 0
          ? fmt::format_to_n(message_id_.data(), message_id_.size() - 1, "{}-{:016x}-{}-{}", r.writer_hex,
                             subjects_.hash(g.subject), raw(g.first), raw(g.last))
          : fmt::format_to_n(message_id_.data(), message_id_.size() - 1, "{}-{:016x}-{}-{}-r{}", r.writer_hex,
                             subjects_.hash(g.subject), raw(g.first), raw(g.last), id_salt_);
  *end.out = '\0';
  o.message_id = message_id_.data();
  o.previous_message_id = previous_id_.data();
  o.payload = g.payload();
  if (!broker_.send(o)) {
    add(PublishMetric::PublishErrors);
    give_up(ErrorCode::NatsUnreachable, false, "connection lost");
    return false;
  }
  window_.push({g.ring, g.hold, g.end, static_cast<std::uint32_t>(g.bytes), g.count, now_ns_});
  previous_id_ = message_id_;
  add(PublishMetric::MessagesSent);
  add(PublishMetric::BytesSent, g.bytes);
  set(PublishMetric::BatchUpdates, g.count);
  groups_.close(g);
  return true;
}

// ---- sessions
// -------------------------------------------------------------------------------------------------------

void Drain::check_session() {
  if (!broker_.session_alive()) {
    give_up(ErrorCode::NatsUnreachable, false, "connection lost");
    return;
  }
  if (const auto oldest = window_.oldest_pending_ns();
      oldest && now_ns_ > *oldest + options_.ack_timeout_ns) {
    add(PublishMetric::AckTimeouts);
    give_up(ErrorCode::PublishTimeout, true, "no ack in time");
    return;
  }
  if (broker_.session_leaving()) {
    give_up(ErrorCode::None, false, "the server is shutting down");
    return;
  }
  if (session_wanted_ && !stopping_) give_up(ErrorCode::None, false, "a ring was attached");
}

void Drain::give_up(ErrorCode why, bool reconnect, std::string_view text) {
  phase_ = Phase::Quiescing;
  deadline_ns_ = now_ns_ + (reconnect ? 0 : kQuiesceNs);
  reconnect_ = reconnect;
  if (why == ErrorCode::None) return;
  trouble_ = why;
  if (stored_in_session_ == 0 && window_.next_index() > 0 && now_ns_ - session_began_ns_ < kFruitlessNs) {
    ++fruitless_sessions_;
  } else {
    fruitless_sessions_ = 0;
  }
  if (log_ != nullptr && fruitless_sessions_ <= 1) {
    log_->warn("publishing stopped ({}): {}; {} messages without ack, the rings keep everything",
               static_cast<std::uint32_t>(why), text, window_.pending());
  }
}

void Drain::begin_session() {
  groups_.close_all();
  SessionRequest request;
  request.reconnect = reconnect_;
  for (const auto& r : rings_) {
    if (r == nullptr) continue;
    r->holds.clear();
    r->has_record = false;
    r->source->rewind();
    r->consumed = r->head = r->source->head();
    r->stored.clear();
    r->stored_max = Sequence{0};
    r->base_pending = false;
    r->base_end.reset();
    r->corrupt = false;  // what is corrupt will be found so again
    r->known = true;
    if (r->source->floor_stream_sequence() == shm::kNoFloor) continue;
    const Floor f{r->source->floor_stream_sequence(), r->source->floor_stream_created_ns()};
    if (std::find(request.floors.begin(), request.floors.end(), f) == request.floors.end())
      request.floors.push_back(f);
  }
  // Nothing is known of what is under way any more; the tail will tell. No floor moves until then.
  window_.reset(0);
  created_ns_ = 0;
  reconnect_ = false;
  session_wanted_ = false;
  session_requested_ = true;
  broker_.begin_session(request);
}

void Drain::adopt(const Session& session) {
  const Tail& tail = session.tail;
  if (session_wanted_) {
    // A ring came meanwhile; the tail may have been read from too high a floor for it.
    begin_session();
    return;
  }
  add(PublishMetric::Recoveries);
  created_ns_ = tail.created_ns;
  floor_ = tail.last_sequence;
  window_.reset(tail.last_sequence);
  previous_id_[0] = '\0';
  stored_in_session_ = 0;
  session_began_ns_ = now_ns_;
  max_payload_bytes_ = session.max_message_bytes - std::min(session.max_message_bytes, kHeaderReserveBytes);
  for (const auto& r : rings_) {
    if (r != nullptr) adopt_ring(*r, tail);
  }
  if (tail.missing > 0 && log_ != nullptr) {
    log_->warn(
        "{} messages above the rings' floor are not in the stream any more; what was in them may be "
        "published again",
        tail.missing);
  }
  if (log_ != nullptr) {
    log_->info("publishing after stream sequence {} ({} messages of the tail read)", tail.last_sequence,
               tail.messages_read);
  }
  set(PublishMetric::StreamLastSequence, tail.last_sequence);
  trouble_ = ErrorCode::None;
  phase_ = Phase::Publishing;
  release_due_ = true;
}

void Drain::adopt_ring(Ring& r, const Tail& tail) {
  const std::uint64_t floor = r.source->floor_stream_sequence();
  if (floor == shm::kNoFloor) {
    r.source->set_floor(tail.last_sequence, tail.created_ns);
  } else if (r.source->floor_stream_created_ns() != tail.created_ns) {
    // What was acked before went with the old stream; what is still in the ring goes into this one.
    if (log_ != nullptr) {
      log_->warn(
          "{}: the stream is not the one that was published to before (created anew): it lacks everything "
          "that was "
          "acked until now; consumers need a full table dump",
          r.name);
    }
    add(PublishMetric::PublishErrors);
    r.source->set_floor(0, tail.created_ns);
  } else if (floor > tail.last_sequence) {
    if (log_ != nullptr) {
      log_->warn(
          "{}: the stream has gone back from sequence {} to {}: it lacks updates that were acked; consumers "
          "need a "
          "full table dump",
          r.name, floor, tail.last_sequence);
    }
    add(PublishMetric::PublishErrors);
    r.source->set_floor(tail.last_sequence, tail.created_ns);
  }
  // The lowest floor of all stays in force until the heads are past what the tail holds.
  floor_ = std::min(floor_, r.source->floor_stream_sequence());
  for (const Stored& s : tail.stored) {
    if (s.writer != r.source->writer_id()) continue;
    r.stored.insert_or_assign(s.subject, s.last);
    r.stored_max = std::max(r.stored_max, s.last);
  }
  r.base_pending = !r.stored.empty();
  if (r.source->tail() == r.head) r.base_end = r.head;
}

// ---- rings that leave
// -----------------------------------------------------------------------------------------------

void Drain::mark_corrupt(Ring& r, std::string_view why) {
  r.corrupt = true;
  r.has_record = false;
  if (log_ != nullptr) {
    log_->error("{} ({}): {}: {} invalid at position {}; this ring is given up, the others go on",
                arancini::to_string(ErrorCode::RingCorrupt),
                static_cast<std::uint32_t>(ErrorCode::RingCorrupt), r.name, why, raw(r.consumed));
  }
  add(PublishMetric::RingsCorrupt);
}

void Drain::run_detach() {
  for (auto& r : rings_) {
    if (r == nullptr || !r->known || phase_ != Phase::Publishing) continue;
    const bool nothing_open = !r->holds.front() && !r->has_record && groups_.oldest(r->slot) == nullptr;
    if (!nothing_open) continue;
    run_release();
    Leave reason = Leave::Corrupt;
    if (!r->corrupt) {
      // Looked at in this order: what is empty after the writer has gone stays empty.
      if (!r->source->abandoned() || r->source->tail() != r->head) continue;
      reason = Leave::Drained;
    }
    detached_.push_back({r->name, reason});
    r.reset();
  }
  set(PublishMetric::RingsConnected, rings_connected());
}

}  // namespace arancini::publishd
