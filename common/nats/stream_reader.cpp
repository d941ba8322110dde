#include "common/nats/stream_reader.h"

#include <nats/nats.h>
#include <sysexits.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>

#include "common/nats/consumer_options.h"
#include "common/nats/nats_connector.h"

namespace arancini {

namespace {

using std::chrono::steady_clock;

constexpr std::int64_t kFetchTimeoutMs = 1000;
constexpr std::uint64_t kFetchBytes = 8U * 1024 * 1024;
constexpr int kFetchMessages = 1000;

template <class T, void (*Destroy)(T*)>
struct Deleter {
  void operator()(T* p) const { Destroy(p); }
};
template <class T, void (*Destroy)(T*)>
using Handle = std::unique_ptr<T, Deleter<T, Destroy>>;
using Connection = Handle<natsConnection, natsConnection_Destroy>;
using JetStream = Handle<jsCtx, jsCtx_Destroy>;
using Subscription = Handle<natsSubscription, natsSubscription_Destroy>;

std::string reason(natsStatus status) {
  const std::string detail = nats_last_detail();
  const std::string text = natsStatus_GetText(status);
  return detail.empty() || detail == text ? text : text + " (" + detail + ")";
}

struct Fetched {
  natsMsgList list{};
  Fetched() = default;
  Fetched(const Fetched&) = delete;
  Fetched& operator=(const Fetched&) = delete;
  ~Fetched() { natsMsgList_Destroy(&list); }
};

struct Delivered {
  std::uint64_t stream_sequence = 0;
  std::uint64_t consumer_sequence = 0;
  std::uint64_t pending = 0;
};
std::optional<Delivered> delivered(natsMsg* message) {
  jsMsgMetaData* meta = nullptr;
  if (natsMsg_GetMetaData(&meta, message) != NATS_OK) return std::nullopt;
  const Delivered d{meta->Sequence.Stream, meta->Sequence.Consumer, meta->NumPending};
  jsMsgMetaData_Destroy(meta);
  return d;
}

class NatsMessage final : public StreamMessage {
 public:
  NatsMessage(natsMsg* message, std::uint64_t sequence) : message_(message), sequence_(sequence) {}
  [[nodiscard]] std::uint64_t stream_sequence() const override { return sequence_; }
  [[nodiscard]] std::string_view subject() const override { return natsMsg_GetSubject(message_); }
  [[nodiscard]] std::span<const std::byte> payload() const override {
    return std::as_bytes(
        std::span(natsMsg_GetData(message_), static_cast<std::size_t>(natsMsg_GetDataLength(message_))));
  }
  [[nodiscard]] std::string_view header(const char* name) const override {
    const char* value = nullptr;
    if (natsMsgHeader_Get(message_, name, &value) != NATS_OK || value == nullptr) return {};
    return value;
  }

 private:
  natsMsg* message_;
  std::uint64_t sequence_;
};

class NatsStreamReader final : public StreamReader {
 public:
  NatsStreamReader(const NatsSettings& nats, std::string stream, std::string filter, Options options)
      : options_(std::move(options)),
        connector_(nats, options_.client),
        stream_(std::move(stream)),
        filter_(std::move(filter)) {}
  ~NatsStreamReader() override { disconnect(); }
  NatsStreamReader(const NatsStreamReader&) = delete;
  NatsStreamReader& operator=(const NatsStreamReader&) = delete;

  Result<Position, StreamError> position() override {
    if (auto error = connect()) return Err{std::move(*error)};
    jsStreamInfo* info = nullptr;
    auto code = static_cast<jsErrCode>(0);
    const natsStatus status = js_GetStreamInfo(&info, js_.get(), stream_.c_str(), nullptr, &code);
    if (status != NATS_OK) return Err{stream_error(status, code)};
    const Position p{info->State.FirstSeq, info->State.LastSeq, info->State.Msgs, info->State.Bytes,
                     static_cast<std::uint64_t>(info->Created)};
    jsStreamInfo_Destroy(info);
    return p;
  }

