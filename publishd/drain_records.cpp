#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "common/base/log.h"
#include "common/schema/event_decode.h"
#include "publishd/drain.h"
#include "publishd/drain_ring.h"
#include "shm-layout/record.h"

// Records from the rings into lanes, from lanes into groups, from groups into messages.
//
// While the window has room, a record goes straight through. Once it is full, the rings are read ahead
// (headers alone; the payloads stay where they are), so that each router's records wait in its own lane, and
// lanes are served in turn.
namespace arancini::publishd {

namespace {

constexpr std::uint32_t kMostRows = 1U << 20;
constexpr std::size_t kMostEvents = 1024;  // waiting
constexpr HoldId kStored{~std::uint64_t{0}};

shm::RecordKind kind_of(const RingRecord& record) {
  return static_cast<shm::RecordKind>(record.header.kind);
}

}  // namespace

// ---- rings into lanes
// -----------------------------------------------------------------------------------------------

std::size_t Drain::run_records() {
  dry_ = true;
  std::size_t work = send_full();
  blocked_ = !full_.empty();
  if (!blocked_ && !again_) work += serve_lanes();
  for (std::size_t k = 0; k < rings_.size() && phase_ == Phase::Publishing; ++k) {
    Ring* r = rings_[(first_ring_ + k) % rings_.size()].get();
    if (r == nullptr || r->corrupt || !r->known) continue;
    if (has_turn(*r)) work += read_ring(*r);
    if (!r->empty || r->has_record) dry_ = false;
  }
  if (!rings_.empty()) first_ring_ = (first_ring_ + 1) % rings_.size();
  if (turn_.front() != nullptr || !full_.empty()) dry_ = false;
  // Records that needed no message (stored before, barriers) free their room, too.
  if (work > 0) release_due_ = true;
  return work;
}

// What another life of the collector left is older than everything that comes now: all of it is sent before.
bool Drain::has_turn(const Ring& ring) const {
  for (const auto& r : rings_) {
    if (r == nullptr || !r->first || r.get() == &ring || r->corrupt) continue;
    if (ring.first && r->slot > ring.slot) continue;
    if (!r->known || r->scanned < r->source->tail() || !r->settled()) return false;
  }
  return true;
}

std::size_t Drain::read_ring(Ring& r) {
  std::size_t work = 0;
  const RingPosition from = r.scanned;
  const auto limit = [&] { return blocked_ ? options_.ahead_bytes : options_.round_bytes; };
  while (phase_ == Phase::Publishing && raw(r.scanned) - raw(from) < limit()) {
    if (!r.has_record && !read_record(r)) break;
    const Step step = place(r);
    if (step == Step::Blocked) break;
    r.has_record = false;
    if (step == Step::Failed) break;
    ++work;
  }
  return work;
}

bool Drain::read_record(Ring& r) {
  switch (r.source->next(r.record)) {
    case RingReader::Status::Empty:
      r.empty = true;
      r.scanned = std::max(r.scanned, r.source->cursor());  // padding alone
      return false;
    case RingReader::Status::Corrupt: mark_corrupt(r, "record header", r.scanned); return false;
    case RingReader::Status::Record: break;
  }
  r.empty = false;
  const shm::RecordHeader& h = r.record.header;
  const shm::RecordKind kind = kind_of(r.record);
  const bool known = kind == shm::RecordKind::UpdateBatch || kind == shm::RecordKind::Event
                         ? h.format == shm::kRecordFormat
                         : kind == shm::RecordKind::Barrier;
  if (!known) {
    mark_corrupt(r, "record kind", r.record.begin);
    return false;
  }
  r.scanned = r.record.end;
  add(PublishMetric::RecordsRead);
  if (kind == shm::RecordKind::UpdateBatch) add(PublishMetric::UpdatesRead, h.count);
  note_base(r, r.record);
  r.has_record = true;
  return true;
}

// Where the records end that the stream held when the session began.
void Drain::note_base(Ring& r, const RingRecord& record) {
  if (!r.base_pending || r.base_end) return;
  const std::uint64_t first = record.header.first_sequence;
  if (first > raw(r.stored_max)) {
    r.base_end = record.begin;
  } else if (first + record.header.count > raw(r.stored_max)) {
    r.base_end = record.end;
  }
}

// The record at hand goes to its router's lane, or straight through it. Blocked: it stays.
Drain::Step Drain::place(Ring& r) {
  Lane* l = nullptr;
  if (kind_of(r.record) == shm::RecordKind::Barrier) {
    const std::uint32_t row = r.record.header.router_id;
    const std::uint32_t at =
        row < kMostRows ? (row < r.lane_of_row.size() ? r.lane_of_row[row] : 0) : Ring::kSeveral;
    if (at == 0) return Step::Done;  // nothing of that router was read
    if (at == Ring::kSeveral) return pass_barrier_for_all(r);
    l = &lane(r, at - 1);
  } else {
    l = kind_of(r.record) == shm::RecordKind::Event ? lane_of_event(r, r.record) : lane_of(r, r.record);
    if (l == nullptr) return Step::Failed;
  }
  const bool stable = r.source->stable();
  if (l->queue.empty() && (!blocked_ || !stable) && !(stable && waits_for_again(*l))) {
    const Step step = take(r, *l, r.record);
    if (step != Step::Blocked) return step;
    blocked_ = true;
    again_ = again_ && window_.pending() > 0;  // it cannot be made again as it was
    if (!stable || phase_ != Phase::Publishing) return step;
  }
  l->queue.push(r.record);
  add(PublishMetric::QueuedUpdates, r.record.header.count);
  r.list(*l);
  turn_.add(*l);
  return Step::Done;
}

// All routers, or one that cannot be told from others: everything that was read goes first.
Drain::Step Drain::pass_barrier_for_all(Ring& r) {
  for (const Lane* l : r.listed) {
    if (!l->queue.empty()) return Step::Blocked;
  }
  while (Group* g = groups_.oldest(r.slot)) {
    if (!send(*g)) {
      blocked_ = true;
      return Step::Blocked;
    }
  }
  return Step::Done;
}

// By the subject, never by the writer's row: rows are given to other routers, and the records of a subject
// must not be spread over lanes. Null: the record is corrupt.
Lane* Drain::lane_of(Ring& r, const RingRecord& record) {
  const shm::RecordHeader& h = record.header;
  auto subject = subjects_.find(h.subject_key);
  if (!subject) {
    expanded_ring_.reset();
    if (!expander_.open(h, record.payload)) {
      mark_corrupt(r, "update batch", record.begin);
      return nullptr;
    }
    subject = subjects_.find_or_add(h.subject_key, expander_.router_address(), expander_.peer_asn(),
                                    expander_.family());
  }
  const std::uint32_t index = subjects_.router_index(*subject);
  if (h.router_id < kMostRows) {
    if (h.router_id >= r.lane_of_row.size()) r.lane_of_row.resize(h.router_id + 1);
    std::uint32_t& row = r.lane_of_row[h.router_id];
    row = row == 0 || row == index + 1 ? index + 1 : Ring::kSeveral;
  }
  return &lane(r, index);
}

Lane& Drain::lane(Ring& r, std::uint32_t index) {
  if (index >= r.lanes.size()) r.lanes.resize(index + 1);
  auto& slot = r.lanes[index];
  if (slot == nullptr) {
    slot = std::make_unique<Lane>();
    slot->ring = r.slot;
    slot->index = index;
  }
  return *slot;
}

Lane* Drain::lane_of_event(Ring& r, const RingRecord& record) {
  const auto view = schema::event_view(record.payload);
  if (!view) {
    mark_corrupt(r, "event", record.begin);
    return nullptr;
  }
  return &lane(r,
               view->has_router ? subjects_.router_index(view->router) : subjects_.router_index(IpAddress{}));
}

// One message's worth from each lane in turn, until the window is full or nothing waits.
std::size_t Drain::serve_lanes() {
  std::size_t work = 0;
  while (Lane* l = turn_.front()) {
    Ring& r = *rings_[l->ring];
    std::size_t bytes = 0;
    const std::uint64_t next_message = window_.next_index();
    while (!l->queue.empty() && bytes < batch_limit() && window_.next_index() == next_message) {
      const RingRecord& record = l->queue.front();
      const Step step = take(r, *l, record);
      if (step == Step::Blocked) {
        blocked_ = true;
        return work;
      }
      if (step == Step::Failed) {
        // The rest of this lane is behind what is corrupt; the others' records are whole.
        while (!l->queue.empty()) pop_queued(*l);
        break;
      }
      bytes += record.payload.size();
      pop_queued(*l);
      ++work;
    }
    turn_.remove_front();
    if (!l->queue.empty()) turn_.add(*l);
  }
  return work;
}

void Drain::pop_queued(Lane& l) {
  subtract(PublishMetric::QueuedUpdates, l.queue.front().header.count);
  l.queue.pop();
}

// ---- lanes into groups
// ----------------------------------------------------------------------------------------------

Drain::Step Drain::take(Ring& r, Lane& l, const RingRecord& record) {
  if (kind_of(record) == shm::RecordKind::Barrier) return take_barrier(l);
  if (kind_of(record) == shm::RecordKind::Event) return take_event(r, l, record);
  if (!begin_record(r, l, record)) return r.corrupt ? Step::Failed : Step::Blocked;
  Step step = Step::Done;
  if (l.taken < expander_.count()) {
    // What may be larger than a message is published update by update. A Batch is no larger than its record.
    const bool batch =
        options_.format == PublishFormat::BatchV2 && record.payload.size() <= max_payload_bytes_;
    step = batch ? take_batch(r, l, record) : take_expanded(r, l, record);
  }
  if (step == Step::Done) {
    l.taken = 0;
    l.begun = false;
  }
  return step;
}

// Opens the record, and skips what the stream holds of it. False: corrupt, or in the wrong lane (the session
// ends).
bool Drain::begin_record(Ring& r, Lane& l, const RingRecord& record) {
  const shm::RecordHeader& h = record.header;
  if (expanded_ring_ != r.slot || expanded_begin_ != record.begin || !r.source->stable()) {
    expanded_ring_.reset();
    if (!expander_.open(h, record.payload)) {
      mark_corrupt(r, "update batch", record.begin);
      return false;
    }
    subject_ = subjects_.find_or_add(h.subject_key, expander_.router_address(), expander_.peer_asn(),
                                     expander_.family());
    if (subjects_.router_index(subject_) != l.index) {
      // Two routers with one key: read again, now that it is known, the key alone is not trusted any more.
      give_up(ErrorCode::None, false, "a subject's key is not its own");
      return false;
    }
    expanded_ring_ = r.slot;
    expanded_begin_ = record.begin;
  }
  if (l.begun) return true;
  l.begun = true;
  if (!r.base_pending) return true;
  const std::uint64_t first = h.first_sequence;
  if (const auto it = r.stored.find(subjects_.name(subject_));
      it != r.stored.end() && raw(it->second) >= first) {
    l.taken =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(raw(it->second) - first + 1, expander_.count()));
    add(PublishMetric::UpdatesAlreadyStored, l.taken);
  }
  return true;
}

