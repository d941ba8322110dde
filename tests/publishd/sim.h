#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/schema/batch_encoder.h"
#include "common/schema/event_build.h"
#include "common/schema/update_decode.h"
#include "publishd/broker.h"
#include "publishd/drain.h"
#include "publishd/event_sender.h"
#include "publishd/record_source.h"
#include "publishd/spill_source.h"

// A deterministic world for the drain: rings that outlive it, a broker with a network that loses, delays and
// interleaves, and crashes at any step. The rules of the stream are those of nats-server 2.9 (stream.go,
// processJetStreamMsg): duplicate id, then expected last sequence, then expected last id.
namespace arancini::publishd::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed * 2654435761U + 1) {
    for (int i = 0; i < 4; ++i) engine_();
  }
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>((engine_() >> 5U) % n); }
  bool chance(std::uint32_t percent) { return below(100) < percent; }

 private:
  std::minstd_rand engine_;
};

// ---- rings
// ----------------------------------------------------------------------------------------------------------

// What survives in shared memory.
struct RingMemory {
  struct Record {
    std::vector<std::byte> bytes;  // header and payload
    std::uint64_t begin = 0, end = 0;
    std::uint64_t first = 0;  // sequence
  };
  static constexpr std::uint32_t kForAll = ~std::uint32_t{0};  // as a barrier's subject
  WriterId writer;
  std::uint32_t shard = 0;
  std::uint32_t generation = 0;                 // of the rings of that shard
  bool gone = false;                            // with the power; what is on the disk is left
  std::uint64_t lost_from = ~std::uint64_t{0};  // sequence: neither on the disk nor, perhaps, in the stream
  std::vector<Record> records;
  std::uint64_t head = 0, tail = 0;
  std::uint64_t floor = shm::kNoFloor, floor_created = 0;
  std::uint64_t published = 0, log_sequence = 0, log_identity = 0, dumps = 0;
  std::uint64_t next_sequence = 1;
  std::vector<std::string> subject_of{""};  // by sequence
  // By sequence: the router, and how many barriers for it stand before.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> epoch_of{{0, 0}};
  std::array<std::uint32_t, 2> barriers{};

  // A batch of `count` updates, or a barrier for the subject's router when count is 0.
  void write(std::uint32_t subject, std::uint32_t count) {
    Record r;
    shm::RecordHeader h{};
    const IpAddress router = IpAddress::from_v4(0x0a000001U + (shard << 8U) + subject % 2);
    if (count == 0) {
      h.size_bytes = sizeof h;
      h.kind = static_cast<std::uint8_t>(shm::RecordKind::Barrier);
      h.format = shm::kRecordFormat;
      h.first_sequence = next_sequence;
      h.router_id = subject == kForAll ? shm::kAllRouters : subject % 2;
      for (std::uint32_t i = 0; i < barriers.size(); ++i) {
        if (subject == kForAll || i == subject % 2) ++barriers[i];
      }
      r.bytes.resize(sizeof h);
    } else {
      schema::BatchMeta meta;
      meta.router_address = router;
      meta.peer_asn = 65000 + subject;
      meta.writer = writer;
      meta.router_id = subject % 2;
      r.bytes.resize(schema::max_record_bytes(meta, {}, count));
      schema::BatchEncoder encoder(r.bytes, meta, {}, Sequence{next_sequence}, count);
      for (std::uint32_t i = 0; i < count; ++i) {
        encoder.add(Prefix{0, kV4MappedLow | (next_sequence + i), 0, 32});
        subject_of.push_back("p.updates." + subject_token(router) + "." + std::to_string(meta.peer_asn) +
                             ".1_1");
        epoch_of.emplace_back(meta.router_id, barriers[meta.router_id]);
      }
      h = encoder.finish();
    }
    std::copy_n(reinterpret_cast<const std::byte*>(&h), sizeof h, r.bytes.begin());
    r.first = h.first_sequence;
    r.begin = tail;
    r.end = tail = tail + h.size_bytes;
    next_sequence += count;
    records.push_back(std::move(r));
  }
  // An event about the subject's router.
  struct WrittenEvent {
    std::string subject;
    std::uint64_t updates_before = 0;  // sequence of the last update before it
    std::uint32_t router = 0;
  };
  std::vector<WrittenEvent> events{{}};  // by event sequence
  void write_event(std::uint32_t subject) {
    schema::EventFields e;
    e.writer = writer;
    e.sequence = events.size();
    e.kind = schema::EventKind::Dropped;
    e.scope = schema::EventScope::Router;
    e.has_router = true;
    e.router = IpAddress::from_v4(0x0a000001U + (shard << 8U) + subject % 2);
    const std::vector<std::byte> payload = schema::build_event(e);
    shm::RecordHeader h{};
    h.size_bytes = static_cast<std::uint32_t>(sizeof h + payload.size());
    h.kind = static_cast<std::uint8_t>(shm::RecordKind::Event);
    h.format = shm::kRecordFormat;
    h.first_sequence = next_sequence;
    h.payload_bytes = static_cast<std::uint32_t>(payload.size());
    h.router_id = subject % 2;
    h.event_sequence = e.sequence;
    Record r;
    r.bytes.resize(sizeof h);
    std::copy_n(reinterpret_cast<const std::byte*>(&h), sizeof h, r.bytes.begin());
    r.bytes.insert(r.bytes.end(), payload.begin(), payload.end());
    r.first = next_sequence;
    r.begin = tail;
    r.end = tail = tail + h.size_bytes;
    records.push_back(std::move(r));
    events.push_back({"p.events." + subject_token(e.router) + ".0.dropped", next_sequence - 1, subject % 2});
  }
  // The last record, a barrier, is about a router that is not there.
  void spoil_barrier() {
    constexpr std::uint32_t kNobody = 77;
    std::copy_n(reinterpret_cast<const std::byte*>(&kNobody), sizeof kNobody,
                records.back().bytes.begin() + offsetof(shm::RecordHeader, router_id));
  }
};

