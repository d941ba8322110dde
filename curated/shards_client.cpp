#include "curated/shards_client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <shard.grpc.pb.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>

#include "common/schema/update_decode.h"

namespace arancini::curated {

namespace {

namespace pb = shard::v1;

// Within which a shard says how it is; one that hangs must not keep the operator from seeing that.
constexpr auto kStatePatience = std::chrono::milliseconds(500);
constexpr auto kDrainPatience = std::chrono::seconds(3);
constexpr auto kLookupPatience = std::chrono::seconds(60);
// A dump waits for the log, a snapshot until what is in it is durable.
constexpr auto kLongPatience = std::chrono::hours(1);

std::unique_ptr<pb::Shard::Stub> stub_of(const Config& config, std::uint32_t shard) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  // A connection of this call's own: none that still backs off since the shard was down.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return pb::Shard::NewStub(grpc::CreateCustomChannel("unix:" + config.ingestd_control_path(shard),
                                                      grpc::InsecureChannelCredentials(), arguments));
}

std::string problem_text(const grpc::Status& status) {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE)
    return "does not answer (not running, starting or stopping): " + status.error_message();
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED)
    return "did not answer in time: stopped or overloaded";
  return status.error_message();
}

std::string bytes_of(const IpAddress& address) {
  return {reinterpret_cast<const char*>(address.bytes.data()), address.bytes.size()};
}

