#include "ingestd/control_service.h"

// The only file of ingestd that serves gRPC.
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <shard.grpc.pb.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/local_listener.h"
#include "common/schema/batch_expander.h"
#include "common/settings/settings_service.h"
#include "ingestd/drain_task.h"
#include "ingestd/dump_task.h"
#include "ingestd/lookup_task.h"
#include "ingestd/rules_task.h"

namespace arancini::ingestd {

namespace {

namespace pb = shard::v1;

// An answer from tables that are half there would look like a whole one.
grpc::Status not_restored(const ShardState& state) {
  return {grpc::StatusCode::FAILED_PRECONDITION, "its tables are being restored: " + state.restore_text};
}

constexpr std::size_t kReplyBytes = 256 * 1024;  // of routes in one message
constexpr auto kPostPatience = std::chrono::seconds(2);
constexpr auto kLookAgain = std::chrono::microseconds(500);

std::optional<IpAddress> address_of(const std::string& bytes) {
  IpAddress address;
  if (bytes.size() != address.bytes.size()) return std::nullopt;
  std::memcpy(address.bytes.data(), bytes.data(), bytes.size());
  return address;
}

grpc::Status busy() {
  return {grpc::StatusCode::UNAVAILABLE, "the shard is ending, or has too much to do: ask again"};
}

class ShardImpl final : public pb::Shard::Service {
 public:
  ShardImpl(HotTasks& tasks, Drainable& sessions, const WriterId& writer, ControlService::Hooks hooks)
      : tasks_(tasks), sessions_(sessions), writer_(writer), hooks_(std::move(hooks)) {}

  grpc::Status GetState(grpc::ServerContext*, const pb::GetStateRequest*, pb::State* out) override {
    const ShardState state = hooks_.state();
    out->set_restoring(state.restoring);
    out->set_restore_text(state.restore_text);
    out->set_snapshot_realtime_ns(state.snapshot_realtime_ns);
    out->set_snapshot_routes(state.snapshot_routes);
    out->set_snapshot_bytes(state.snapshot_bytes);
    out->set_snapshot_error(state.snapshot_error);
    return grpc::Status::OK;
  }

  grpc::Status Lookup(grpc::ServerContext* context, const pb::LookupRequest* request,
                      grpc::ServerWriter<pb::LookupReply>* writer) override {
    if (const ShardState state = hooks_.state(); state.restoring) return not_restored(state);
    LookupQuery query;
    const auto address = address_of(request->address());
    if (!address || request->length() > (address->is_v4() ? 32U : 128U))
      return {grpc::StatusCode::INVALID_ARGUMENT, "neither a prefix nor an address"};
    query.address = *address;
    query.length = static_cast<std::uint8_t>(request->length());
    query.match = request->match() == pb::LookupRequest::EXACT    ? LookupQuery::Match::Exact
                  : request->match() == pb::LookupRequest::LONGER ? LookupQuery::Match::Longer
                                                                  : LookupQuery::Match::Longest;
    if (!request->router().empty()) {
      query.router = address_of(request->router());
      if (!query.router) return {grpc::StatusCode::INVALID_ARGUMENT, "the router's address has not 16 bytes"};
    }
    query.router_name = request->router_name();
    query.limit = request->limit();

    // One at a time: each may take a slice of every round of the hot thread.
    std::unique_lock turn(lookups_, std::defer_lock);
    while (!turn.try_lock_for(std::chrono::milliseconds(50))) {
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
    }
    LookupTask task(query);
    if (!tasks_.post(task)) return busy();
    bool reader_gone = false;
    const auto send = [&] {
      if (!reader_gone) reader_gone = !send_records(task.records(), *writer);
    };
    wait(task, *context, [&] {
      if (reader_gone) task.cancel();
      if (!task.full()) return;
      send();
      task.taken();
      tasks_.wake();
    });
    if (task.cancelled()) return grpc::Status::CANCELLED;
    send();
    if (task.truncated()) {
      pb::LookupReply last;
      last.set_truncated(true);
      writer->Write(last);
    }
    return grpc::Status::OK;
  }

  grpc::Status Dump(grpc::ServerContext* context, const pb::DumpRequest* request,
                    pb::DumpReply* out) override {
    if (const ShardState state = hooks_.state(); state.restoring) return not_restored(state);
    std::optional<IpAddress> router;
    if (!request->router().empty()) {
      router = address_of(request->router());
      if (!router) return {grpc::StatusCode::INVALID_ARGUMENT, "the router's address has not 16 bytes"};
    }
    DumpTask task(router);
    if (!tasks_.post(task)) return busy();
    wait(task, *context, [] {});
    if (task.no_such_router()) return {grpc::StatusCode::NOT_FOUND, "no such router"};
    if (task.given_up()) {
      return {grpc::StatusCode::CANCELLED,
              "nobody waits any more; dumps that were asked for go on when the log takes them"};
    }
    out->set_routers(task.result().routers);
    out->set_routes(task.result().routes);
    out->set_writer(writer_.bytes.data(), writer_.bytes.size());
    out->set_start_event(task.result().start_event);
    out->set_end_event(task.result().end_event);
    return grpc::Status::OK;
  }