// The instant of death: side effects number `left` and later do not happen.
struct Life {
  std::uint64_t left = ~std::uint64_t{0};
  bool effect() {
    if (left == 0) return false;
    --left;
    return true;
  }
  [[nodiscard]] bool dead() const { return left == 0; }
};

class SimSource final : public RecordSource {
 public:
  SimSource(RingMemory& memory, Life& life) : m_(memory), life_(life) { rewind(); }
  RingReader::Status next(RingRecord& out) override {
    if (at_ >= m_.records.size()) return RingReader::Status::Empty;
    const RingMemory::Record& r = m_.records[at_++];
    std::copy_n(r.bytes.begin(), sizeof out.header, reinterpret_cast<std::byte*>(&out.header));
    out.payload = std::span(r.bytes).subspan(sizeof out.header, out.header.payload_bytes);
    out.begin = RingPosition{r.begin};
    out.end = RingPosition{r.end};
    return RingReader::Status::Record;
  }
  [[nodiscard]] RingPosition cursor() const override {
    return RingPosition{at_ == 0 ? 0 : m_.records[at_ - 1].end};
  }
  [[nodiscard]] RingPosition head() const override { return RingPosition{m_.head}; }
  [[nodiscard]] RingPosition tail() const override { return RingPosition{m_.tail}; }
  void release(RingPosition p) override {
    if (!life_.effect()) return;
    m_.head = raw(p);
    for (RingMemory::Record& r : m_.records) {
      if (r.end <= m_.head) std::fill(r.bytes.begin(), r.bytes.end(), std::byte{0xee});  // the writer's now
    }
  }
  void rewind() override {
    at_ = 0;
    while (at_ < m_.records.size() && m_.records[at_].end <= m_.head) ++at_;
  }
  void set_floor(std::uint64_t sequence, std::uint64_t created) override {
    if (!life_.effect()) return;
    m_.floor = sequence;
    m_.floor_created = created;
  }
  [[nodiscard]] std::uint64_t floor_stream_sequence() const override { return m_.floor; }
  [[nodiscard]] std::uint64_t floor_stream_created_ns() const override { return m_.floor_created; }
  void set_published(RingPosition p) override {
    if (life_.effect()) m_.published = raw(p);
  }
  void set_log_mark(std::uint64_t sequence, std::uint64_t identity) override {
    if (m_.log_identity != identity) {
      if (!life_.effect()) return;
      m_.log_sequence = 0;
      if (!life_.effect()) return;
      m_.log_identity = identity;
    }
    if (life_.effect()) m_.log_sequence = sequence;
  }
  [[nodiscard]] std::uint64_t log_identity() const override { return m_.log_identity; }
  void request_dump() override {
    if (life_.effect()) ++m_.dumps;
  }
  [[nodiscard]] const WriterId& writer_id() const override { return m_.writer; }
  [[nodiscard]] ShardId shard() const override { return ShardId{m_.shard}; }
  [[nodiscard]] std::uint64_t capacity_bytes() const override { return capacity; }
  void heartbeat(std::uint64_t) override {}
  [[nodiscard]] bool abandoned() const override { return false; }