// Calls f(shard, context) for each shard at a time; cancels all when nobody waits any more. The status of
// each.
template <class F>
std::vector<grpc::Status> ask_all(std::uint32_t shards, std::chrono::milliseconds patience,
                                  const ShardsClient::Cancelled& cancelled, F&& f) {
  std::vector<grpc::Status> statuses(shards);
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::thread> threads;
  std::atomic<std::uint32_t> left{shards};
  for (std::uint32_t k = 0; k < shards; ++k) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    contexts[k]->set_deadline(std::chrono::system_clock::now() + patience);
  }
  for (std::uint32_t k = 0; k < shards; ++k) {
    threads.emplace_back([&, k] {
      statuses[k] = f(k, *contexts[k]);
      left.fetch_sub(1, std::memory_order_release);
    });
  }
  bool told = false;
  while (cancelled && left.load(std::memory_order_acquire) > 0) {
    if (!told && cancelled()) {
      told = true;
      for (auto& context : contexts) context->TryCancel();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

// A route with what it is sorted by.
struct Found {
  std::uint8_t length = 0;
  IpAddress prefix, router, peer;
  std::uint64_t distinguisher = 0;
  std::uint8_t type = 0;
  View view = View::AdjInPre;
  Family family;
  std::uint32_t path_id = 0;
  std::string update;

  [[nodiscard]] auto order() const {
    return std::tuple(-static_cast<int>(length), prefix, router, peer, distinguisher, type, view, family.afi,
                      family.safi, path_id);
  }
};

std::optional<Found> found(std::string update) {
  Found out;
  const auto problem = schema::decode_payload(schema::PayloadFormat::UpdateV1,
                                              std::as_bytes(std::span(update.data(), update.size())),
                                              [&](const schema::DecodedUpdate& u) {
                                                out.length = u.prefix_length;
                                                out.prefix = u.prefix_address;
                                                out.router = u.router;
                                                out.peer = u.peer;
                                                out.distinguisher = u.peer_distinguisher;
                                                out.type = u.peer_type;
                                                out.view = u.view;
                                                out.family = u.family;
                                                out.path_id = u.path_id;
                                              });
  if (problem) return std::nullopt;
  out.update = std::move(update);
  return out;
}

}  // namespace

std::vector<ShardAnswer> ShardsClient::states() const {
  std::vector<ShardAnswer> out(config_.shards.count);
  const auto statuses =
      ask_all(config_.shards.count, kStatePatience, {}, [&](std::uint32_t k, grpc::ClientContext& context) {
        pb::State answer;
        grpc::Status status = stub_of(config_, k)->GetState(&context, {}, &answer);
        if (!status.ok()) return status;
        out[k].restoring = answer.restoring();
        out[k].restore_text = answer.restore_text();
        out[k].snapshot_realtime_ns = answer.snapshot_realtime_ns();
        out[k].snapshot_routes = answer.snapshot_routes();
        out[k].snapshot_bytes = answer.snapshot_bytes();
        out[k].snapshot_error = answer.snapshot_error();
        return status;
      });
  for (std::size_t k = 0; k < out.size(); ++k) {
    if (!statuses[k].ok()) out[k].problem = problem_text(statuses[k]);
  }
  return out;
}

LookupFound ShardsClient::lookup(const LookupWanted& wanted, const Cancelled& cancelled) const {
  pb::LookupRequest request;
  request.set_address(bytes_of(wanted.address));
  request.set_length(wanted.length);
  request.set_match(wanted.match == LookupWanted::Match::Exact    ? pb::LookupRequest::EXACT
                    : wanted.match == LookupWanted::Match::Longer ? pb::LookupRequest::LONGER
                                                                  : pb::LookupRequest::LONGEST);
  if (wanted.one_router) {
    request.set_router(bytes_of(wanted.router));
    request.set_router_name(wanted.router_name);
  }
  request.set_limit(wanted.limit == 0 ? kMostRoutes : std::min(wanted.limit, kMostRoutes));

  LookupFound out;
  std::mutex mutex;  // of what follows
  std::vector<Found> all;
  std::uint64_t bytes = 0;
  const auto statuses = ask_all(config_.shards.count, kLookupPatience, cancelled,
                                [&](std::uint32_t k, grpc::ClientContext& context) {
                                  const auto stub = stub_of(config_, k);
                                  const auto reader = stub->Lookup(&context, request);
                                  pb::LookupReply reply;
                                  bool enough = false;
                                  while (reader->Read(&reply)) {
                                    const std::uint64_t size = reply.ByteSizeLong();
                                    std::vector<Found> some;
                                    for (std::string& update : *reply.mutable_routes()) {
                                      if (auto route = found(std::move(update)))
                                        some.push_back(*std::move(route));
                                    }
                                    const std::lock_guard lock(mutex);
                                    bytes += size;
                                    if (bytes > kMostBytes) {
                                      out.truncated = true;
                                      enough = true;
                                      context.TryCancel();
                                      break;
                                    }
                                    std::move(some.begin(), some.end(), std::back_inserter(all));
                                    out.truncated = out.truncated || reply.truncated();
                                  }
                                  const grpc::Status status = reader->Finish();
                                  return enough ? grpc::Status::OK : status;
                                });
  for (std::uint32_t k = 0; k < statuses.size(); ++k) {
    if (!statuses[k].ok()) out.problems.push_back({k, problem_text(statuses[k])});
  }
  std::sort(all.begin(), all.end(), [](const Found& a, const Found& b) { return a.order() < b.order(); });
  out.routes.reserve(all.size());
  for (Found& route : all) out.routes.push_back(std::move(route.update));
  return out;
}

std::vector<DumpDone> ShardsClient::dump(const IpAddress* router, const Cancelled& cancelled,
                                         std::vector<ShardProblem>& problems) const {
  pb::DumpRequest request;
  if (router != nullptr) request.set_router(bytes_of(*router));
  std::vector<pb::DumpReply> replies(config_.shards.count);
  const auto statuses = ask_all(config_.shards.count, kLongPatience, cancelled,
                                [&](std::uint32_t k, grpc::ClientContext& context) {
                                  return stub_of(config_, k)->Dump(&context, request, &replies[k]);
                                });
  std::vector<DumpDone> out;
  for (std::uint32_t k = 0; k < statuses.size(); ++k) {
    if (statuses[k].ok()) {
      const pb::DumpReply& r = replies[k];
      WriterId writer;
      if (r.writer().size() == writer.bytes.size())
        std::memcpy(writer.bytes.data(), r.writer().data(), writer.bytes.size());
      if (r.routers() > 0)
        out.push_back({k, r.routers(), r.routes(), writer.to_hex(), r.start_event(), r.end_event()});
    } else if (statuses[k].error_code() != grpc::StatusCode::NOT_FOUND) {
      problems.push_back({k, problem_text(statuses[k])});
    }
  }
  return out;
}

std::vector<SnapshotDone> ShardsClient::snapshot(const Cancelled& cancelled,
                                                 std::vector<ShardProblem>& problems) const {
  std::vector<pb::SnapshotReply> replies(config_.shards.count);
  const auto statuses = ask_all(config_.shards.count, kLongPatience, cancelled,
                                [&](std::uint32_t k, grpc::ClientContext& context) {
                                  return stub_of(config_, k)->Snapshot(&context, {}, &replies[k]);
                                });
  std::vector<SnapshotDone> out;
  for (std::uint32_t k = 0; k < statuses.size(); ++k) {
    const pb::SnapshotReply& r = replies[k];
    if (statuses[k].ok()) {
      out.push_back({k, r.name(), r.routes(), r.bytes(), r.duration_ms(), r.longest_pause_us()});
    } else {
      problems.push_back({k, problem_text(statuses[k])});
    }
  }
  return out;
}

Result<SnapshotDone, std::string> ShardsClient::snapshot(std::uint32_t shard, std::chrono::seconds patience,
                                                         const Cancelled& cancelled) const {
  pb::SnapshotReply r;
  const grpc::Status status =
      ask_all(1, patience, cancelled, [&](std::uint32_t, grpc::ClientContext& context) {
        return stub_of(config_, shard)->Snapshot(&context, {}, &r);
      }).front();
  if (!status.ok()) return Err{problem_text(status)};
  return SnapshotDone{shard, r.name(), r.routes(), r.bytes(), r.duration_ms(), r.longest_pause_us()};
}

std::vector<DrainLeft> ShardsClient::drain(std::optional<std::uint32_t> shard, Drain action,
                                           std::vector<ShardProblem>& problems) const {
  pb::DrainRequest request;
  request.set_action(action == Drain::Begin ? pb::DrainRequest::BEGIN
                     : action == Drain::End ? pb::DrainRequest::END
                                            : pb::DrainRequest::LOOK);
  const std::uint32_t first = shard.value_or(0);
  std::vector<pb::DrainReply> replies(shard ? 1 : config_.shards.count);
  const auto count = static_cast<std::uint32_t>(replies.size());
  const auto statuses =
      ask_all(count, kDrainPatience, {}, [&](std::uint32_t i, grpc::ClientContext& context) {
        return stub_of(config_, first + i)->Drain(&context, request, &replies[i]);
      });
  std::vector<DrainLeft> out;
  for (std::uint32_t i = 0; i < count; ++i) {
    const pb::DrainReply& r = replies[i];
    if (statuses[i].ok()) {
      out.push_back({first + i, r.draining(), r.sessions_blocked(), r.ring_used_bytes(), r.sessions()});
    } else {
      problems.push_back({first + i, problem_text(statuses[i])});
    }
  }
  return out;
}

}  // namespace arancini::curated
