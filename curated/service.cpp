#include "curated/service.h"

#include <control.grpc.pb.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_posix.h>

#include <fmt/format.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/joined.h"
#include "common/base/local_listener.h"
#include "common/base/socket_address.h"
#include "common/base/types.h"
#include "curated/audit_log.h"
#include "curated/callers.h"
#include "curated/process_name.h"
#include "curated/reloader.h"
#include "curated/restarter.h"
#include "curated/router_diagnosis.h"
#include "curated/settings_client.h"
#include "curated/shards_client.h"
#include "curated/status_message.h"
#include "curated/tcp_acceptor.h"

namespace arancini::curated {

namespace {

namespace pb = control::v1;

std::string_view router_state(shm::RouterState state) {
  switch (state) {
    case shm::RouterState::Connected: return "connected";
    case shm::RouterState::Initiated: return "initiated";
    case shm::RouterState::Lost: return "lost";
    case shm::RouterState::Refused: return "refused";
  }
  return "unknown";
}

std::string_view peer_state(shm::PeerState state) {
  switch (state) {
    case shm::PeerState::Unknown: return "unknown";
    case shm::PeerState::Up: return "up";
    case shm::PeerState::Down: return "down";
    case shm::PeerState::Stale: return "stale";
  }
  return "unknown";
}

constexpr std::size_t kReplyBytes = 256 * 1024;  // of routes in one message

// At most three digits.
std::optional<unsigned> number(const std::string& text) {
  if (text.empty() || text.size() > 3 || text.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  return static_cast<unsigned>(std::stoul(text));
}

grpc::Status no_tables() {
  return {grpc::StatusCode::FAILED_PRECONDITION, "curation.enabled = false: there are no tables"};
}

constexpr auto kLookAgain = std::chrono::milliseconds(100);
constexpr int kMostWatchers = 16;  // each takes a thread
constexpr int kMostLookups = 2;    // each holds what it found until it is written
constexpr auto kReadWithin = std::chrono::seconds(60);
constexpr std::uint32_t kRestartTimeoutS = 120;
constexpr std::uint32_t kDrainTimeoutS = 60;
constexpr int kMostThreads = 64;
constexpr int kMostStreams = 32;  // calls of one connection at a time
// Descriptors of the API; what is left of RLIMIT_NOFILE (1024 at least) is for everything else.
constexpr std::size_t kMostLocal = 256;
constexpr std::size_t kMostTcp = 128;
constexpr int kHandshakeMs = 5000;
constexpr int kIdleMs = 600'000;  // a connection without calls

// One of those that do the same at a time, while there is room for it.
class OneOf {
 public:
  OneOf(std::atomic<int>& all, int most) : all_(all), admitted_(all.fetch_add(1) < most) {}
  ~OneOf() { all_.fetch_sub(1); }
  OneOf(const OneOf&) = delete;
  OneOf& operator=(const OneOf&) = delete;
  [[nodiscard]] bool admitted() const { return admitted_; }

 private:
  std::atomic<int>& all_;
  const bool admitted_;
};

// Ends a call whose caller does not read the answer within a time.
class ReadWithin {
 public:
  ReadWithin(grpc::ServerContext& context, std::chrono::seconds time)
      : thread_([this, &context, time] {
          std::unique_lock lock(mutex_);
          if (!written_.wait_for(lock, time, [this] { return is_written_; })) context.TryCancel();
        }) {}
  ~ReadWithin() {
    {
      const std::lock_guard lock(mutex_);
      is_written_ = true;
    }
    written_.notify_all();
    thread_.join();
  }
  ReadWithin(const ReadWithin&) = delete;
  ReadWithin& operator=(const ReadWithin&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable written_;
  bool is_written_ = false;
  std::thread thread_;
};

class ControlImpl final : public pb::Control::Service {
 public:
  ControlImpl(const Config& config, Fleet& fleet, ControlServer::Setup setup)
      : config_(config),
        fleet_(fleet),
        manager_(setup.manager),
        flags_(setup.flags),
        shards_(config),
        audit_(config.paths.state_dir + "/audit.log", parse_log_level(config.log.level), fleet.control()),
        callers_(config.control, audit_),
        reloader_(setup.loaded, {.load = [flags = setup.flags] { return load_config(flags); },
                                 .view = [this] { return fleet_.view(); },
                                 .prepare =
                                     [this](const std::string& process, const Config& next) {
                                       return prepare_settings(socket_of(process), next.file, next.text);
                                     },
                                 .commit =
                                     [this](const std::string& process, const std::string& hash) {
                                       return commit_settings(socket_of(process), hash);
                                     },
                                 .take =
                                     [this, set_log_level = setup.set_log_level](const Config& next) {
                                       fleet_.set_live(next);
                                       const LogLevel level = parse_log_level(next.log.level);
                                       audit_.set_level(level);
                                       set_log_level(level);
                                     }}) {}

  [[nodiscard]] Callers& callers() { return callers_; }
  // For the log.
  void warn(std::string_view text) { audit_.say(LogLevel::Warn, text); }
  // On TCP; before the first call.
  void listens_on(std::string address) { tcp_address_ = std::move(address); }
  // Calls that would last end soon.
  void end() {
    const std::lock_guard lock(ending_mutex_);
    ends_ = true;
    ending_.notify_all();
  }

  grpc::Status GetStatus(grpc::ServerContext*, const pb::GetStatusRequest*, pb::Status* out) override {
    *out = status();
    return grpc::Status::OK;
  }

  grpc::Status WatchStatus(grpc::ServerContext* context, const pb::WatchStatusRequest* request,
                           grpc::ServerWriter<pb::Status>* writer) override {
    const std::uint32_t wanted = request->interval_ms() == 0 ? 1000 : request->interval_ms();
    if (wanted < 100 || wanted > 60'000)
      return {grpc::StatusCode::INVALID_ARGUMENT, "interval_ms must be from 100 to 60000"};
    const OneOf watcher(watchers_, kMostWatchers);
    if (!watcher.admitted()) {
      return {grpc::StatusCode::RESOURCE_EXHAUSTED,
              fmt::format("{} watch already: end one, or ask now and then", kMostWatchers)};
    }
    const auto interval = std::chrono::milliseconds(wanted);
    std::string told;
    auto told_at = std::chrono::steady_clock::time_point();
    while (!context->IsCancelled()) {
      const auto now = std::chrono::steady_clock::now();
      const std::shared_ptr<const pb::Status> status = latest_status(now);
      std::string signature = status_signature(*status);
      if (signature != told || now - told_at >= interval) {
        if (!writer->Write(*status)) break;
        told = std::move(signature);
        told_at = now;
      }
      if (!pause()) return {grpc::StatusCode::UNAVAILABLE, "curated is stopping"};
    }
    return grpc::Status::CANCELLED;
  }

  grpc::Status Lookup(grpc::ServerContext* context, const pb::LookupRequest* request,
                      grpc::ServerWriter<pb::LookupReply>* writer) override {
    if (!config_.curation.enabled) return no_tables();
    const std::string& text = request->prefix();
    const auto slash = text.find('/');
    const auto address = IpAddress::parse(text.substr(0, slash));
    const unsigned bits = address && address->is_v4() ? 32 : 128;
    const auto length = slash == std::string::npos ? std::optional(bits) : number(text.substr(slash + 1));
    if (!address || !length || *length > bits) {
      return {grpc::StatusCode::INVALID_ARGUMENT,
              "'" + text + "' is neither a prefix (192.0.2.0/24) nor an address"};
    }
    LookupWanted wanted;
    wanted.address = *address;
    wanted.length = static_cast<std::uint8_t>(*length);
    wanted.match = request->match() == pb::LookupRequest::EXACT    ? LookupWanted::Match::Exact
                   : request->match() == pb::LookupRequest::LONGER ? LookupWanted::Match::Longer
                                                                   : LookupWanted::Match::Longest;
    wanted.limit = request->limit();
    wanted.one_router = !request->router().empty();
    if (wanted.one_router) {
      const auto router = router_of(request->router());
      if (!router) return unknown_router(request->router());
      wanted.router = router->address;
      wanted.router_name = router->name;
    }
    const OneOf turn(lookups_, kMostLookups);
    if (!turn.admitted()) {
      return {grpc::StatusCode::RESOURCE_EXHAUSTED,
              fmt::format("{} look-ups are under way: try again when one has ended", kMostLookups)};
    }
    LookupFound found = shards_.lookup(wanted, [context] { return context->IsCancelled(); });
    const ReadWithin patience(*context, kReadWithin);
    pb::LookupReply reply;
    std::size_t bytes = 0;
    for (std::string& route : found.routes) {
      bytes += route.size();
      reply.add_routes(std::move(route));
      if (bytes < kReplyBytes) continue;
      if (!writer->Write(reply)) return grpc::Status::CANCELLED;
      reply.Clear();
      bytes = 0;
    }
    reply.set_truncated(found.truncated);
    add_problems(found.problems, reply);
    writer->Write(reply);
    return grpc::Status::OK;
  }

  grpc::Status Dump(grpc::ServerContext* context, const pb::DumpRequest* request,
                    pb::DumpReply* out) override {
    return changing(*context, "Dump", *request, *out, [&] { return dump(*context, *request, *out); });
  }

  grpc::Status TakeSnapshot(grpc::ServerContext* context, const pb::TakeSnapshotRequest* request,
                            pb::TakeSnapshotReply* out) override {
    return changing(*context, "TakeSnapshot", *request, *out, [&] { return take_snapshot(*context, *out); });
  }

  grpc::Status Restart(grpc::ServerContext* context, const pb::RestartRequest* request,
                       grpc::ServerWriter<pb::RestartProgress>* writer) override {
    std::string result;
    return changing(
        *context, "Restart", *request, result, [&] { return restart(*context, *request, *writer, result); },
        Lasts::Long);
  }

  grpc::Status Drain(grpc::ServerContext* context, const pb::DrainRequest* request,
                     pb::DrainReply* out) override {
    return changing(
        *context, "Drain", *request, *out, [&] { return drain(*context, *request, *out); }, Lasts::Long);
  }

  grpc::Status Reload(grpc::ServerContext* context, const pb::ReloadRequest* request,
                      pb::ReloadReply* out) override {
    if (request->check_only()) {
      reload(true, *out);
      return grpc::Status::OK;
    }
    return changing(
        *context, "Reload", *request, *out,
        [&] {
          reload(false, *out);
          return grpc::Status::OK;
        },
        Lasts::Long);
  }
  void reload_by_signal(const std::string& who) {
    pb::ReloadReply reply;
    reload(false, reply);
    const std::string why = problem_in(reply);
    audit_.add({who, "Reload", "", why.empty() ? "ok" : why, why.empty()}, clock_ns(CLOCK_REALTIME));
  }

  grpc::Status ListRouters(grpc::ServerContext*, const pb::ListRoutersRequest*,
                           pb::ListRoutersResponse* out) override {
    const std::vector<RouterView> routers = fleet_.routers();
    const std::vector<RouterDiagnosis> diagnoses = diagnose_all(
        fleet_.view(), routers, fleet_.peers(), config_.curation.enabled, clock_ns(CLOCK_REALTIME));
    for (std::size_t i = 0; i < routers.size(); ++i) {
      const RouterView& r = routers[i];
      auto* to = out->add_routers();
      to->set_address(r.row.address);
      to->set_name(r.row.name.empty() ? r.row.sys_name : r.row.name);
      to->set_description(r.row.sys_descr);
      to->set_shard(r.shard);
      to->set_state(std::string(router_state(r.row.state)));
      to->set_sessions(r.row.sessions);
      to->set_peers_up(r.row.peers_up);
      to->set_connected_ns(r.row.connected_realtime_ns);
      to->set_last_message_ns(r.row.last_message_realtime_ns);
      to->set_messages(r.row.messages);
      to->set_bytes(r.row.bytes);
      to->set_malformed(r.row.malformed);
      to->set_updates(r.row.updates_published);
      to->set_suppressed(r.row.updates_suppressed);
      to->set_routes(r.row.routes);
      to->set_announcements_dropped(r.row.announcements_dropped);
      to->set_withdraws_dropped(r.row.withdraws_dropped);
      to->set_routes_untold(r.row.routes_untold);
      to->set_throttled(r.row.throttled);
      to->set_last_error(r.row.last_error_text);
      to->set_last_error_code(r.row.last_error);
      to->set_port(r.row.port);
      to->set_condition(std::string(to_string(diagnoses[i].condition)));
      to->set_concern(std::string(to_string(diagnoses[i].concern)));
      to->set_diagnosis(diagnoses[i].what);
      to->set_advice(diagnoses[i].advice);
    }
    return grpc::Status::OK;
  }

  grpc::Status ListPeers(grpc::ServerContext*, const pb::ListPeersRequest* request,
                         pb::ListPeersResponse* out) override {
    std::optional<NamedRouter> wanted;
    if (!request->router().empty()) {
      wanted = router_of(request->router());
      if (!wanted) return unknown_router(request->router());
    }
    const std::string address = wanted ? wanted->address.to_string() : "";  // the form of the rows
    for (const PeerView& p : fleet_.peers()) {
      if (wanted && (p.router != address || (!wanted->name.empty() && p.router_name != wanted->name)))
        continue;
      auto* to = out->add_peers();
      to->set_router(p.router);
      to->set_address(p.row.address);
      to->set_distinguisher(distinguisher_text(p.row.distinguisher));
      to->set_asn(p.row.asn);
      to->set_bgp_id(IpAddress::from_v4(p.row.bgp_id).to_string());
      to->set_view(std::string(to_string(static_cast<View>(p.row.view))));
      to->set_state(std::string(peer_state(p.row.state)));
      to->set_peer_type(p.row.peer_type);
      to->set_changed_ns(p.row.changed_realtime_ns);
      to->set_routes(p.row.routes);
      to->set_updates(p.row.updates_published);
      to->set_suppressed(p.row.updates_suppressed);
      to->set_malformed(p.row.updates_malformed);
      to->set_synthetic_withdraws(p.row.synthetic_withdraws);
      to->set_down_reason(p.row.down_reason);
      to->set_shard(p.shard);
    }
    return grpc::Status::OK;
  }

 private:
  struct NamedRouter {
    IpAddress address;
    std::string name;  // empty: all routers of that address
  };
  // An address, or a name of [[router]] (which cannot be an address).
  std::optional<NamedRouter> router_of(const std::string& text) {
    if (const auto address = IpAddress::parse(text)) return NamedRouter{*address, {}};
    const auto live = fleet_.live();
    for (const RouterEntry& entry : live->routers.entries) {
      if (entry.name == text) return NamedRouter{entry.address.address, text};
    }
    // One that was called so when its tables were told.
    for (const RouterView& r : fleet_.routers()) {
      if (r.row.name != text) continue;
      if (const auto address = IpAddress::parse(r.row.address)) return NamedRouter{*address, text};
    }
    return std::nullopt;
  }
  static grpc::Status unknown_router(const std::string& text) {
    return {grpc::StatusCode::INVALID_ARGUMENT,
            "'" + text + "' is neither an address nor a name of [[router]]; aranctl routers shows both"};
  }

  [[nodiscard]] pb::Status status() {
    pb::Status out = status_message(config_, fleet_, shards_);
    out.set_control_listen(tcp_address_);
    return out;
  }

  // One for all watchers.
  std::shared_ptr<const pb::Status> latest_status(std::chrono::steady_clock::time_point now) {
    const std::lock_guard lock(latest_mutex_);
    if (latest_ == nullptr || now - latest_at_ >= kLookAgain) {
      latest_ = std::make_shared<const pb::Status>(status());
      latest_at_ = now;
    }
    return latest_;
  }

  bool ends() {
    const std::lock_guard lock(ending_mutex_);
    return ends_;
  }
  // A moment of waiting; false: curated ends.
  bool pause() {
    std::unique_lock lock(ending_mutex_);
    return !ending_.wait_for(lock, kLookAgain, [this] { return ends_; });
  }

  // A call that changes something: refused to those who may only look, and always in the audit log; one that
  // changes things while it lasts also as it begins, since curated may die before its end. What came of it is
  // in `reply`: its problems, or, as text, why it did not end well.
  enum class Lasts : std::uint8_t { Short, Long };
  template <class Reply, class F>
  grpc::Status changing(const grpc::ServerContext& context, const char* command,
                        const google::protobuf::Message& request, const Reply& reply, F&& f,
                        Lasts lasts = Lasts::Short) {
    const Caller caller = callers_.of(context);
    std::string call;
    if (lasts == Lasts::Long && caller.may_change.empty()) {
      call = fmt::format("{}.{}", ::getpid(), calls_.fetch_add(1) + 1);
      audit_.add({caller.who, command, request.ShortDebugString(), "begun", true, call},
                 clock_ns(CLOCK_REALTIME));
    }
    const grpc::Status status = caller.may_change.empty()
                                    ? f()
                                    : grpc::Status(grpc::StatusCode::PERMISSION_DENIED, caller.may_change);
    std::string why = status.ok() ? problem_in(reply) : status.error_message();
    const bool well = status.ok() && why.empty();
    audit_.add({caller.who, command, request.ShortDebugString(), well ? "ok" : std::move(why), well, call},
               clock_ns(CLOCK_REALTIME));
    return status;
  }
  static std::string problem_in(const std::string& text) { return text; }
  static std::string problem_in(const pb::ReloadReply& reply) {
    return reply.problems_size() == 0 ? "" : reply.problems(0).process() + ": " + reply.problems(0).text();
  }
  template <class Reply>
  static std::string problem_in(const Reply& reply) {
    return reply.problems_size() == 0 ? "" : problem_text(reply.problems(0));
  }
  static std::string problem_text(const pb::ShardProblem& p) {
    return fmt::format("shard {}: {}", p.shard(), p.text());
  }

  grpc::Status restart(const grpc::ServerContext& context, const pb::RestartRequest& request,
                       grpc::ServerWriter<pb::RestartProgress>& writer, std::string& why) {
    if (manager_ == nullptr) {
      return {grpc::StatusCode::FAILED_PRECONDITION,
              "this curated does not run the daemons: systemctl restart ingestd@0, one after the other"};
    }
    if (request.processes().empty() && !request.rolling())
      return {grpc::StatusCode::INVALID_ARGUMENT, "name processes, or say rolling"};
    Restarter::Plan plan;
    plan.needs_snapshot = plan.rolling = request.rolling();
    const std::uint32_t timeout_s = request.timeout_s() == 0 ? kRestartTimeoutS : request.timeout_s();
    if (timeout_s > 86'400) return {grpc::StatusCode::INVALID_ARGUMENT, "timeout_s must be at most 86400"};
    plan.timeout_ns = timeout_s * 1'000'000'000ULL;
    plan.grace_ns = static_cast<std::uint64_t>(fleet_.live()->session_grace_s * 1e9);
    plan.snapshots = config_.curation.enabled && config_.snapshot.store != SnapshotStoreKind::None;
    plan.processes.assign(request.processes().begin(), request.processes().end());
    const FleetView view = fleet_.view();
    if (plan.processes.empty()) plan.processes = Restarter::rolling(view);
    if (std::string error = Restarter::unusable(plan.processes, view); !error.empty())
      return {grpc::StatusCode::INVALID_ARGUMENT, std::move(error)};
    const std::unique_lock turn(restarting_, std::try_to_lock);
    if (!turn)
      return {grpc::StatusCode::FAILED_PRECONDITION, "another restart is under way: wait for its end"};
    const auto gone = [&context] { return context.IsCancelled(); };
    Restarter restarter({.view = [this] { return fleet_.view(); },
                         .shards = [this] { return shards_.states(); },
                         .config_problem = [this] { return config_problem(); },
                         .snapshot =
                             [&](std::uint32_t shard) {
                               return shards_.snapshot(shard, std::chrono::seconds(timeout_s), gone);
                             },
                         .restart = [this](const std::string& name) { return manager_->restart(name); },
                         .now_ns = [] { return clock_ns(CLOCK_BOOTTIME); },
                         .gone = gone,
                         .pause = [&] { return pause() && !gone(); }});
    restarter.run(plan, [&](const Restarter::Progress& p) {
      if (!p.ok) why = p.text;
      pb::RestartProgress message;
      message.set_process(p.process);
      message.set_step(step_of(p.step));
      message.set_text(p.text);
      message.set_ok(p.ok);
      writer.Write(message);
    });
    if (!why.empty() && ends())
      return {grpc::StatusCode::UNAVAILABLE, "curated is stopping; nothing more is restarted"};
    if (!why.empty() && context.IsCancelled())
      return {grpc::StatusCode::CANCELLED, "the caller is gone; nothing more is restarted"};
    return grpc::Status::OK;
  }

  // As a process reads it that starts now.
  [[nodiscard]] std::string config_problem() const {
    try {
      (void)load_config(flags_);
      return {};
    } catch (const ConfigError& e) {
      return e.what();
    }
  }

  static pb::RestartProgress::Step step_of(Restarter::Step step) {
    switch (step) {
      case Restarter::Step::Gate: return pb::RestartProgress::GATE;
      case Restarter::Step::Snapshot: return pb::RestartProgress::SNAPSHOT;
      case Restarter::Step::Restart: return pb::RestartProgress::RESTART;
      case Restarter::Step::Wait: return pb::RestartProgress::WAIT;
      case Restarter::Step::Back: return pb::RestartProgress::BACK;
      case Restarter::Step::End: return pb::RestartProgress::END;
    }
    return pb::RestartProgress::END;
  }

  grpc::Status drain(const grpc::ServerContext& context, const pb::DrainRequest& request,
                     pb::DrainReply& out) {
    std::optional<std::uint32_t> shard;
    if (request.has_shard()) shard = request.shard();
    if (shard && *shard >= config_.shards.count) {
      return {grpc::StatusCode::INVALID_ARGUMENT,
              fmt::format("there is no shard {}: shards.count is {}", *shard, config_.shards.count)};
    }
    const std::uint32_t timeout_s = request.timeout_s() == 0 ? kDrainTimeoutS : request.timeout_s();
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(timeout_s);
    std::vector<ShardProblem> problems;
    auto left = shards_.drain(shard, request.undo() ? ShardsClient::Drain::End : ShardsClient::Drain::Begin,
                              problems);
    // The first answer is as of before the drain.
    const auto spilled = [&] {
      return config_.sink.kind == SinkKind::Journal ? 0 : fleet_.view().value(PublishMetric::JournalBytes);
    };
    std::uint64_t journal_bytes = 0;
    std::vector<std::uint32_t> drained;  // those that were seen draining
    while (problems.empty()) {
      left = shards_.drain(shard, ShardsClient::Drain::Look, problems);
      journal_bytes = spilled();
      for (const DrainLeft& l : left) {
        const bool before = std::ranges::find(drained, l.shard) != drained.end();
        if (l.draining && !before) drained.push_back(l.shard);
        if (!l.draining && before && !request.undo()) {
          problems.push_back(
              {l.shard,
               fmt::format("{} ({}): the drain was undone (by another call, or a restart)",
                           arancini::to_string(ErrorCode::DrainFailed), number(ErrorCode::DrainFailed))});
        }
      }
      if (!problems.empty()) break;
      const bool done = std::ranges::all_of(left, [&](const DrainLeft& l) {
        return request.undo() ? !l.draining : l.empty() && journal_bytes == 0;
      });
      if (done) break;
      if (std::chrono::steady_clock::now() >= until) {
        add_what_is_left(left, journal_bytes, problems);
        break;
      }
      // In this order: a curated that stops ends the connections of callers as well.
      if (!pause()) return {grpc::StatusCode::UNAVAILABLE, "curated is stopping; the drain stays"};
      if (context.IsCancelled()) return {grpc::StatusCode::CANCELLED, "the caller is gone; the drain stays"};
    }
    out.set_journal_bytes(journal_bytes);
    for (const DrainLeft& l : left) {
      auto* to = out.add_shards();
      to->set_shard(l.shard);
      to->set_draining(l.draining);
      to->set_empty(l.empty() && journal_bytes == 0);
      to->set_ring_used_bytes(l.ring_used_bytes);
      to->set_sessions_blocked(l.sessions_blocked);
      to->set_sessions(l.sessions);
    }
    add_problems(problems, out);
    return grpc::Status::OK;
  }

  [[nodiscard]] std::string socket_of(const std::string& process) const {
    const auto shard = shard_of(process);
    return shard ? config_.ingestd_control_path(*shard) : config_.log_path();
  }

  void reload(bool check_only, pb::ReloadReply& out) {
    const Reloader::Outcome outcome = reloader_.reload(check_only);
    out.set_ok(outcome.ok);
    out.set_hash(outcome.hash);
    out.mutable_applied()->Assign(outcome.applied.begin(), outcome.applied.end());
    for (const auto& [key, processes] : outcome.needs_restart) {
      auto* to = out.add_needs_restart();
      to->set_key(key);
      to->mutable_processes()->Assign(processes.begin(), processes.end());
    }
    for (const auto& [process, text] : outcome.problems) {
      auto* to = out.add_problems();
      to->set_process(process);
      to->set_text(text);
    }
    for (const std::string& note : outcome.notes) out.add_notes(note);
    if (check_only) return;
    if (!outcome.ok) {
      audit_.say(LogLevel::Error, fmt::format("{} ({}): {}", arancini::to_string(ErrorCode::ReloadRefused),
                                              number(ErrorCode::ReloadRefused), problem_in(out)));
      return;
    }
    const std::string applied = joined(outcome.applied);
    const std::string waiting = joined(outcome.needs_restart, ", ", [](const auto& of) { return of.first; });
    audit_.say(LogLevel::Info,
               applied.empty() && waiting.empty()
                   ? std::string("configuration is valid, nothing changed")
                   : "configuration is valid; in force now: " + (applied.empty() ? "nothing" : applied));
    if (!waiting.empty()) audit_.say(LogLevel::Warn, "in force after a restart: " + waiting);
  }

  static void add_what_is_left(const std::vector<DrainLeft>& left, std::uint64_t journal_bytes,
                               std::vector<ShardProblem>& problems) {
    for (const DrainLeft& l : left) {
      if (l.empty() && journal_bytes == 0) continue;
      problems.push_back(
          {l.shard, fmt::format("{} ({}): {} bytes in its ring are not acked, {} sessions wait for "
                                "room in it, {} bytes are in the journal; does the broker take "
                                "them? see: aranctl status",
                                arancini::to_string(ErrorCode::DrainFailed), number(ErrorCode::DrainFailed),
                                l.ring_used_bytes, l.sessions_blocked, journal_bytes)});
    }
  }

  grpc::Status dump(grpc::ServerContext& context, const pb::DumpRequest& request, pb::DumpReply& out) {
    if (!config_.curation.enabled) return no_tables();
    std::optional<NamedRouter> router;
    if (!request.router().empty()) {
      router = router_of(request.router());
      if (!router) return unknown_router(request.router());
    }
    std::vector<ShardProblem> problems;
    const auto done = shards_.dump(
        router ? &router->address : nullptr, [&context] { return context.IsCancelled(); }, problems);
    for (const DumpDone& d : done) {
      auto* to = out.add_shards();
      to->set_shard(d.shard);
      to->set_routers(d.routers);
      to->set_routes(d.routes);
      to->set_writer(d.writer);
      to->set_start_event(d.start_event);
      to->set_end_event(d.end_event);
    }
    add_problems(problems, out);
    if (router && done.empty() && problems.empty()) {
      return {grpc::StatusCode::NOT_FOUND,
              "no shard knows the router " + request.router() + "; see: aranctl routers"};
    }
    return grpc::Status::OK;
  }

  grpc::Status take_snapshot(grpc::ServerContext& context, pb::TakeSnapshotReply& out) {
    std::vector<ShardProblem> problems;
    const auto done = shards_.snapshot([&context] { return context.IsCancelled(); }, problems);
    for (const SnapshotDone& d : done) {
      auto* to = out.add_shards();
      to->set_shard(d.shard);
      to->set_name(d.name);
      to->set_routes(d.routes);
      to->set_bytes(d.bytes);
      to->set_duration_ms(d.duration_ms);
      to->set_longest_pause_us(d.longest_pause_us);
    }
    add_problems(problems, out);
    return grpc::Status::OK;
  }

  template <class Reply>
  static void add_problems(const std::vector<ShardProblem>& problems, Reply& reply) {
    for (const ShardProblem& p : problems) {
      auto* to = reply.add_problems();
      to->set_shard(p.shard);
      to->set_text(p.text);
    }
  }

  const Config& config_;
  Fleet& fleet_;
  ProcessManager* const manager_;
  const ConfigFlags flags_;
  const ShardsClient shards_;
  AuditLog audit_;
  Callers callers_;
  Reloader reloader_;
  std::string tcp_address_;
  std::atomic<int> watchers_{0};
  std::atomic<int> lookups_{0};
  std::atomic<std::uint64_t> calls_{0};  // that have two lines in the audit log
  std::mutex restarting_;
  std::mutex latest_mutex_;  // of the next two
  std::shared_ptr<const pb::Status> latest_;
  std::chrono::steady_clock::time_point latest_at_;
  std::mutex ending_mutex_;
  std::condition_variable ending_;
  bool ends_ = false;
};

}  // namespace

struct ControlServer::State {
  State(const Config& config, Fleet& fleet, Setup setup) : service(config, fleet, std::move(setup)) {}
  ControlImpl service;
  std::optional<LocalListener> listener;
  OpenConnections local{kMostLocal};
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> tls;  // null: no TCP
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<TcpAcceptor> acceptor;
};

namespace {

Result<std::string, std::string> content_of(const char* key, const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (!in || text.empty()) return Err{fmt::format("control.{}: {} cannot be read", key, path)};
  return text;
}

using Pem = std::unique_ptr<BIO, decltype(&::BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&::X509_free)>;
Pem pem_of(const std::string& text) {
  return {::BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &::BIO_free};
}
Certificate certificate_in(const std::string& text) {
  return {::PEM_read_bio_X509(pem_of(text).get(), nullptr, nullptr, nullptr), &::X509_free};
}

// gRPC says nothing of files that it cannot use, and then no connection comes about.
bool usable(const std::string& certificate, const std::string& key, const std::string& ca) {
  const Certificate own = certificate_in(certificate);
  char no_password[] = "";  // rather than to ask for one
  const std::unique_ptr<EVP_PKEY, decltype(&::EVP_PKEY_free)> its(
      ::PEM_read_bio_PrivateKey(pem_of(key).get(), nullptr, nullptr, no_password), &::EVP_PKEY_free);
  return own && its && ::X509_check_private_key(own.get(), its.get()) == 1 && certificate_in(ca);
}

}  // namespace

ControlServer::ControlServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

ControlServer::~ControlServer() {
  state_->listener.reset();
  state_->acceptor.reset();
  state_->service.end();
  state_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
}

Result<std::unique_ptr<ControlServer>, std::string> ControlServer::start(const Config& config, Fleet& fleet,
                                                                         Logger& log, Setup setup) {
  auto state = std::make_unique<State>(config, fleet, std::move(setup));
  auto listener = LocalListener::open(config.control_path(), "control", LocalListener::Callers::Group, log);
  if (!listener) return Err{listener.error()};
  state->listener.emplace(std::move(listener).value());

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.RegisterService(&state->service);
  builder.SetMaxReceiveMessageSize(1 << 20);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  builder.SetResourceQuota(grpc::ResourceQuota("control").SetMaxThreads(kMostThreads));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMostStreams);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kIdleMs);
  Fd tcp;
  if (config.control.listen) {
    auto opened = TcpAcceptor::listen(*config.control.listen);
    if (!opened) {
      return Err{fmt::format("control listener {}: {}; choose another control.listen",
                             config.control.listen->to_string(), opened.error())};
    }
    tcp = std::move(opened).value();
    grpc::SslServerCredentialsOptions tls(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    auto certificate = content_of("tls_cert", config.control.tls_cert);
    auto key = content_of("tls_key", config.control.tls_key);
    auto ca = content_of("tls_ca", config.control.tls_ca);
    for (const auto* file : {&certificate, &key, &ca})
      if (!*file) return Err{file->error()};
    if (!usable(certificate.value(), key.value(), ca.value())) {
      return Err{
          fmt::format("control listener {}: control.tls_cert, control.tls_key and control.tls_ca must be a "
                      "certificate, its key, and the certificate of a CA, all PEM",
                      config.control.listen->to_string())};
    }
    tls.pem_key_cert_pairs.push_back({std::move(key).value(), std::move(certificate).value()});
    tls.pem_root_certs = std::move(ca).value();
    const auto credentials = grpc::SslServerCredentials(tls);
    credentials->SetAuthMetadataProcessor(state->service.callers().name_check());
    state->tls = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
  }
  state->server = builder.BuildAndStart();
  if (!state->server) return Err{std::string("gRPC server did not start")};
  if (config.control.listen) {
    const std::string address = bound_address(tcp.get()).value_or(*config.control.listen).to_string();
    state->service.listens_on(address);
    state->acceptor = std::make_unique<TcpAcceptor>(
        std::move(tcp), kMostTcp,
        TcpAcceptor::Hooks{
            .accepted =
                [tls = state->tls.get()](int listening, Fd connection) {
                  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters given;
                  given.listener_fd = listening;
                  given.fd = connection.release();
                  tls->HandleNewConnection(&given);
                },
            .warn =
                [&service = state->service, address](std::string_view text) {
                  service.warn(fmt::format("control: {}: {}", address, text));
                }});
    log.info("control: serving {} with mTLS", address);
  }
  state->server->GetHealthCheckService()->SetServingStatus(pb::Control::service_full_name(), true);
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(state)));
}

int ControlServer::poll_fd() const {
  return state_->local.room() ? state_->listener->poll_fd(clock_ns(CLOCK_BOOTTIME)) : -1;
}

void ControlServer::reload(const std::string& who) {
  state_->service.reload_by_signal(who);
}

void ControlServer::accept_callers() {
  ucred who{};
  while (state_->local.room()) {
    Fd fd = state_->listener->accept(clock_ns(CLOCK_BOOTTIME), &who);
    if (!fd) return;
    Fd known = state_->service.callers().connected(std::move(fd), who);
    if (!known) continue;
    state_->local.add(known.get());
    grpc::AddInsecureChannelFromFd(state_->server.get(), known.release());
  }
}

}  // namespace arancini::curated