  static constexpr std::uint64_t capacity = 16 * 1024;  // small: rings of a few dozen records fill up

 private:
  RingMemory& m_;
  Life& life_;
  std::size_t at_ = 0;
};

// ---- journal
// --------------------------------------------------------------------------------------------------------

// What is on the disk of one ring.
struct DiskMemory {
  struct Record {
    std::vector<std::byte> bytes;
    std::uint64_t begin = 0, end = 0;
  };
  std::uint64_t begin = 0, floor = shm::kNoFloor, floor_created = 0;  // the checkpoint
  std::uint64_t end = 0;
  std::vector<Record> records;   // durable; below `begin` they may be gone
  std::vector<Record> appended;  // on their way
  bool failing = false;          // no space

  // The power goes, or the process alone: then what was written may be there without an fsync.
  void crash(Random& random, bool power) {
    std::size_t keep = power ? 0 : random.below(static_cast<std::uint32_t>(appended.size()) + 1);
    for (std::size_t i = 0; i < keep; ++i) persist_one();
    appended.clear();
  }
  // The disk's own pace.
  void step(Random& random, Life& life) {
    if (random.chance(5)) failing = random.chance(20);
    for (std::uint32_t n = random.below(4); n > 0 && !appended.empty(); --n) {
      if (!life.effect()) return;
      persist_one();
    }
  }
  void persist_one() {
    end = appended.front().end;
    records.push_back(std::move(appended.front()));
    appended.erase(appended.begin());
  }
};

class SimStore final : public SpillStore {
 public:
  SimStore(DiskMemory& disk, Random& random, Life& life) : d_(disk), random_(random), life_(life) {
    seek(begin());
  }
  [[nodiscard]] RingPosition begin() const override { return RingPosition{d_.begin}; }
  [[nodiscard]] RingPosition end() const override { return RingPosition{d_.end}; }
  [[nodiscard]] RingPosition appended() const override {
    return RingPosition{d_.appended.empty() ? d_.end : d_.appended.back().end};
  }
  void restart(RingPosition at, std::uint64_t floor, std::uint64_t created) override {
    if (!life_.effect()) return;
    if (d_.begin != d_.end || !d_.appended.empty()) std::abort();
    d_.begin = d_.end = raw(at);
    d_.floor = floor;
    d_.floor_created = created;
    d_.records.clear();
    seek(at);
  }
  [[nodiscard]] bool append(const RingRecord& r) override {
    if (life_.dead() || d_.failing || d_.appended.size() > 8) return false;
    if (r.begin < appended()) std::abort();
    DiskMemory::Record out;
    out.bytes.resize(sizeof r.header + r.payload.size());
    std::copy_n(reinterpret_cast<const std::byte*>(&r.header), sizeof r.header, out.bytes.begin());
    std::copy(r.payload.begin(), r.payload.end(), out.bytes.begin() + sizeof r.header);
    out.begin = raw(r.begin);
    out.end = raw(r.end);
    d_.appended.push_back(std::move(out));
    return true;
  }
  void flush() override {}
  void seek(RingPosition at) override {
    if (at < begin() || at > end()) std::abort();
    cursor_ = raw(at);
  }
  RingReader::Status next(RingRecord& out) override {
    if (random_.chance(20)) return RingReader::Status::Empty;  // not read from the disk yet
    for (const DiskMemory::Record& r : d_.records) {
      if (r.begin < cursor_) continue;
      // A copy, so that a payload that is used too long shows.
      buffer_.assign(r.bytes.begin(), r.bytes.end());
      std::copy_n(buffer_.begin(), sizeof out.header, reinterpret_cast<std::byte*>(&out.header));
      out.payload = std::span<const std::byte>(buffer_).subspan(sizeof out.header, out.header.payload_bytes);
      out.begin = RingPosition{r.begin};
      out.end = RingPosition{r.end};
      cursor_ = r.end;
      return RingReader::Status::Record;
    }
    return RingReader::Status::Empty;
  }
  [[nodiscard]] RingPosition cursor() const override { return RingPosition{cursor_}; }
  void set_published(RingPosition at, std::uint64_t floor, std::uint64_t created) override {
    if (raw(at) > d_.end) std::abort();
    if (!life_.effect()) return;
    d_.begin = std::max(d_.begin, raw(at));
    d_.floor = floor;
    d_.floor_created = created;
  }
  [[nodiscard]] std::uint64_t floor_stream_sequence() const override { return d_.floor; }
  [[nodiscard]] std::uint64_t floor_created_ns() const override { return d_.floor_created; }
  [[nodiscard]] ErrorCode trouble() const override {
    return d_.failing ? ErrorCode::JournalFull : ErrorCode::None;
  }