// What is open of the router goes first: messages are stored in the order of their sending, after a failure
// as well. The records behind the barrier are not looked at before. Blocked: called again when there is room.
Drain::Step Drain::take_barrier(const Lane& l) {
  for (Group* g = groups_.oldest(l.ring); g != nullptr;) {
    Group* next = g->next;
    if (g->lane == l.index && !send(*g)) return Step::Blocked;
    g = next;
  }
  return Step::Done;
}

// Goes to the events stream once everything of its router that was written before is acked; what follows does
// not wait.
Drain::Step Drain::take_event(Ring& r, Lane& l, const RingRecord& record) {
  if (events_.size() >= kMostEvents || take_barrier(l) == Step::Blocked) return Step::Blocked;
  const auto view = schema::event_view(record.payload);
  if (!view || view->writer != r.source->writer_id()) {
    mark_corrupt(r, "event", record.begin);
    return Step::Failed;
  }
  WaitingEvent w;
  w.ring = r.slot;
  w.lane = l.index;
  w.hold = l.holds.add(record.begin);
  w.event.subject =
      subjects_.event_subject(view->has_router ? &view->router : nullptr, view->peer_asn, view->token());
  w.event.writer = view->writer;
  w.event.sequence = view->sequence;
  w.event.shard = r.source->shard();
  w.event.payload.assign(record.payload.begin(), record.payload.end());
  events_.push_back(std::move(w));
  r.list(l);
  return Step::Done;
}

