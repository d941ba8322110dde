#include "publishd/drain.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "common/base/log.h"
#include "common/schema/event_build.h"
#include "publishd/drain_ring.h"

namespace arancini::publishd {

namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::size_t kAcksPerRound = 4096;
constexpr std::uint64_t kQuiesceNs = 2'000 * kMillisecond;
constexpr std::uint64_t kDetachCheckNs = 100 * kMillisecond;
constexpr std::uint64_t kSpillPollNs = 5 * kMillisecond;
constexpr std::uint64_t kBackOffFirstNs = 50 * kMillisecond;
constexpr std::uint64_t kFruitlessNs = 10'000 * kMillisecond;  // a session that ended sooner, all in vain
constexpr std::uint64_t kAgainNs =
    1'000 * kMillisecond;  // for sending what may be on a replica before all else
constexpr std::uint64_t kBackOffMostNs = 5'000 * kMillisecond;
// A stream's identity lies so many nanoseconds behind its creation at most; no two are created that soon.
constexpr std::uint64_t kIdentities = 1000;

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
  o.linger_busy_ns = static_cast<std::uint64_t>(config.publish.linger_s * 1e9);
  o.linger_dry_ns = std::min(o.linger_dry_ns, o.linger_busy_ns);
  o.spill_after_ns = static_cast<std::uint64_t>(config.journal.spill_after_s * 1e9);
  return o;
}

Drain::Drain(DrainOptions options, Broker& broker, Logger* log)
    : options_(std::move(options)),
      broker_(broker),
      log_(log),
      subjects_(options_.subject_prefix),
      window_(options_.in_flight) {}

Drain::~Drain() = default;