 private:
  DiskMemory& d_;
  Random& random_;
  Life& life_;
  std::uint64_t cursor_ = 0;
  std::vector<std::byte> buffer_;
};

// ---- broker
// ---------------------------------------------------------------------------------------------------------

struct Message {
  std::string subject, id, previous_id;
  PublishFormat format = PublishFormat::UpdateV1;
  WriterId writer;
  std::uint64_t first = 0, last = 0, expected = 0;
  std::vector<std::byte> payload;
};

// The server's side; outlives sessions and publishd.
struct Stream {
  std::uint64_t created = 1000;
  std::uint64_t first = 1;
  std::deque<Message> messages;  // [first, last]
  std::map<std::string, std::uint64_t> ids;
  std::string last_id;
  std::set<std::pair<WriterId, std::uint64_t>> wiped;  // updates that were stored and are not there any more
  bool check_previous_id = true;                       // false: to show what happens without it
  bool check_sequence = true;
  bool unique_ids = true;  // false: a session's ids are those of the sessions before

  [[nodiscard]] std::uint64_t last() const { return first + messages.size() - 1; }

  Ack store(Message m) {
    Ack ack;
    if (!unique_ids) {
      for (std::string* id : {&m.id, &m.previous_id}) *id = id->substr(0, id->rfind('-'));
    }
    if (const auto it = ids.find(m.id); it != ids.end()) {
      ack.stream_sequence = it->second;
      ack.duplicate = true;
    } else if ((check_sequence && m.expected != last()) ||
               (check_previous_id && !m.previous_id.empty() && m.previous_id != last_id)) {
      ack.error = AckError::WrongLast;
    } else {
      last_id = m.id;
      ids[m.id] = last() + 1;
      messages.push_back(std::move(m));
      ack.stream_sequence = last();
    }
    return ack;
  }
  void wipe() {
    for (const Message& m : messages) {
      for (std::uint64_t s = m.first; s <= m.last; ++s) wiped.emplace(m.writer, s);
    }
    first = last() + 1;
    messages.clear();
  }
  void create_anew() {
    wipe();
    first = 1;
    created += 1'000'000;  // created that much later
    ids.clear();
    last_id.clear();
  }
  // A restart forgets ids beyond the duplicate window, the last one included.
  void restart(bool window_over) {
    if (!window_over) return;
    ids.clear();
    last_id.clear();
  }
};

// The events stream: what its server does, a message at a time.
struct EventStream {
  struct Stored {
    std::string subject;
    std::uint64_t stream_sequence = 0;
    WriterId writer;
    std::uint64_t sequence = 0;
    std::uint64_t after_stream_sequence = 0;
  };
  std::vector<Stored> messages;

  [[nodiscard]] EventStore::Last last_on(const std::string& subject) const {
    for (auto it = messages.rbegin(); it != messages.rend(); ++it) {
      if (it->subject == subject) return {it->stream_sequence, it->writer, it->sequence};
    }
    return {};
  }
  std::optional<std::uint64_t> put(const OutgoingEvent& e, std::uint64_t after) {
    if (last_on(e.subject).stream_sequence != after) return std::nullopt;
    messages.push_back({e.subject, messages.size() + 1, e.writer, e.sequence, e.after_stream_sequence});
    return messages.size();
  }
};

struct Faults {
  std::uint32_t lose_connection = 0;  // percent per step
  std::uint32_t drop_ack = 0;
  std::uint32_t refuse = 0;        // the server answers with an error of its own
  std::uint32_t drop_message = 0;  // lost within a connection: a server that dies between receipt and store
  std::uint32_t session_fails = 0;
  std::uint32_t server_restart = 0;
  std::uint32_t outage = 0;   // the server is away for a while
  std::uint32_t frozen = 0;   // nothing moves for a while, connections stay
  std::uint32_t stale = 0;    // a new leader tells an older end of the stream
  std::uint32_t purge = 0;    // per mille
  std::uint32_t replace = 0;  // per mille: deleted and created anew
};

