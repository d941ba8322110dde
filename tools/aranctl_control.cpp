#include "tools/aranctl_control.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "common/base/clock.h"
#include "common/schema/update_decode.h"
#include "tools/curated_client.h"
#include "tools/route_json.h"
#include "tools/route_text.h"
#include "tools/text_table.h"

namespace arancini::tools {

namespace {

namespace pb = control::v1;
using nlohmann::ordered_json;

constexpr auto kLookupPatience = std::chrono::seconds(60);
constexpr auto kLongPatience = std::chrono::seconds(3600);
constexpr std::uint64_t kSecond = 1'000'000'000U;

// Shards that are missing in an answer: never silently. `what`: what they did not do.
template <class Reply>
void say_problems(const Reply& reply, int& exit_code, const char* what = "is missing") {
  for (const pb::ShardProblem& p : reply.problems()) {
    std::fprintf(stderr, "aranctl: shard %u %s: %s\n", p.shard(), what, p.text().c_str());
    exit_code = kExitIncomplete;
  }
}

std::string since(std::uint64_t realtime_ns) {
  const std::uint64_t now = clock_ns(CLOCK_REALTIME);
  if (realtime_ns == 0) return "never";
  return short_duration(now > realtime_ns ? (now - realtime_ns) / kSecond : 0);
}

std::string percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? "-"
                    : std::to_string(static_cast<std::uint64_t>(100.0 * static_cast<double>(part) /
                                                                static_cast<double>(whole))) +
                          "%";
}

// One line, so that it can be read as a whole and line by line.
void print_json(const ordered_json& value) {
  std::printf("%s\n", value.dump(-1, ' ', false, ordered_json::error_handler_t::replace).c_str());
}

ordered_json to_json(const pb::Status& s) {
  ordered_json out = {{"instance", s.instance()},
                      {"version", s.version()},
                      {"uptime_s", s.uptime_s()},
                      {"bmp_listen", s.bmp_listen()},
                      {"metrics_listen", s.metrics_listen()},
                      {"runtime_dir", s.runtime_dir()},
                      {"state_dir", s.state_dir()},
                      {"control_listen", s.control_listen()},
                      {"version_differs", s.version_differs()}};
  out["nats"] = {{"url", s.nats().url()},
                 {"state", s.nats().state()},
                 {"stream", s.nats().stream()},
                 {"last_sequence", s.nats().last_sequence()},
                 {"in_flight", s.nats().in_flight()}};
  if (!s.notice().empty()) out["notice"] = s.notice();
  out["sink"] = {{"kind", s.sink().kind()},
                 {"journal", s.sink().journal()},
                 {"journal_bytes", s.sink().journal_bytes()},
                 {"journal_segments", s.sink().journal_segments()},
                 {"journal_trouble", s.sink().journal_trouble()},
                 {"journal_trouble_text", s.sink().journal_trouble_text()}};
  out["shards"] = ordered_json::array();
  for (const auto& k : s.shards()) {
    out["shards"].push_back({{"shard", k.shard()},
                             {"sessions", k.sessions()},
                             {"routes", k.routes()},
                             {"updates", k.updates()},
                             {"suppressed", k.suppressed()},
                             {"malformed", k.malformed()},
                             {"ring_used_bytes", k.ring_used_bytes()},
                             {"ring_capacity_bytes", k.ring_capacity_bytes()},
                             {"ring_state", k.ring_state()},
                             {"restoring", k.restoring()},
                             {"restore_text", k.restore_text()},
                             {"snapshot_ns", k.snapshot_ns()},
                             {"snapshot_routes", k.snapshot_routes()},
                             {"snapshot_bytes", k.snapshot_bytes()},
                             {"snapshot_error", k.snapshot_error()},
                             {"control_error", k.control_error()},
                             {"draining", k.draining()}});
  }
  out["processes"] = ordered_json::array();
  for (const auto& p : s.processes()) {
    out["processes"].push_back({{"name", p.name()},
                                {"pid", p.pid()},
                                {"state", p.state()},
                                {"uptime_s", p.uptime_s()},
                                {"version", p.version()},
                                {"restarts", p.restarts()},
                                {"detail", p.detail()}});
  }
  return out;
}

void status(const GlobalOptions& options, int& exit_code) {
  pb::Status answer;
  if (!ask_curated(options, exit_code, pb::GetStatusRequest{}, answer, &pb::Control::Stub::GetStatus)) return;
  if (options.json) {
    print_json(to_json(answer));
    return;
  }
  std::printf("%s, version %s, up %s\n", answer.instance().c_str(), answer.version().c_str(),
              short_duration(answer.uptime_s()).c_str());
  std::printf("BMP      %s\n", answer.bmp_listen().c_str());
  std::printf("metrics  http://%s/metrics\n", answer.metrics_listen().c_str());
  if (!answer.control_listen().empty()) std::printf("control  %s, mTLS\n", answer.control_listen().c_str());
  if (answer.version_differs_size() > 0)
    std::printf("notice   not all processes run the same version; see: aranctl version\n");
  if (!answer.notice().empty()) std::printf("notice   %s\n", answer.notice().c_str());
  const pb::SinkStatus& sink = answer.sink();
  const bool journal_is_sink = sink.kind() == "journal";
  if (!journal_is_sink) {
    std::printf("NATS     %s, %s\n", answer.nats().url().c_str(), answer.nats().state().c_str());
    std::printf("stream   %s, last sequence %llu, %llu messages in flight\n", answer.nats().stream().c_str(),
                static_cast<unsigned long long>(answer.nats().last_sequence()),
                static_cast<unsigned long long>(answer.nats().in_flight()));
  }
  // Of a journal that has nothing to say there is no need to talk.
  if (journal_is_sink || sink.journal_bytes() > 0 || sink.journal_trouble() != 0) {
    std::printf("journal  %s, %s bytes %s, %llu files%s%s\n", sink.journal().c_str(),
                short_number(sink.journal_bytes()).c_str(), journal_is_sink ? "kept" : "to be published",
                static_cast<unsigned long long>(sink.journal_segments()),
                sink.journal_trouble() != 0 ? ": " : "", sink.journal_trouble_text().c_str());
  }
  std::printf("\n");
  TextTable processes(
      {{"PROCESS", 14}, {"PID", 8, true}, {"STATE", 9}, {"UP", 7, true}, {"RESTARTS", 8, true}, {"WHY", 24}});
  for (const auto& p : answer.processes()) {
    processes.add({p.name(), p.pid() > 0 ? std::to_string(p.pid()) : "-", p.state(),
                   p.pid() > 0 ? short_duration(p.uptime_s()) : "-", std::to_string(p.restarts()),
                   p.detail()});
  }
  processes.print();
  std::printf("\n");
  TextTable shards({{"SHARD", 5, true},
                    {"SESSIONS", 8, true},
                    {"ROUTES", 7, true},
                    {"UPDATES", 7, true},
                    {"SUPPR", 7, true},
                    {"MALF", 6, true},
                    {"RING", 5, true},
                    {"READER", 19}});
  for (const auto& k : answer.shards()) {
    shards.add({std::to_string(k.shard()), short_number(k.sessions()), short_number(k.routes()),
                short_number(k.updates()), short_number(k.suppressed()), short_number(k.malformed()),
                percent(k.ring_used_bytes(), k.ring_capacity_bytes()), k.ring_state()});
  }
  shards.print();
  for (const auto& k : answer.shards()) {
    if (k.restoring()) {
      std::printf("shard %u restores its tables; its routers wait:\n%s", k.shard(),
                  wrapped(k.restore_text(), 4, 80).c_str());
    }
    if (!k.snapshot_error().empty())
      std::printf("shard %u, snapshot:\n%s", k.shard(), wrapped(k.snapshot_error(), 4, 80).c_str());
  }
}

ordered_json to_json(const pb::Router& r) {
  return {{"address", r.address()},
          {"port", r.port()},
          {"name", r.name()},
          {"description", r.description()},
          {"shard", r.shard()},
          {"state", r.state()},
          {"sessions", r.sessions()},
          {"peers_up", r.peers_up()},
          {"connected_ns", r.connected_ns()},
          {"last_message_ns", r.last_message_ns()},
          {"messages", r.messages()},
          {"bytes", r.bytes()},
          {"malformed", r.malformed()},
          {"updates", r.updates()},
          {"suppressed", r.suppressed()},
          {"routes", r.routes()},
          {"announcements_dropped", r.announcements_dropped()},
          {"withdraws_dropped", r.withdraws_dropped()},
          {"routes_untold", r.routes_untold()},
          {"throttled", r.throttled()},
          {"last_error", r.last_error()},
          {"last_error_code", r.last_error_code()},
          {"condition", r.condition()},
          {"concern", r.concern()},
          {"diagnosis", r.diagnosis()},
          {"advice", r.advice()}};
}

void routers(const GlobalOptions& options, int& exit_code) {
  pb::ListRoutersResponse answer;
  if (!ask_curated(options, exit_code, pb::ListRoutersRequest{}, answer, &pb::Control::Stub::ListRouters))
    return;
  std::sort(answer.mutable_routers()->begin(), answer.mutable_routers()->end(),
            [](const auto& a, const auto& b) {
              return std::pair(a.address(), a.shard()) < std::pair(b.address(), b.shard());
            });
  if (options.json) {
    ordered_json out = {{"routers", ordered_json::array()}};
    for (const auto& r : answer.routers()) out["routers"].push_back(to_json(r));
    print_json(out);
    return;
  }
  TextTable table({{"ROUTER", 24},
                   {"NAME", 12},
                   {"STATE", 10},
                   {"PEERS", 5, true},
                   {"ROUTES", 6, true},
                   {"LAST", 6, true},
                   {"MALF", 5, true}});
  for (const auto& r : answer.routers()) {
    table.add({r.address(), r.name(), r.condition(), std::to_string(r.peers_up()), short_number(r.routes()),
               since(r.last_message_ns()), short_number(r.malformed())});
  }
  table.print();
  for (const auto& r : answer.routers()) {
    if (r.concern() == "none") continue;
    std::printf("%s is %s:\n%s", r.address().c_str(), r.condition().c_str(),
                wrapped(r.diagnosis() + (r.advice().empty() ? "" : " " + r.advice()), 4, 80).c_str());
  }
  for (const auto& r : answer.routers()) {
    // Why it was refused, or limited, has been said.
    if (r.last_error_code() == 0 || r.diagnosis().find(r.last_error()) != std::string::npos) continue;
    std::printf("%s: last error %u:\n%s", r.address().c_str(), r.last_error_code(),
                wrapped(r.last_error(), 4, 80).c_str());
  }
}

ordered_json to_json(const pb::Peer& p) {
  return {{"router", p.router()},
          {"address", p.address()},
          {"distinguisher", p.distinguisher()},
          {"asn", p.asn()},
          {"bgp_id", p.bgp_id()},
          {"view", p.view()},
          {"state", p.state()},
          {"peer_type", p.peer_type()},
          {"changed_ns", p.changed_ns()},
          {"routes", p.routes()},
          {"updates", p.updates()},
          {"suppressed", p.suppressed()},
          {"malformed", p.malformed()},
          {"synthetic_withdraws", p.synthetic_withdraws()},
          {"down_reason", p.down_reason()},
          {"shard", p.shard()}};
}

void peers(const GlobalOptions& options, const std::string& router, int& exit_code) {
  pb::ListPeersRequest request;
  request.set_router(router);
  pb::ListPeersResponse answer;
  if (!ask_curated(options, exit_code, request, answer, &pb::Control::Stub::ListPeers)) return;
  std::sort(answer.mutable_peers()->begin(), answer.mutable_peers()->end(), [](const auto& a, const auto& b) {
    return std::tuple(a.router(), a.address(), a.distinguisher(), a.view()) <
           std::tuple(b.router(), b.address(), b.distinguisher(), b.view());
  });
  if (options.json) {
    ordered_json out = {{"peers", ordered_json::array()}};
    for (const auto& p : answer.peers()) out["peers"].push_back(to_json(p));
    print_json(out);
    return;
  }
  TextTable table({{"ROUTER", 16},
                   {"PEER", 20},
                   {"AS", 10, true},
                   {"VIEW", 13},
                   {"STATE", 7},
                   {"ROUTES", 6, true},
                   {"SINCE", 6, true}});
  for (const auto& p : answer.peers()) {
    const std::string address =
        p.distinguisher() == "0:0" ? p.address() : p.distinguisher() + " " + p.address();
    table.add({p.router(), address, std::to_string(p.asn()), p.view(), p.state(), short_number(p.routes()),
               since(p.changed_ns())});
  }
  table.print();
}

struct LookupOptions {
  std::string prefix, router;
  bool longer = false, exact = false;
  std::uint64_t limit = 10000;
};

void lookup(const GlobalOptions& options, const LookupOptions& wanted, int& exit_code) {
  pb::LookupRequest request;
  request.set_prefix(wanted.prefix);
  request.set_match(wanted.longer  ? pb::LookupRequest::LONGER
                    : wanted.exact ? pb::LookupRequest::EXACT
                                   : pb::LookupRequest::LONGEST);
  request.set_router(wanted.router);
  request.set_limit(wanted.limit);
  pb::LookupReply last;
  std::uint64_t routes = 0;
  const auto print = [&](const schema::DecodedUpdate& route) {
    ++routes;
    const ordered_json j = route_json(route);
    if (options.json) {
      print_json(j);
      return;
    }
    std::printf("%s\n    %s\n", route_text(j).c_str(), table_text(j).c_str());
  };
  const bool answered = call_curated(
      options, exit_code, kLookupPatience, [&](pb::Control::Stub& stub, grpc::ClientContext& context) {
        const auto reader = stub.Lookup(&context, request);
        pb::LookupReply reply;
        while (reader->Read(&reply)) {
          for (const std::string& update : reply.routes()) {
            (void)schema::decode_payload(schema::PayloadFormat::UpdateV1,
                                         std::as_bytes(std::span(update.data(), update.size())), print);
          }
          reply.clear_routes();
          last = reply;
        }
        return reader->Finish();
      });
  if (!answered) return;
  if (!options.json && routes == 0) std::printf("no route\n");
  if (last.truncated()) {
    std::fprintf(stderr,
                 "aranctl: there are more routes than --limit %llu a shard, or than one answer may have "
                 "(100,000 a shard, 128 MiB): ask for a longer prefix, or for one --router\n",
                 static_cast<unsigned long long>(wanted.limit));
    exit_code = kExitIncomplete;
  }
  say_problems(last, exit_code);
}

void snapshot(const GlobalOptions& options, int& exit_code) {
  pb::TakeSnapshotReply answer;
  if (!ask_curated(options, exit_code, pb::TakeSnapshotRequest{}, answer, &pb::Control::Stub::TakeSnapshot,
                   kLongPatience)) {
    return;
  }
  if (options.json) {
    ordered_json out = {{"shards", ordered_json::array()}};
    for (const auto& k : answer.shards()) {
      out["shards"].push_back({{"shard", k.shard()},
                               {"name", k.name()},
                               {"routes", k.routes()},
                               {"bytes", k.bytes()},
                               {"duration_ms", k.duration_ms()},
                               {"longest_pause_us", k.longest_pause_us()}});
    }
    print_json(out);
  } else {
    for (const auto& k : answer.shards()) {
      std::printf("shard %u: %s, %s routes, %s bytes, %llu ms, longest pause %llu us\n", k.shard(),
                  k.name().c_str(), short_number(k.routes()).c_str(), short_number(k.bytes()).c_str(),
                  static_cast<unsigned long long>(k.duration_ms()),
                  static_cast<unsigned long long>(k.longest_pause_us()));
    }
  }
  say_problems(answer, exit_code, "took no snapshot");
}

}  // namespace

