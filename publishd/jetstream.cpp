#include "publishd/jetstream.h"

#include <nats/nats.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/nats/consumer_options.h"
#include "common/nats/stream_facts.h"
#include "common/schema/event_fields.h"
#include "common/schema/message_headers.h"

namespace arancini::publishd {

namespace {

constexpr std::int64_t kApiTimeoutMs = 3'000;
// A server that does not read in that time is given up. Only the sender waits for it.
constexpr std::int64_t kWriteDeadlineMs = 2'000;
constexpr std::chrono::milliseconds kSenderWait{2 * kWriteDeadlineMs};
constexpr std::int64_t kPingIntervalMs = 5'000;
constexpr std::size_t kLeastMessageBytes = 16UL * 1024;  // below, ordinary updates would not fit
constexpr std::size_t kMostEvents = 64;                  // waiting
constexpr std::chrono::seconds kBehindMost{10};
// nats-server 2.9 says that a stream is gone while it still removes its files. Made anew at once it may lack
// its first file, and then refuses every message (10077).
constexpr std::chrono::seconds kAfterDelete{2};
constexpr std::chrono::milliseconds kBackOffFirst{100};
constexpr std::chrono::milliseconds kBackOffMost{5'000};
constexpr std::chrono::seconds kCloseWait{5};
constexpr std::uint64_t kSenderSleepNs = 1'000'000'000;
constexpr std::size_t kConsumerFrom = 64;  // a shorter tail is read message by message
constexpr int kTailBatch = 1'000;
constexpr std::int64_t kTailFetchMs = 1'000;
constexpr std::chrono::seconds kTellAgain{60};
constexpr std::size_t kMostTold = 32;
// Exactly once comes from the predicted sequence; the ids cost the server memory for as long as they are
// kept.
constexpr std::int64_t kDuplicateWindowNs = 10'000'000'000;

// What nats.c knows beyond the status.
std::string detail_of(natsStatus s) {
  std::string detail = nats_last_detail();
  return detail == natsStatus_GetText(s) ? std::string() : detail;
}
std::string why_of(natsStatus s) {
  const std::string detail = detail_of(s);
  return natsStatus_GetText(s) + (detail.empty() ? "" : ": " + detail);
}

struct MsgDeleter {
  void operator()(natsMsg* m) const { natsMsg_Destroy(m); }
};
using Msg = std::unique_ptr<natsMsg, MsgDeleter>;
struct StreamInfoDeleter {
  void operator()(jsStreamInfo* i) const { jsStreamInfo_Destroy(i); }
};
using StreamInfo = std::unique_ptr<jsStreamInfo, StreamInfoDeleter>;

template <std::size_t N>
void copy_text(char (&to)[N], const char* from) {
  const std::size_t n = std::min(std::strlen(from), N - 1);
  std::memcpy(to, from, n);
  to[n] = '\0';
}

// The good ack is `{"stream":"S", "seq":N}` with at most a domain and a duplicate flag: read without a
// parser, for it comes once per message. Everything else goes through one.
bool read_good_ack(std::string_view text, Ack& ack) {
  if (text.find("\"error\"") != std::string_view::npos) return false;
  const auto at = text.find("\"seq\":");
  if (at == std::string_view::npos) return false;
  const char* p = text.data() + at + 6;
  const char* const end = text.data() + text.size();
  while (p < end && *p == ' ') ++p;
  if (std::from_chars(p, end, ack.stream_sequence).ec != std::errc{}) return false;
  if (const auto dup = text.find("\"duplicate\":"); dup != std::string_view::npos) {
    ack.duplicate = text.find("true", dup) != std::string_view::npos;
  }
  return true;
}

// What a refusal says, for the log; empty when the ack is good.
std::optional<NatsFailure> read_ack(natsMsg* msg, Ack& ack) {
  if (natsMsg_IsNoResponders(msg)) {
    ack.error = AckError::NoResponders;
    return NatsFailure{ErrorCode::StreamUnusable,
                       "no stream takes the messages: it was deleted, or JetStream is not there any more"};
  }
  const std::string_view text(natsMsg_GetData(msg), static_cast<std::size_t>(natsMsg_GetDataLength(msg)));
  if (read_good_ack(text, ack)) return std::nullopt;
  ack.error = AckError::Malformed;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return NatsFailure{ErrorCode::PublishRejected, "the answer is not a JetStream ack"};
  const auto error = json.find("error");
  if (error == json.end() || !error->is_object())
    return NatsFailure{ErrorCode::PublishRejected, "the answer is not a JetStream ack"};
  const auto code = error->find("err_code");
  const auto description = error->find("description");
  const bool has_code = code != error->end();
  const bool has_description = description != error->end();
  if ((has_code && (!code->is_number_unsigned() || code->get<std::uint64_t>() > UINT32_MAX)) ||
      (has_description && !description->is_string())) {
    return NatsFailure{ErrorCode::PublishRejected, "the answer is not a JetStream ack"};
  }
  if (has_code) ack.server_code = code->get<std::uint32_t>();
  if (ack.server_code == JSStreamWrongLastSequenceErr || ack.server_code == JSStreamWrongLastMsgIDErr) {
    ack.error = AckError::WrongLast;
    return std::nullopt;  // follows from another failure, or from another writer
  }
  ack.error = AckError::Rejected;
  NatsFailure failure = jetstream_failure(
      ack.server_code, has_description ? description->get_ref<const std::string&>() : std::string());
  ack.cause = failure.code;
  return failure;
}

}  // namespace

// Acks from the delivery thread of the subscription (one at a time) to the hot thread.
class JetStream::AckQueue {
 public:
  struct Entry {
    std::uint64_t session;
    Ack ack;
  };
  explicit AckQueue(std::size_t at_least) : slots_(std::bit_ceil(at_least)) {}
  // A full queue drops: the ack will be missed, and the tail of the stream asked.
  void push(const Entry& e) {
    const std::uint64_t at = written_.load(std::memory_order_relaxed);
    if (at - read_.load(std::memory_order_acquire) >= slots_.size()) return;
    slots_[at & (slots_.size() - 1)] = e;
    written_.store(at + 1, std::memory_order_release);  // pairs with pop()
  }
  bool pop(Entry& e) {
    const std::uint64_t at = read_.load(std::memory_order_relaxed);
    if (at == written_.load(std::memory_order_acquire)) return false;
    e = slots_[at & (slots_.size() - 1)];
    read_.store(at + 1, std::memory_order_release);  // pairs with push()
    return true;
  }

