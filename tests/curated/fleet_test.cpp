#include "curated/fleet.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <set>

#include "common/base/config_changes.h"
#include "common/base/error.h"
#include "common/ring/ring_file.h"
#include "tests/curated/test_fleet.h"

namespace arancini::curated {
namespace {

ProcessView find(const FleetView& view, const std::string& name) {
  if (const ProcessView* process = view.process(name); process != nullptr) return *process;
  ADD_FAILURE() << name << " is not in the view";
  return {};
}

TEST(Fleet, ShowsWhatTheDaemonsSayOfThemselves) {
  TestFleet t;
  auto ingestd = t.ingestd(0);
  auto publishd = t.publishd();
  publishd.set(PublishMetric::NatsConnected, 1);
  ingestd.set(IngestMetric::Routes, 5);
  Fleet fleet(t.config, t.clock, nullptr);
  const FleetView view = fleet.view();
  const ProcessView p = find(view, "ingestd@0");
  EXPECT_EQ(p.verdict, Verdict::Running);
  EXPECT_EQ(p.pid, ::getpid());
  EXPECT_EQ(p.uptime_s, 90U);
  EXPECT_EQ(p.version, ARANCINI_VERSION);
  EXPECT_EQ(find(view, "publishd").verdict, Verdict::Running);
  EXPECT_EQ(find(view, "curated").verdict, Verdict::Running);
  EXPECT_EQ(view.nats_state, "connected");
  ASSERT_EQ(view.shards.size(), 2U);
  EXPECT_EQ(view.shards[0].value(IngestMetric::Routes), 5U);
  EXPECT_EQ(view.shards[0].ring_state, "waiting");
  // The second shard was never started.
  EXPECT_EQ(find(view, "ingestd@1").verdict, Verdict::Stopped);
  EXPECT_EQ(not_running(view), "ingestd@1 stopped");
}

TEST(Fleet, TellsStuckFromDead) {
  TestFleet t;
  std::optional<StatsWriter> ingestd = t.ingestd(0);
  Fleet fleet(t.config, t.clock, nullptr);
  EXPECT_EQ(find(fleet.view(), "ingestd@0").verdict, Verdict::Running);
  t.clock.now_ns += kStuckAfterNs;
  EXPECT_EQ(find(fleet.view(), "ingestd@0").verdict, Verdict::Running);
  t.clock.now_ns += 1;
  const ProcessView stuck = find(fleet.view(), "ingestd@0");
  EXPECT_EQ(stuck.verdict, Verdict::Stuck);
  EXPECT_EQ(stuck.detail, "no sign of life for 3.0 s");
  ingestd->heartbeat(t.clock.boottime_ns());
  EXPECT_EQ(find(fleet.view(), "ingestd@0").verdict, Verdict::Running);
  ingestd.reset();  // the lock goes, as with the process; what the page says last is not believed
  const ProcessView dead = find(fleet.view(), "ingestd@0");
  EXPECT_EQ(dead.verdict, Verdict::Dead);
  EXPECT_EQ(dead.pid, 0);
}

TEST(Fleet, ADaemonThatSaidGoodbyeIsStoppedNotDead) {
  TestFleet t;
  std::optional<StatsWriter> ingestd = t.ingestd(0);
  Fleet fleet(t.config, t.clock, nullptr);
  ingestd->set_state(shm::ProcessState::Stopped);
  ingestd.reset();
  EXPECT_EQ(find(fleet.view(), "ingestd@0").verdict, Verdict::Stopped);
}

TEST(Fleet, GivesPatienceToOneThatPrepares) {
  TestFleet t;
  StatsWriter::Options options;
  options.now_realtime_ns = t.clock.realtime_ns();
  auto page = StatsWriter::create(t.config.ingestd_stats_path(0), options);
  ASSERT_TRUE(page);
  Fleet fleet(t.config, t.clock, nullptr);
  t.clock.now_ns += 59 * TestFleet::kSecond;
  EXPECT_EQ(find(fleet.view(), "ingestd@0").verdict, Verdict::Starting);
  t.clock.now_ns += 2 * TestFleet::kSecond;
  EXPECT_EQ(find(fleet.view(), "ingestd@0").verdict, Verdict::Stuck);
}

TEST(Fleet, FollowsADaemonThatStartsAnew) {
  TestFleet t;
  std::optional<StatsWriter> first = t.ingestd(0);
  first->set(IngestMetric::Routes, 1);
  Fleet fleet(t.config, t.clock, nullptr);
  EXPECT_EQ(fleet.view().shards[0].value(IngestMetric::Routes), 1U);
  first.reset();
  auto second = t.ingestd(0);
  second.set(IngestMetric::Routes, 2);
  EXPECT_EQ(fleet.view().shards[0].value(IngestMetric::Routes), 2U);
  EXPECT_EQ(find(fleet.view(), "ingestd@0").verdict, Verdict::Running);
}

TEST(Fleet, BelievesTheSupervisorAboutStartAndEnd) {
  TestFleet t;
  FakeManager manager;
  manager.all = {{"nats-server", ProcessPhase::Up, 77, 1, t.clock.realtime_ns() - 5 * TestFleet::kSecond, ""},
                 {"publishd", ProcessPhase::Waiting, 0, 3, 0, "exited with status 78"},
                 {"ingestd@0", ProcessPhase::Up, 4242, 2, 0, "killed by signal 9 (Killed)"},
                 {"ingestd@1", ProcessPhase::Up, ::getpid(), 0, 0, ""}};
  auto old = t.ingestd(0);  // pid is ours, not 4242: the predecessor's page
  auto current = t.ingestd(1);
  Fleet fleet(t.config, t.clock, &manager);
  const FleetView view = fleet.view();
  const ProcessView nats = find(view, "nats-server");
  EXPECT_EQ(nats.verdict, Verdict::Running);
  EXPECT_EQ(nats.uptime_s, 5U);
  const ProcessView publishd = find(view, "publishd");
  EXPECT_EQ(publishd.verdict, Verdict::Dead);
  EXPECT_EQ(publishd.restarts, 3U);
  EXPECT_EQ(publishd.detail, "exited with status 78");
  EXPECT_EQ(find(view, "ingestd@0").verdict, Verdict::Starting);
  EXPECT_EQ(find(view, "ingestd@1").verdict, Verdict::Running);
  EXPECT_EQ(view.nats_state, "unknown");
  EXPECT_EQ(not_running(view), "publishd dead, ingestd@0 starting");
}

TEST(Fleet, SaysWhatKeepsPublishdFromPublishing) {
  TestFleet t;
  auto publishd = t.publishd();
  publishd.set_state(shm::ProcessState::Degraded);
  publishd.set(PublishMetric::Trouble, number(ErrorCode::StreamUnusable));
  Fleet fleet(t.config, t.clock, nullptr);
  EXPECT_EQ(fleet.view().nats_state, "stream unusable");
  EXPECT_EQ(find(fleet.view(), "publishd").detail, "stream cannot be used");
  publishd.set(PublishMetric::Trouble, number(ErrorCode::NatsUnreachable));
  EXPECT_EQ(fleet.view().nats_state, "disconnected");
  EXPECT_EQ(find(fleet.view(), "publishd").detail, "NATS not reachable");
  publishd.set(PublishMetric::Trouble, number(ErrorCode::NatsTls));
  EXPECT_EQ(fleet.view().nats_state, "TLS failed");
  publishd.set(PublishMetric::NatsConnected, 1);  // a connection that is there, and refuses
  publishd.set(PublishMetric::Trouble, number(ErrorCode::NatsUnauthorized));
  EXPECT_EQ(fleet.view().nats_state, "not authorized");
  publishd.set(PublishMetric::Trouble, number(ErrorCode::StreamFull));
  EXPECT_EQ(fleet.view().nats_state, "stream full");
  publishd.set_state(shm::ProcessState::Running);
  publishd.set(PublishMetric::Trouble, 0);
  EXPECT_EQ(fleet.view().nats_state, "connected");
  EXPECT_EQ(find(fleet.view(), "publishd").detail, "");
}

TEST(Fleet, ShowsLivingShardsBeyondTheConfiguredOnesOnly) {
  TestFleet t;
  auto living = t.ingestd(7);
  { auto dead = t.ingestd(8); }
  Fleet fleet(t.config, t.clock, nullptr);
  const FleetView view = fleet.view();
  EXPECT_EQ(find(view, "ingestd@7").verdict, Verdict::Running);
  EXPECT_EQ(view.shards.size(), 3U);
}

TEST(Fleet, JudgesTheRingByItsReader) {
  TestFleet t;
  RingFile::CreateOptions options;
  options.capacity_bytes = 1 << 20;
  options.hugepages = HugepageMode::Never;
  auto writer = RingFile::create_or_attach(t.config.ring_path(0), options);
  ASSERT_TRUE(writer) << writer.error().text;
  Fleet fleet(t.config, t.clock, nullptr);
  EXPECT_EQ(fleet.view().shards[0].ring_state, "disconnected: no publishd reads this ring");
  {
    auto reader = RingFile::attach(t.config.ring_path(0), RingSide::Reader);
    ASSERT_TRUE(reader) << reader.error().text;
    EXPECT_EQ(fleet.view().shards[0].ring_state.substr(0, 7), "connect");
  }
  EXPECT_EQ(fleet.view().shards[0].ring_state, "disconnected: no publishd reads this ring");
}

TEST(Fleet, ListsRoutersAndPeersOfAllShards) {
  TestFleet t;
  auto a = t.ingestd(0);
  auto b = t.ingestd(1);
  TestFleet::add_router(a, 3, "192.0.2.1", "edge1");
  TestFleet::add_router(b, 0, "2001:db8::1", "edge2");
  TestFleet::add_peer(a, 0, 3, "198.51.100.1");
  TestFleet::add_peer(a, 1, 9, "198.51.100.2");  // of a router that is not there
  Fleet fleet(t.config, t.clock, nullptr);
  const auto routers = fleet.routers();
  ASSERT_EQ(routers.size(), 2U);
  EXPECT_EQ(routers[0].row.address, "192.0.2.1");
  EXPECT_EQ(routers[1].row.address, "2001:db8::1");
  EXPECT_EQ(routers[1].shard, 1U);
  const auto peers = fleet.peers();
  ASSERT_EQ(peers.size(), 1U);
  EXPECT_EQ(peers[0].router, "192.0.2.1");
  EXPECT_EQ(peers[0].row.address, "198.51.100.1");
}

TEST(ConfigChanges, NamesTheKeysThatDiffer) {
  const Config a = parse_config("", "f");
  EXPECT_TRUE(changed_keys(a, a).empty());
  const Config b = parse_config("[bmp]\nlisten = \"127.0.0.1:4001\"\n[nats]\nreplicas = 3\n", "f");
  EXPECT_EQ(changed_keys(a, b), (std::vector<std::string>{"bmp.listen", "nats.replicas"}));
}

// The keys that the first column of docs/configuration.md names; tests/layout holds it against the code.
std::set<std::string> documented_keys() {
  const char* path = std::getenv("CONFIGURATION_MD");
  std::ifstream in(path != nullptr ? path : "");
  std::set<std::string> keys;
  std::string line;
  while (std::getline(in, line)) {
    if (!line.starts_with("| `")) continue;
    const std::string cell = line.substr(2, line.find('|', 2) - 2);
    for (std::size_t at = 0; (at = cell.find('`', at)) != std::string::npos;) {
      const std::size_t end = cell.find('`', at + 1);
      keys.insert(cell.substr(at + 1, end - at - 1));
      at = end + 1;
    }
  }
  return keys;
}

TEST(ConfigChanges, NoticesEveryKey) {
  const std::map<std::string, std::string> other = {{"instance.name", "'x'"},
                                                    {"paths.runtime_dir", "'/x'"},
                                                    {"paths.state_dir", "'/x'"},
                                                    {"bmp.listen", "'127.0.0.1:1'"},
                                                    {"bmp.backlog", "7"},
                                                    {"bmp.rcvbuf_bytes", "65536"},
                                                    {"bmp.max_message_bytes", "8192"},
                                                    {"bmp.max_sessions", "7"},
                                                    {"bmp.allow", "['10.0.0.0/8']"},
                                                    {"bmp.max_sessions_per_router", "7"},
                                                    {"bmp.max_routes_per_router", "7"},
                                                    {"curation.enabled", "false"},
                                                    {"dump.interval_s", "7"},
                                                    {"snapshot.store", "'none'"},
                                                    {"snapshot.interval_s", "7"},
                                                    {"snapshot.kv_bucket", "'X'"},
                                                    {"bmp.io", "'epoll'"},
                                                    {"bmp.spin_us", "7"},
                                                    {"shards.count", "7"},
                                                    {"shards.pin", "false"},
                                                    {"ring.size_bytes", "33554432"},
                                                    {"ring.hugepages", "'never'"},
                                                    {"ring.when_full", "'drop-newest'"},
                                                    {"curation.session_grace_s", "7"},
                                                    {"curation.resync_timeout_s", "7"},
                                                    {"curation.resync_settle_s", "7"},
                                                    {"nats.url", "'nats://127.0.0.1:1'"},
                                                    {"nats.subject_prefix", "'x'"},
                                                    {"nats.updates_stream", "'X'"},
                                                    {"nats.events_stream", "'X'"},
                                                    {"nats.replicas", "3"},
                                                    {"nats.max_bytes", "1000000000"},
                                                    {"nats.max_age_s", "7"},
                                                    {"nats.ack_timeout_s", "7"},
                                                    {"nats.max_in_flight", "7"},
                                                    {"nats.creds", "'x'"},
                                                    {"nats.user", "'x'"},
                                                    {"nats.password", "'x'"},
                                                    {"nats.token", "'x'"},
                                                    {"nats.tls_ca", "'x'"},
                                                    {"nats.tls_cert", "'x'"},
                                                    {"nats.tls_key", "'x'"},
                                                    {"nats.domain", "'x'"},
                                                    {"nats.api_prefix", "'x'"},
                                                    {"publish.linger_s", "7"},
                                                    {"sink.kind", "'journal'"},
                                                    {"journal.enabled", "false"},
                                                    {"journal.max_bytes", "1000000000"},
                                                    {"journal.segment_bytes", "16777216"},
                                                    {"journal.spill_after_s", "7"},
                                                    {"journal.when_full", "'discard-old'"},
                                                    {"publish.format", "'batch-v2'"},
                                                    {"publish.batch_bytes", "4096"},
                                                    {"publish.batch_count", "7"},
                                                    {"metrics.listen", "'127.0.0.1:1'"},
                                                    {"metrics.max_routers", "7"},
                                                    {"control.listen", "'127.0.0.1:1'"},
                                                    {"control.tls_cert", "'x'"},
                                                    {"control.tls_key", "'x'"},
                                                    {"control.tls_ca", "'x'"},
                                                    {"control.allow_names", "['x']"},
                                                    {"control.read_only_names", "['x']"},
                                                    {"supervise.backoff_max_s", "7"},
                                                    {"log.level", "'debug'"}};
  // What a key needs beside it.
  const std::map<std::string, std::string> beside = {
      {"nats.password", "nats.user = 'a'\n"},
      {"nats.tls_cert", "nats.tls_key = 'a'\nnats.tls_cert = 'a'\n"},
      {"nats.tls_key", "nats.tls_key = 'a'\nnats.tls_cert = 'a'\n"},
      {"control.listen", "control.tls_cert = 'a'\ncontrol.tls_key = 'a'\ncontrol.tls_ca = 'a'\n"},
      {"journal.when_full", "sink.kind = 'journal'\n"},
      {"curation.enabled", "snapshot.store = 'none'\n"}};
  std::set<std::string> tried;
  for (const auto& [key, value] : other) {
    const auto need = beside.find(key);
    std::string base = need == beside.end() ? "" : need->second;
    const Config before = parse_config(base, "f");
    if (const auto own = base.find(key + " ="); own != std::string::npos)
      base.erase(own, base.find('\n', own) + 1 - own);
    const Config after = parse_config(fmt::format("{}{} = {}\n", base, key, value), "f");
    EXPECT_EQ(changed_keys(before, after), std::vector<std::string>{key});
    tried.insert(key);
  }
  const std::string unnamed = "[[router]]\naddress = '192.0.2.1'\n";
  for (const auto& [key, value] : std::map<std::string, std::string>{{"name", "'x'"},
                                                                     {"sys_name", "'x'"},
                                                                     {"tags", "['x']"},
                                                                     {"max_sessions", "7"},
                                                                     {"max_routes", "7"}}) {
    const std::string entry = unnamed + (key == "sys_name" ? "name = 'a'\n" : "");
    const Config after = parse_config(fmt::format("{}{} = {}\n", entry, key, value), "f");
    EXPECT_EQ(changed_keys(parse_config(entry, "f"), after), std::vector<std::string>{"router." + key});
    tried.insert("router." + key);
  }
  EXPECT_EQ(
      changed_keys(parse_config(unnamed, "f"), parse_config("[[router]]\naddress = '192.0.2.2'\n", "f")),
      std::vector<std::string>{"router.address"});
  tried.insert("router.address");
  // A key that no daemon uses, or that is not in the list of uses, would be said to need a restart of all.
  for (const std::string& key : tried) {
    int starts = 0;
    int used = 0;
    for (const Daemon d : {Daemon::Ingestd, Daemon::Publishd, Daemon::Curated}) {
      used += effect_of(key, d) != Effect::None ? 1 : 0;
      starts += effect_of(key, d) == Effect::Start ? 1 : 0;
    }
    EXPECT_GT(used, 0) << key;
    EXPECT_TRUE(starts < 3 || key.starts_with("paths.") || key == "shards.count") << key;
  }
  EXPECT_EQ(tried, documented_keys()) << "run by meson test; a new key wants a line here";
}

}  // namespace
}  // namespace arancini::curated