  std::optional<StreamError> read(std::uint64_t from, std::uint64_t to,
                                  const std::function<bool(const StreamMessage&)>& each) override {
    std::uint64_t next = std::max<std::uint64_t>(from, 1);
    steady_clock::time_point progress = steady_clock::now();
    const auto out_of_patience = [&](const StreamError& e) {
      return e.exit_code != EX_UNAVAILABLE || stopped() || steady_clock::now() - progress > options_.patience;
    };
    while (next <= to) {
      if (stopped()) return StreamError{EX_UNAVAILABLE, "stopped"};
      const auto at = position();
      if (!at.ok()) {
        if (out_of_patience(at.error())) return at.error();
        wait_a_little();
        continue;
      }
      if (at->last_sequence + 1 < next || (to != kFollow && at->last_sequence < to)) {
        return StreamError{kStreamIncomplete,
                           "stream " + stream_ + " was purged or made anew while it was read: start again"};
      }
      // Nothing is left of the range: retention took it, or the tail was deleted.
      if (to != kFollow && (at->messages == 0 || at->first_sequence > to)) return std::nullopt;
      const int batch = batch_size(*at);
      std::optional<StreamError> refused;
      const std::uint64_t before = next;
      const End end = read_with_consumer(next, to, batch, each, refused);
      if (end == End::Done) return std::nullopt;
      // A stream that is followed may be quiet for ever; what is known to be there must come.
      if (next != before || (to == kFollow && end == End::Again)) progress = steady_clock::now();
      if (!refused)
        refused = StreamError{EX_UNAVAILABLE,
                              "stream " + stream_ + " at " + connector_.shown_url() + " gives no messages"};
      if (out_of_patience(*refused)) return refused;
      if (end == End::Failed) wait_a_little();
    }
    return std::nullopt;
  }

 private:
  enum class End { Done, Again, Failed };

  [[nodiscard]] bool stopped() const {
    return options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed);
  }

  // Unless there is a connection. It does not come back by itself: another server may be the one to ask.
  std::optional<StreamError> connect() {
    if (connection_ != nullptr && !natsConnection_IsClosed(connection_.get())) return std::nullopt;
    disconnect();
    const auto connection = connector_.connect(
        [this](natsOptions* o) { return natsOptions_SetErrorHandler(o, on_error, this) == NATS_OK; },
        options_.stop);
    if (!connection.ok()) {
      // A login or a certificate does not get right by waiting.
      const bool retry = connection.error().code == ErrorCode::NatsUnreachable;
      return StreamError{retry ? EX_UNAVAILABLE : EX_NOPERM,
                         std::string(to_string(connection.error().code)) + ": " + connection.error().text};
    }
    connection_.reset(*connection);
    jsOptions api;
    jsOptions_Init(&api);
    if (!connector_.settings().api_prefix.empty()) api.Prefix = connector_.settings().api_prefix.c_str();
    if (!connector_.settings().domain.empty()) api.Domain = connector_.settings().domain.c_str();
    jsCtx* js = nullptr;
    const natsStatus status = natsConnection_JetStream(&js, connection_.get(), &api);
    js_.reset(js);
    if (status != NATS_OK) return StreamError{EX_UNAVAILABLE, reason(status)};
    return std::nullopt;
  }
  void disconnect() {
    if (connection_ == nullptr) return;
    connector_.leave(connection_.get());
    js_.reset();
    natsConnection_Close(connection_.get());
    connection_.reset();
  }
  // What is denied is never answered; everything else is seen by the call that fails.
  static void on_error(natsConnection* connection, natsSubscription*, natsStatus, void* closure) {
    auto* self = static_cast<NatsStreamReader*>(closure);
    const char* last = nullptr;
    natsConnection_GetLastError(connection, &last);
    const std::string text = last != nullptr ? last : "";
    if (text.find("ermissions") == std::string::npos) return;
    const std::lock_guard lock(self->mutex_);
    self->denied_ = text;
  }

  // One consumer's life: until the end is reached, or it gives nothing more.
  End read_with_consumer(std::uint64_t& next, std::uint64_t to, int batch,
                         const std::function<bool(const StreamMessage&)>& each,
                         std::optional<StreamError>& refused) {
    jsSubOptions options = consumer_options(stream_, next);
    natsSubscription* raw = nullptr;
    auto code = static_cast<jsErrCode>(0);
    const natsStatus status =
        js_PullSubscribe(&raw, js_.get(), filter_.c_str(), nullptr, nullptr, &options, &code);
    if (status != NATS_OK) {
      refused = stream_error(status, code);
      return End::Failed;
    }
    const Subscription subscription(raw);
    // Nothing (more) matches the filter, or the rest of the range was deleted.
    const bool nothing_left = to != kFollow && pending(*raw) == std::uint64_t{0};
    const End end = nothing_left ? End::Done : drain(*raw, next, to, batch, each, refused);
    natsSubscription_Unsubscribe(raw);  // deletes the consumer
    return end;
  }