 private:
  std::vector<Entry> slots_;
  alignas(64) std::atomic<std::uint64_t> written_{0};
  alignas(64) std::atomic<std::uint64_t> read_{0};
};

// Messages from the hot thread to the sender of a link.
class JetStream::SendQueue {
 public:
  struct Entry {
    natsMsg* msg = nullptr;  // subject, reply and payload; the headers are made by the sender
    std::uint64_t session = 0;
    std::uint64_t expected_last_sequence = 0;
    std::uint64_t first = 0, last = 0;
    std::uint32_t count = 0, shard = 0;
    PublishFormat format = PublishFormat::UpdateV1Concat;
    char message_id[160];
    char previous_message_id[160];
    char writer_hex[40];
  };
  explicit SendQueue(std::size_t at_least) : slots_(std::bit_ceil(at_least)) {}
  ~SendQueue() {
    while (Entry* e = front()) {
      natsMsg_Destroy(e->msg);
      pop();
    }
  }
  SendQueue(const SendQueue&) = delete;
  SendQueue& operator=(const SendQueue&) = delete;
  // The slot to fill before push(); null when full.
  Entry* back() {
    const std::uint64_t at = written_.load(std::memory_order_relaxed);
    if (at - read_.load(std::memory_order_acquire) >= slots_.size()) return nullptr;
    return &slots_[at & (slots_.size() - 1)];
  }
  void push() {
    written_.store(written_.load(std::memory_order_relaxed) + 1,
                   std::memory_order_release);  // pairs with front()
  }
  Entry* front() {
    const std::uint64_t at = read_.load(std::memory_order_relaxed);
    return at == written_.load(std::memory_order_acquire) ? nullptr : &slots_[at & (slots_.size() - 1)];
  }
  void pop() {
    read_.store(read_.load(std::memory_order_relaxed) + 1,
                std::memory_order_release);  // pairs with back(), empty()
  }
  // From a third thread.
  [[nodiscard]] bool empty() const {
    return read_.load(std::memory_order_acquire) == written_.load(std::memory_order_acquire);
  }

 private:
  std::vector<Entry> slots_;
  alignas(64) std::atomic<std::uint64_t> written_{0};
  alignas(64) std::atomic<std::uint64_t> read_{0};
};

// One connection. Never reconnects by itself: what nats.c would send again from its buffer belongs to a dead
// session.
struct JetStream::Link {
  explicit Link(JetStream& o) : owner(o), queue(2 * std::size_t{o.options_.max_in_flight} + 64) {}
  ~Link() { end_sender(); }
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  JetStream& owner;
  natsConnection* connection = nullptr;
  jsCtx* js = nullptr;
  natsSubscription* subscription = nullptr;
  std::string inbox;                       // reply subjects: <inbox>.<session>.<index>
  std::atomic<bool> lost{false};           // connection closed, or nothing that is sent can succeed
  std::atomic<bool> leaving{false};        // the server said that it will go
  std::atomic<bool> closed_called{false};  // no callback of the connection comes after
  std::atomic<bool> sub_completed{false};  // no callback of the subscription comes after
  std::size_t max_payload = 0;
  bool no_consumers = false;  // may not, or cannot, make one: tails are read message by message

  SendQueue queue;
  Wake sender_wake;
  std::atomic<std::uint64_t> session{0};  // messages of others are not sent any more
  std::atomic<bool> stop_sender{false};
  std::thread sender;

  std::mutex mutex;
  std::string denied;  // under mutex: last "Permissions Violation …"

  void end_sender() {
    if (!sender.joinable()) return;
    stop_sender.store(true, std::memory_order_release);
    sender_wake.bump();
    sender.join();
  }
  void give_up() {
    lost.store(true, std::memory_order_release);
    owner.wake_.bump();
  }
  void forget_denied() {
    const std::lock_guard lock(mutex);
    denied.clear();
  }
  [[nodiscard]] std::string denied_text() {
    const std::lock_guard lock(mutex);
    return denied;
  }