class World {
 public:
  World(Random& random, Faults faults) : random_(random), faults_(faults) {}

  // What was sent on one connection arrives in order; connections interleave as they like, also dead ones.
  struct Sent {
    Message message;
    std::uint64_t session = 0, index = 0;
  };
  struct Connection {
    bool open = true;
    std::deque<Sent> sent;
    std::vector<std::pair<std::uint64_t, Ack>> acks;  // by session
  };

  std::shared_ptr<Connection> connect() {
    connections_.push_back(std::make_shared<Connection>());
    return connections_.back();
  }

  // Lets a few things happen on the network and in the server.
  void step() {
    if (random_.chance(10)) late_put();
    if (away_ > 0) --away_;
    if (frozen_ > 0) {
      --frozen_;
      return;
    }
    if (random_.chance(faults_.frozen)) frozen_ = 5 + random_.below(80);
    if (random_.chance(faults_.outage)) {
      away_ = 5 + random_.below(80);
      for (auto& c : connections_) c->open = false;
    }
    if (random_.below(1000) < faults_.purge) stream.wipe();
    if (random_.below(1000) < faults_.replace) {
      // What arrives between the two has no stream to go to.
      for (auto& c : connections_) c->sent.clear();
      stream.create_anew();
    }
    for (std::uint32_t n = random_.below(6); n > 0; --n) deliver_one();
    if (random_.chance(faults_.server_restart)) {
      for (auto& c : connections_) c->open = false;
      stream.restart(random_.chance(50));
    }
    if (!connections_.empty() && random_.chance(faults_.lose_connection)) connections_.back()->open = false;
  }
  void deliver_all() {
    while (!late_puts.empty()) late_put();
    while (deliver_one()) {
    }
  }
  // Nothing of what is under way arrives.
  void lose_all() {
    for (auto& c : connections_) c->sent.clear();
  }
  void calm() {
    faults_ = {};
    away_ = frozen_ = 0;
  }
  [[nodiscard]] bool reachable() const { return away_ == 0 && frozen_ == 0; }
  [[nodiscard]] const Faults& faults() const { return faults_; }

  Stream stream;
  EventStream events;
  std::vector<std::pair<OutgoingEvent, std::uint64_t>> late_puts;  // of senders that gave up on them

  // One that was given up, or that lost its sender, arrives after all.
  void late_put() {
    if (late_puts.empty()) return;
    const auto at = random_.below(static_cast<std::uint32_t>(late_puts.size()));
    events.put(late_puts[at].first, late_puts[at].second);
    late_puts.erase(late_puts.begin() + at);
  }

 private:
  bool deliver_one() {
    std::vector<std::size_t> ready;
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      if (!connections_[i]->sent.empty()) ready.push_back(i);
    }
    if (ready.empty()) return false;
    Connection& c = *connections_[ready[random_.below(static_cast<std::uint32_t>(ready.size()))]];
    if (!c.open && random_.chance(20)) {
      c.sent.clear();  // the rest never arrives
      return true;
    }
    Sent s = std::move(c.sent.front());
    c.sent.pop_front();
    if (random_.chance(faults_.drop_message)) return true;
    Ack ack;
    if (random_.chance(faults_.refuse)) {
      ack.error = AckError::Rejected;
    } else {
      ack = stream.store(std::move(s.message));
    }
    ack.index = s.index;
    if (c.open && !random_.chance(faults_.drop_ack)) {
      // Order of arrival is not relied upon.
      const auto at = c.acks.size() -
                      random_.below(static_cast<std::uint32_t>(std::min<std::size_t>(c.acks.size(), 3) + 1));
      c.acks.insert(c.acks.begin() + static_cast<std::ptrdiff_t>(at), {s.session, ack});
    }
    return true;
  }

  Random& random_;
  Faults faults_;
  std::uint32_t away_ = 0, frozen_ = 0;  // steps
  std::vector<std::shared_ptr<Connection>> connections_;
};

// The client side of one life of publishd.
class SimBroker final : public Broker {
 public:
  SimBroker(World& world, Random& random, Life& life) : world_(world), random_(random), life_(life) {}

