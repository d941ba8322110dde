#include "publishd/jetstream.h"

#include <nats/nats.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/mask_url.h"
#include "common/schema/message_headers.h"

namespace arancini::publishd {

namespace {

constexpr std::int64_t kConnectTimeoutMs = 2'000;
constexpr std::int64_t kApiTimeoutMs = 3'000;
constexpr std::int64_t kWriteDeadlineMs =
    2'000;  // a broker that does not read must not hold the hot thread for long
constexpr std::int64_t kPingIntervalMs = 5'000;
constexpr std::size_t kLeastMessageBytes = 16UL * 1024;  // below, ordinary updates would not fit
constexpr std::chrono::milliseconds kBackOffFirst{100};
constexpr std::chrono::milliseconds kBackOffMost{5'000};
constexpr std::chrono::seconds kCloseWait{5};
// Exactly once comes from the predicted sequence; the ids cost the server memory for as long as they are
// kept.
constexpr std::int64_t kDuplicateWindowNs = 10'000'000'000;

// natsStatus and friends are C enums: printed by name.
std::string text_of(natsStatus s) {
  return natsStatus_GetText(s);
}

// The status, and what nats.c knows beyond it, without its source position.
std::string why_of(natsStatus s) {
  const std::string text = text_of(s);
  const char* last = nats_GetLastError(nullptr);
  std::string detail = last != nullptr ? last : "";
  if (const auto at = detail.find("): "); detail.starts_with('(') && at != std::string::npos)
    detail.erase(0, at + 3);
  return detail.empty() || detail == text ? text : text + ": " + detail;
}

struct MsgDeleter {
  void operator()(natsMsg* m) const { natsMsg_Destroy(m); }
};
using Msg = std::unique_ptr<natsMsg, MsgDeleter>;
struct OptionsDeleter {
  void operator()(natsOptions* o) const { natsOptions_Destroy(o); }
};
struct StreamInfoDeleter {
  void operator()(jsStreamInfo* i) const { jsStreamInfo_Destroy(i); }
};
using StreamInfo = std::unique_ptr<jsStreamInfo, StreamInfoDeleter>;

std::vector<std::string> split_urls(const std::string& urls) {
  std::vector<std::string> out;
  std::string one;
  for (const char c : urls + ",") {
    if (c == ',') {
      if (!one.empty()) out.push_back(std::move(one));
      one.clear();
    } else if (c != ' ') {
      one += c;
    }
  }
  return out;
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

void read_ack(natsMsg* msg, Ack& ack) {
  if (natsMsg_IsNoResponders(msg)) {
    ack.error = AckError::NoResponders;
    return;
  }
  const std::string_view text(natsMsg_GetData(msg), static_cast<std::size_t>(natsMsg_GetDataLength(msg)));
  if (read_good_ack(text, ack)) return;
  ack.error = AckError::Malformed;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return;
  const auto error = json.find("error");
  if (error == json.end() || !error->is_object()) return;
  ack.server_code = error->value("err_code", 0U);
  ack.error = ack.server_code == JSStreamWrongLastSequenceErr || ack.server_code == JSStreamWrongLastMsgIDErr
                  ? AckError::WrongLast
                  : AckError::Rejected;
}

// True if `filter` (a stream's subject) takes everything that "<tokens>.>" takes.
bool covers(std::string_view filter, std::string_view wanted) {
  for (;;) {
    const auto cut = [](std::string_view& s) {
      const auto dot = s.find('.');
      const std::string_view token = s.substr(0, dot);
      s = dot == std::string_view::npos ? std::string_view{} : s.substr(dot + 1);
      return token;
    };
    const std::string_view f = cut(filter);
    const std::string_view w = cut(wanted);
    if (f == ">") return !w.empty();
    if (f.empty() || w.empty()) return f.empty() && w.empty();
    if (w == ">" || (f != "*" && f != w)) return false;
  }
}

// Why a stream that is there must not be published to; empty: it may.
std::string unusable(const jsStreamConfig& c, const std::string& subjects) {
  bool covered = false;
  for (int i = 0; i < c.SubjectsLen; ++i) covered = covered || covers(c.Subjects[i], subjects);
  if (!covered) return "its subjects do not cover " + subjects;
  if (c.Sealed) return "it is sealed";
  if (c.NoAck) return "it has no_ack set, so that nothing can be known to be stored";
  if (c.Retention != js_LimitsPolicy) return "its retention is not 'limits': messages vanish when consumed";
  if (c.Mirror != nullptr || c.SourcesLen > 0) return "it is fed by a mirror or by sources";
  if (c.Storage != js_FileStorage)
    return "its storage is memory: a restart of the server would lose everything";
  if (c.MaxMsgsPerSubject > 0) return "max_msgs_per_subject discards updates that consumers need";
  return {};
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

// One connection. Never reconnects by itself: what nats.c would send again from its buffer belongs to a dead
// session.
struct JetStream::Link {
  JetStream* owner = nullptr;
  natsConnection* connection = nullptr;
  jsCtx* js = nullptr;
  natsSubscription* subscription = nullptr;
  std::string inbox;                       // reply subjects: <inbox>.<session>.<index>
  std::atomic<bool> lost{false};           // by the closed callback
  std::atomic<bool> closed_called{false};  // no callback of the connection comes after
  std::atomic<bool> sub_completed{false};  // no callback of the subscription comes after
  std::size_t max_payload = 0;

  static void on_closed(natsConnection*, void* closure) {
    auto* self = static_cast<Link*>(closure);
    self->lost.store(true, std::memory_order_release);
    self->owner->wake_.bump();
    self->closed_called.store(true, std::memory_order_release);  // last: the owner frees the link after this
  }
  static void on_completed(void* closure) {
    auto* self = static_cast<Link*>(closure);
    self->sub_completed.store(true, std::memory_order_release);
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
    read_ack(raw, e.ack);
    self->owner->acks_->push(e);
    self->owner->wake_.bump();
  }
};

struct JetStream::Problem {
  ErrorCode code = ErrorCode::NatsUnreachable;
  std::string text;
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
  o.url = config.nats.url;
  o.instance = config.instance.name;
  o.subject_prefix = config.nats.subject_prefix;
  o.updates_stream = config.nats.updates_stream;
  o.events_stream = config.nats.events_stream;
  o.replicas = config.nats.replicas;
  o.max_bytes = config.nats.max_bytes;
  o.max_age_s = config.nats.max_age_s;
  o.max_in_flight = config.nats.max_in_flight;
  return o;
}

JetStream::JetStream(Options options, Wake& wake, Logger& log)
    : options_(std::move(options)),
      shown_url_(mask_url(options_.url)),
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
  session_link_ = nullptr;
  ++session_;
  {
    const std::lock_guard lock(mutex_);
    request_ = request;
    ready_.reset();
    ready_flag_.store(false, std::memory_order_relaxed);
  }
  changed_.notify_all();
}

std::optional<Session> JetStream::poll_session() {
  if (!ready_flag_.load(std::memory_order_acquire)) return std::nullopt;
  const std::lock_guard lock(mutex_);
  ready_flag_.store(false, std::memory_order_relaxed);
  session_link_ = link_.get();
  return std::exchange(ready_, std::nullopt);
}

bool JetStream::session_alive() const {
  return session_link_ != nullptr && !session_link_->lost.load(std::memory_order_acquire);
}

bool JetStream::send(const Outgoing& m) {
  if (!session_alive()) return false;
  char reply[128];
  std::snprintf(reply, sizeof reply, "%s.%llu.%llu", session_link_->inbox.c_str(),
                static_cast<unsigned long long>(session_), static_cast<unsigned long long>(m.index));
  natsMsg* made = nullptr;
  if (natsMsg_Create(&made, m.subject, reply, reinterpret_cast<const char*>(m.payload.data()),
                     static_cast<int>(m.payload.size())) != NATS_OK) {
    return false;
  }
  const Msg msg(made);
  bool ok = true;
  const auto text = [&](const char* key, const char* value) {
    ok = ok && natsMsgHeader_Set(made, key, value) == NATS_OK;
  };
  const auto number = [&](const char* key, std::uint64_t value) {
    char digits[24];
    *std::to_chars(digits, digits + sizeof digits - 1, value).ptr = '\0';
    text(key, digits);
  };
  number("Nats-Expected-Last-Sequence", m.expected_last_sequence);
  if (m.previous_message_id[0] != '\0') text("Nats-Expected-Last-Msg-Id", m.previous_message_id);
  text("Nats-Msg-Id", m.message_id);
  text(schema::kHeaderFormat, arancini::to_string(m.format).data());
  text(schema::kHeaderSchema, schema::kSchemaVersion);
  text(schema::kHeaderInstance, options_.instance.c_str());
  text(schema::kHeaderWriter, m.writer_hex);
  number(schema::kHeaderShard, raw(m.shard));
  number(schema::kHeaderFirst, raw(m.first));
  number(schema::kHeaderLast, raw(m.last));
  number(schema::kHeaderCount, m.count);
  return ok && natsConnection_PublishMsg(session_link_->connection, made) == NATS_OK;
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

// ---- the other thread
// -----------------------------------------------------------------------------------------------

void JetStream::run() {
  std::minstd_rand random(std::random_device{}());
  while (!stop_.load(std::memory_order_acquire)) {
    SessionRequest request;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_.load(std::memory_order_relaxed) || request_.has_value(); });
      if (stop_.load(std::memory_order_relaxed)) return;
      request = *request_;
      request_.reset();
    }
    std::chrono::milliseconds wait = kBackOffFirst;
    bool superseded = false;
    for (;;) {
      Session session;
      Problem problem;
      if (try_session(request, session, problem)) {
        set_state(State::Ready, problem);
        const std::lock_guard lock(mutex_);
        if (!request_) {
          ready_ = std::move(session);
          ready_flag_.store(true, std::memory_order_release);  // pairs with poll_session()
        }
        break;
      }
      set_state(problem.code == ErrorCode::NatsUnreachable ? State::Unreachable : State::StreamUnusable,
                problem);
      request.reconnect = problem.code == ErrorCode::NatsUnreachable;
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

void JetStream::set_state(State state, const Problem& problem) {
  trouble_.store(state == State::Ready ? ErrorCode::None : problem.code, std::memory_order_relaxed);
  state_.store(state, std::memory_order_relaxed);
  if (state == State::Ready) {
    if (!told_.empty() || !was_connected_)
      log_.info("NATS connected: {}, stream {}", shown_url_, options_.updates_stream);
    was_connected_ = true;
    told_.clear();
    return;
  }
  if (problem.text == told_) return;
  told_ = problem.text;
  log_.error("{} ({}): {}; trying again, the rings keep everything", arancini::to_string(problem.code),
             static_cast<std::uint32_t>(problem.code), problem.text);
}

bool JetStream::connect(Problem& problem) {
  natsOptions* raw = nullptr;
  if (natsOptions_Create(&raw) != NATS_OK) return false;
  const std::unique_ptr<natsOptions, OptionsDeleter> o(raw);
  auto link = std::make_unique<Link>();
  link->owner = this;

  const std::vector<std::string> urls = split_urls(options_.url);
  std::vector<const char*> servers;
  servers.reserve(urls.size());
  for (const std::string& u : urls) servers.push_back(u.c_str());
  natsStatus s = natsOptions_SetServers(raw, servers.data(), static_cast<int>(servers.size()));
  if (s == NATS_OK) s = natsOptions_SetName(raw, ("arancini publishd " + options_.instance).c_str());
  if (s == NATS_OK) s = natsOptions_SetTimeout(raw, kConnectTimeoutMs);
  if (s == NATS_OK) s = natsOptions_SetAllowReconnect(raw, false);
  if (s == NATS_OK) s = natsOptions_SetWriteDeadline(raw, kWriteDeadlineMs);
  if (s == NATS_OK) s = natsOptions_SetPingInterval(raw, kPingIntervalMs);
  if (s == NATS_OK) s = natsOptions_SetMaxPingsOut(raw, 2);
  if (s == NATS_OK) s = natsOptions_SetIOBufSize(raw, 256 * 1024);
  if (s == NATS_OK) s = natsOptions_SetClosedCB(raw, Link::on_closed, link.get());
  if (s != NATS_OK) {
    problem = {ErrorCode::NatsUnreachable, shown_url_ + ": " + text_of(s)};
    return false;
  }
  s = natsConnection_Connect(&link->connection, raw);
  if (s != NATS_OK) {
    problem = {ErrorCode::NatsUnreachable, shown_url_ + ": " + why_of(s)};
    return false;
  }
  link_ = std::move(link);
  Link& l = *link_;
  natsInbox* inbox = nullptr;
  s = natsInbox_Create(&inbox);
  if (s == NATS_OK) l.inbox = inbox;
  natsInbox_Destroy(inbox);
  if (s == NATS_OK) s = natsConnection_JetStream(&l.js, l.connection, nullptr);
  if (s == NATS_OK) {
    s = natsConnection_Subscribe(&l.subscription, l.connection, (l.inbox + ".*.*").c_str(), Link::on_ack, &l);
  }
  if (s == NATS_OK) s = natsSubscription_SetOnCompleteCB(l.subscription, Link::on_completed, &l);
  if (s == NATS_OK) s = natsSubscription_SetPendingLimits(l.subscription, -1, -1);
  if (s != NATS_OK) {
    problem = {ErrorCode::NatsUnreachable, shown_url_ + ": " + text_of(s)};
    drop_link();
    return false;
  }
  l.max_payload =
      static_cast<std::size_t>(std::max<std::int64_t>(natsConnection_GetMaxPayload(l.connection), 0));
  if (was_connected_) reconnects_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void JetStream::drop_link() {
  if (link_ == nullptr) return;
  Link& l = *link_;
  const bool subscribed = l.subscription != nullptr;
  natsConnection_Close(l.connection);
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

bool JetStream::check_streams(Problem& problem) {
  struct Wanted {
    const std::string& name;
    std::string subjects;
  };
  const Wanted wanted[] = {{options_.updates_stream, options_.subject_prefix + ".updates.>"},
                           {options_.events_stream, options_.subject_prefix + ".events.>"}};
  jsOptions o;
  jsOptions_Init(&o);
  o.Wait = kApiTimeoutMs;
  for (const Wanted& w : wanted) {
    jsStreamInfo* raw = nullptr;
    jsErrCode code{};
    natsStatus s = js_GetStreamInfo(&raw, link_->js, w.name.c_str(), &o, &code);
    if (s == NATS_NOT_FOUND) {
      jsStreamConfig c;
      jsStreamConfig_Init(&c);
      const char* subjects[] = {w.subjects.c_str()};
      c.Name = w.name.c_str();
      c.Subjects = subjects;
      c.SubjectsLen = 1;
      c.Storage = js_FileStorage;
      c.Retention = js_LimitsPolicy;
      // Limits are retention: the newest is kept. A full stream that refuses would stop the routers
      // (docs/decisions/0002).
      c.Discard = js_DiscardOld;
      c.Replicas = options_.replicas;
      if (options_.max_age_s > 0) c.MaxAge = static_cast<std::int64_t>(options_.max_age_s * 1e9);
      if (options_.max_bytes > 0 && &w == &wanted[0])
        c.MaxBytes = static_cast<std::int64_t>(options_.max_bytes);
      c.Duplicates = c.MaxAge > 0 ? std::min(kDuplicateWindowNs, c.MaxAge) : kDuplicateWindowNs;
      s = js_AddStream(&raw, link_->js, &c, &o, &code);
      if (s == NATS_OK) log_.info("stream {} created for {}", w.name, w.subjects);
    }
    const StreamInfo info(raw);
    if (s == NATS_TIMEOUT || s == NATS_CONNECTION_CLOSED || s == NATS_CONNECTION_DISCONNECTED) {
      problem = {ErrorCode::NatsUnreachable, shown_url_ + ": JetStream does not answer (" + text_of(s) + ")"};
      return false;
    }
    if (s != NATS_OK) {
      problem = {ErrorCode::StreamUnusable,
                 "stream " + w.name + ": " +
                     (code == JSNotEnabledErr || code == JSNotEnabledForAccountErr || s == NATS_NO_RESPONDERS
                          ? std::string("JetStream is not enabled on the server (nats-server -js)")
                          : why_of(s))};
      return false;
    }
    if (const std::string why = unusable(*info->Config, w.subjects); !why.empty()) {
      problem = {ErrorCode::StreamUnusable, "stream " + w.name + " cannot be used: " + why +
                                                "; change it, or set another name in [nats]"};
      return false;
    }
    if (&w == &wanted[0]) {
      stream_max_message_bytes_ = info->Config->MaxMsgSize > 0
                                      ? static_cast<std::size_t>(info->Config->MaxMsgSize)
                                      : std::size_t{1} << 30;
    }
  }
  return true;
}

namespace {

class StreamTail final : public TailSource {
 public:
  StreamTail(jsCtx* js, const std::string& stream, const std::atomic<bool>& stop)
      : js_(js), stream_(stream), stop_(stop) {
    jsOptions_Init(&options_);
    options_.Wait = kApiTimeoutMs;
  }
  std::optional<State> state() override {
    jsStreamInfo* raw = nullptr;
    jsErrCode code{};
    const natsStatus s = js_GetStreamInfo(&raw, js_, stream_.c_str(), &options_, &code);
    const StreamInfo info(raw);
    if (s != NATS_OK) return fail(s), std::nullopt;
    return State{info->State.FirstSeq, info->State.LastSeq, static_cast<std::uint64_t>(info->Created)};
  }
  Get get(std::uint64_t sequence, Message& out) override {
    if (stop_.load(std::memory_order_relaxed)) return Get::Failed;
    natsMsg* raw = nullptr;
    jsErrCode code{};
    const natsStatus s = js_GetMsg(&raw, js_, stream_.c_str(), sequence, &options_, &code);
    const Msg msg(raw);
    if (s == NATS_NOT_FOUND || code == JSNoMessageFoundErr) return Get::Missing;
    if (s != NATS_OK) return fail(s), Get::Failed;
    out.subject = natsMsg_GetSubject(raw);
    const char* writer = nullptr;
    const char* last = nullptr;
    if (natsMsgHeader_Get(raw, schema::kHeaderWriter, &writer) != NATS_OK ||
        natsMsgHeader_Get(raw, schema::kHeaderLast, &last) != NATS_OK) {
      return Get::Message;
    }
    std::uint64_t n = 0;
    if (std::from_chars(last, last + std::strlen(last), n).ec != std::errc{}) return Get::Message;
    out.writer = WriterId::from_hex(writer);
    out.last = Sequence{n};
    return Get::Message;
  }
  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  void fail(natsStatus s) {
    error_ = "the tail of stream " + stream_ + " cannot be read (" + why_of(s) + ")";
  }
  jsCtx* js_;
  const std::string& stream_;
  const std::atomic<bool>& stop_;
  jsOptions options_{};
  std::string error_;
};

}  // namespace

bool JetStream::try_session(const SessionRequest& request, Session& out, Problem& problem) {
  if (link_ != nullptr && (request.reconnect || link_->lost.load(std::memory_order_acquire))) drop_link();
  if (link_ == nullptr) {
    state_.store(State::Connecting, std::memory_order_relaxed);
    if (!connect(problem)) return false;
  }
  if (!check_streams(problem)) return false;
  // The instance's name goes into the headers beyond what the drain reserves for them.
  const std::size_t most = std::min(link_->max_payload, stream_max_message_bytes_);
  out.max_message_bytes = most - std::min(most, options_.instance.size());
  if (out.max_message_bytes < kLeastMessageBytes) {
    problem = {ErrorCode::StreamUnusable, "messages may have " + std::to_string(most) +
                                              " bytes only: raise max_payload of nats-server (and " +
                                              "max_msg_size of stream " + options_.updates_stream +
                                              ") to at least 64 KiB, better 1 MiB"};
    return false;
  }
  state_.store(State::ReadingTail, std::memory_order_relaxed);
  StreamTail source(link_->js, options_.updates_stream, stop_);
  auto tail = read_tail(source, request.floors);
  if (!tail) {
    problem = {ErrorCode::NatsUnreachable, shown_url_ + ": " + source.error()};
    return false;
  }
  out.tail = std::move(*tail);
  return true;
}

}  // namespace arancini::publishd