  // PublishMsg() waits while the server does not read: not on the hot thread.
  void run_sender() {
    std::vector<FutexWait> waits;
    for (;;) {
      const std::uint32_t seen = sender_wake.value();
      while (SendQueue::Entry* e = queue.front()) {
        send(*e);
        natsMsg_Destroy(e->msg);
        queue.pop();
      }
      if (stop_sender.load(std::memory_order_acquire)) return;
      waits.assign(1, {sender_wake.word(), seen});
      sender_wake.set_sleeping(true);
      if (sender_wake.value() == seen) futex_wait_any(waits, kSenderSleepNs);
      sender_wake.set_sleeping(false);
    }
  }
  void send(SendQueue::Entry& e) {
    if (e.session != session.load(std::memory_order_acquire) || lost.load(std::memory_order_relaxed) ||
        stop_sender.load(std::memory_order_relaxed)) {
      return;
    }
    bool ok = true;
    const auto text = [&](const char* key, const char* value) {
      ok = ok && natsMsgHeader_Set(e.msg, key, value) == NATS_OK;
    };
    const auto number = [&](const char* key, std::uint64_t value) {
      char digits[24];
      *std::to_chars(digits, digits + sizeof digits - 1, value).ptr = '\0';
      text(key, digits);
    };
    number("Nats-Expected-Last-Sequence", e.expected_last_sequence);
    if (e.previous_message_id[0] != '\0') text("Nats-Expected-Last-Msg-Id", e.previous_message_id);
    text("Nats-Msg-Id", e.message_id);
    text(schema::kHeaderFormat, arancini::to_string(e.format).data());
    text(schema::kHeaderSchema, schema::kSchemaVersion);
    text(schema::kHeaderInstance, owner.options_.instance.c_str());
    text(schema::kHeaderWriter, e.writer_hex);
    number(schema::kHeaderShard, e.shard);
    number(schema::kHeaderFirst, e.first);
    number(schema::kHeaderLast, e.last);
    number(schema::kHeaderCount, e.count);
    const natsStatus s = ok ? natsConnection_PublishMsg(connection, e.msg) : NATS_NO_MEMORY;
    if (s == NATS_OK) return;
    if (s == NATS_TIMEOUT) {
      owner.refused({ErrorCode::NatsUnreachable, "the server does not read any more (" +
                                                     std::to_string(kWriteDeadlineMs / 1000) + " s)"});
    } else if (s != NATS_CONNECTION_CLOSED && s != NATS_IO_ERROR) {
      owner.refused({ErrorCode::PublishRejected, "a message cannot be sent: " + why_of(s)});
    }
    give_up();
  }
  // Until nothing of a former session is under way to the server; false: the sender is stuck.
  [[nodiscard]] bool quiet() {
    const auto deadline = std::chrono::steady_clock::now() + kSenderWait;
    while (!queue.empty() && !lost.load(std::memory_order_acquire)) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      nats_Sleep(1);
    }
    return !lost.load(std::memory_order_acquire);
  }

  static void on_closed(natsConnection*, void* closure) {
    auto* self = static_cast<Link*>(closure);
    self->give_up();
    self->closed_called.store(true, std::memory_order_release);  // last: the owner frees the link after this
  }
  static void on_completed(void* closure) {
    auto* self = static_cast<Link*>(closure);
    self->sub_completed.store(true, std::memory_order_release);
  }
  static void on_lame_duck(natsConnection*, void* closure) {
    auto* self = static_cast<Link*>(closure);
    self->leaving.store(true, std::memory_order_release);
    self->owner.wake_.bump();
  }
  // What was denied is not answered: this is all that is heard of it.
  static void on_error(natsConnection* connection, natsSubscription*, natsStatus, void* closure) {
    auto* self = static_cast<Link*>(closure);
    const char* last = nullptr;
    natsConnection_GetLastError(connection, &last);
    const std::string text = last != nullptr ? last : "";
    std::string lower = text;
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char ch) { return static_cast<char>(std::tolower(ch)); });
    if (lower.find("permissions violation") == std::string::npos) return;
    {
      const std::lock_guard lock(self->mutex);
      self->denied = text;
    }
    const bool ours =
        text.find("\"" + self->owner.options_.subject_prefix + ".updates.") != std::string::npos ||
        (!self->inbox.empty() && text.find(self->inbox) != std::string::npos);
    if (!ours) return;  // of the API, or an event: whoever waits for the answer will see it
    self->owner.refused({ErrorCode::NatsUnauthorized, text + ": allow it (docs/nats.md)"});
    self->give_up();
  }
  static void on_ack(natsConnection*, natsSubscription*, natsMsg* raw, void* closure) {
    const Msg msg(raw);
    auto* self = static_cast<Link*>(closure);
    const std::string_view subject = natsMsg_GetSubject(raw);
    if (subject.size() <= self->inbox.size() + 1) return;
    AckQueue::Entry e{};
    const char* p = subject.data() + self->inbox.size() + 1;
    const char* const end = subject.data() + subject.size();
    const auto session = std::from_chars(p, end, e.session);
    if (session.ec != std::errc{} || session.ptr == end || *session.ptr != '.') return;
    if (std::from_chars(session.ptr + 1, end, e.ack.index).ec != std::errc{}) return;
    JetStream& owner = self->owner;
    if (auto failure = read_ack(raw, e.ack)) {
      failure->text = "stream " + owner.options_.updates_stream + ": " + failure->text;
      owner.refused(std::move(*failure));
    }
    owner.acks_->push(e);
    owner.wake_.bump();
  }
};

std::string_view to_string(JetStream::State state) {
  switch (state) {
    case JetStream::State::Connecting: return "connecting";
    case JetStream::State::Unreachable: return "unreachable";
    case JetStream::State::StreamUnusable: return "stream unusable";
    case JetStream::State::ReadingTail: return "reading the stream's tail";
    case JetStream::State::Ready: return "connected";
  }
  return "unknown";
}

JetStream::Options JetStream::Options::from(const Config& config) {
  Options o;
  o.nats = NatsSettings::from(config);
  o.instance = config.instance.name;
  o.subject_prefix = config.nats.subject_prefix;
  o.updates_stream = config.nats.updates_stream;
  o.events_stream = config.nats.events_stream;
  o.updates = updates_stream_wishes(config);
  o.events = events_stream_wishes(config);
  o.max_in_flight = config.nats.max_in_flight;
  return o;
}