  grpc::Status Drain(grpc::ServerContext* context, const pb::DrainRequest* request,
                     pb::DrainReply* out) override {
    DrainTask task(sessions_, request->action() == pb::DrainRequest::BEGIN ? DrainTask::Action::Begin
                              : request->action() == pb::DrainRequest::END ? DrainTask::Action::End
                                                                           : DrainTask::Action::Look);
    if (!tasks_.post(task)) return busy();
    wait(task, *context, [] {});
    if (task.cancelled()) return grpc::Status::CANCELLED;
    out->set_draining(task.left().draining);
    out->set_sessions_blocked(task.left().sessions_blocked);
    out->set_ring_used_bytes(task.left().ring_used_bytes);
    out->set_sessions(task.left().sessions);
    return grpc::Status::OK;
  }

  grpc::Status Snapshot(grpc::ServerContext*, const pb::SnapshotRequest*, pb::SnapshotReply* out) override {
    const auto taken = hooks_.take_snapshot();
    if (!taken) return {grpc::StatusCode::FAILED_PRECONDITION, taken.error()};
    out->set_name(taken->name);
    out->set_routes(taken->routes);
    out->set_bytes(taken->bytes);
    out->set_duration_ms(taken->duration_ms);
    out->set_longest_pause_us(taken->longest_pause_us);
    return grpc::Status::OK;
  }

 private:
  // Until the hot thread is done with the task; it is cancelled when the caller goes.
  template <class F>
  void wait(HotTask& task, const grpc::ServerContext& context, F&& meanwhile) {
    while (!tasks_.done(task)) {
      if (context.IsCancelled()) task.cancel();
      meanwhile();
      std::this_thread::sleep_for(kLookAgain);
    }
  }

  // False: nobody reads.
  static bool send_records(std::span<const std::byte> records, grpc::ServerWriter<pb::LookupReply>& writer) {
    pb::LookupReply reply;
    std::size_t bytes = 0;
    schema::BatchExpander batch;
    while (!records.empty()) {
      shm::RecordHeader header;
      std::memcpy(&header, records.data(), sizeof header);
      if (batch.open(header, records.subspan(sizeof header, header.payload_bytes))) {
        std::string& update = *reply.add_routes();
        update.resize(batch.update_bytes());
        batch.write_update(0, reinterpret_cast<std::byte*>(update.data()));
        bytes += update.size();
      }
      records = records.subspan(header.size_bytes);
      if (bytes < kReplyBytes && !records.empty()) continue;
      if (!writer.Write(reply)) return false;
      reply.Clear();
      bytes = 0;
    }
    return true;
  }

  HotTasks& tasks_;
  Drainable& sessions_;
  const WriterId writer_;
  const ControlService::Hooks hooks_;
  std::timed_mutex lookups_;
};

}  // namespace

struct ControlService::State {
  State(const Options& options, HotTasks& tasks, Drainable& sessions, const Clock& time_source, Hooks hooks)
      : hot_tasks(tasks),
        reload_rest(hooks.reload),
        service(tasks, sessions, options.writer, std::move(hooks)),
        settings(options.flags, options.config, Daemon::Ingestd,
                 [this](const Config& next) { return reload(next); }),
        clock(time_source),
        log(options.log_name, parse_log_level(options.config.log.level)),
        stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  void accept_callers() {
    while (true) {
      pollfd wait[2] = {{listener->poll_fd(clock.boottime_ns()), POLLIN, 0}, {stop.get(), POLLIN, 0}};
      ::poll(wait, 2, 1000);
      if ((wait[1].revents & POLLIN) != 0) return;
      serve_callers(*listener, clock.boottime_ns(), *server);
    }
  }

  // Puts `next` in force; why not, in one line.
  std::string reload(const Config& next) {
    RulesTask task(next);
    const auto until = std::chrono::steady_clock::now() + kPostPatience;
    while (!hot_tasks.post(task)) {
      if (std::chrono::steady_clock::now() >= until) return busy().error_message();
      std::this_thread::sleep_for(kLookAgain);
    }
    while (!hot_tasks.done(task)) std::this_thread::sleep_for(kLookAgain);
    log.set_level(parse_log_level(next.log.level));
    reload_rest(next);
    return "";
  }

  HotTasks& hot_tasks;
  const std::function<void(const Config&)> reload_rest;
  ShardImpl service;
  SettingsService settings;
  const Clock& clock;
  Logger log;  // of the accepting thread
  Fd stop;
  std::optional<LocalListener> listener;
  std::unique_ptr<grpc::Server> server;
  std::thread thread;
};

ControlService::ControlService(std::unique_ptr<State> state) : state_(std::move(state)) {}

ControlService::~ControlService() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(state_->stop.get(), &one, sizeof one);
  state_->thread.join();
  state_->listener.reset();
  state_->server->Shutdown(std::chrono::system_clock::now());
}

Result<std::unique_ptr<ControlService>, std::string> ControlService::start(const Options& options,
                                                                           HotTasks& tasks,
                                                                           Drainable& sessions,
                                                                           const Clock& clock, Hooks hooks) {
  auto state = std::make_unique<State>(options, tasks, sessions, clock, std::move(hooks));
  if (!state->stop) return Err{std::string("no descriptor for the control service")};
  auto listener = LocalListener::open(options.path, "control", LocalListener::Callers::User, state->log);
  if (!listener) return Err{listener.error()};
  state->listener.emplace(std::move(listener).value());
  // A configuration has at most 1 MiB.
  state->server = start_local_server(state->service, state->settings, 2 << 20);
  if (!state->server) return Err{std::string("gRPC server did not start")};
  state->thread = std::thread([s = state.get()] { s->accept_callers(); });
  return std::unique_ptr<ControlService>(new ControlService(std::move(state)));
}

}  // namespace arancini::ingestd