  void begin_session(const SessionRequest& request) override {
    request_ = request;
    ++session_;
    in_session_ = false;
    events_.clear();
    if (request.reconnect && connection_) connection_->open = false;
  }
  std::optional<Session> poll_session() override {
    if (life_.dead() || !world_.reachable() || random_.chance(30) ||
        random_.chance(world_.faults().session_fails))
      return std::nullopt;
    if (!connection_ || !connection_->open) connection_ = world_.connect();
    Tails tails(*this);
    auto tail = read_tail(tails, request_.floors);
    if (!tail) return std::nullopt;
    // As the real one: a new leader is waited for.
    for (const Floor& f : request_.floors) {
      if (patient && f.stream_created_ns == tail->created_ns && f.stream_sequence > tail->last_sequence)
        return std::nullopt;
    }
    in_session_ = true;
    return Session{std::move(*tail), max_message_bytes, replicated};
  }
  [[nodiscard]] bool session_alive() const override { return in_session_ && connection_->open; }
  [[nodiscard]] bool send(const Outgoing& o) override {
    if (!session_alive()) return false;
    if (!life_.effect()) return true;  // died before it left
    ++sent;
    Message m;
    m.subject = o.subject;
    m.id = o.message_id;
    m.previous_id = o.previous_message_id;
    m.format = o.format;
    m.writer = *WriterId::from_hex(o.writer_hex);
    m.first = raw(o.first);
    m.last = raw(o.last);
    m.expected = o.expected_last_sequence;
    m.payload.assign(o.payload.begin(), o.payload.end());
    connection_->sent.push_back({std::move(m), session_, o.index});
    return true;
  }
  [[nodiscard]] bool poll_ack(Ack& out) override {
    if (life_.dead() || !in_session_) return false;
    while (!connection_->acks.empty()) {
      const auto [session, ack] = connection_->acks.front();
      connection_->acks.erase(connection_->acks.begin());
      if (session != session_) continue;
      out = ack;
      return true;
    }
    return false;
  }
  [[nodiscard]] bool send_event(const OutgoingEvent& event) override {
    if (events_.size() >= 4) return false;
    events_.push_back(event);
    return true;
  }
  [[nodiscard]] std::optional<std::uint64_t> poll_event() override {
    if (life_.dead() || !session_alive() || events_.empty() || !world_.reachable() || random_.chance(50))
      return std::nullopt;
    Events store(*this);
    if (!sender_.send(store, events_.front())) return std::nullopt;
    const std::uint64_t token = events_.front().token;
    events_.pop_front();
    return token;
  }
  void die() {
    if (connection_) connection_->open = false;
  }

  std::uint64_t sent = 0;
  std::size_t max_message_bytes = 1 << 20;
  bool replicated = false;
  bool patient = true;  // a stream's end below what was acked is asked for again

 private:
  // Between any two requests the world goes on: late messages arrive while the tail is read.
  class Tails final : public TailSource {
   public:
    explicit Tails(SimBroker& b) : b_(b) {}
    std::optional<State> state() override {
      b_.world_.step();
      if (!b_.connection_->open) return std::nullopt;
      const Stream& s = b_.world_.stream;
      std::uint64_t last = s.last();
      if (b_.random_.chance(b_.world_.faults().stale))
        last -= std::min<std::uint64_t>(b_.random_.below(4), last - s.first + 1);
      return State{s.first, last, s.created};
    }
    Get get(std::uint64_t sequence, TailSource::Message& out) override {
      if (b_.random_.chance(20)) b_.world_.step();
      if (!b_.connection_->open) return Get::Failed;
      const Stream& s = b_.world_.stream;
      if (sequence < s.first || sequence > s.last()) return Get::Missing;
      const sim::Message& m = s.messages[sequence - s.first];
      out.subject = m.subject;
      out.writer = m.writer;
      out.last = Sequence{m.last};
      return Get::Message;
    }

   private:
    SimBroker& b_;
  };

  class Events final : public EventStore {
   public:
    explicit Events(SimBroker& b) : b_(b) {}
    std::optional<Last> last_on(const std::string& subject) override {
      if (b_.random_.chance(10)) return std::nullopt;
      return b_.world_.events.last_on(subject);
    }
    std::optional<std::uint64_t> put(const OutgoingEvent& event, std::uint64_t after) override {
      if (!b_.life_.effect()) return std::nullopt;
      switch (b_.random_.below(8)) {
        case 0: return std::nullopt;                                                  // lost
        case 1: b_.world_.late_puts.emplace_back(event, after); return std::nullopt;  // late
        case 2:
          static_cast<void>(b_.world_.events.put(event, after));
          return std::nullopt;  // the answer is lost
        default: return b_.world_.events.put(event, after);
      }
    }

