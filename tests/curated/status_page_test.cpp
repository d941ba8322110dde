#include "curated/status_page.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>

#include "common/base/error.h"

namespace arancini::curated {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000U;
constexpr std::uint64_t kNow = 1'800'000'000U * kSecond;

// An instance with one shard and one router, with which all is well.
struct Page {
  Page() {
    config.instance.name = "lab";
    config.nats.url = "nats://127.0.0.1:4222";
    input.now_realtime_ns = kNow;
    input.view.nats_state = "connected";
    for (const char* name : {"curated", "publishd", "ingestd@0"}) {
      ProcessView& p = input.view.processes.emplace_back();
      p.name = name;
      p.pid = 42;
      p.verdict = Verdict::Running;
      p.version = ARANCINI_VERSION;
    }
    input.view.publish.resize(static_cast<std::size_t>(PublishMetric::Count));
    ShardView& s = input.view.shards.emplace_back();
    s.ring_state = "connected";
    s.values.resize(static_cast<std::size_t>(IngestMetric::Count));
    set(IngestMetric::RingCapacityBytes, 1000);
    add_router("192.0.2.1", "edge1");
  }
  void set(IngestMetric m, std::uint64_t n) { input.view.shards[0].values[static_cast<std::size_t>(m)] = n; }
  void set(PublishMetric m, std::uint64_t n) { input.view.publish[static_cast<std::size_t>(m)] = n; }
  StatsReader::Router& add_router(const std::string& address, const std::string& sys_name) {
    RouterView& r = input.routers.emplace_back();
    r.row.address = address;
    r.row.sys_name = sys_name;
    r.row.state = shm::RouterState::Initiated;
    r.row.sessions = 1;
    r.row.peers_up = 2;
    r.row.routes = r.row.updates_published = 1234567;
    r.row.connected_realtime_ns = kNow - 3600 * kSecond;
    r.row.last_message_realtime_ns = kNow - 2 * kSecond;
    return r.row;
  }
  [[nodiscard]] std::string html() const { return status_page(config, input); }
  [[nodiscard]] std::vector<Finding> found() const {
    return findings(config, input,
                    diagnose_all(input.view, input.routers, input.peers, config.curation.enabled, kNow));
  }

