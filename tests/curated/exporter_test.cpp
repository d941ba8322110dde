#include "curated/exporter.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "tests/curated/test_fleet.h"

namespace arancini::curated {
namespace {

// A connection to 127.0.0.1:port on which `request` was sent; invalid if that did not work.
Fd ask(std::uint16_t port, const std::string& request) {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool sent =
      ::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 &&
      ::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size());
  return sent ? std::move(fd) : Fd();
}

// What the server at 127.0.0.1:port says, status line and all.
std::string http(std::uint16_t port, const std::string& method, const std::string& path) {
  const Fd fd = ask(port, method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  if (!fd) return "cannot connect";
  std::string out;
  char buffer[4096];
  ssize_t n = 0;
  while ((n = ::recv(fd.get(), buffer, sizeof buffer, 0)) > 0)
    out.append(buffer, static_cast<std::size_t>(n));
  return out;
}

std::string http_get(std::uint16_t port, const std::string& path) {
  return http(port, "GET", path);
}

bool has_line(const std::string& text, const std::string& line) {
  return text.find("\n" + line + "\n") != std::string::npos;
}

TEST(Exporter, ServesTheDaemonsMetrics) {
  TestFleet t;
  auto ingestd = t.ingestd(1);
  auto publishd = t.publishd();
  ingestd.set(IngestMetric::BytesReceived, 12345);
  publishd.set(PublishMetric::AckLatencyNs, 2'500'000);
  TestFleet::add_router(ingestd, 0, "192.0.2.1", "edge1");
  Fleet fleet(t.config, t.clock, nullptr);
  const auto exporter = Exporter::start(t.config, fleet);
  ASSERT_TRUE(exporter) << exporter.error();
  const std::uint16_t port = exporter.value()->address().port;
  ASSERT_NE(port, 0);
  const std::string page = http_get(port, "/metrics");
  EXPECT_EQ(page.substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_NE(page.find("Content-Type: text/plain; version=0.0.4"), std::string::npos);
  EXPECT_TRUE(has_line(page, "arancini_build_info{version=\"" ARANCINI_VERSION "\"} 1")) << page;
  EXPECT_TRUE(has_line(page, "arancini_process_up{process=\"ingestd@1\"} 1"));
  EXPECT_TRUE(has_line(page, "arancini_process_up{process=\"ingestd@0\"} 0"));
  EXPECT_TRUE(has_line(page, "arancini_process_state{process=\"ingestd@0\",state=\"stopped\"} 1"));
  EXPECT_TRUE(has_line(page, "arancini_router_routes{router=\"192.0.2.1\",shard=\"1\"} 700"));
  EXPECT_TRUE(
      has_line(page, "arancini_router_state{router=\"192.0.2.1\",shard=\"1\",state=\"throttled\"} 1"));
  EXPECT_TRUE(has_line(page, "arancini_router_last_error_code{router=\"192.0.2.1\",shard=\"1\"} 205"));
  EXPECT_TRUE(has_line(page, "arancini_routers_not_exported 0"));
  const auto bytes = ingest_metrics()[static_cast<std::size_t>(IngestMetric::BytesReceived)];
  EXPECT_TRUE(has_line(page, std::string(bytes.name) + "{shard=\"1\"} 12345"));
  const auto latency = publish_metrics()[static_cast<std::size_t>(PublishMetric::AckLatencyNs)];
  EXPECT_TRUE(has_line(page, std::string(latency.name) + " 0.0025")) << "scaled to seconds";
}

TEST(Exporter, ExportsEveryMetricOfTheListAndNothingElse) {
  TestFleet t;
  auto ingestd = t.ingestd(0);
  auto publishd = t.publishd();
  TestFleet::add_router(ingestd, 0, "192.0.2.1", "edge1");
  Fleet fleet(t.config, t.clock, nullptr);
  std::istringstream page(metrics_page(t.config, fleet));
  std::set<std::string> served;
  std::string line;
  while (std::getline(page, line)) {
    if (line.starts_with("# TYPE ")) served.insert(line.substr(7, line.find(' ', 7) - 7));
  }
  std::set<std::string> listed;
  for (const ExportedMetric& m : exported_metrics()) {
    EXPECT_TRUE(listed.emplace(m.name).second) << m.name << " is listed twice";
    EXPECT_TRUE(m.name.starts_with("arancini_")) << m.name;
    EXPECT_EQ(m.type == MetricType::Counter, m.name.ends_with("_total")) << m.name;
    EXPECT_FALSE(m.help.empty()) << m.name;
  }
  EXPECT_EQ(served, listed);
}

TEST(Exporter, ExportsHistograms) {
  TestFleet t;
  auto ingestd = t.ingestd(1);
  auto publishd = t.publishd();
  for (const std::uint64_t ms : {0U, 1U, 2U, 100'000'000U}) ingestd.observe(IngestHistogram::BmpLag, ms);
  HistogramCounts acks{};
  observe(acks, bounds_of(PublishHistogram::AckLatency), 300'000);
  publishd.set_histogram(PublishHistogram::AckLatency, acks);
  Fleet fleet(t.config, t.clock, nullptr);
  const std::string page = metrics_page(t.config, fleet);
  EXPECT_TRUE(has_line(page, "# TYPE arancini_ingest_bmp_lag_seconds histogram"));
  const std::string lag = "arancini_ingest_bmp_lag_seconds_";
  EXPECT_TRUE(has_line(page, lag + "bucket{shard=\"1\",le=\"0.001\"} 2")) << page;
  EXPECT_TRUE(has_line(page, lag + "bucket{shard=\"1\",le=\"0.005\"} 3"));
  EXPECT_TRUE(has_line(page, lag + "bucket{shard=\"1\",le=\"86400\"} 3"));
  EXPECT_TRUE(has_line(page, lag + "bucket{shard=\"1\",le=\"+Inf\"} 4"));
  EXPECT_TRUE(has_line(page, lag + "count{shard=\"1\"} 4"));
  EXPECT_TRUE(has_line(page, lag + "sum{shard=\"1\"} 100000.003"));
  EXPECT_TRUE(has_line(page, "arancini_publish_ack_seconds_bucket{le=\"0.0005\"} 1"));
  EXPECT_TRUE(has_line(page, "arancini_publish_ack_seconds_sum 0.0003"));
  EXPECT_TRUE(has_line(page, "arancini_publish_ring_to_ack_seconds_count 0"));
}

TEST(Exporter, BoundsTheSeriesOfRouters) {
  TestFleet t;
  t.config.metrics.max_routers = 2;
  auto ingestd = t.ingestd(0);
  for (std::uint32_t i = 0; i < 5; ++i) {
    TestFleet::add_router(ingestd, i, ("192.0.2." + std::to_string(i)).c_str(), "x");
  }
  Fleet fleet(t.config, t.clock, nullptr);
  const std::string page = metrics_page(t.config, fleet);
  EXPECT_TRUE(has_line(page, "arancini_router_routes{router=\"192.0.2.1\",shard=\"0\"} 700"));
  EXPECT_EQ(page.find("192.0.2.2"), std::string::npos);
  EXPECT_TRUE(has_line(page, "arancini_routers_not_exported 3"));
}

TEST(Exporter, HealthSaysInOneLineWhatIsMissing) {
  TestFleet t;
  t.config.shards.count = 1;
  Fleet fleet(t.config, t.clock, nullptr);
  const auto exporter = Exporter::start(t.config, fleet);
  ASSERT_TRUE(exporter) << exporter.error();
  const std::uint16_t port = exporter.value()->address().port;
  std::string answer = http_get(port, "/healthz");
  EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 503");
  EXPECT_TRUE(answer.ends_with("\r\n\r\nnot ready: publishd stopped, ingestd@0 stopped\n")) << answer;
  auto ingestd = t.ingestd(0);
  auto publishd = t.publishd();
  answer = http_get(port, "/healthz");
  EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 200");
  EXPECT_TRUE(answer.ends_with("\r\n\r\nok: 3 processes run, NATS disconnected\n")) << answer;
  EXPECT_EQ(http_get(port, "/x").substr(0, 12), "HTTP/1.1 404");
}

TEST(Exporter, ServesTheStatusPage) {
  TestFleet t;
  t.config.instance.name = "lab";
  auto ingestd = t.ingestd(0);
  TestFleet::add_router(ingestd, 0, "192.0.2.1", "edge1");
  Fleet fleet(t.config, t.clock, nullptr);
  const auto exporter = Exporter::start(t.config, fleet);
  ASSERT_TRUE(exporter) << exporter.error();
  const std::uint16_t port = exporter.value()->address().port;
  const std::string page = http_get(port, "/");
  EXPECT_EQ(page.substr(0, 15), "HTTP/1.1 200 OK");
  for (const char* part :
       {"Content-Type: text/html; charset=utf-8\r\n",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline';", "frame-ancestors 'none'",
        "X-Content-Type-Options: nosniff\r\n", "Cache-Control: no-store\r\n", "publishd is stopped",
        "ingestd@1 is stopped", "192.0.2.1", "edge1", "</html>"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part;
  }
  const std::string head = http(port, "HEAD", "/");
  EXPECT_EQ(head.substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_TRUE(head.ends_with("\r\n\r\n")) << "no body";
}

TEST(Exporter, IsReadOnly) {
  TestFleet t;
  Fleet fleet(t.config, t.clock, nullptr);
  const auto exporter = Exporter::start(t.config, fleet);
  ASSERT_TRUE(exporter) << exporter.error();
  for (const char* path : {"/", "/metrics", "/healthz"}) {
    for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS"}) {
      const std::string answer = http(exporter.value()->address().port, method, path);
      EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 405") << method << path << answer;
      EXPECT_NE(answer.find("Allow: GET, HEAD\r\n"), std::string::npos);
    }
  }
}

TEST(Exporter, AnswersBesideRequestsThatDoNotCome) {
  TestFleet t;
  Fleet fleet(t.config, t.clock, nullptr);
  const auto exporter = Exporter::start(t.config, fleet);
  ASSERT_TRUE(exporter) << exporter.error();
  const std::uint16_t port = exporter.value()->address().port;
  std::vector<Fd> silent;
  for (int i = 0; i < 24; ++i) {
    silent.push_back(ask(port, "GET /metr"));
    ASSERT_TRUE(silent.back().valid());
  }
  EXPECT_EQ(http_get(port, "/healthz").substr(0, 8), "HTTP/1.1");
  char byte = 0;
  const auto waits = [&](const Fd& fd) {
    return ::recv(fd.get(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
  };
  EXPECT_TRUE(std::ranges::any_of(silent, waits)) << "the answer came after the others were given up";
}

TEST(Exporter, SaysThatItsPortIsTaken) {
  TestFleet t;
  Fleet fleet(t.config, t.clock, nullptr);
  const auto first = Exporter::start(t.config, fleet);
  ASSERT_TRUE(first);
  t.config.metrics.listen = first.value()->address();
  const auto second = Exporter::start(t.config, fleet);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().find("metrics listener 127.0.0.1:"), std::string::npos) << second.error();
  EXPECT_NE(second.error().find("metrics.listen"), std::string::npos);
}

TEST(Exporter, KnowsWhetherItCanListenOnIpv6) {
  EXPECT_EQ(Exporter::unusable({"127.0.0.1", 8080}), "");
  TestFleet t;
  t.config.metrics.listen = {"::1", 0};
  Fleet fleet(t.config, t.clock, nullptr);
  const std::string why = Exporter::unusable(t.config.metrics.listen);
  if (why.empty()) {
    const auto exporter = Exporter::start(t.config, fleet);
    EXPECT_TRUE(exporter) << exporter.error();
  } else {
    EXPECT_TRUE(why.starts_with("metrics.listen: [::1]:0: ")) << why;
    EXPECT_NE(why.find("use an IPv4 address"), std::string::npos);
  }
}

// docs/metrics.md is the contract with dashboards and alert rules. After a change of the list:
// UPDATE_DOCS=1 meson test -C build curated
TEST(MetricsDocument, ListsExactlyWhatIsExported) {
  const char* path = std::getenv("METRICS_MD");
  ASSERT_NE(path, nullptr) << "run by meson test";
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  const std::string document = text.str();
  const std::string table = metrics_markdown();
  if (document.find(table) != std::string::npos) return;
  ASSERT_NE(std::getenv("UPDATE_DOCS"), nullptr)
      << path << " is out of date: run this test with UPDATE_DOCS=1";
  const std::size_t start = document.find("| metric |");
  ASSERT_NE(start, std::string::npos);
  std::size_t end = start;
  while (end < document.size() && document[end] == '|') end = document.find('\n', end) + 1;
  std::ofstream(path) << document.substr(0, start) << table << document.substr(end);
}

}  // namespace
}  // namespace arancini::curated