   private:
    SimBroker& b_;
  };

  World& world_;
  Random& random_;
  Life& life_;
  EventSender sender_;
  std::deque<OutgoingEvent> events_;
  std::shared_ptr<World::Connection> connection_;
  SessionRequest request_;
  std::uint64_t session_ = 0;
  bool in_session_ = false;
};

// What is wrong in the stream; empty: exactly once, in order per subject, and per router across barriers.
inline std::string check(const Stream& stream, const std::vector<std::unique_ptr<RingMemory>>& rings) {
  std::map<WriterId, const RingMemory*> by_writer;
  std::map<WriterId, std::vector<std::uint8_t>> seen;
  for (const auto& r : rings) {
    by_writer[r->writer] = r.get();
    seen[r->writer].resize(r->next_sequence);
  }
  std::map<std::pair<WriterId, std::string>, std::uint64_t> before;
  std::map<std::pair<WriterId, std::uint32_t>, std::uint32_t> epochs;  // by router
  std::map<std::string, std::uint32_t> generations;                    // by subject
  std::string wrong;
  for (const Message& m : stream.messages) {
    const auto format = m.format == PublishFormat::UpdateV1         ? schema::PayloadFormat::UpdateV1
                        : m.format == PublishFormat::UpdateV1Concat ? schema::PayloadFormat::UpdateV1Concat
                                                                    : schema::PayloadFormat::BatchV2;
    const auto error = schema::decode_payload(format, m.payload, [&](const schema::DecodedUpdate& u) {
      if (!wrong.empty()) return;
      const std::string at = std::to_string(u.sequence) + " on " + m.subject;
      if (u.writer != m.writer || !by_writer.contains(u.writer)) {
        wrong = "foreign writer at " + at;
      } else if (u.sequence >= seen[u.writer].size()) {
        wrong = "never written: " + at;
      } else if (seen[u.writer][u.sequence]++ > 0) {
        wrong = "twice: " + at;
      } else if (by_writer[u.writer]->subject_of[u.sequence] != m.subject) {
        wrong = "wrong subject: " + at;
      } else if (stream.wiped.contains({u.writer, u.sequence})) {
        // Purged before its ack was seen, and published again: that an epoch began is all that can be said.
      } else if (std::uint64_t& b = before[{u.writer, m.subject}];
                 std::exchange(b, u.sequence) >= u.sequence) {
        wrong = "out of order: " + at;
      } else if (const auto [router, epoch] = by_writer[u.writer]->epoch_of[u.sequence];
                 std::exchange(epochs[{u.writer, router}], epoch) > epoch) {
        wrong = "across a barrier: " + at;
      } else if (const std::uint32_t g = by_writer[u.writer]->generation;
                 std::exchange(generations[m.subject], g) > g) {
        wrong = "before what an older ring held: " + at;
      } else if (u.prefix_address.v4() != static_cast<std::uint32_t>(u.sequence)) {
        wrong = "wrong contents: " + at;
      }
    });
    if (error && wrong.empty()) wrong = "payload: " + *error;
    if (!wrong.empty()) return wrong;
  }
  for (const auto& r : rings) {
    for (std::uint64_t s = 1; s < r->next_sequence; ++s) {
      if (s < r->lost_from && seen[r->writer][s] == 0 && !stream.wiped.contains({r->writer, s}))
        return "missing: " + std::to_string(s) + " on " + r->subject_of[s];
    }
  }
  return {};
}