JetStream::JetStream(Options options, Wake& wake, Logger& log)
    : options_(std::move(options)),
      connector_(options_.nats, "arancini publishd " + options_.instance),
      wake_(wake),
      log_(log),
      acks_(std::make_unique<AckQueue>(2 * std::size_t{options_.max_in_flight} + 1024)) {
  nats_Open(0);  // no spinning on locks: it costs more than it saves (MEASURED)
  thread_ = std::thread([this] { run(); });
}

JetStream::~JetStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_.store(true, std::memory_order_release);
  }
  changed_.notify_all();
  thread_.join();
  drop_link();
}

// ---- hot thread
// -----------------------------------------------------------------------------------------------------

void JetStream::begin_session(const SessionRequest& request) {
  ++session_;
  // What the sender has not sent yet belongs to the past.
  if (session_link_ != nullptr) session_link_->session.store(session_, std::memory_order_release);
  session_link_ = nullptr;
  {
    const std::lock_guard lock(mutex_);
    request_ = request;
    ready_.reset();
    events_.clear();
    events_done_.clear();
    ready_flag_.store(false, std::memory_order_relaxed);
  }
  changed_.notify_all();
}

std::optional<Session> JetStream::poll_session() {
  if (!ready_flag_.load(std::memory_order_acquire)) return std::nullopt;
  const std::lock_guard lock(mutex_);
  ready_flag_.store(false, std::memory_order_relaxed);
  session_link_ = link_.get();
  session_link_->session.store(session_, std::memory_order_release);
  return std::exchange(ready_, std::nullopt);
}

bool JetStream::session_alive() const {
  return session_link_ != nullptr && !session_link_->lost.load(std::memory_order_acquire);
}

bool JetStream::session_leaving() const {
  return session_link_ != nullptr && session_link_->leaving.load(std::memory_order_relaxed);
}

bool JetStream::send(const Outgoing& m) {
  if (!session_alive()) return false;
  SendQueue::Entry* e = session_link_->queue.back();
  if (e == nullptr) return false;
  char reply[128];
  std::snprintf(reply, sizeof reply, "%s.%llu.%llu", session_link_->inbox.c_str(),
                static_cast<unsigned long long>(session_), static_cast<unsigned long long>(m.index));
  if (natsMsg_Create(&e->msg, m.subject, reply, reinterpret_cast<const char*>(m.payload.data()),
                     static_cast<int>(m.payload.size())) != NATS_OK) {
    return false;
  }
  e->session = session_;
  e->expected_last_sequence = m.expected_last_sequence;
  e->first = raw(m.first);
  e->last = raw(m.last);
  e->count = m.count;
  e->shard = raw(m.shard);
  e->format = m.format;
  copy_text(e->message_id, m.message_id);
  copy_text(e->previous_message_id, m.previous_message_id);
  copy_text(e->writer_hex, m.writer_hex);
  session_link_->queue.push();
  session_link_->sender_wake.bump();
  return true;
}

bool JetStream::poll_ack(Ack& out) {
  AckQueue::Entry e;
  while (acks_->pop(e)) {
    if (e.session != session_ || session_link_ == nullptr) continue;  // of the past
    out = e.ack;
    return true;
  }
  return false;
}

bool JetStream::send_event(const OutgoingEvent& event) {
  {
    const std::lock_guard lock(mutex_);
    if (events_.size() >= kMostEvents) return false;
    events_.push_back(event);
  }
  changed_.notify_all();
  return true;
}

std::optional<std::uint64_t> JetStream::poll_event() {
  if (!events_flag_.load(std::memory_order_acquire)) return std::nullopt;  // pairs with wait_for_request()
  const std::lock_guard lock(mutex_);
  if (events_done_.empty()) {
    events_flag_.store(false, std::memory_order_relaxed);
    return std::nullopt;
  }
  const std::uint64_t token = events_done_.back();
  events_done_.pop_back();
  return token;
}

// ---- the other thread
// -----------------------------------------------------------------------------------------------

// The events stream, over the connection of the session.
class JetStream::Events final : public EventStore {
 public:
  explicit Events(JetStream& owner) : owner_(owner), link_(*owner.link_), options_(owner.options_) {}
  // Of the last call that failed, unless another writer was faster.
  std::optional<NatsFailure> failure;

  std::optional<Last> last_on(const std::string& subject) override {
    natsMsg* got = nullptr;
    jsErrCode code{};
    const natsStatus s =
        js_GetLastMsg(&got, link_.js, options_.events_stream.c_str(), subject.c_str(), nullptr, &code);
    const Msg msg(got);
    if (s == NATS_NOT_FOUND || code == JSNoMessageFoundErr) return Last{};
    if (s != NATS_OK) return failed(s, code), std::nullopt;
    Last last;
    last.stream_sequence = natsMsg_GetSequence(got);
    const char* writer = nullptr;
    const char* sequence = nullptr;
    if (natsMsgHeader_Get(got, schema::kHeaderWriter, &writer) == NATS_OK &&
        natsMsgHeader_Get(got, schema::kHeaderEvent, &sequence) == NATS_OK) {
      std::from_chars(sequence, sequence + std::strlen(sequence), last.sequence);
      last.writer = WriterId::from_hex(writer).value_or(WriterId{});
    }
    return last;
  }

