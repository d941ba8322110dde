#include "curated/fleet.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "common/ring/ring_file.h"
#include "curated/config_changes.h"
#include "tests/curated/test_fleet.h"

namespace arancini::curated {
namespace {

ProcessView find(const FleetView& view, const std::string& name) {
  const auto it = std::find_if(view.processes.begin(), view.processes.end(),
                               [&](const ProcessView& p) { return p.name == name; });
  if (it == view.processes.end()) {
    ADD_FAILURE() << name << " is not in the view";
    return {};
  }
  return *it;
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

}  // namespace
}  // namespace arancini::curated