std::size_t Drain::run_events() {
  std::size_t work = 0;
  while (const auto token = broker_.poll_event()) {
    if (*token < event_token_ || *token - event_token_ >= events_.size()) continue;
    WaitingEvent& w = events_[*token - event_token_];
    if (!w.sent || w.hold == kStored) continue;
    rings_[w.ring]->lanes[w.lane]->holds.done(std::exchange(w.hold, kStored));
    add(PublishMetric::EventsPublished);
    trouble_ = ErrorCode::None;
    events_since_ns_ = 0;
    release_due_ = true;
    ++work;
  }
  while (!events_.empty() && events_.front().hold == kStored) {
    events_.pop_front();
    ++event_token_;
  }
  if (phase_ != Phase::Publishing) return work;
  for (std::size_t i = 0; i < events_.size(); ++i) {
    WaitingEvent& w = events_[i];
    if (w.sent || !rings_[w.ring]->lanes[w.lane]->holds.is_front(w.hold)) continue;
    w.event.token = event_token_ + i;
    w.event.after_stream_sequence = metric(PublishMetric::StreamLastSequence);
    if (!broker_.send_event(w.event)) break;
    w.event.payload = {};
    w.sent = true;
    if (events_since_ns_ == 0) events_since_ns_ = now_ns_;
    ++work;
  }
  return work;
}