void Drain::add_ring(std::unique_ptr<RecordSource> source, std::string name, bool first) {
  auto ring = std::make_unique<Ring>();
  ring->slot = static_cast<std::uint32_t>(rings_.size());
  ring->name = std::move(name);
  ring->writer_hex = source->writer_id().to_hex();
  ring->source = std::move(source);
  ring->first = first;
  ring->restart();
  Ring& r = *ring;
  rings_.push_back(std::move(ring));
  if (phase_ == Phase::Publishing && r.source->floor_stream_sequence() == shm::kNoFloor) {
    // Nothing of it was ever sent: no need to ask the stream.
    r.source->set_floor(floor_, created_ns_);
    r.source->set_log_mark(0, identity_);
    r.source->set_published(r.source->head());
    r.source->set_log_mark(floor_, identity_);
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
  if (progress_ns_ == 0) progress_ns_ = now_ns;
  add(PublishMetric::LoopIterations);
  std::size_t work = run_acks();
  switch (phase_) {
    case Phase::Opening:
      if (stopping_) {
        phase_ = Phase::Stopped;
      } else {
        work += run_opening();
      }
      break;
    case Phase::Publishing:
      check_session();
      if (phase_ != Phase::Publishing) break;
      // Its records may be gone, or not fit into one message any more.
      if (again_ && now_ns_ - session_began_ns_ > kAgainNs) again_ = false;
      work += run_flush(true);  // before more is read: what waited longest has the room first
      if (!stopping_ && phase_ == Phase::Publishing) work += run_records();
      if (phase_ == Phase::Publishing) work += run_flush(false);
      work += run_events();
      // A session is no proof: a leader without followers gives one, and stores nothing.
      if (dry_ && window_.pending() == 0 && groups_.open_groups() == 0 && events_.empty())
        trouble_ = ErrorCode::None;
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
  work += run_spill();
  if (now_ns_ >= detach_check_ns_) {
    detach_check_ns_ = now_ns_ + kDetachCheckNs;
    run_detach();
  }
  if (stopping_ && phase_ != Phase::Stopped) {
    const bool quiet = window_.pending() == 0 && groups_.open_groups() == 0 && events_.empty();
    if (quiet || now_ns_ >= stop_deadline_ns_) {
      run_release();
      phase_ = Phase::Stopped;
    }
  }
  set(PublishMetric::MessagesInFlight, window_.pending());
  set(PublishMetric::OpenGroups, groups_.open_groups());
  const std::uint64_t oldest = window_.oldest_pending_ns().value_or(now_ns_);
  set(PublishMetric::AckLagNs, now_ns_ - std::min(oldest, now_ns_));
  return work;
}

std::uint64_t Drain::idle_ns() const {
  const bool spilling = std::any_of(rings_.begin(), rings_.end(), [&](const auto& r) {
    return r != nullptr && (r->source->spilling() || phase_ != Phase::Publishing);
  });
  const std::uint64_t most = spilling ? kSpillPollNs : kDetachCheckNs;
  if (phase_ == Phase::Publishing && groups_.open_groups() > 0 && !blocked_)
    return std::min(most, options_.linger_dry_ns);
  if (phase_ == Phase::BackingOff)
    return std::clamp<std::uint64_t>(deadline_ns_ - std::min(deadline_ns_, now_ns_), 1, most);
  return most;
}

bool Drain::arm(std::vector<FutexWait>& waits) {
  // Rings are read only while publishing and while the window has room; everything else is woken by the
  // broker.
  if (phase_ != Phase::Publishing || stopping_ || blocked_) return true;
  for (const auto& r : rings_) {
    if (r == nullptr || r->corrupt || !r->known || !has_turn(*r)) continue;
    if (const auto wait = r->source->arm()) waits.push_back(*wait);
    if (r->source->ready()) return false;
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
        if (Ring* r = rings_[message.ring].get(); r != nullptr)
          r->lanes[message.lane]->holds.done(message.hold);
        release_due_ = true;
        progress_ns_ = now_ns_;
        trouble_ = ErrorCode::None;
        ++stored_in_session_;
        fruitless_sessions_ = 0;
        unanswered_.reset();
        add(PublishMetric::MessagesAcked);
        add(PublishMetric::UpdatesAcked, message.updates);
        set(PublishMetric::StreamLastSequence,
            std::max(metric(PublishMetric::StreamLastSequence), ack.stream_sequence));
        set(PublishMetric::AckLatencyNs, since(message.sent_ns));
        observe(PublishHistogram::AckLatency, since(message.sent_ns));
        observe(PublishHistogram::RingToAck, since(message.read_ns));
        break;
      case AckWindow::Verdict::Failed:
        add(PublishMetric::PublishErrors);
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
  // Before any head: who reads a ring's `published` finds all of it at or below this.
  if (const std::uint64_t last = metric(PublishMetric::StreamLastSequence);
      last > log_end_.sequence.load(std::memory_order_relaxed)) {
    log_end_.sequence.store(last, std::memory_order_release);
  }
  for (const auto& r : rings_) {
    if (r == nullptr) continue;
    if (const RingPosition to = r->releasable(); to > r->head) {
      r->source->release(to);
      r->head = r->source->head();  // the floor must not go by what was not released
      r->source->set_published(r->head);
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
    if (r == nullptr || !r->known) continue;
    r->source->set_floor(floor_, created_ns_);
    r->source->set_log_mark(floor_, identity_);
  }
}

// ---- sessions
// -------------------------------------------------------------------------------------------------------

std::size_t Drain::run_spill() {
  if (phase_ == Phase::Publishing && window_.pending() == 0) progress_ns_ = now_ns_;
  if (phase_ == Phase::Stopped) return 0;
  const bool stuck = phase_ != Phase::Publishing && (now_ns_ - progress_ns_ >= options_.spill_after_ns ||
                                                     events_stuck(options_.spill_after_ns));
  std::size_t work = 0;
  for (const auto& r : rings_) {
    if (r != nullptr && !r->corrupt) work += r->source->spill(stuck);
  }
  return work;
}

bool Drain::events_stuck(std::uint64_t for_ns) const {
  return events_since_ns_ != 0 && now_ns_ - events_since_ns_ >= for_ns;
}

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
  // An event that cannot be stored holds its ring's head though everything else goes on.
  const bool no_progress = (window_.pending() > 0 && now_ns_ - progress_ns_ >= options_.spill_after_ns) ||
                           (!events_.empty() && events_stuck(options_.spill_after_ns));
  if (no_progress && std::any_of(rings_.begin(), rings_.end(),
                                 [](const auto& r) { return r != nullptr && r->source->wants_spill(); })) {
    // Its acks may still come, but the ring must be emptied now.
    give_up(ErrorCode::PublishStalled, false, "no ack while a ring fills up");
    return;
  }
  if (!events_.empty() && events_stuck(options_.ack_timeout_ns) &&
      now_ns_ - session_began_ns_ >= options_.ack_timeout_ns) {
    // The streams are looked at again: that of the events may have been deleted.
    give_up(ErrorCode::StreamUnusable, false, "an event cannot be stored");
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
    log_->warn("publishing stopped ({}): {}; {} messages without ack, the rings keep everything", number(why),
               text, window_.pending());
  }
}

void Drain::begin_session() {
  groups_.close_all();
  turn_.clear();
  full_.clear();
  events_.clear();
  event_token_ = 0;
  epoch_.reset();
  expanded_ring_.reset();
  set(PublishMetric::QueuedUpdates, 0);
  SessionRequest request;
  request.reconnect = reconnect_;
  for (const auto& r : rings_) {
    if (r == nullptr) continue;
    r->restart();
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
  add(PublishMetric::Recoveries);
  const bool epoch = !epoch_reason(tail).empty();
  const std::uint64_t identity = log_identity(tail);
  if (identity != identity_) log_end_.identity.store(0, std::memory_order_release);
  identity_ = identity;
  created_ns_ = tail.created_ns;
  floor_ = tail.last_sequence;
  ++session_number_;
  replicated_ = session.replicated;
  window_.reset(tail.last_sequence, replicated_);
  previous_id_[0] = '\0';
  stored_in_session_ = 0;
  session_began_ns_ = now_ns_;
  max_payload_bytes_ = session.max_message_bytes - std::min(session.max_message_bytes, kHeaderReserveBytes);
  for (const auto& r : rings_) {
    if (r == nullptr) continue;
    // Before its floor is about the new log: a life that dies in between asks once more.
    if (epoch && r->source->floor_stream_sequence() != shm::kNoFloor &&
        r->source->log_identity() != identity_)
      r->source->request_dump();
    adopt_ring(*r, tail);
  }
  if (tail.missing > 0 && log_ != nullptr) {
    log_->warn(
        "{} messages above the rings' floor are not in the stream any more; what was in them may be "
        "published again",
        tail.missing);
  }
  // After one that stored nothing the trouble stands, and was said.
  if (log_ != nullptr && fruitless_sessions_ == 0) {
    log_->info("publishing after stream sequence {} ({} messages of the tail read)", tail.last_sequence,
               tail.messages_read);
  }
  set(PublishMetric::StreamLastSequence, tail.last_sequence);
  // A new leader may tell an end below what was acked.
  const bool anew = log_end_.identity.load(std::memory_order_relaxed) != identity_;
  log_end_.sequence.store(
      anew ? tail.last_sequence
           : std::max(tail.last_sequence, log_end_.sequence.load(std::memory_order_relaxed)),
      std::memory_order_release);
  log_end_.identity.store(identity_, std::memory_order_release);
  if (!replicated_ || (unanswered_ && unanswered_->expected_last_sequence != tail.last_sequence))
    unanswered_.reset();
  again_ = unanswered_.has_value() && rings_[unanswered_->ring] != nullptr;
  phase_ = Phase::Publishing;
  release_due_ = true;
}

std::size_t Drain::run_opening() {
  if (!session_requested_) {
    begin_session();
    return 1;
  }
  if (!epoch_) {
    auto session = broker_.poll_session();
    if (!session) return 0;
    if (session_wanted_) {
      // A ring came meanwhile; the tail may have been read from too high a floor for it.
      begin_session();
    } else if (std::string why = epoch_reason(session->tail); !why.empty()) {
      tell_epoch(session->tail, std::move(why));
      epoch_ = std::move(session);
    } else {
      adopt(*session);
    }
    return 1;
  }
  // Floors are about the new epoch only when everybody can know of it: a crash before finds it once more.
  if (session_wanted_ || !broker_.session_alive()) {
    begin_session();
    return 1;
  }
  if (!broker_.poll_event()) return 0;
  add(PublishMetric::EventsPublished);
  add(PublishMetric::StreamEpochs);
  adopt(*std::exchange(epoch_, std::nullopt));
  return 1;
}

std::string Drain::epoch_reason(const Tail& tail) const {
  for (const auto& r : rings_) {
    if (r == nullptr) continue;
    const std::uint64_t floor = r->source->floor_stream_sequence();
    // No floor, or one that was lost with its file: says nothing about the stream.
    if (floor == shm::kNoFloor || r->source->floor_stream_created_ns() == 0) continue;
    if (r->source->floor_stream_created_ns() != tail.created_ns) return "was created anew";
    if (floor > tail.last_sequence)
      return fmt::format("has gone back from sequence {} to {}", floor, tail.last_sequence);
  }
  return {};
}

std::uint64_t Drain::log_identity(const Tail& tail) const {
  std::uint64_t identity = tail.created_ns;
  bool gone_back = false;
  for (const auto& r : rings_) {
    if (r == nullptr) continue;
    const std::uint64_t told = r->source->log_identity();
    if (told > tail.created_ns && told - tail.created_ns < kIdentities) identity = std::max(identity, told);
    const std::uint64_t floor = r->source->floor_stream_sequence();
    gone_back = gone_back || (floor != shm::kNoFloor && floor > tail.last_sequence &&
                              r->source->floor_stream_created_ns() == tail.created_ns);
  }
  return gone_back && identity - tail.created_ns + 1 < kIdentities ? identity + 1 : identity;
}

// What was acked before went with the old stream; what is still in the rings goes into this one.
void Drain::tell_epoch(const Tail& tail, std::string why) {
  if (log_ != nullptr) {
    log_->error("{} ({}): the stream {}: it lacks updates that were acked; consumers need a full table dump",
                arancini::to_string(ErrorCode::StreamReplaced), number(ErrorCode::StreamReplaced), why);
  }
  schema::EventFields e;
  // Named by what it is about, so that a life that finds it again says the same: the stream's creation, and,
  // if that is as it was, its end.
  const bool anew = std::any_of(rings_.begin(), rings_.end(), [&](const auto& r) {
    return r != nullptr && r->source->floor_stream_sequence() != shm::kNoFloor &&
           r->source->floor_stream_created_ns() != tail.created_ns;
  });
  const std::uint64_t end = anew ? 0 : tail.last_sequence;
  for (std::size_t i = 0; i < 8; ++i) {
    e.writer.bytes[i] = static_cast<std::uint8_t>(tail.created_ns >> (8 * i));
    e.writer.bytes[8 + i] = static_cast<std::uint8_t>(end >> (8 * i));
  }
  e.sequence = 1;
  e.time_ns = options_.realtime_ns != nullptr ? options_.realtime_ns() : 0;
  e.kind = schema::EventKind::StreamEpoch;
  e.scope = schema::EventScope::Collector;
  e.error_code = number(ErrorCode::StreamReplaced);
  e.text = "the stream " + std::move(why) + "; what was acked before is not in it";
  e.counters = {{"stream_created_ns", tail.created_ns}, {"stream_last_sequence", tail.last_sequence}};
  OutgoingEvent out;
  out.subject = subjects_.event_subject(nullptr, 0, schema::to_string(e.kind));
  out.writer = e.writer;
  out.sequence = e.sequence;
  out.after_stream_sequence = tail.last_sequence;
  out.payload = schema::build_event(e);
  static_cast<void>(broker_.send_event(out));  // the first of its session: there is room
}

void Drain::adopt_ring(Ring& r, const Tail& tail) {
  const std::uint64_t floor = r.source->floor_stream_sequence();
  if (floor != shm::kNoFloor && r.source->floor_stream_created_ns() != tail.created_ns) {
    r.source->set_floor(0, tail.created_ns);
  } else if (floor == shm::kNoFloor || floor > tail.last_sequence) {
    r.source->set_floor(tail.last_sequence, tail.created_ns);
  }
  if (r.source->log_identity() != identity_) r.source->set_log_mark(0, identity_);
  r.source->set_published(r.source->head());
  r.source->set_log_mark(r.source->floor_stream_sequence(), identity_);
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

// What was read before `at` is still published; the head stays there.
void Drain::mark_corrupt(Ring& r, std::string_view why, RingPosition at) {
  r.scanned = std::min(r.scanned, at);
  if (std::exchange(r.corrupt, true)) return;
  if (log_ != nullptr) {
    log_->error("{} ({}): {}: {} invalid at position {}; this ring is given up, the others go on",
                arancini::to_string(ErrorCode::RingCorrupt), number(ErrorCode::RingCorrupt), r.name, why,
                raw(at));
  }
  add(PublishMetric::RingsCorrupt);
}

void Drain::run_detach() {
  for (auto& r : rings_) {
    if (r == nullptr || !r->known || phase_ != Phase::Publishing) continue;
    if (!r->settled() || groups_.oldest(r->slot) != nullptr) continue;
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