// What the rings' headers say of the log, at any instant: what is below `published` is there, and what is
// there at or below `log_sequence` is below `published`. `end`: of LogEnd, if the drain lives.
inline std::string check_log_marks(const Stream& stream,
                                   const std::vector<std::unique_ptr<RingMemory>>& rings, const LogEnd* end) {
  std::map<std::pair<WriterId, std::uint64_t>, std::uint64_t> stored_at;
  for (std::size_t i = 0; i < stream.messages.size(); ++i) {
    const Message& m = stream.messages[i];
    const auto r =
        std::find_if(rings.begin(), rings.end(), [&](const auto& x) { return x->writer == m.writer; });
    for (std::uint64_t s = m.first; s <= m.last; ++s) {
      if ((*r)->subject_of[s] == m.subject) stored_at[{m.writer, s}] = stream.first + i;
    }
  }
  for (const auto& r : rings) {
    // Of another stream: nobody reads it by these marks. Of this one until it went back: until adopted anew.
    const bool ours = r->log_identity >= stream.created && r->log_identity < stream.created + 1000;
    if (r->gone || !ours || r->log_sequence > stream.last()) continue;
    const bool now = end != nullptr && end->identity.load() == r->log_identity;
    for (const RingMemory::Record& record : r->records) {
      const auto next = std::upper_bound(r->records.begin(), r->records.end(), record.begin,
                                         [](std::uint64_t at, const auto& x) { return at < x.begin; });
      const std::uint64_t last = (next == r->records.end() ? r->next_sequence : next->first) - 1;
      for (std::uint64_t s = record.first; s <= last; ++s) {
        const auto it = stored_at.find({r->writer, s});
        const std::string at = std::to_string(s) + " of ring " + std::to_string(r->shard);
        const bool wiped = stream.wiped.contains({r->writer, s});
        if (record.end <= r->published) {
          if (it == stored_at.end() && !wiped) return "counted as published, and is not: " + at;
          if (it != stored_at.end() && now && it->second > end->sequence.load())
            return "published behind the end that is told: " + at;
        } else if (it != stored_at.end() && !wiped && it->second <= r->log_sequence) {
          return "at or below the mark, but not below what is published: " + at;
        }
      }
    }
  }
  return {};
}

// The same of the events: each once, in order per subject, after the updates that came before it.
inline std::string check_events(const World& world, const std::vector<std::unique_ptr<RingMemory>>& rings,
                                bool end_was_told_right) {
  std::map<WriterId, const RingMemory*> by_writer;
  for (const auto& r : rings) by_writer[r->writer] = r.get();
  // Where the updates of each router are: of (writer, router) the highest stream sequence up to an update.
  std::map<std::pair<WriterId, std::uint64_t>, std::uint64_t> stored_at;
  for (std::size_t i = 0; i < world.stream.messages.size(); ++i) {
    const Message& m = world.stream.messages[i];
    for (std::uint64_t s = m.first; s <= m.last; ++s) {
      const RingMemory& r = *by_writer[m.writer];
      if (r.subject_of[s] == m.subject) stored_at[{m.writer, s}] = world.stream.first + i;
    }
  }
  std::map<WriterId, std::set<std::uint64_t>> seen;
  std::set<WriterId> epochs;
  std::map<std::string, std::pair<std::uint32_t, std::uint64_t>> before;
  for (const EventStream::Stored& e : world.events.messages) {
    const std::string at = "event " + std::to_string(e.sequence) + " on " + e.subject;
    if (!by_writer.contains(e.writer)) {
      // The broker's doing; named by the stream's creation and end, so never twice in a row.
      if (e.subject != "p.events.collector.0.stream_epoch") return "foreign: " + at;
      if (!epochs.insert(e.writer).second) return "twice: " + at;
      continue;
    }
    const RingMemory& r = *by_writer[e.writer];
    const RingMemory::WrittenEvent& written = r.events.at(e.sequence);
    if (written.subject != e.subject) return "wrong subject: " + at;
    if (!seen[e.writer].insert(e.sequence).second) return "twice: " + at;
    const std::pair<std::uint32_t, std::uint64_t> now{r.generation, e.sequence};
    if (std::exchange(before[e.subject], now) >= now) return "out of order: " + at;
    if (world.stream.wiped.empty() && end_was_told_right) {
      for (std::uint64_t s = 1; s <= written.updates_before; ++s) {
        if (r.epoch_of[s].first != written.router || s >= r.lost_from) continue;
        const auto it = stored_at.find({e.writer, s});
        if (it == stored_at.end() || it->second > e.after_stream_sequence)
          return "before update " + std::to_string(s) + ": " + at;
      }
    }
  }
  for (const auto& r : rings) {
    for (std::uint64_t s = 1; s < r->events.size(); ++s) {
      const bool may_be_lost = r->gone && r->events[s].updates_before + 1 >= r->lost_from;
      if (!may_be_lost && !seen[r->writer].contains(s)) return "missing: event " + std::to_string(s);
    }
  }
  return {};
}

}  // namespace arancini::publishd::sim