std::size_t Drain::batch_limit() const {
  const std::size_t wanted =
      replicated_ ? std::max(options_.batch_bytes, options_.replicated_batch_bytes) : options_.batch_bytes;
  return std::min(wanted, max_payload_bytes_);
}

std::uint32_t Drain::count_limit(PublishFormat format) const {
  if (format == PublishFormat::UpdateV1) return 1;
  // Where messages are larger, by as much more.
  const std::size_t larger = std::max<std::size_t>(batch_limit() / std::max(options_.batch_bytes, 1U), 1);
  return static_cast<std::uint32_t>(
      std::min<std::size_t>(options_.batch_count * larger, std::numeric_limits<std::uint32_t>::max()));
}

// The open group of the record's subject if it has room for that much more, else a new one; null: the window
// is full.
Group* Drain::room_in_group(Ring& r, Lane& l, const RingRecord& record, PublishFormat format,
                            std::size_t bytes, std::uint32_t updates) {
  const std::uint32_t max_count = count_limit(format);
  Group* g = groups_.find(r.slot, subject_);
  if (g != nullptr && (g->format != format || g->bytes + bytes > batch_limit() ||
                       std::size_t{g->count} + updates > max_count)) {
    if (!send(*g)) return nullptr;
    g = nullptr;
  }
  if (g == nullptr) {
    g = &groups_.open(r.slot, subject_);
    g->format = format;
    g->lane = l.index;
    g->first = expander_.first_sequence() + l.taken;
    g->hold = l.holds.add(record.begin);
    g->opened_ns = now_ns_;
    r.list(l);
  }
  return g;
}

Drain::Step Drain::take_batch(Ring& r, Lane& l, const RingRecord& record) {
  const std::uint32_t count = expander_.count() - l.taken;
  const Group* open = groups_.find(r.slot, subject_);
  const bool source_known = open != nullptr && open->format == PublishFormat::BatchV2 &&
                            batch_writer_.same_source(expander_, open->payload().subspan(open->source_at));
  std::span<const std::byte> batch = batch_writer_.write(expander_, l.taken, count, !source_known);
  Group* g = room_in_group(r, l, record, PublishFormat::BatchV2, batch.size(), count);
  if (g == nullptr) return Step::Blocked;
  const bool with_source = !source_known || g->count == 0;
  if (with_source && source_known) batch = batch_writer_.write(expander_, l.taken, count, true);
  if (with_source) g->source_at = g->bytes;
  std::copy(batch.begin(), batch.end(), groups_.extend(*g, batch.size()));
  g->count += count;
  g->last = expander_.first_sequence() + (expander_.count() - 1);
  g->end = record.end;
  l.taken = expander_.count();
  send_if_full(*g);
  return Step::Done;
}

Drain::Step Drain::take_expanded(Ring& r, Lane& l, const RingRecord& record) {
  const PublishFormat format =
      options_.format == PublishFormat::BatchV2 ? PublishFormat::UpdateV1Concat : options_.format;
  const std::uint32_t max_count = count_limit(format);
  const std::size_t each = expander_.update_bytes();
  const std::uint32_t total = expander_.count();
  if (each > max_payload_bytes_) {
    // Cannot ever be sent to this broker. Said, counted and skipped: waiting would stop every other route as
    // well.
    add(PublishMetric::PublishErrors, total - l.taken);
    if (log_ != nullptr && !r.too_large_told) {
      log_->error(
          "RecordTooLarge ({}): {}: an update of {} bytes for {} is above the server's max_payload, {} "
          "updates from "
          "sequence {} are not published; raise max_payload of nats-server",
          number(ErrorCode::RecordTooLarge), r.name, each, subjects_.name(subject_), total - l.taken,
          raw(expander_.first_sequence()) + l.taken);
    }
    r.too_large_told = true;
    l.taken = total;
    return Step::Done;
  }
  while (l.taken < total) {
    Group* g = room_in_group(r, l, record, format, each, 1);
    if (g == nullptr) return Step::Blocked;
    const std::size_t by_bytes = batch_limit() > g->bytes ? (batch_limit() - g->bytes) / each : 0;
    std::size_t most = std::min({std::size_t{total - l.taken}, std::size_t{max_count - g->count}, by_bytes});
    if (is_again(*g)) {
      const std::uint64_t next = raw(expander_.first_sequence()) + l.taken;
      if (raw(unanswered_->last) >= next)
        most = std::min<std::size_t>(most, raw(unanswered_->last) - next + 1);
    }
    const auto n = static_cast<std::uint32_t>(std::max<std::size_t>(1, most));
    std::byte* out = groups_.extend(*g, n * each);
    for (std::uint32_t i = 0; i < n; ++i) expander_.write_update(l.taken + i, out + i * each);
    l.taken += n;
    g->count += n;
    g->last = expander_.first_sequence() + (l.taken - 1);
    g->end = record.end;
    send_if_full(*g);
  }
  return Step::Done;
}