  std::optional<std::uint64_t> put(const OutgoingEvent& e, std::uint64_t after) override {
    natsMsg* made = nullptr;
    if (natsMsg_Create(&made, e.subject.c_str(), nullptr, reinterpret_cast<const char*>(e.payload.data()),
                       static_cast<int>(e.payload.size())) != NATS_OK) {
      return std::nullopt;
    }
    const Msg msg(made);
    const std::string writer = e.writer.to_hex();
    const auto set = [&](const char* key, const std::string& value) {
      return natsMsgHeader_Set(made, key, value.c_str()) == NATS_OK;
    };
    // By hand: nats.c leaves a 0 out, which here means that there is none on the subject.
    if (!set("Nats-Expected-Last-Subject-Sequence", std::to_string(after)) ||
        !set(schema::kHeaderFormat, std::string(schema::kEventFormat)) ||
        !set(schema::kHeaderSchema, schema::kSchemaVersion) ||
        !set(schema::kHeaderInstance, options_.instance) || !set(schema::kHeaderWriter, writer) ||
        !set(schema::kHeaderShard, std::to_string(raw(e.shard))) ||
        !set(schema::kHeaderEvent, std::to_string(e.sequence)) ||
        !set(schema::kHeaderAfter, std::to_string(e.after_stream_sequence))) {
      return std::nullopt;
    }
    jsPubAck* ack = nullptr;
    jsErrCode code{};
    const natsStatus s = js_PublishMsg(&ack, link_.js, made, nullptr, &code);
    if (code == JSStreamWrongLastSequenceErr) return std::nullopt;
    if (s != NATS_OK) return failed(s, code), std::nullopt;
    const std::uint64_t stored = ack->Sequence;
    jsPubAck_Destroy(ack);
    return stored;
  }

 private:
  void failed(natsStatus s, jsErrCode code) {
    failure = owner_.api_failure("an event for stream " + options_.events_stream, s, code);
  }
  JetStream& owner_;
  Link& link_;
  const Options& options_;
};

void JetStream::tell_event(const std::optional<NatsFailure>& failure) {
  if (!failure) {
    if (!told_event_.empty()) refused_.store(ErrorCode::None, std::memory_order_relaxed);
    told_event_.clear();
    return;
  }
  refused_.store(failure->code, std::memory_order_relaxed);
  if (failure->text == told_event_) return;
  told_event_ = failure->text;
  log_.error("{} ({}): {}; trying again", arancini::to_string(failure->code),
             static_cast<std::uint32_t>(failure->code), failure->text);
}

bool JetStream::wait_for_request(std::unique_lock<std::mutex>& lock) {
  std::chrono::milliseconds wait = kBackOffFirst;
  for (;;) {
    changed_.wait(lock, [&] {
      return stop_.load(std::memory_order_relaxed) || request_.has_value() || !events_.empty();
    });
    if (stop_.load(std::memory_order_relaxed)) return false;
    if (request_) return true;
    const OutgoingEvent event = events_.front();
    lock.unlock();
    bool stored = false;
    if (link_ != nullptr && !link_->lost.load(std::memory_order_acquire)) {
      link_->forget_denied();
      Events store(*this);
      stored = event_sender_.send(store, event);
      if (stored || store.failure) tell_event(stored ? std::nullopt : store.failure);
    }
    lock.lock();
    if (request_) continue;  // events_ is another session's now
    if (!stored) {
      changed_.wait_for(lock, wait,
                        [&] { return stop_.load(std::memory_order_relaxed) || request_.has_value(); });
      wait = std::min(wait * 2, kBackOffMost);
      continue;
    }
    wait = kBackOffFirst;
    events_.pop_front();
    events_done_.push_back(event.token);
    events_flag_.store(true, std::memory_order_release);  // pairs with poll_event()
    wake_.bump();
  }
}

void JetStream::run() {
  std::minstd_rand random(std::random_device{}());
  while (!stop_.load(std::memory_order_acquire)) {
    SessionRequest request;
    {
      std::unique_lock lock(mutex_);
      if (!wait_for_request(lock)) return;
      request = *request_;
      request_.reset();
    }
    tell_refused();
    std::chrono::milliseconds wait = kBackOffFirst;
    bool superseded = false;
    for (;;) {
      Session session;
      const auto failure = try_session(request, session);
      if (!failure) {
        set_state(State::Ready, {});
        const std::lock_guard lock(mutex_);
        if (!request_) {
          ready_ = std::move(session);
          ready_flag_.store(true, std::memory_order_release);  // pairs with poll_session()
        }
        break;
      }
      const bool here = failure->code == ErrorCode::StreamUnusable ||
                        failure->code == ErrorCode::StreamFull || failure->code == ErrorCode::PublishRejected;
      set_state(here ? State::StreamUnusable : State::Unreachable, *failure);
      request.reconnect = !here;
      // Half of the wait is by chance, so that many collectors do not come back all at once.
      const auto half = wait.count() / 2;
      const std::chrono::milliseconds nap(half + static_cast<std::int64_t>(random()) % (half + 1));
      wait = std::min(wait * 2, kBackOffMost);
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, nap,
                        [&] { return stop_.load(std::memory_order_relaxed) || request_.has_value(); });
      if (stop_.load(std::memory_order_relaxed)) return;
      superseded = request_.has_value();
      if (superseded) break;
    }
    if (!superseded) wake_.bump();
  }
}

void JetStream::set_state(State state, const NatsFailure& failure) {
  trouble_.store(state == State::Ready ? ErrorCode::None : failure.code, std::memory_order_relaxed);
  state_.store(state, std::memory_order_relaxed);
  if (state == State::Ready) {
    refused_.store(ErrorCode::None, std::memory_order_relaxed);  // if it still holds, it comes again at once
    if (!told_.empty() || !was_connected_ || told_server_ != connector_.server()) {
      log_.info("NATS connected: {}, server {}, stream {}", connector_.shown_url(), connector_.server(),
                options_.updates_stream);
    }
    was_connected_ = true;
    told_server_ = connector_.server();
    told_.clear();
    return;
  }
  // Each attempt may meet another server, which says the same in its own name.
  if (failure.code != told_code_ || told_.size() >= kMostTold) told_.clear();
  told_code_ = failure.code;
  if (!told_.insert(failure.text).second) return;
  log_.error("{} ({}): {}; trying again, the rings keep everything", arancini::to_string(failure.code),
             static_cast<std::uint32_t>(failure.code), failure.text);
}

