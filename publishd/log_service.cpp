#include "publishd/log_service.h"

// The only file of the daemon that sees gRPC and the generated code.
#include <grpcpp/grpcpp.h>
#include <log.grpc.pb.h>

#include <poll.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "common/base/clock.h"
#include "common/base/local_listener.h"
#include "common/nats/nats_blobs.h"
#include "common/nats/nats_settings.h"
#include "common/ring/futex.h"
#include "common/settings/settings_service.h"
#include "publishd/log_read.h"
#include "publishd/wake.h"

namespace arancini::publishd {

namespace {

namespace pb = log::v1;

constexpr int kPollMs = 200;
constexpr std::chrono::seconds kRetry{1};

// Parts onto one call.
class CallSink final : public LogSink {
 public:
  CallSink(grpc::ServerContext& context, grpc::ServerWriter<pb::Part>& writer)
      : context_(context), writer_(writer) {}

  bool begin(const LogBegin& b) override {
    pb::Part part;
    auto* to = part.mutable_begin();
    to->set_local(b.local);
    to->set_log_identity(b.log_identity);
    to->set_from_sequence(b.from_sequence);
    to->set_first_sequence(b.first_sequence);
    to->set_last_sequence(b.last_sequence);
    to->set_other_log(b.other_log);
    return writer_.Write(part);
  }
  bool message(std::uint64_t log_sequence, std::string_view format,
               std::span<const std::byte> payload) override {
    auto* to = bulk_.mutable_message();
    to->set_log_sequence(log_sequence);
    to->set_format(format.data(), format.size());
    to->set_payload(payload.data(), payload.size());
    return writer_.Write(bulk_, grpc::WriteOptions().set_buffer_hint());
  }
  bool record(const WriterId& writer, RingPosition position, const shm::RecordHeader& header,
              std::span<const std::byte> payload) override {
    auto* to = bulk_.mutable_record();
    to->set_writer(writer.bytes.data(), writer.bytes.size());
    to->set_position(raw(position));
    to->set_header(&header, sizeof header);
    to->set_payload(payload.data(), payload.size());
    return writer_.Write(bulk_, grpc::WriteOptions().set_buffer_hint());
  }
  bool waiting(const std::string& text) override {
    pb::Part part;
    part.mutable_waiting()->set_text(text);
    return writer_.Write(part);
  }
  bool done(RingPosition ring_position, std::uint64_t log_identity, std::uint64_t log_sequence) override {
    pb::Part part;
    auto* to = part.mutable_done();
    to->set_ring_position(raw(ring_position));
    to->set_log_identity(log_identity);
    to->set_log_sequence(log_sequence);
    done_ = writer_.Write(part);
    return done_;
  }
  bool cancelled() override { return context_.IsCancelled(); }
  [[nodiscard]] bool is_done() const { return done_; }

 private:
  grpc::ServerContext& context_;
  grpc::ServerWriter<pb::Part>& writer_;
  pb::Part bulk_;  // keeps its memory
  bool done_ = false;
};

grpc::Status status_of(const BlobError& e) {
  switch (e.kind) {
    case BlobError::Kind::BadName: return {grpc::StatusCode::INVALID_ARGUMENT, e.text};
    case BlobError::Kind::NotFound: return {grpc::StatusCode::NOT_FOUND, e.text};
    case BlobError::Kind::Damaged: return {grpc::StatusCode::DATA_LOSS, e.text};
    case BlobError::Kind::Unavailable: break;
  }
  return {grpc::StatusCode::UNAVAILABLE, e.text};
}

class LogImpl final : public pb::Log::Service {
 public:
  LogImpl(const Config& config, const Journal* journal, const LogEnd* end) {
    blobs_.client = "arancini publishd snapshots";
    blobs_.bucket = config.snapshot.kv_bucket;
    blobs_.replicas = config.nats.replicas;
    blobs_.stop = &stop_;
    place_.runtime_dir = config.paths.runtime_dir;
    place_.sink = config.sink.kind;
    place_.nats = NatsSettings::from(config);
    place_.updates_stream = config.nats.updates_stream;
    place_.subject_prefix = config.nats.subject_prefix;
    place_.journal = journal;
    place_.end = end;
    place_.stop = &stop_;
  }
  void stop() { stop_.store(true, std::memory_order_relaxed); }

  grpc::Status Read(grpc::ServerContext* context, const pb::ReadRequest* in,
                    grpc::ServerWriter<pb::Part>* out) override {
    LogRequest request;
    request.shard = ShardId{in->shard()};
    request.shard_count = in->shard_count();
    request.log_sequence = in->log_sequence();
    request.log_identity = in->log_identity();
    request.ring_position = RingPosition{in->ring_position()};
    if (in->shard_count() == 0 || in->shard() >= in->shard_count())
      return {grpc::StatusCode::INVALID_ARGUMENT, "shard is not below shard_count"};
    if (in->writer().size() != request.writer.bytes.size())
      return {grpc::StatusCode::INVALID_ARGUMENT, "writer is not 16 bytes"};
    std::memcpy(request.writer.bytes.data(), in->writer().data(), request.writer.bytes.size());
    CallSink sink(*context, *out);
    read_log(place_, request, sink);
    if (sink.is_done()) return grpc::Status::OK;
    return {grpc::StatusCode::UNAVAILABLE, "publishd is stopping"};
  }

