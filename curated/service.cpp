#include "curated/service.h"

// The only file of the daemon that sees gRPC and the generated code.
#include <control.grpc.pb.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_posix.h>

#include <chrono>
#include <optional>
#include <vector>

#include "common/base/error.h"
#include "common/base/local_listener.h"
#include "common/base/types.h"
#include "curated/shards_client.h"

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

std::uint64_t metric(const std::vector<std::uint64_t>& values, PublishMetric m) {
  return values.empty() ? 0 : values[static_cast<std::size_t>(m)];
}

grpc::Status no_tables() {
  return {grpc::StatusCode::FAILED_PRECONDITION, "curation.enabled = false: there are no tables"};
}

class ControlImpl final : public pb::Control::Service {
 public:
  ControlImpl(const Config& config, Fleet& fleet) : config_(config), fleet_(fleet), shards_(config) {}

  grpc::Status GetStatus(grpc::ServerContext*, const pb::GetStatusRequest*, pb::Status* out) override {
    const FleetView view = fleet_.view();
    out->set_instance(config_.instance.name);
    out->set_version(ARANCINI_VERSION);
    out->set_bmp_listen(config_.bmp.listen.to_string());
    out->set_metrics_listen(config_.metrics.listen.to_string());
    out->set_runtime_dir(config_.paths.runtime_dir);
    out->set_state_dir(config_.paths.state_dir);
    if (!config_.curation.enabled)
      out->set_notice("curation.enabled = false: the stream does not fold to the routers' tables");
    auto* nats = out->mutable_nats();
    nats->set_state(view.nats_state);
    if (config_.sink.kind == SinkKind::Nats) {
      nats->set_url(config_.nats.url);
      nats->set_stream(config_.nats.updates_stream);
    }
    nats->set_last_sequence(metric(view.publish, PublishMetric::StreamLastSequence));
    nats->set_in_flight(metric(view.publish, PublishMetric::MessagesInFlight));
    const auto trouble = metric(view.publish, PublishMetric::JournalTrouble);
    auto* sink = out->mutable_sink();
    sink->set_kind(config_.sink.kind == SinkKind::Journal ? "journal" : "nats");
    sink->set_journal(config_.journal_dir());
    sink->set_journal_bytes(metric(view.publish, PublishMetric::JournalBytes));
    sink->set_journal_segments(metric(view.publish, PublishMetric::JournalSegments));
    sink->set_journal_trouble(static_cast<std::uint32_t>(trouble));
    if (trouble != 0)
      sink->set_journal_trouble_text(std::string(arancini::to_string(static_cast<ErrorCode>(trouble))));
    for (const ProcessView& p : view.processes) {
      auto* to = out->add_processes();
      to->set_name(p.name);
      to->set_pid(p.pid);
      to->set_state(std::string(to_string(p.verdict)));
      to->set_uptime_s(p.uptime_s);
      to->set_version(p.version);
      to->set_restarts(p.restarts);
      to->set_detail(p.detail);
      if (p.name == "curated") out->set_uptime_s(p.uptime_s);
    }
    const std::vector<ShardAnswer> answers = shards_.states();
    for (const ShardView& s : view.shards) {
      auto* to = out->add_shards();
      if (s.shard < answers.size()) set_answer(answers[s.shard], *to);
      to->set_shard(s.shard);
      to->set_sessions(s.value(IngestMetric::SessionsOpen));
      to->set_routes(s.value(IngestMetric::Routes));
      to->set_updates(s.value(IngestMetric::UpdatesAnnounced) + s.value(IngestMetric::UpdatesWithdrawn));
      to->set_suppressed(s.value(IngestMetric::UpdatesSuppressedDuplicate) +
                         s.value(IngestMetric::UpdatesSuppressedUnknown));
      to->set_malformed(s.value(IngestMetric::MessagesMalformed));
      to->set_ring_used_bytes(s.value(IngestMetric::RingUsedBytes));
      to->set_ring_capacity_bytes(s.value(IngestMetric::RingCapacityBytes));
      to->set_ring_state(s.ring_state);
    }
    return grpc::Status::OK;
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
      const auto router = IpAddress::parse(request->router());
      if (!router) return not_an_address(request->router());
      wanted.router = *router;
    }
    LookupFound found = shards_.lookup(wanted, [context] { return context->IsCancelled(); });
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
    if (!config_.curation.enabled) return no_tables();
    std::optional<IpAddress> router;
    if (!request->router().empty()) {
      router = IpAddress::parse(request->router());
      if (!router) return not_an_address(request->router());
    }
    std::vector<ShardProblem> problems;
    const auto done = shards_.dump(
        router ? &*router : nullptr, [context] { return context->IsCancelled(); }, problems);
    for (const DumpDone& d : done) {
      auto* to = out->add_shards();
      to->set_shard(d.shard);
      to->set_routers(d.routers);
      to->set_routes(d.routes);
      to->set_writer(d.writer);
      to->set_start_event(d.start_event);
      to->set_end_event(d.end_event);
    }
    add_problems(problems, *out);
    if (router && done.empty() && problems.empty()) {
      return {grpc::StatusCode::NOT_FOUND,
              "no shard knows the router " + request->router() + "; see: aranctl routers"};
    }
    return grpc::Status::OK;
  }

  grpc::Status TakeSnapshot(grpc::ServerContext* context, const pb::TakeSnapshotRequest*,
                            pb::TakeSnapshotReply* out) override {
    std::vector<ShardProblem> problems;
    const auto done = shards_.snapshot([context] { return context->IsCancelled(); }, problems);
    for (const SnapshotDone& d : done) {
      auto* to = out->add_shards();
      to->set_shard(d.shard);
      to->set_name(d.name);
      to->set_routes(d.routes);
      to->set_bytes(d.bytes);
      to->set_duration_ms(d.duration_ms);
      to->set_longest_pause_us(d.longest_pause_us);
    }
    add_problems(problems, *out);
    return grpc::Status::OK;
  }

  grpc::Status ListRouters(grpc::ServerContext*, const pb::ListRoutersRequest*,
                           pb::ListRoutersResponse* out) override {
    for (const RouterView& r : fleet_.routers()) {
      auto* to = out->add_routers();
      to->set_address(r.row.address);
      const auto address = IpAddress::parse(r.row.address);
      const RouterEntry* entry = address ? config_.routers.find(*address, r.row.sys_name) : nullptr;
      to->set_name(entry == nullptr || entry->name.empty() ? r.row.sys_name : entry->name);
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
    }
    return grpc::Status::OK;
  }

  grpc::Status ListPeers(grpc::ServerContext*, const pb::ListPeersRequest* request,
                         pb::ListPeersResponse* out) override {
    std::string wanted;
    if (!request->router().empty()) {
      const auto address = IpAddress::parse(request->router());
      if (!address) return not_an_address(request->router());
      wanted = address->to_string();  // the form of the rows
    }
    for (const PeerView& p : fleet_.peers()) {
      if (!wanted.empty() && p.router != wanted) continue;
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
  static grpc::Status not_an_address(const std::string& text) {
    return {grpc::StatusCode::INVALID_ARGUMENT,
            "'" + text + "' is not an IPv4 or IPv6 address; see: aranctl routers"};
  }

  static void set_answer(const ShardAnswer& answer, pb::ShardStatus& to) {
    to.set_restoring(answer.restoring);
    to.set_restore_text(answer.restore_text);
    to.set_snapshot_ns(answer.snapshot_realtime_ns);
    to.set_snapshot_routes(answer.snapshot_routes);
    to.set_snapshot_bytes(answer.snapshot_bytes);
    to.set_snapshot_error(answer.snapshot_error);
    to.set_control_error(answer.problem);
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
  const ShardsClient shards_;
};

}  // namespace

struct ControlServer::State {
  State(const Config& config, Fleet& fleet) : service(config, fleet) {}
  ControlImpl service;
  std::optional<LocalListener> listener;
  std::unique_ptr<grpc::Server> server;
};

ControlServer::ControlServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

ControlServer::~ControlServer() {
  state_->listener.reset();
  state_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
}

Result<std::unique_ptr<ControlServer>, std::string> ControlServer::start(const Config& config, Fleet& fleet,
                                                                         Logger& log) {
  auto state = std::make_unique<State>(config, fleet);
  auto listener = LocalListener::open(config.control_path(), "control", log);
  if (!listener) return Err{listener.error()};
  state->listener.emplace(std::move(listener).value());

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.RegisterService(&state->service);
  builder.SetMaxReceiveMessageSize(1 << 20);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  state->server = builder.BuildAndStart();
  if (!state->server) return Err{std::string("gRPC server did not start")};
  state->server->GetHealthCheckService()->SetServingStatus(pb::Control::service_full_name(), true);
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(state)));
}

int ControlServer::poll_fd() const {
  return state_->listener->poll_fd(clock_ns(CLOCK_BOOTTIME));
}

void ControlServer::accept_callers() {
  while (Fd fd = state_->listener->accept(clock_ns(CLOCK_BOOTTIME)))
    grpc::AddInsecureChannelFromFd(state_->server.get(), fd.release());
}

}  // namespace arancini::curated