  Config config;
  StatusPageInput input;
};

bool holds(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::size_t count(const std::string& text, std::string_view part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

// One finding, which is on the page with its advice.
void expect_finding(const Page& page, Concern concern, std::string_view what, std::string_view advice) {
  const auto all = page.found();
  ASSERT_EQ(all.size(), 1) << what;
  EXPECT_EQ(all[0].concern, concern) << all[0].what;
  EXPECT_TRUE(holds(all[0].what, what)) << all[0].what;
  EXPECT_TRUE(holds(all[0].advice, advice)) << all[0].advice;
  EXPECT_TRUE(all[0].what.ends_with('.') && all[0].advice.ends_with('.')) << all[0].what << all[0].advice;
  const std::string html = page.html();
  EXPECT_TRUE(holds(html, html_escaped(all[0].what)));
  EXPECT_TRUE(holds(html, html_escaped(all[0].advice)));
  EXPECT_FALSE(holds(html, "All is well"));
}

TEST(StatusPage, SaysThatAllIsWell) {
  const Page page;
  EXPECT_EQ(page.found().size(), 0);
  const std::string html = page.html();
  EXPECT_TRUE(html.starts_with("<!doctype html>"));
  for (const char* part :
       {"All is well", "<title>lab – Arancini</title>", "Version " ARANCINI_VERSION, "192.0.2.1", "edge1",
        "receiving", "2 s ago", "publishd", "nats://127.0.0.1:4222"}) {
    EXPECT_TRUE(holds(html, part)) << part;
  }
  EXPECT_TRUE(holds(html, "1\u202f234\u202f567"));
}

TEST(StatusPage, LoadsNothing) {
  const std::string html = Page().html();
  for (const char* part : {"<script", "src=", "url(", "@import", "<form", "http://", "https://"})
    EXPECT_FALSE(holds(html, part)) << part;
  EXPECT_EQ(count(html, "href=\"data:,\""), 1);
  EXPECT_EQ(count(html, "href="), 3) << "the icon, /metrics and /healthz";
}

TEST(StatusPage, EscapesWhatOthersSay) {
  Page page;
  const std::string evil = "<script>alert('x')</script>\"&\x1b";
  const std::string safe = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;?";
  EXPECT_EQ(html_escaped(evil), safe);
  EXPECT_EQ(html_escaped("abcdef", 3), "abc…");
  StatsReader::Router& row = page.add_router("192.0.2.2", evil);
  row.last_error = 204;
  row.last_error_text = evil;
  row.state = shm::RouterState::Refused;
  row.sessions = 0;
  page.config.instance.name = evil;
  page.config.nats.url = evil;
  page.input.view.processes[1].detail = page.input.view.processes[1].version = evil;
  page.input.view.processes[1].verdict = Verdict::Degraded;
  page.input.view.shards[0].ring_state = "disconnected: " + evil;
  page.input.view.nats_state = evil;
  const std::string html = page.html();
  EXPECT_FALSE(holds(html, "<script"));
  EXPECT_FALSE(holds(html, "\x1b"));
  EXPECT_GE(count(html, safe), 8);
}

TEST(StatusPage, ShowsWhatIsWrongWithAProcess) {
  for (const auto& [verdict, concern] :
       {std::pair(Verdict::Dead, Concern::Problem), std::pair(Verdict::Stuck, Concern::Problem),
        std::pair(Verdict::Stopped, Concern::Problem), std::pair(Verdict::Degraded, Concern::Problem),
        std::pair(Verdict::Starting, Concern::Notice), std::pair(Verdict::Draining, Concern::Notice)}) {
    Page page;
    page.input.view.processes[1].verdict = verdict;
    page.input.view.processes[1].detail = "for a reason";
    expect_finding(page, concern, "publishd is " + std::string(to_string(verdict)) + ": for a reason.", ".");
  }
  Page page;
  page.input.view.processes[1].version = "0.0.1";
  expect_finding(page, Concern::Notice, "publishd runs version 0.0.1", "aranctl restart publishd");
}

TEST(StatusPage, ShowsEveryTroubleOfPublishingWithAdviceOfItsOwn) {
  std::set<std::string> advice;
  for (std::uint64_t code = 501; code <= 510; ++code) {
    Page page;
    page.set(PublishMetric::Trouble, code);
    page.input.view.nats_state = "disconnected";
    expect_finding(page, Concern::Problem, to_string(static_cast<ErrorCode>(code)), ".");
    EXPECT_TRUE(advice.insert(page.found()[0].advice).second) << code;
  }
  for (std::uint64_t code = 601; code <= 603; ++code) {
    Page page;
    page.set(PublishMetric::JournalTrouble, code);
    expect_finding(page, Concern::Problem, to_string(static_cast<ErrorCode>(code)), ".");
    EXPECT_TRUE(advice.insert(page.found()[0].advice).second) << code;
  }
  EXPECT_FALSE(advice.contains("See the log of publishd."));
}

TEST(StatusPage, ShowsNatsAndRings) {
  {
    Page page;
    page.input.view.nats_state = "disconnected";
    expect_finding(page, Concern::Problem, "NATS: disconnected.", "nats.url");
    page.config.sink.kind = SinkKind::Journal;
    EXPECT_EQ(page.found().size(), 0) << "it is not used";
  }
  {
    Page page;
    page.set(PublishMetric::RingsCorrupt, 1);
    expect_finding(page, Concern::Problem, "corrupt", "Restart");
  }
  {
    Page page;
    page.input.view.shards[0].ring_state = "disconnected: no publishd reads this ring";
    expect_finding(page, Concern::Problem, "ring of shard 0", "wait in the ring");
  }
  Page page;
  page.set(IngestMetric::RingUsedBytes, 799);
  EXPECT_EQ(page.found().size(), 0);
  page.set(IngestMetric::RingUsedBytes, 800);
  expect_finding(page, Concern::Problem, "ring of shard 0 is 80 % full", "routers wait");
  page.config.ring.when_full = WhenRingFull::DropNewest;
  expect_finding(page, Concern::Problem, "80 % full", "not told for now");
}

TEST(StatusPage, ShowsWhatShardsDo) {
  const auto with = [](IngestMetric metric, std::uint64_t n) {
    Page page;
    page.set(metric, n);
    return page;
  };
  expect_finding(with(IngestMetric::RoutesUntold, 5), Concern::Problem, "Of 5 routes", "room");
  expect_finding(with(IngestMetric::SessionsOpen, 4096), Concern::Problem, "4096 sessions",
                 "bmp.max_sessions");
  expect_finding(with(IngestMetric::SnapshotsFailed, 2), Concern::Notice, "2 snapshots of shard 0",
                 "aranctl status");
  // Its routers are not read: one finding each.
  Page page = with(IngestMetric::RestoreState, 2);
  page.input.routers.clear();
  ASSERT_EQ(page.found().size(), 2);
  EXPECT_TRUE(holds(page.found()[0].what, "waits for the log"));
  EXPECT_EQ(page.found()[0].concern, Concern::Problem);
  page = with(IngestMetric::RestoreState, 1);
  ASSERT_EQ(page.found().size(), 2);
  EXPECT_TRUE(holds(page.html(), "restores its tables"));
  EXPECT_TRUE(holds(page.html(), "not-read"));
}

TEST(StatusPage, ShowsTheRest) {
  {
    Page page;
    page.input.audit_errors = 3;
    expect_finding(page, Concern::Notice, "3 changing calls", "disk");
  }
  {
    Page page;
    page.config.curation.enabled = false;
    expect_finding(page, Concern::Notice, "curation.enabled", "fold");
  }
  {
    Page page;
    page.input.routers.clear();
    page.config.bmp.listen = {"192.0.2.9", 11019};
    expect_finding(page, Concern::Notice, "No router has connected", "192.0.2.9:11019");
  }
}

TEST(StatusPage, SumsUpRoutersWithTheSameTrouble) {
  Page page;
  for (int i = 0; i < 7; ++i) page.add_router(fmt::format("198.51.100.{}", i), "r").throttled = true;
  StatsReader::Router& refused = page.add_router("203.0.113.5", "x");
  refused.sessions = 0;
  refused.state = shm::RouterState::Refused;
  refused.last_error = 304;
  refused.last_error_text = "router is not allowed to connect: no entry";
  const auto all = page.found();
  ASSERT_EQ(all.size(), 2);
  EXPECT_EQ(all[0].concern, Concern::Problem) << "problems first";
  EXPECT_EQ(
      all[0].what,
      "Router 203.0.113.5 (x) – refused. It connected, and was refused: router is not allowed to connect: no "
      "entry.");
  EXPECT_TRUE(holds(all[1].what, "7 routers – throttled: "));
  EXPECT_TRUE(holds(all[1].what, "198.51.100.4 and 2 more"));
  const std::string html = page.html();
  EXPECT_TRUE(holds(html, "<title>(1) lab"));
  // The table too has first who needs attention.
  const std::size_t table = html.find("<h2>Routers");
  EXPECT_LT(html.find("<b>203.0.113.5</b>", table), html.find("<b>198.51.100.0</b>", table));
  EXPECT_LT(html.find("<b>198.51.100.6</b>", table), html.find("<b>192.0.2.1</b>", table));
}

TEST(StatusPage, IsBounded) {
  Page page;
  for (std::size_t i = 0; i < kMostRouterRows + 2; ++i) page.add_router(fmt::format("r{}", i), "x");
  page.input.view.shards.resize(kMostShardRows + 3);
  page.input.view.processes.resize(kMostShardRows + 4);
  const std::string html = page.html();
  const std::size_t routers = html.find("<h2>Routers");
  const std::size_t shards = html.find("<h2>Shards");
  const std::size_t publishing = html.find("<h2>Publishing");
  ASSERT_LT(routers, shards);
  ASSERT_LT(shards, publishing);
  const auto rows = [&](std::size_t from, std::size_t to) {
    return count(html.substr(from, to - from), "<tr>") - 1;
  };
  EXPECT_EQ(rows(routers, shards), kMostRouterRows);
  EXPECT_EQ(rows(shards, publishing), kMostShardRows);
  EXPECT_EQ(rows(publishing, html.size()), kMostShardRows);
  EXPECT_EQ(count(html, "<li "), kMostFindings);
  EXPECT_TRUE(holds(html, "3 more are not shown here: aranctl routers"));
  EXPECT_TRUE(holds(html, "3 more are not shown here: aranctl status"));
  EXPECT_TRUE(holds(html, "4 more are not shown here: aranctl status"));
}

}  // namespace
}  // namespace arancini::curated