  grpc::Status PutBlob(grpc::ServerContext* context, grpc::ServerReader<pb::BlobChunk>* in,
                       pb::PutBlobReply*) override {
    pb::BlobChunk chunk;
    if (!in->Read(&chunk)) return {grpc::StatusCode::INVALID_ARGUMENT, "nothing came"};
    auto blobs = open();
    if (!blobs.ok()) return status_of(blobs.error());
    if (auto error = blobs->begin(chunk.name())) return status_of(*error);
    do {
      if (auto error = blobs->append(std::as_bytes(std::span(chunk.data())))) return status_of(*error);
    } while (in->Read(&chunk));
    // The stream also ends when the caller dies in the middle of it.
    if (context->IsCancelled()) return {grpc::StatusCode::CANCELLED, "the caller has gone"};
    if (auto error = blobs->commit()) return status_of(*error);
    return grpc::Status::OK;
  }

  grpc::Status GetBlob(grpc::ServerContext*, const pb::GetBlobRequest* in,
                       grpc::ServerWriter<pb::BlobChunk>* out) override {
    auto blobs = open();
    if (!blobs.ok()) return status_of(blobs.error());
    pb::BlobChunk chunk;
    chunk.set_name(in->name());
    bool gone = false;
    bool first = true;
    const auto error = blobs->get(in->name(), [&](std::span<const std::byte> piece) {
      chunk.set_data(piece.data(), piece.size());
      gone = !out->Write(chunk);
      if (std::exchange(first, false)) chunk.clear_name();
      return !gone;
    });
    if (error) return status_of(*error);
    if (gone) return {grpc::StatusCode::CANCELLED, "the caller has gone"};
    return grpc::Status::OK;
  }

  grpc::Status ListBlobs(grpc::ServerContext*, const pb::ListBlobsRequest* in,
                         pb::ListBlobsReply* out) override {
    auto blobs = open();
    if (!blobs.ok()) return status_of(blobs.error());
    const auto names = blobs->list(in->prefix());
    if (!names.ok()) return status_of(names.error());
    for (const std::string& name : *names) out->add_names(name);
    return grpc::Status::OK;
  }

  grpc::Status DeleteBlob(grpc::ServerContext*, const pb::DeleteBlobRequest* in,
                          pb::DeleteBlobReply*) override {
    auto blobs = open();
    if (!blobs.ok()) return status_of(blobs.error());
    if (auto error = blobs->remove(in->name())) return status_of(*error);
    return grpc::Status::OK;
  }

 private:
  [[nodiscard]] Result<NatsBlobs, BlobError> open() const { return NatsBlobs::open(place_.nats, blobs_); }

  LogPlace place_;
  NatsBlobs::Options blobs_;
  std::atomic<bool> stop_{false};
};

}  // namespace

struct LogService::State {
  State(const Config& config, const ConfigFlags& flags, const Journal* journal, const LogEnd* end,
        Logger& logger, std::function<void(const Config&)> reload)
      : path(config.log_path()),
        impl(config, journal, end),
        settings(flags, config, Daemon::Publishd,
                 [reload = std::move(reload)](const Config& next) {
                   reload(next);
                   return std::string();
                 }),
        log(logger) {}

  void run();
  // Until the time is over or stop is set.
  void nap(std::chrono::milliseconds most) {
    const std::uint32_t seen = wake.value();
    if (stop.load(std::memory_order_acquire)) return;
    const FutexWait wait{wake.word(), seen};
    wake.set_sleeping(true);
    if (wake.value() == seen)
      futex_wait_any({&wait, 1}, static_cast<std::uint64_t>(std::chrono::nanoseconds(most).count()));
    wake.set_sleeping(false);
  }

  std::string path;
  LogImpl impl;
  SettingsService settings;
  Logger& log;
  std::atomic<bool> wanted{false};
  std::atomic<bool> stop{false};
  Wake wake;
  std::thread thread;
};

void LogService::State::run() {
  while (!wanted.load(std::memory_order_acquire) && !stop.load(std::memory_order_acquire)) nap(kRetry);
  if (stop.load(std::memory_order_acquire)) return;
  const std::unique_ptr<grpc::Server> server = start_local_server(impl, settings, 4 << 20);
  if (!server) {
    log.error(
        "log service: gRPC did not start; ingestd cannot restore its tables until publishd is started anew");
    return;
  }
  std::optional<LocalListener> listener;
  std::string told;
  while (!stop.load(std::memory_order_acquire)) {
    if (!listener) {
      auto opened = LocalListener::open(path, "log", LocalListener::Callers::User, log);
      if (!opened) {
        if (told != opened.error()) log.error("{}; tried again by itself", opened.error());
        told = opened.error();
        nap(kRetry);
        continue;
      }
      listener.emplace(std::move(opened).value());
    }
    const std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
    pollfd wait{listener->poll_fd(now), POLLIN, 0};
    if (::poll(&wait, 1, kPollMs) <= 0) continue;
    serve_callers(*listener, now, *server);
  }
  impl.stop();
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
}

LogService::LogService(const Config& config, const ConfigFlags& flags, const Journal* journal,
                       const LogEnd* end, Logger& log, std::function<void(const Config&)> reload)
    : state_(std::make_unique<State>(config, flags, journal, end, log, std::move(reload))) {
  state_->thread = std::thread([s = state_.get()] { s->run(); });
}

LogService::~LogService() {
  state_->stop.store(true, std::memory_order_release);
  state_->wake.bump();
  state_->thread.join();
}

void LogService::listen() {
  if (state_->wanted.exchange(true, std::memory_order_release)) return;
  state_->wake.bump();
}

}  // namespace arancini::publishd