void JetStream::refused(NatsFailure failure) {
  const std::lock_guard lock(mutex_);
  if (refused_why_) return;  // what comes after the first one follows from it
  refused_.store(failure.code, std::memory_order_relaxed);
  refused_why_ = std::move(failure);
}

void JetStream::tell_refused() {
  std::optional<NatsFailure> why;
  {
    const std::lock_guard lock(mutex_);
    why = std::exchange(refused_why_, std::nullopt);
  }
  const auto now = std::chrono::steady_clock::now();
  if (!why || (why->text == told_refused_ && now < tell_again_)) return;
  told_refused_ = why->text;
  tell_again_ = now + kTellAgain;
  log_.error("{} ({}): {}; trying again, the rings keep everything", arancini::to_string(why->code),
             number(why->code), why->text);
}

std::optional<NatsFailure> JetStream::connect() {
  auto link = std::make_unique<Link>(*this);
  const auto tune = [&](natsOptions* o) {
    return natsOptions_SetWriteDeadline(o, kWriteDeadlineMs) == NATS_OK &&
           natsOptions_SetPingInterval(o, kPingIntervalMs) == NATS_OK &&
           natsOptions_SetMaxPingsOut(o, 2) == NATS_OK &&
           natsOptions_SetIOBufSize(o, 256 * 1024) == NATS_OK &&
           natsOptions_SetClosedCB(o, Link::on_closed, link.get()) == NATS_OK &&
           natsOptions_SetErrorHandler(o, Link::on_error, link.get()) == NATS_OK &&
           natsOptions_SetLameDuckModeCB(o, Link::on_lame_duck, link.get()) == NATS_OK;
  };
  const auto connection = connector_.connect(tune, &stop_);
  if (!connection.ok()) return connection.error();
  link->connection = *connection;
  link_ = std::move(link);
  Link& l = *link_;
  natsInbox* inbox = nullptr;
  natsStatus s = natsInbox_Create(&inbox);
  if (s == NATS_OK) l.inbox = inbox;
  natsInbox_Destroy(inbox);
  jsOptions api;
  jsOptions_Init(&api);
  api.Wait = kApiTimeoutMs;
  if (!options_.nats.api_prefix.empty()) api.Prefix = options_.nats.api_prefix.c_str();
  if (!options_.nats.domain.empty()) api.Domain = options_.nats.domain.c_str();
  if (s == NATS_OK) s = natsConnection_JetStream(&l.js, l.connection, &api);
  if (s == NATS_OK) {
    s = natsConnection_Subscribe(&l.subscription, l.connection, (l.inbox + ".*.*").c_str(), Link::on_ack, &l);
  }
  if (s == NATS_OK) s = natsSubscription_SetOnCompleteCB(l.subscription, Link::on_completed, &l);
  if (s == NATS_OK) s = natsSubscription_SetPendingLimits(l.subscription, -1, -1);
  if (s != NATS_OK) {
    NatsFailure failure{ErrorCode::NatsUnreachable, connector_.server() + ": " + why_of(s)};
    drop_link();
    return failure;
  }
  l.max_payload =
      static_cast<std::size_t>(std::max<std::int64_t>(natsConnection_GetMaxPayload(l.connection), 0));
  l.sender = std::thread([&l] { l.run_sender(); });
  if (was_connected_) reconnects_.fetch_add(1, std::memory_order_relaxed);
  return std::nullopt;
}

void JetStream::drop_link() {
  if (link_ == nullptr) return;
  Link& l = *link_;
  const bool subscribed = l.subscription != nullptr;
  connector_.leave(l.connection);
  l.stop_sender.store(true, std::memory_order_release);
  natsConnection_Close(l.connection);  // waits for the sender, which waits for the write deadline at most
  l.end_sender();
  natsSubscription_Destroy(l.subscription);
  jsCtx_Destroy(l.js);
  natsConnection_Destroy(l.connection);
  // Callbacks may still run on threads of nats.c; the link must outlive them.
  const auto deadline = std::chrono::steady_clock::now() + kCloseWait;
  const auto over = [&] {
    return l.closed_called.load(std::memory_order_acquire) &&
           (!subscribed || l.sub_completed.load(std::memory_order_acquire));
  };
  while (!over() && std::chrono::steady_clock::now() < deadline) nats_Sleep(1);
  if (!over()) {
    static_cast<void>(link_.release());  // leaked rather than used after it was freed
  }
  link_.reset();
}

// Of a call to JetStream's API: what, where, what to do.
NatsFailure JetStream::api_failure(const std::string& doing, int status, std::uint32_t err_code) {
  const auto s = static_cast<natsStatus>(status);
  const std::string where = connector_.server() + ": " + doing + ": ";
  if (const std::string denied = link_->denied_text(); !denied.empty()) {
    return {ErrorCode::NatsUnauthorized, where + denied + ": allow it (docs/nats.md)"};
  }
  if (s == NATS_NO_RESPONDERS) {
    return {ErrorCode::StreamUnusable,
            where + (options_.nats.domain.empty() && options_.nats.api_prefix.empty()
                         ? "JetStream is not enabled (nats-server -js)"
                         : "no JetStream answers for nats.domain or nats.api_prefix: are they right?")};
  }
  if (err_code != 0) {
    NatsFailure failure = jetstream_failure(err_code, detail_of(s));
    failure.text.insert(0, where);
    return failure;
  }
  if (s == NATS_TIMEOUT) {
    return {ErrorCode::NatsUnreachable,
            where + "JetStream does not answer: is the server overloaded, does the stream have a leader?"};
  }
  return {ErrorCode::NatsUnreachable, where + why_of(s)};
}