// ---- groups into messages
// -------------------------------------------------------------------------------------------

// The message whose fate is not known, being made again.
bool Drain::is_again(const Group& g) const {
  return again_ && g.ring == unanswered_->ring && g.subject == unanswered_->subject &&
         g.first == unanswered_->first;
}

bool Drain::waits_for_again(const Lane& l) const {
  return again_ && (l.ring != unanswered_->ring || l.index != unanswered_->lane);
}

bool Drain::is_full(const Group& g) const {
  if (is_again(g)) return g.last >= unanswered_->last;
  return g.bytes >= batch_limit() || g.count >= count_limit(g.format);
}

// At once, or before anything is taken from a lane again.
void Drain::send_if_full(Group& g) {
  if (is_full(g) && !send(g)) full_.push_back({g.ring, g.subject, g.first});
}

std::size_t Drain::send_full() {
  std::size_t sent = 0;
  for (; !full_.empty(); full_.pop_front()) {
    const FullGroup& f = full_.front();
    Group* g = groups_.find(f.ring, f.subject);
    if (g == nullptr || g->first != f.first) continue;  // sent since then
    if (!send(*g)) break;
    ++sent;
  }
  return sent;
}

std::size_t Drain::run_flush(bool aged_only) {
  std::size_t sent = 0;
  for (const auto& r : rings_) {
    if (r == nullptr) continue;
    while (Group* g = groups_.oldest(r->slot)) {
      const bool eager = dry_ && window_.pending() <= options_.eager_messages;
      const std::uint64_t age = now_ns_ - g->opened_ns;
      const bool aged = age >= (dry_ ? options_.linger_dry_ns : options_.linger_busy_ns);
      const bool due =
          aged ||
          (!aged_only && (stopping_ || eager || r->corrupt || groups_.open_bytes() > options_.open_bytes));
      if (!due || !send(*g)) break;
      ++sent;
    }
    if (phase_ != Phase::Publishing) break;
  }
  return sent;
}

bool Drain::send(Group& g) {
  if (phase_ != Phase::Publishing || !window_.has_room(g.bytes)) return false;
  if (again_ && !(is_again(g) && g.last == unanswered_->last)) return false;
  Ring& r = *rings_[g.ring];
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
  // The record set, and the session: what a former one still has under way must not look like a link of this
  // chain.
  const auto end = fmt::format_to_n(message_id_.data(), message_id_.size() - 1, "{}-{:016x}-{}-{}-{:016x}.{}",
                                    r.writer_hex, subjects_.hash(g.subject), raw(g.first), raw(g.last),
                                    options_.id_nonce, session_number_);
  *end.out = '\0';
  o.message_id = message_id_.data();
  o.previous_message_id = replicated_ ? "" : previous_id_.data();
  o.payload = g.payload();
  if (!broker_.send(o)) {
    add(PublishMetric::PublishErrors);
    give_up(ErrorCode::NatsUnreachable, false, "connection lost");
    return false;
  }
  again_ = false;
  if (replicated_) unanswered_ = {g.ring, g.subject, g.lane, g.first, g.last, window_.expected_last()};
  if (window_.pending() == 0) progress_ns_ = now_ns_;
  window_.push(
      {g.ring, g.lane, g.hold, g.end, static_cast<std::uint32_t>(g.bytes), g.count, now_ns_, g.opened_ns});
  previous_id_ = message_id_;
  add(PublishMetric::MessagesSent);
  add(PublishMetric::BytesSent, g.bytes);
  set(PublishMetric::BatchUpdates, g.count);
  if (raw(g.subject) >= r.sent.size()) r.sent.resize(subjects_.size());
  std::uint64_t& sent = r.sent[raw(g.subject)];
  if (raw(g.first) <= sent) add(PublishMetric::UpdatesResent, g.count);
  sent = std::max(sent, raw(g.last));
  groups_.close(g);
  return true;
}

}  // namespace arancini::publishd
