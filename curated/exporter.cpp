#include "curated/exporter.h"

#include <civetweb.h>
#include <fmt/format.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <limits>
#include <mutex>
#include <span>
#include <sstream>
#include <thread>
#include <utility>

#include "common/base/clock.h"
#include "curated/router_diagnosis.h"
#include "curated/status_page.h"

namespace arancini::curated {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using Labels = std::vector<ClientMetric::Label>;

constexpr double kPerNs = 1e-9;

// What curated adds to the daemons' own metrics.
enum class Own : std::size_t {
  BuildInfo,
  ControlRefused,
  AuditErrors,
  ProcessUp,
  ProcessState,
  ProcessUptime,
  ProcessRestarts,
  ShardRingConnected,
  RouterState,
  RouterSessions,
  RouterPeersUp,
  RouterRoutes,
  RouterMessages,
  RouterBytes,
  RouterMalformed,
  RouterUpdates,
  RouterSuppressed,
  RouterAnnouncementsDropped,
  RouterWithdrawsDropped,
  RouterRoutesUntold,
  RouterThrottled,
  RouterLastMessage,
  RouterLastErrorCode,
  RoutersNotExported,
  Count
};

constexpr std::array<ExportedMetric, static_cast<std::size_t>(Own::Count)> kOwn{{
    {"arancini_build_info", MetricType::Gauge, "version", "Always 1; the label is the version of curated."},
    {"arancini_control_calls_refused_total", MetricType::Counter, "",
     "Calls on control.listen with a certificate that may not make them (error 901)."},
    {"arancini_audit_errors_total", MetricType::Counter, "",
     "Changing calls that are not in the audit file (error 902)."},
    {"arancini_process_up", MetricType::Gauge, "process", "1 if the process runs and shows signs of life."},
    {"arancini_process_state", MetricType::Gauge, "process, state",
     "1 for the state that the process is in, else 0."},
    {"arancini_process_uptime_seconds", MetricType::Gauge, "process",
     "Since its start; 0 if it does not run."},
    {"arancini_process_restarts_total", MetricType::Counter, "process", "Restarts by the supervisor."},
    {"arancini_ring_connected", MetricType::Gauge, "shard", "1 if publishd reads the shard's ring."},
    {"arancini_router_state", MetricType::Gauge, "router, shard, state",
     "Always 1; the label is what curated finds of the router now: `receiving`, or what keeps its data "
     "away."},
    {"arancini_router_sessions", MetricType::Gauge, "router, shard", "Open BMP sessions of the router."},
    {"arancini_router_peers_up", MetricType::Gauge, "router, shard", "BGP peers of the router that are up."},
    {"arancini_router_routes", MetricType::Gauge, "router, shard",
     "Routes that were told and not withdrawn."},
    {"arancini_router_messages_total", MetricType::Counter, "router, shard", "BMP messages received."},
    {"arancini_router_received_bytes_total", MetricType::Counter, "router, shard", "BMP bytes received."},
    {"arancini_router_malformed_total", MetricType::Counter, "router, shard", "Malformed BMP messages."},
    {"arancini_router_updates_total", MetricType::Counter, "router, shard", "Updates written to the ring."},
    {"arancini_router_suppressed_total", MetricType::Counter, "router, shard",
     "Updates that curation suppressed."},
    {"arancini_router_announcements_dropped_total", MetricType::Counter, "router, shard",
     "Announcements not told when they came because the ring was full."},
    {"arancini_router_withdraws_dropped_total", MetricType::Counter, "router, shard",
     "Withdraws not told when they came because the ring was full."},
    {"arancini_router_routes_untold", MetricType::Gauge, "router, shard",
     "Routes of which downstream was told something else than the router says now."},
    {"arancini_router_throttled", MetricType::Gauge, "router, shard",
     "1 while the session waits for room in the ring."},
    {"arancini_router_last_message_timestamp_seconds", MetricType::Gauge, "router, shard",
     "When the last BMP message came, since 1970; 0 if none did."},
    {"arancini_router_last_error_code", MetricType::Gauge, "router, shard",
     "Code of the last error of the router, 0 if it had none; the text is in `aranctl routers`."},
    {"arancini_routers_not_exported", MetricType::Gauge, "",
     "Routers beyond metrics.max_routers, which have no series of their own."},
}};

std::string number(std::uint32_t n) {
  return std::to_string(n);
}

prometheus::MetricType to_prometheus(MetricType type) {
  switch (type) {
    case MetricType::Counter: return prometheus::MetricType::Counter;
    case MetricType::Gauge: return prometheus::MetricType::Gauge;
    case MetricType::Histogram: return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

class Family {
 public:
  Family(std::string_view name, MetricType type, std::string_view help) : type_(type) {
    family_.name = name;
    family_.help = help;
    family_.type = to_prometheus(type);
  }
  explicit Family(Own metric) : Family(info(metric).name, info(metric).type, info(metric).help) {}

  void add(Labels labels, double value) {
    ClientMetric m;
    m.label = std::move(labels);
    if (type_ == MetricType::Counter) {
      m.counter.value = value;
    } else {
      m.gauge.value = value;
    }
    family_.metric.push_back(std::move(m));
  }
  // `counts`: as in a stats page.
  void add(Labels labels, std::span<const std::uint64_t, kHistogramValues> counts,
           const HistogramInfo& info) {
    ClientMetric m;
    m.label = std::move(labels);
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < kHistogramSum; ++i) {
      below += counts[i];
      const double bound = i < kHistogramBounds ? static_cast<double>((*info.bounds)[i]) * info.scale
                                                : std::numeric_limits<double>::infinity();
      m.histogram.bucket.push_back({below, bound});
    }
    m.histogram.sample_count = below;
    m.histogram.sample_sum = static_cast<double>(counts[kHistogramSum]) * info.scale;
    family_.metric.push_back(std::move(m));
  }
  void move_to(std::vector<MetricFamily>& out) {
    if (!family_.metric.empty()) out.push_back(std::move(family_));
  }

 private:
  static const ExportedMetric& info(Own metric) { return kOwn[static_cast<std::size_t>(metric)]; }
  MetricType type_;
  MetricFamily family_;
};

double scaled(const std::vector<std::uint64_t>& values, const MetricInfo& info) {
  return info.index < values.size() ? static_cast<double>(values[info.index]) * info.scale : 0;
}

template <class Histogram>
void add_histogram(Labels labels, const std::vector<std::uint64_t>& values, Histogram h,
                   const HistogramInfo& info, Family& to) {
  if (values.size() < first_value(h) + kHistogramValues) return;
  to.add(std::move(labels),
         std::span<const std::uint64_t, kHistogramValues>(&values[first_value(h)], kHistogramValues), info);
}

void add_processes(const FleetView& view, std::vector<MetricFamily>& out) {
  Family up(Own::ProcessUp);
  Family state(Own::ProcessState);
  Family uptime(Own::ProcessUptime);
  Family restarts(Own::ProcessRestarts);
  for (const ProcessView& p : view.processes) {
    up.add({{"process", p.name}}, answers(p.verdict) ? 1 : 0);
    for (const Verdict v : kVerdicts) {
      state.add({{"process", p.name}, {"state", std::string(to_string(v))}}, p.verdict == v ? 1 : 0);
    }
    uptime.add({{"process", p.name}}, static_cast<double>(p.uptime_s));
    restarts.add({{"process", p.name}}, p.restarts);
  }
  for (Family* f : {&up, &state, &uptime, &restarts}) f->move_to(out);
}

void add_shards(const FleetView& view, std::vector<MetricFamily>& out) {
  Family connected(Own::ShardRingConnected);
  for (const ShardView& s : view.shards) {
    connected.add({{"shard", number(s.shard)}}, s.ring_state == "connected" ? 1 : 0);
  }
  connected.move_to(out);
  for (const MetricInfo& info : ingest_metrics()) {
    Family family(info.name, info.type, info.help);
    for (const ShardView& s : view.shards) {
      if (!s.values.empty()) family.add({{"shard", number(s.shard)}}, scaled(s.values, info));
    }
    family.move_to(out);
  }
  for (std::size_t i = 0; i < ingest_histograms().size(); ++i) {
    const HistogramInfo& info = ingest_histograms()[i];
    Family family(info.name, MetricType::Histogram, info.help);
    for (const ShardView& s : view.shards)
      add_histogram({{"shard", number(s.shard)}}, s.values, static_cast<IngestHistogram>(i), info, family);
    family.move_to(out);
  }
  if (view.publish.empty()) return;
  for (const MetricInfo& info : publish_metrics()) {
    Family family(info.name, info.type, info.help);
    family.add({}, scaled(view.publish, info));
    family.move_to(out);
  }
  for (std::size_t i = 0; i < publish_histograms().size(); ++i) {
    const HistogramInfo& info = publish_histograms()[i];
    Family family(info.name, MetricType::Histogram, info.help);
    add_histogram({}, view.publish, static_cast<PublishHistogram>(i), info, family);
    family.move_to(out);
  }
}

void add_routers(const FleetView& view, std::vector<RouterView> routers, const std::vector<PeerView>& peers,
                 const Config& config, std::size_t most, std::vector<MetricFamily>& out) {
  // A scrape must not name a series twice: a router that moved to another shard has a row in each, told apart
  // by `shard`.
  std::sort(routers.begin(), routers.end(), [](const RouterView& a, const RouterView& b) {
    return std::tie(a.row.address, a.shard) < std::tie(b.row.address, b.shard);
  });
  routers.erase(std::unique(routers.begin(), routers.end(),
                            [](const RouterView& a, const RouterView& b) {
                              return a.row.address == b.row.address && a.shard == b.shard;
                            }),
                routers.end());
  const std::size_t all = routers.size();
  if (all > most) routers.resize(most);
  Family states(Own::RouterState);
  const auto diagnoses =
      diagnose_all(view, routers, peers, config.curation.enabled, clock_ns(CLOCK_REALTIME));
  for (std::size_t i = 0; i < routers.size(); ++i) {
    states.add({{"router", routers[i].row.address},
                {"shard", number(routers[i].shard)},
                {"state", std::string(to_string(diagnoses[i].condition))}},
               1);
  }
  states.move_to(out);
  using Row = StatsReader::Router;
  const std::pair<Own, std::function<double(const Row&)>> columns[] = {
      {Own::RouterSessions, [](const Row& r) { return static_cast<double>(r.sessions); }},
      {Own::RouterPeersUp, [](const Row& r) { return static_cast<double>(r.peers_up); }},
      {Own::RouterRoutes, [](const Row& r) { return static_cast<double>(r.routes); }},
      {Own::RouterMessages, [](const Row& r) { return static_cast<double>(r.messages); }},
      {Own::RouterBytes, [](const Row& r) { return static_cast<double>(r.bytes); }},
      {Own::RouterMalformed, [](const Row& r) { return static_cast<double>(r.malformed); }},
      {Own::RouterUpdates, [](const Row& r) { return static_cast<double>(r.updates_published); }},
      {Own::RouterSuppressed, [](const Row& r) { return static_cast<double>(r.updates_suppressed); }},
      {Own::RouterAnnouncementsDropped,
       [](const Row& r) { return static_cast<double>(r.announcements_dropped); }},
      {Own::RouterWithdrawsDropped, [](const Row& r) { return static_cast<double>(r.withdraws_dropped); }},
      {Own::RouterRoutesUntold, [](const Row& r) { return static_cast<double>(r.routes_untold); }},
      {Own::RouterThrottled, [](const Row& r) { return r.throttled ? 1.0 : 0.0; }},
      {Own::RouterLastMessage,
       [](const Row& r) { return static_cast<double>(r.last_message_realtime_ns) * kPerNs; }},
      {Own::RouterLastErrorCode, [](const Row& r) { return static_cast<double>(r.last_error); }},
  };
  for (const auto& [metric, value] : columns) {
    Family family(metric);
    for (const RouterView& r : routers)
      family.add({{"router", r.row.address}, {"shard", number(r.shard)}}, value(r.row));
    family.move_to(out);
  }
  Family rest(Own::RoutersNotExported);
  rest.add({}, static_cast<double>(all - routers.size()));
  rest.move_to(out);
}

std::string_view type_name(MetricType type) {
  switch (type) {
    case MetricType::Counter: return "counter";
    case MetricType::Gauge: return "gauge";
    case MetricType::Histogram: return "histogram";
  }
  return "untyped";
}

constexpr const char* kPlainText = "text/plain; charset=utf-8";

// Nothing here is to be stored, framed, sniffed, or to load anything but the style in the page itself.
int answer(mg_connection* connection, const char* status, const char* content_type, const std::string& body,
           const char* more_headers = "") {
  mg_printf(connection,
            "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri "
            "'none'; form-action 'none'; frame-ancestors 'none'\r\nConnection: close\r\n\r\n",
            status, content_type, body.size(), more_headers);
  if (std::string_view(mg_get_request_info(connection)->request_method) != "HEAD")
    mg_write(connection, body.data(), body.size());
  return 1;
}

// Answers what is neither GET nor HEAD.
bool refused_method(mg_connection* connection) {
  const std::string_view method = mg_get_request_info(connection)->request_method;
  if (method == "GET" || method == "HEAD") return false;
  answer(connection, "405 Method Not Allowed", kPlainText, "read-only: only GET and HEAD\n",
         "Allow: GET, HEAD\r\n");
  return true;
}

}  // namespace

std::vector<ExportedMetric> exported_metrics() {
  std::vector<ExportedMetric> out(kOwn.begin(), kOwn.end());
  for (const MetricInfo& m : ingest_metrics()) out.push_back({m.name, m.type, "shard", m.help});
  for (const HistogramInfo& h : ingest_histograms())
    out.push_back({h.name, MetricType::Histogram, "shard", h.help});
  for (const MetricInfo& m : publish_metrics()) out.push_back({m.name, m.type, "", m.help});
  for (const HistogramInfo& h : publish_histograms())
    out.push_back({h.name, MetricType::Histogram, "", h.help});
  return out;
}

std::string metrics_markdown() {
  std::string text = "| metric | type | labels | meaning |\n|---|---|---|---|\n";
  for (const ExportedMetric& m : exported_metrics()) {
    text += fmt::format("| `{}` | {} | {} | {} |\n", m.name, type_name(m.type), m.labels, m.help);
  }
  return text;
}

std::string metrics_page(const Config& config, Fleet& fleet) {
  const FleetView view = fleet.view();
  std::vector<MetricFamily> families;
  Family build(Own::BuildInfo);
  build.add({{"version", ARANCINI_VERSION}}, 1);
  build.move_to(families);
  const ControlCounters& control = fleet.control();
  for (const auto& [metric, count] : {std::pair(Own::ControlRefused, &control.refused),
                                      std::pair(Own::AuditErrors, &control.audit_errors)}) {
    Family family(metric);
    family.add({}, static_cast<double>(count->load(std::memory_order_relaxed)));
    family.move_to(families);
  }
  add_processes(view, families);
  add_shards(view, families);
  add_routers(view, fleet.routers(), fleet.peers(), config, fleet.live()->max_routers, families);
  std::ostringstream text;
  prometheus::TextSerializer{}.Serialize(text, families);
  return text.str();
}

struct Exporter::State {
  State(const Config& c, Fleet& f) : config(c), fleet(f), address(c.metrics.listen) {}
  ~State() {
    if (server != nullptr) stop();
    mg_exit_library();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  // civetweb's master thread looks at its stop flag when a connection comes, or every two seconds: knock.
  void stop() {
    std::atomic<bool> done{false};
    std::thread knocking([&] {
      while (!done) {
        std::array<char, 256> error{};
        const std::string host = address.host == "0.0.0.0" ? "127.0.0.1"
                                 : address.host == "::"    ? "::1"
                                                           : address.host;
        if (mg_connection* c = mg_connect_client(host.c_str(), address.port, 0, error.data(), error.size())) {
          mg_close_connection(c);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    });
    mg_stop(server);
    done = true;
    knocking.join();
  }

  // One page for all browsers, made at most once a second.
  std::string page() {
    const std::lock_guard lock(page_mutex);
    const auto now = std::chrono::steady_clock::now();
    if (page_text.empty() || now - page_at >= std::chrono::seconds(1)) {
      StatusPageInput input;
      input.view = fleet.view();
      input.routers = fleet.routers();
      input.peers = fleet.peers();
      input.audit_errors = fleet.control().audit_errors.load(std::memory_order_relaxed);
      input.now_realtime_ns = clock_ns(CLOCK_REALTIME);
      page_text = status_page(config, input);
      page_at = now;
    }
    return page_text;
  }

  static int status(mg_connection* connection, void* self) {
    if (refused_method(connection)) return 1;
    return answer(connection, "200 OK", "text/html; charset=utf-8", static_cast<State*>(self)->page());
  }
  static int metrics(mg_connection* connection, void* self) {
    if (refused_method(connection)) return 1;
    auto& state = *static_cast<State*>(self);
    return answer(connection, "200 OK", "text/plain; version=0.0.4; charset=utf-8",
                  metrics_page(state.config, state.fleet));
  }
  static int health(mg_connection* connection, void* self) {
    if (refused_method(connection)) return 1;
    auto& state = *static_cast<State*>(self);
    const FleetView view = state.fleet.view();
    std::string missing = not_running(view);
    if (!missing.empty()) {
      return answer(connection, "503 Service Unavailable", kPlainText, "not ready: " + missing + "\n");
    }
    return answer(connection, "200 OK", kPlainText,
                  fmt::format("ok: {} processes run, NATS {}\n", view.processes.size(), view.nats_state));
  }
  static int elsewhere(mg_connection* connection, void*) {
    return answer(connection, "404 Not Found", kPlainText, "here are only /, /metrics and /healthz\n");
  }
  static int log_message(const mg_connection* connection, const char* message) {
    auto* state = static_cast<State*>(mg_get_user_data(mg_get_context(connection)));
    if (state != nullptr && state->server == nullptr) state->start_error = message;
    return 1;
  }

  const Config& config;
  Fleet& fleet;
  SocketAddress address;
  std::mutex page_mutex;  // of the next two
  std::string page_text;
  std::chrono::steady_clock::time_point page_at;
  std::string start_error;
  mg_context* server = nullptr;
};

Exporter::Exporter(std::unique_ptr<State> state) : state_(std::move(state)) {}
Exporter::~Exporter() = default;
const SocketAddress& Exporter::address() const {
  return state_->address;
}

std::string Exporter::unusable(const SocketAddress& address) {
  constexpr unsigned kFeatureIpv6 = 8;  // civetweb.h, mg_check_feature()
  if (address.host.find(':') == std::string::npos || mg_check_feature(kFeatureIpv6) != 0) return {};
  return fmt::format(
      "metrics.listen: {}: the HTTP library here (civetweb) was built without IPv6; use an IPv4 address, for "
      "example 127.0.0.1:{}",
      address.to_string(), address.port);
}

Result<std::unique_ptr<Exporter>, std::string> Exporter::start(const Config& config, Fleet& fleet) {
  mg_init_library(0);
  auto state = std::make_unique<State>(config, fleet);
  mg_callbacks callbacks{};
  callbacks.log_message = &State::log_message;
  const std::string port = config.metrics.listen.to_string();
  // A thread waits for each request that does not come: many of them, for a short time, and few that wait
  // for a thread.
  const char* options[] = {"listening_ports",
                           port.c_str(),
                           "num_threads",
                           "32",
                           "request_timeout_ms",
                           "2000",
                           "connection_queue",
                           "16",
                           "enable_keep_alive",
                           "no",
                           nullptr};
  state->server = mg_start(&callbacks, state.get(), options);
  if (state->server == nullptr) {
    return Err{fmt::format("metrics listener {}: {}; choose another metrics.listen", port,
                           state->start_error.empty() ? "cannot be opened" : state->start_error)};
  }
  std::array<mg_server_port, 4> ports{};
  if (mg_get_server_ports(state->server, static_cast<int>(ports.size()), ports.data()) > 0) {
    state->address.port = static_cast<std::uint16_t>(ports[0].port);
  }
  mg_set_request_handler(state->server, "/$", &State::status, state.get());
  mg_set_request_handler(state->server, "/metrics$", &State::metrics, state.get());
  mg_set_request_handler(state->server, "/healthz$", &State::health, state.get());
  mg_set_request_handler(state->server, "**", &State::elsewhere, state.get());
  return std::unique_ptr<Exporter>(new Exporter(std::move(state)));
}

}  // namespace arancini::curated
