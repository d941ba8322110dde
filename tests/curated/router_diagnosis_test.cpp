#include "curated/router_diagnosis.h"

#include <gtest/gtest.h>

#include <set>

#include "common/base/error.h"

namespace arancini::curated {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000U;
constexpr std::uint64_t kNow = 1'800'000'000U * kSecond;

// A router with which all is well; each test takes something from it.
struct Case {
  Case() {
    router.shard = 1;
    router.row.address = "192.0.2.1";
    router.row.state = shm::RouterState::Initiated;
    router.row.sessions = 1;
    router.row.peers_up = 2;
    router.row.connected_realtime_ns = kNow - 3600 * kSecond;
    router.row.last_message_realtime_ns = kNow - 2 * kSecond;
    router.row.messages = 100;
    router.row.routes = 50;
    router.row.updates_published = 60;
    peers.seen = 2;
    context.now_realtime_ns = kNow;
  }
  [[nodiscard]] RouterDiagnosis diagnosis() const { return diagnose(router, peers, context); }
  void no_session(shm::RouterState state) {
    router.row.sessions = 0;
    router.row.peers_up = 0;
    router.row.state = state;
  }
  void never_spoke() {
    router.row.state = shm::RouterState::Connected;
    router.row.peers_up = 0;
    router.row.routes = router.row.messages = router.row.last_message_realtime_ns = 0;
    peers.seen = 0;
  }