std::optional<NatsFailure> JetStream::check_streams() {
  if (auto failure = check_stream(options_.events_stream, options_.events)) return failure;
  return check_stream(options_.updates_stream, options_.updates);
}

std::optional<NatsFailure> JetStream::check_stream(const std::string& name, const StreamWishes& wishes) {
  jsStreamInfo* raw = nullptr;
  jsErrCode code{};
  natsStatus s = js_GetStreamInfo(&raw, link_->js, name.c_str(), nullptr, &code);
  std::string doing = "stream " + name;
  if (s == NATS_NOT_FOUND) {
    if (const auto it = seen_.find(name); it != seen_.end()) {
      const auto now = std::chrono::steady_clock::now();
      if (it->second == std::chrono::steady_clock::time_point{}) it->second = now;
      if (now - it->second < kAfterDelete)
        return NatsFailure{ErrorCode::StreamUnusable,
                           "stream " + name + " was deleted: it will be made again"};
    }
    jsStreamConfig c;
    jsStreamConfig_Init(&c);
    const char* subjects[] = {wishes.subjects.c_str()};
    c.Name = name.c_str();
    c.Subjects = subjects;
    c.SubjectsLen = 1;
    c.Storage = js_FileStorage;
    c.Retention = js_LimitsPolicy;
    // Limits are retention: the newest is kept. A full stream that refuses would stop the routers
    // (docs/decisions/0002).
    c.Discard = js_DiscardOld;
    c.Replicas = wishes.replicas;
    if (wishes.max_age_s > 0) c.MaxAge = static_cast<std::int64_t>(wishes.max_age_s * 1e9);
    if (wishes.max_bytes > 0) c.MaxBytes = static_cast<std::int64_t>(wishes.max_bytes);
    c.Duplicates = c.MaxAge > 0 ? std::min(kDuplicateWindowNs, c.MaxAge) : kDuplicateWindowNs;
    s = js_AddStream(&raw, link_->js, &c, nullptr, &code);
    if (s == NATS_OK) log_.info("stream {} created for {}", name, wishes.subjects);
    doing += " cannot be created";
  }
  const StreamInfo info(raw);
  if (s != NATS_OK) return api_failure(doing, s, code);
  seen_[name] = {};
  const StreamFacts facts = stream_facts(*info);
  if (const std::string why = why_unusable(facts, wishes); !why.empty()) {
    return NatsFailure{ErrorCode::StreamUnusable, "stream " + name + " cannot be used: " + why +
                                                      "; change it, or set another name in [nats]"};
  }
  for (const std::string& warning : stream_warnings(facts, wishes)) {
    if (told_warnings_.insert(name + warning).second) log_.warn("stream {}: {}", name, warning);
  }
  if (const std::string why = why_full(facts); !why.empty()) {
    return NatsFailure{ErrorCode::StreamFull,
                       "stream " + name + ": " + why + "; raise it, or delete messages"};
  }
  // The last one asked is that of the updates.
  stream_max_message_bytes_ =
      facts.max_message_bytes > 0 ? static_cast<std::size_t>(facts.max_message_bytes) : std::size_t{1} << 30;
  stream_replicated_ = facts.replicas > 1;
  return std::nullopt;
}

namespace {

// Message by message from the stream's leader; a long tail by a consumer of headers first. A consumer may sit
// on a replica that lags: what it does not give is asked of the leader, too.
class StreamTail final : public TailSource {
 public:
  StreamTail(jsCtx* js, const std::string& stream, bool consumers, const std::atomic<bool>& stop)
      : js_(js), stream_(stream), stop_(stop), asked_consumer_(!consumers) {}
  ~StreamTail() override { end_consumer(); }
  StreamTail(const StreamTail&) = delete;
  StreamTail& operator=(const StreamTail&) = delete;

  std::optional<State> state() override {
    jsStreamInfo* raw = nullptr;
    jsErrCode code{};
    const natsStatus s = js_GetStreamInfo(&raw, js_, stream_.c_str(), nullptr, &code);
    const StreamInfo info(raw);
    if (s != NATS_OK) return fail(s, code), std::nullopt;
    end_ = info->State.LastSeq;
    return State{info->State.FirstSeq, info->State.LastSeq, static_cast<std::uint64_t>(info->Created)};
  }

  Get get(std::uint64_t sequence, Message& out) override {
    if (stop_.load(std::memory_order_relaxed)) return Get::Failed;
    if (!asked_consumer_ && end_ >= sequence && end_ - sequence >= kConsumerFrom) begin_consumer(sequence);
    asked_consumer_ = true;  // a tail is read from its start
    if (consumer_ != nullptr && at_ == fetched_.Count) fetch(sequence);
    while (at_ < fetched_.Count) {
      natsMsg* const m = fetched_.Msgs[at_];
      const std::uint64_t n = sequence_of(m);
      if (n > sequence) break;  // a hole, or so the replica says
      ++at_;
      if (n < sequence) continue;
      read(m, natsMsg_GetSubject(m), out);
      return Get::Message;
    }
    return get_from_leader(sequence, out);
  }
  [[nodiscard]] natsStatus status() const { return status_; }
  [[nodiscard]] jsErrCode code() const { return code_; }
  // One was asked for, in vain.
  [[nodiscard]] bool no_consumers() const { return no_consumers_; }