  static std::optional<std::uint64_t> pending(natsSubscription& subscription) {
    jsConsumerInfo* info = nullptr;
    if (natsSubscription_GetConsumerInfo(&info, &subscription, nullptr, nullptr) != NATS_OK)
      return std::nullopt;
    const std::uint64_t n = info->NumPending;
    jsConsumerInfo_Destroy(info);
    return n;
  }

  End drain(natsSubscription& subscription, std::uint64_t& next, std::uint64_t to, int batch,
            const std::function<bool(const StreamMessage&)>& each, std::optional<StreamError>& refused) {
    std::uint64_t consumer_sequence = 0;
    for (;;) {
      if (stopped()) return End::Again;
      Fetched fetched;
      auto code = static_cast<jsErrCode>(0);
      const natsStatus status =
          natsSubscription_Fetch(&fetched.list, &subscription, batch, kFetchTimeoutMs, &code);
      if (status == NATS_TIMEOUT) {
        // Quiet, or what was sent was lost with a connection: the stream's own position tells.
        if (to != kFollow) return End::Again;
        const auto at = position();
        if (!at.ok() || at->last_sequence >= next || at->last_sequence + 1 < next) return End::Again;
        continue;
      }
      if (status != NATS_OK) {
        refused = stream_error(status, code);
        return End::Failed;
      }
      for (int i = 0; i < fetched.list.Count; ++i) {
        natsMsg* const message = fetched.list.Msgs[i];
        const auto d = delivered(message);
        if (!d || d->consumer_sequence != consumer_sequence + 1)
          return End::Again;  // some were lost on the way
        consumer_sequence = d->consumer_sequence;
        if (d->stream_sequence > to) return End::Done;
        next = d->stream_sequence + 1;
        if (!each(NatsMessage(message, d->stream_sequence))) return End::Done;
        if (to != kFollow && (d->stream_sequence == to || d->pending == 0)) return End::Done;
      }
    }
  }

  [[nodiscard]] StreamError stream_error(natsStatus status, jsErrCode code) {
    const std::string what = "stream " + stream_ + " at " + connector_.shown_url();
    {
      const std::lock_guard lock(mutex_);
      if (!denied_.empty()) return {EX_NOPERM, what + ": " + denied_ + ": allow it (docs/nats.md)"};
    }
    if (code == JSStreamNotFoundErr)
      return {EX_NOINPUT, "no " + what + ": is publishd running, is --stream right?"};
    if (status == NATS_NO_RESPONDERS)
      return {EX_UNAVAILABLE,
              what + ": the server has no JetStream (or nats.domain, nats.api_prefix are wrong)"};
    if (code == JSConsumerFilterNotSubsetErr) {
      return {EX_NOINPUT, "stream " + stream_ + " has no subjects " + filter_ + ": is --prefix right?"};
    }
    if (code != 0)
      return {EX_UNAVAILABLE,
              "cannot read " + what + ": " + jetstream_failure(code, nats_last_detail()).text};
    return {EX_UNAVAILABLE, "cannot read " + what + ": " + reason(status)};
  }

  static int batch_size(const Position& p) {
    if (p.messages == 0) return kFetchMessages;
    const std::uint64_t average = std::max<std::uint64_t>(p.bytes / p.messages, 1);
    return static_cast<int>(std::clamp<std::uint64_t>(kFetchBytes / average, 1, kFetchMessages));
  }

  static void wait_a_little() { std::this_thread::sleep_for(std::chrono::milliseconds(250)); }

  Options options_;
  NatsConnector connector_;
  std::string stream_;
  std::string filter_;
  std::mutex mutex_;
  std::string denied_;  // under mutex_: last "Permissions Violation …"
  Connection connection_;
  JetStream js_;
};

}  // namespace

std::unique_ptr<StreamReader> StreamReader::make(const NatsSettings& nats, const std::string& stream,
                                                 const std::string& filter, Options options) {
  return std::make_unique<NatsStreamReader>(nats, stream, filter, std::move(options));
}

Result<std::unique_ptr<StreamReader>, StreamError> StreamReader::open(const NatsSettings& nats,
                                                                      const std::string& stream,
                                                                      const std::string& filter,
                                                                      Options options) {
  std::unique_ptr<StreamReader> reader = make(nats, stream, filter, std::move(options));
  if (auto at = reader->position(); !at.ok()) return Err{at.error()};
  return reader;
}

}  // namespace arancini