  RouterView router;
  PeerTally peers;
  DiagnosisContext context;
};

// The condition, and that what it means and what to do are sentences that hold `word`s.
void expect(const RouterDiagnosis& d, RouterCondition condition, Concern concern, std::string_view what,
            std::string_view advice) {
  EXPECT_EQ(to_string(d.condition), to_string(condition));
  EXPECT_EQ(d.concern, concern);
  EXPECT_NE(d.what.find(what), std::string::npos) << d.what;
  EXPECT_TRUE(d.what.ends_with(".")) << d.what;
  if (advice.empty()) {
    EXPECT_EQ(d.advice, "");
  } else {
    EXPECT_NE(d.advice.find(advice), std::string::npos) << d.advice;
    EXPECT_TRUE(d.advice.ends_with(".")) << d.advice;
  }
}

TEST(RouterDiagnosis, Receives) {
  Case c;
  expect(c.diagnosis(), RouterCondition::Receiving, Concern::None,
         "2 BGP peers are up; the last message came 2 s ago.", "");
  c.peers.seen = 5;
  expect(c.diagnosis(), RouterCondition::Receiving, Concern::None, "2 of 5 BGP peers are up", "");
}

TEST(RouterDiagnosis, WasRefusedAndWhy) {
  Case c;
  c.never_spoke();
  c.no_session(shm::RouterState::Refused);
  c.router.row.last_error = number(ErrorCode::RouterRefused);
  c.router.row.last_error_text =
      "router is not allowed to connect: neither bmp.allow nor a [[router]] has its address";
  expect(c.diagnosis(), RouterCondition::Refused, Concern::Problem, "neither bmp.allow nor", "bmp.allow");
  c.router.row.last_error = number(ErrorCode::RouterSessionLimit);
  expect(c.diagnosis(), RouterCondition::Refused, Concern::Problem, "refused", "max_sessions");
  c.router.row.last_error = number(ErrorCode::RouterUnidentified);
  expect(c.diagnosis(), RouterCondition::Refused, Concern::Problem, "refused", "Initiation");
  c.router.row.last_error = 0;
  c.router.row.last_error_text.clear();
  expect(c.diagnosis(), RouterCondition::Refused, Concern::Problem, "no reason is known", "log");
}

TEST(RouterDiagnosis, LostItsSession) {
  Case c;
  c.no_session(shm::RouterState::Lost);
  c.router.row.last_message_realtime_ns = kNow - 600 * kSecond;
  expect(c.diagnosis(), RouterCondition::Lost, Concern::Problem, "its last message came 10 min ago", "is up");
  c.router.row.last_message_realtime_ns = 0;
  expect(c.diagnosis(), RouterCondition::Lost, Concern::Problem, "nothing ever came", "is up");
}

TEST(RouterDiagnosis, ConnectedAndNeverSaidAnything) {
  Case c;
  c.never_spoke();
  expect(c.diagnosis(), RouterCondition::Silent, Concern::Problem, "has not sent a single BMP message",
         "no router");
  // What it said in a former session does not count.
  c.router.row.messages = 12;
  c.router.row.last_message_realtime_ns = c.router.row.connected_realtime_ns - kSecond;
  expect(c.diagnosis(), RouterCondition::Silent, Concern::Problem, "single BMP message", "no router");
  c.router.row.connected_realtime_ns = kNow - 3 * kSecond;
  expect(c.diagnosis(), RouterCondition::Starting, Concern::None, "connected 3 s ago", "");
}

TEST(RouterDiagnosis, SpeaksWithoutInitiation) {
  Case c;
  c.never_spoke();
  c.router.row.last_message_realtime_ns = kNow - kSecond;
  expect(c.diagnosis(), RouterCondition::NoInitiation, Concern::Problem, "neither introduced itself",
         "version 3");
}

TEST(RouterDiagnosis, OnlyInitiation) {
  Case c;
  c.router.row.peers_up = 0;
  c.router.row.routes = 0;
  c.peers.seen = 0;
  expect(c.diagnosis(), RouterCondition::NoPeers, Concern::Problem, "not reported a single BGP peer",
         "Activate BMP");
}

TEST(RouterDiagnosis, AllPeersDown) {
  Case c;
  c.router.row.peers_up = 0;
  expect(c.diagnosis(), RouterCondition::PeersDown, Concern::Problem,
         "All 2 BGP peers that it reports are down.", "aranctl peers");
  c.peers.seen = 1;
  expect(c.diagnosis(), RouterCondition::PeersDown, Concern::Problem, "only BGP peer that it reports is down",
         "aranctl peers");
}

TEST(RouterDiagnosis, PeersUpAndNoRoutes) {
  Case c;
  c.router.row.routes = c.router.row.updates_published = 0;
  expect(c.diagnosis(), RouterCondition::NoRoutes, Concern::Problem, "no route came", "route monitoring");
  c.router.row.malformed = 4;
  expect(c.diagnosis(), RouterCondition::NoRoutes, Concern::Problem, "4 messages are malformed", "decode");
  c.router.row.malformed = 0;
  c.router.row.updates_published = 9;
  expect(c.diagnosis(), RouterCondition::NoRoutes, Concern::Problem, "are withdrawn", "route monitoring");
  c.context.curation = false;  // nobody counts routes
  expect(c.diagnosis(), RouterCondition::Receiving, Concern::None, "2 BGP peers are up", "");
  c.router.row.updates_published = 0;
  c.router.row.connected_realtime_ns = kNow - kSecond;
  expect(c.diagnosis(), RouterCondition::Starting, Concern::None, "no route came yet", "");
}

TEST(RouterDiagnosis, IsThrottled) {
  Case c;
  c.router.row.throttled = true;
  expect(c.diagnosis(), RouterCondition::Throttled, Concern::Notice, "ring of shard 1", "NATS");
}

TEST(RouterDiagnosis, IsNotReadByItsShard) {
  Case c;
  c.never_spoke();  // our doing, not the router's
  c.context.shard = ShardReading::Restores;
  expect(c.diagnosis(), RouterCondition::NotRead, Concern::Notice, "restores its tables", "Wait");
  c.context.shard = ShardReading::Drains;
  expect(c.diagnosis(), RouterCondition::NotRead, Concern::Notice, "draining", "--undo");
  c.context.shard = ShardReading::Down;
  expect(c.diagnosis(), RouterCondition::Unknown, Concern::Problem, "ingestd@1", "aranctl status");
}

TEST(RouterDiagnosis, RoutesAreMissingDownstream) {
  Case c;
  c.router.row.routes_untold = 1;
  expect(c.diagnosis(), RouterCondition::Behind, Concern::Problem, "latest of 1 route,", "ring.when_full");
  c.router.row.last_error = number(ErrorCode::RouterRouteLimit);
  c.router.row.last_error_text = "router has as many routes as it may: 50 routes";
  expect(c.diagnosis(), RouterCondition::Limited, Concern::Problem, "50 routes", "max_routes");
}

TEST(RouterDiagnosis, NoMessageForLong) {
  Case c;
  c.router.row.last_message_realtime_ns = kNow - 899 * kSecond;
  EXPECT_EQ(c.diagnosis().condition, RouterCondition::Receiving);
  c.router.row.last_message_realtime_ns = kNow - 900 * kSecond;
  expect(c.diagnosis(), RouterCondition::Quiet, Concern::Notice, "no message came for 15 min",
         "Statistics Reports");
}

TEST(RouterDiagnosis, ClocksThatGoBackAreNoAge) {
  Case c;
  c.router.row.last_message_realtime_ns = c.router.row.connected_realtime_ns = kNow + 5 * kSecond;
  expect(c.diagnosis(), RouterCondition::Receiving, Concern::None, "0 s ago", "");
}

TEST(RouterDiagnosis, WordsAreDistinctAndFitLabels) {
  std::set<std::string_view> words;
  for (int i = 0; i <= static_cast<int>(RouterCondition::Unknown); ++i) {
    const std::string_view word = to_string(static_cast<RouterCondition>(i));
    EXPECT_TRUE(words.insert(word).second) << word;
    EXPECT_EQ(word.find_first_not_of("abcdefghijklmnopqrstuvwxyz-"), std::string_view::npos) << word;
  }
}

TEST(RouterDiagnosis, CountsAPeerOnceWhateverItsViews) {
  std::vector<PeerView> peers(4);
  for (PeerView& p : peers) {
    p.shard = 1;
    p.row.router = 7;
    p.row.address = "10.0.0.1";
  }
  peers[1].row.view = 1;
  peers[2].row.distinguisher = 9;
  peers[3].shard = 0;
  const PeerTallies tallies = tally_peers(peers);
  EXPECT_EQ(tallies.at({1, 7}).seen, 2);
  EXPECT_EQ(tallies.at({0, 7}).seen, 1);
}

TEST(RouterDiagnosis, KnowsWhatTheShardDoes) {
  FleetView view;
  view.processes.resize(2);
  view.processes[1].name = "ingestd@1";
  view.processes[1].verdict = Verdict::Running;
  view.shards.resize(2);
  view.shards[1].shard = 1;
  view.shards[1].values.resize(static_cast<std::size_t>(IngestMetric::Count));
  EXPECT_EQ(shard_reading(view, 1), ShardReading::Reads);
  view.shards[1].values[static_cast<std::size_t>(IngestMetric::RestoreState)] = 2;
  EXPECT_EQ(shard_reading(view, 1), ShardReading::Restores);
  view.processes[1].verdict = Verdict::Draining;
  EXPECT_EQ(shard_reading(view, 1), ShardReading::Drains);
  for (const Verdict v : {Verdict::Dead, Verdict::Stuck, Verdict::Stopped}) {
    view.processes[1].verdict = v;
    EXPECT_EQ(shard_reading(view, 1), ShardReading::Down);
  }
  EXPECT_EQ(shard_reading(view, 40), ShardReading::Reads) << "not known";
}

TEST(RouterDiagnosis, OfAllRoutersWithTheirOwnPeersAndShards) {
  Case c;
  FleetView view;
  std::vector<RouterView> routers(2, c.router);
  routers[0].row.index = 3;
  routers[0].row.peers_up = routers[1].row.peers_up = 0;
  routers[1].row.index = 4;
  std::vector<PeerView> peers(1);
  peers[0].shard = 1;
  peers[0].row.router = 4;
  const auto all = diagnose_all(view, routers, peers, true, kNow);
  ASSERT_EQ(all.size(), 2);
  EXPECT_EQ(all[0].condition, RouterCondition::NoPeers);
  EXPECT_EQ(all[1].condition, RouterCondition::PeersDown);
}

TEST(RouterDiagnosis, SpokenDurations) {
  EXPECT_EQ(spoken_duration(119 * kSecond), "119 s");
  EXPECT_EQ(spoken_duration(120 * kSecond), "2 min");
  EXPECT_EQ(spoken_duration(7200 * kSecond), "2 h");
  EXPECT_EQ(spoken_duration(172'800 * kSecond), "2 days");
}

}  // namespace
}  // namespace arancini::curated