 private:
  static std::uint64_t sequence_of(natsMsg* m) {
    jsMsgMetaData* meta = nullptr;
    if (natsMsg_GetMetaData(&meta, m) != NATS_OK) return 0;
    const std::uint64_t n = meta->Sequence.Stream;
    jsMsgMetaData_Destroy(meta);
    return n;
  }

  static void read(natsMsg* m, const char* subject, Message& out) {
    out.subject = subject;
    const char* writer = nullptr;
    const char* last = nullptr;
    if (natsMsgHeader_Get(m, schema::kHeaderWriter, &writer) != NATS_OK ||
        natsMsgHeader_Get(m, schema::kHeaderLast, &last) != NATS_OK) {
      return;
    }
    std::uint64_t n = 0;
    if (std::from_chars(last, last + std::strlen(last), n).ec != std::errc{}) return;
    out.writer = WriterId::from_hex(writer);
    out.last = Sequence{n};
  }

  Get get_from_leader(std::uint64_t sequence, Message& out) {
    natsMsg* raw = nullptr;
    jsErrCode code{};
    const natsStatus s = js_GetMsg(&raw, js_, stream_.c_str(), sequence, nullptr, &code);
    const Msg msg(raw);
    if (s == NATS_NOT_FOUND || code == JSNoMessageFoundErr) return Get::Missing;
    if (s != NATS_OK) return fail(s, code), Get::Failed;
    read(raw, natsMsg_GetSubject(raw), out);
    return Get::Message;
  }

  void begin_consumer(std::uint64_t from) {
    jsSubOptions o = consumer_options(stream_, from);
    o.Config.HeadersOnly = true;
    jsErrCode code{};
    // Without it (no permission, no resources) it only takes longer.
    no_consumers_ = js_PullSubscribe(&consumer_, js_, ">", nullptr, nullptr, &o, &code) != NATS_OK;
    if (no_consumers_) consumer_ = nullptr;
  }
  void end_consumer() {
    drop_fetched();
    if (consumer_ == nullptr) return;
    natsSubscription_Unsubscribe(consumer_);
    natsSubscription_Destroy(consumer_);
    consumer_ = nullptr;
  }
  void drop_fetched() {
    natsMsgList_Destroy(&fetched_);
    fetched_ = {};
    at_ = 0;
  }
  void fetch(std::uint64_t sequence) {
    drop_fetched();
    jsErrCode code{};
    const auto wanted = static_cast<int>(std::min<std::uint64_t>(end_ - sequence + 1, kTailBatch));
    const natsStatus s = natsSubscription_Fetch(&fetched_, consumer_, wanted, kTailFetchMs, &code);
    if (s != NATS_OK || fetched_.Count == 0) end_consumer();
  }

  jsCtx* js_;
  const std::string& stream_;
  const std::atomic<bool>& stop_;
  std::uint64_t end_ = 0;
  bool asked_consumer_;
  bool no_consumers_ = false;
  natsSubscription* consumer_ = nullptr;
  natsMsgList fetched_{};
  int at_ = 0;
  natsStatus status_ = NATS_OK;
  jsErrCode code_{};

  void fail(natsStatus s, jsErrCode code) {
    status_ = s;
    code_ = code;
  }
};

}  // namespace

std::optional<NatsFailure> JetStream::try_session(const SessionRequest& request, Session& out) {
  if (link_ != nullptr && (request.reconnect || link_->lost.load(std::memory_order_acquire) ||
                           link_->leaving.load(std::memory_order_acquire) || !link_->quiet())) {
    if (link_->leaving.load(std::memory_order_acquire))
      log_.info("NATS server {} is shutting down: going to another one", connector_.server());
    drop_link();
  }
  if (link_ == nullptr) {
    state_.store(State::Connecting, std::memory_order_relaxed);
    if (auto failure = connect()) return failure;
  }
  link_->forget_denied();
  if (auto failure = check_streams()) return failure;
  // The instance's name goes into the headers beyond what the drain reserves for them.
  const std::size_t most = std::min(link_->max_payload, stream_max_message_bytes_);
  out.max_message_bytes = most - std::min(most, options_.instance.size());
  if (out.max_message_bytes < kLeastMessageBytes) {
    return NatsFailure{ErrorCode::StreamUnusable,
                       "messages may have " + std::to_string(most) +
                           " bytes only: raise max_payload of nats-server (and max_msg_size of stream " +
                           options_.updates_stream + ") to at least 64 KiB, better 1 MiB"};
  }
  state_.store(State::ReadingTail, std::memory_order_relaxed);
  StreamTail source(link_->js, options_.updates_stream, !link_->no_consumers, stop_);
  auto tail = read_tail(source, request.floors);
  link_->no_consumers = link_->no_consumers || source.no_consumers();
  if (!tail) {
    return api_failure("the tail of stream " + options_.updates_stream + " cannot be read", source.status(),
                       source.code());
  }
  // A new leader may not know yet what the old one acked; what stays away was lost with the servers.
  for (const Floor& f : request.floors) {
    if (f.stream_created_ns != tail->created_ns || f.stream_sequence <= tail->last_sequence) continue;
    const auto now = std::chrono::steady_clock::now();
    if (behind_since_ == std::chrono::steady_clock::time_point{}) behind_since_ = now;
    if (now - behind_since_ > kBehindMost) break;
    return NatsFailure{ErrorCode::StreamUnusable, "stream " + options_.updates_stream + " ends at sequence " +
                                                      std::to_string(tail->last_sequence) + ", but " +
                                                      std::to_string(f.stream_sequence) +
                                                      " was acked: waiting for its leader to catch up"};
  }
  behind_since_ = {};
  out.tail = std::move(*tail);
  out.replicated = stream_replicated_;
  return std::nullopt;
}

}  // namespace arancini::publishd