bool request_dump(const GlobalOptions& options, const std::string& router, std::uint64_t patience_s,
                  std::vector<DumpedShard>& done, int& exit_code) {
  pb::DumpRequest request;
  request.set_router(router);
  pb::DumpReply answer;
  if (!ask_curated(options, exit_code, request, answer, &pb::Control::Stub::Dump,
                   std::chrono::seconds(static_cast<std::int64_t>(patience_s)))) {
    return false;
  }
  for (const auto& k : answer.shards())
    done.push_back({k.shard(), k.routers(), k.routes(), k.writer(), k.start_event(), k.end_event()});
  say_problems(answer, exit_code, "published no tables");
  return true;
}

void add_control_commands(CLI::App& app, const GlobalOptions& options, int& exit_code) {
  app.add_subcommand("status", "the instance at a glance: processes, shards, NATS")
      ->callback([&options, &exit_code] { status(options, exit_code); });
  app.add_subcommand("routers", "every router that has a session or kept state")
      ->callback([&options, &exit_code] { routers(options, exit_code); });
  auto* peers_command = app.add_subcommand("peers", "every BGP peer and view that routers report");
  const auto router = std::make_shared<std::string>();
  peers_command->add_option("--router", *router, "only those of the router with this address or name");
  peers_command->callback([&options, &exit_code, router] { peers(options, *router, exit_code); });

  auto* lookup_command =
      app.add_subcommand("lookup", "routes for a prefix or address, of all routers and peers, longest first");
  const auto wanted = std::make_shared<LookupOptions>();
  lookup_command->add_option("prefix", wanted->prefix, "192.0.2.0/24, or an address")->required();
  auto* longer = lookup_command->add_flag("--longer", wanted->longer, "the prefix and all that lie in it");
  lookup_command->add_flag("--exact", wanted->exact, "only this prefix")->excludes(longer);
  lookup_command->add_option("--router", wanted->router,
                             "only those of the router with this address or name");
  lookup_command
      ->add_option("--limit", wanted->limit,
                   "at most so many of each shard; 0: as many as one answer may have, 100,000")
      ->capture_default_str();
  lookup_command->callback([&options, &exit_code, wanted] { lookup(options, *wanted, exit_code); });

  app.add_subcommand("snapshot", "every shard writes a snapshot of its tables now")
      ->callback([&options, &exit_code] { snapshot(options, exit_code); });
}

}  // namespace arancini::tools
