#include <gtest/gtest.h>

#include <map>
#include <string>

#include "ingestd/events.h"
#include "ingestd/shard.h"
#include "tests/ingestd/route_messages.h"
#include "tests/ingestd/shard_harness.h"

// Events of sessions, peers and tables (docs/stream.md).
namespace arancini::testing {
namespace {

using schema::EventFields;
using schema::EventKind;
using schema::EventScope;

std::map<std::string, std::uint64_t> counters(const EventFields& e) {
  std::map<std::string, std::uint64_t> out;
  for (const auto& c : e.counters) out[c.name] = c.value;
  return out;
}
std::map<std::string, std::string> details(const EventFields& e) {
  std::map<std::string, std::string> out;
  for (const auto& d : e.details) out[d.name] = d.value;
  return out;
}

class LifeCycle : public ::testing::Test {
 protected:
  std::vector<EventFields> take() {
    h.shard().do_work();
    h.shard().publish();
    h.drain();
    return std::exchange(h.events(), {});
  }
  std::vector<EventKind> kinds() {
    std::vector<EventKind> out;
    for (const EventFields& e : take()) out.push_back(e.kind);
    return out;
  }
  ShardHarness h{{.ring_bytes = 64 * 1024}};
};
using Kinds = std::vector<EventKind>;

TEST_F(LifeCycle, SessionsComeAndGo) {
  const SessionId s = h.open("192.0.2.1", 30000);
  h.open("192.0.2.1", 30001);
  h.send(s, initiation("edge", "a router"));
  h.clock().now_ns += 7;
  h.shard().session_error(s, ErrorCode::SessionReset, "reset by peer");
  h.shard().close_session(s);
  const auto events = take();
  ASSERT_EQ(events.size(), 4U);
  EXPECT_EQ(events[0].kind, EventKind::SessionUp);
  EXPECT_EQ(events[0].scope, EventScope::Session);
  EXPECT_EQ(events[0].router, ip("192.0.2.1"));
  EXPECT_EQ(events[0].router_port, 30000U);
  EXPECT_EQ(counters(events[1])["sessions"], 2U);
  const EventFields& down = events[3];
  EXPECT_EQ(down.kind, EventKind::SessionDown);
  EXPECT_EQ(down.router_port, 30000U);
  EXPECT_EQ(down.error_code, number(ErrorCode::SessionReset));
  EXPECT_NE(down.text.find("reset by peer"), std::string::npos);
  EXPECT_EQ(counters(down)["sessions"], 1U);
  EXPECT_EQ(counters(down)["messages"], 1U);
  EXPECT_EQ(down.since_ns + 7, down.until_ns);
}

TEST_F(LifeCycle, WhatTheRouterSaysOfItself) {
  const SessionId s = h.open();
  const Buffer first = initiation("edge\x01", "a \xff router");
  h.send(s, first);
  h.send(s, termination(3));
  const auto events = take();
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[1].kind, EventKind::Initiation);
  EXPECT_EQ(details(events[1])["sys_name"], "edge?");
  EXPECT_EQ(details(events[1])["sys_descr"], "a ? router");
  EXPECT_EQ(events[1].raw, first);
  EXPECT_EQ(events[2].kind, EventKind::Termination);
  EXPECT_EQ(events[2].reason_code, 3U);
}

TEST_F(LifeCycle, PeerUpSaysWhatWasNegotiated) {
  const SessionId s = h.open();
  OpenSpec sent, received;
  sent.families = received.families = {kIpv4Unicast, kIpv6Unicast};
  received.asn = 65001;
  received.bgp_id = 0x0a000002;
  received.addpath = {{kIpv4Unicast, 2}};
  const Buffer up = peer_up(peer(), sent, received, information_tlv(3, "blue"));
  h.send(s, up);
  const auto events = take();
  ASSERT_EQ(events.size(), 2U);
  const EventFields& e = events[1];
  EXPECT_EQ(e.kind, EventKind::PeerUp);
  EXPECT_EQ(e.scope, EventScope::Peer);
  EXPECT_EQ(e.peer, ip("10.0.0.1"));
  EXPECT_EQ(e.peer_asn, 65001U);
  EXPECT_EQ(e.peer_bgp_id, 0x0a000002U);
  EXPECT_EQ(e.raw, up);
  auto c = counters(e);
  EXPECT_EQ(c["local_port"], 179U);
  EXPECT_EQ(c["remote_port"], 40000U);
  EXPECT_EQ(c["sent_asn"], 65000U);
  EXPECT_EQ(c["received_asn"], 65001U);
  EXPECT_EQ(c["received_hold_time_s"], 90U);
  auto d = details(e);
  EXPECT_EQ(d["local_address"], "192.0.2.254");
  EXPECT_EQ(d["received_bgp_id"], "10.0.0.2");
  EXPECT_EQ(d["sent_families"], "1/1 2/1");
  EXPECT_EQ(d["received_capabilities"], "four_byte_as add_path=1/1:2");
  EXPECT_EQ(d["table_name"], "blue");
}

TEST_F(LifeCycle, PeerDownSaysWhyAndStandsBeforeItsWithdraws) {
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(20)));
  ASSERT_EQ(kinds(), (Kinds{EventKind::SessionUp, EventKind::PeerUp, EventKind::SyncStart}));
  const Buffer notification = bgp_message(3, ByteWriter().u8(6).u8(4).bytes());
  h.send(s, peer_down(peer(), 3, notification));
  h.settle();
  const auto events = take();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].kind, EventKind::PeerDown);
  EXPECT_EQ(events[0].reason_code, 3U);
  EXPECT_EQ(events[0].reason, Reason::PeerDown);
  EXPECT_EQ(counters(events[0])["notification_code"], 6U);
  EXPECT_EQ(counters(events[0])["notification_subcode"], 4U);
  EXPECT_EQ(events[0].last_update_sequence, 20U);
  EXPECT_EQ(events[1].kind, EventKind::SyncEnd);
  EXPECT_EQ(events[1].last_update_sequence, 40U);
  EXPECT_EQ(details(events[1])["cause"], "peer_down");
  EXPECT_EQ(counters(events[1])["withdrawn"], 20U);
  EXPECT_EQ(counters(events[1])["routes"], 0U);
  // One that was never up: FRR says so of each such neighbour when it connects.
  h.send(s, peer_down(peer(65002), 2, ByteWriter().u16(24).bytes()));
  const auto again = take();
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(counters(again[0])["fsm_event"], 24U);
  EXPECT_EQ(again[0].peer_asn, 65002U);
}

TEST_F(LifeCycle, StatisticsByNameAndUnknownOnesByNumber) {
  const SessionId s = h.open();
  ByteWriter body;
  body.u32(5).u16(0).u16(4).u32(7).u16(7).u16(8).u64(1'000'000'000'000);
  body.u16(9).u16(11).u16(2).u8(1).u64(42).u16(4711).u16(4).u32(3).u16(9).u16(4).u32(1);
  const Buffer report = peer_message(1, peer(), body.bytes());
  h.send(s, report);
  const auto events = take();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].kind, EventKind::Statistics);
  EXPECT_EQ(counters(events[1]),
            (std::map<std::string, std::uint64_t>{{"rejected_prefixes", 7},
                                                  {"adj_rib_in_routes", 1'000'000'000'000},
                                                  {"adj_rib_in_routes_2_1", 42},
                                                  {"type_4711", 3},
                                                  {"type_9", 1}}));
  EXPECT_EQ(events[1].raw, report);
  // More of them than an event takes, and a list that overruns: what is read is right, nothing breaks.
  ByteWriter flood;
  flood.u32(1000);
  for (unsigned i = 0; i < 1000; ++i) flood.u16(100 + i).u16(4).u32(i);
  flood.u16(1).u16(500);
  h.send(s, peer_message(1, peer(), flood.bytes()));
  const auto many_of_them = take();
  ASSERT_EQ(many_of_them.size(), 1U);
  EXPECT_GT(many_of_them[0].counters.size(), 90U);
  EXPECT_FALSE(many_of_them[0].raw.empty());
}

TEST_F(LifeCycle, ATableIsToldFromItsFirstRouteToItsEndOfRib) {
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(3)));
  h.send(s, end_of_rib(peer(), kIpv4Unicast));
  (void)take();
  h.pass_time(4.9);
  EXPECT_EQ(kinds(), Kinds{});
  h.pass_time(0.2);
  auto events = take();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].kind, EventKind::SyncEnd);
  EXPECT_EQ(events[0].scope, EventScope::Table);
  EXPECT_EQ(events[0].family, kIpv4Unicast);
  EXPECT_EQ(details(events[0])["cause"], "end_of_rib");
  EXPECT_EQ(counters(events[0])["withdrawn"], 0U);
  EXPECT_EQ(counters(events[0])["routes"], 3U);
  EXPECT_EQ(events[0].until_ns - events[0].since_ns, 5'100'000'000U);
  // Told anew, with less, and no End-of-RIB.
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(2)));
  events = take();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].kind, EventKind::SyncStart);
  EXPECT_EQ(counters(events[1])["routes"], 3U);
  EXPECT_EQ(events[1].last_update_sequence, 3U);
  h.pass_time(331);
  events = take();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(details(events[0])["cause"], "timeout");
  EXPECT_EQ(events[0].reason, Reason::ResyncMissing);
  EXPECT_EQ(counters(events[0])["withdrawn"], 1U);
  EXPECT_EQ(events[0].last_update_sequence, 4U);
}

TEST_F(LifeCycle, ALostSessionEndsItsReSyncsAndTheGraceTimeItsTables) {
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(3)));
  h.shard().close_session(s);
  EXPECT_EQ(kinds(),
            (Kinds{EventKind::SessionUp, EventKind::PeerUp, EventKind::SyncStart, EventKind::SessionDown}));
  h.pass_time(301);
  const auto events = take();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].kind, EventKind::SyncEnd);
  EXPECT_EQ(events[0].reason, Reason::GraceExpired);
  EXPECT_EQ(details(events[0])["cause"], "grace_expired");
  EXPECT_EQ(counters(events[0])["withdrawn"], 3U);
}

TEST_F(LifeCycle, ANewerSessionTakesTheTableOver) {
  const SessionId older = h.open("192.0.2.1", 30000);
  const SessionId newer = h.open("192.0.2.1", 30001);
  h.send(older, peer_up(peer()));
  h.send(older, announce(peer(), many(3)));
  (void)take();
  h.send(newer, announce(peer(), many(3)));
  h.send(older, announce(peer(), many(4)));
  const auto events = take();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].kind, EventKind::SessionSuperseded);
  EXPECT_EQ(events[0].scope, EventScope::View);
  EXPECT_EQ(events[0].router_port, 30000U);
  EXPECT_EQ(counters(events[0])["by_port"], 30001U);
  EXPECT_EQ(events[1].kind, EventKind::SyncStart);
  EXPECT_EQ(events[1].router_port, 30001U);
}

TEST_F(LifeCycle, AMessageWaitsForRoomOfItsEvent) {
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(20)));
  (void)take();
  h.fill();
  for (const Buffer& m :
       {peer_down(peer()), statistics_report(peer()), initiation("a", "b"), termination(), peer_up(peer())}) {
    EXPECT_EQ(h.shard().apply(s, m), Shard::Applied::NoRoom);
    h.shard().do_work();
  }
  EXPECT_EQ(h.table().size(), 20U);
  EXPECT_EQ(h.metric(IngestMetric::SweepsRunning), 0U) << "nothing has happened";
  EXPECT_EQ(h.shard().impl().peers.session(s).router->peers_up, 1U);
}

// The session is gone whether there is room or not: that is kept, and nothing overtakes it.
TEST_F(LifeCycle, WhatCannotWaitIsKeptInOrder) {
  const SessionId s = h.open("192.0.2.1", 30000);
  h.send(s, peer_up(peer()));
  (void)take();
  h.fill();
  h.shard().close_session(s);
  const SessionId t = h.open("192.0.2.1", 30001);
  const SessionId other = h.open("192.0.2.2", 30002);
  h.shard().close_session(other);
  EXPECT_EQ(h.shard().impl().events.kept(), 4U);
  EXPECT_EQ(h.shard().apply(t, announce(peer(), many(1))), Shard::Applied::NoRoom);
  h.send(t, announce(peer(), many(1)));
  EXPECT_EQ(kinds(), (Kinds{EventKind::SessionDown, EventKind::SessionUp, EventKind::SessionUp,
                            EventKind::SessionDown, EventKind::SyncStart}));
  EXPECT_EQ(h.table().size(), 1U);
}

TEST_F(LifeCycle, AStormBeyondWhatCanBeKeptIsCounted) {
  h.fill();
  const std::size_t sessions = ingestd::Events::kMostKept / 2 + 10;
  for (std::size_t i = 0; i < sessions; ++i) h.shard().close_session(h.open("192.0.2.1", 30000));
  EXPECT_EQ(h.shard().impl().events.kept(), ingestd::Events::kMostKept);
  for (int i = 0; i < 10000 && h.shard().impl().events.kept() > 0; ++i) {
    h.shard().publish();
    h.drain();
    h.shard().do_work();
  }
  const auto events = take();
  ASSERT_EQ(events.size(), ingestd::Events::kMostKept + 1);
  EXPECT_EQ(events.back().kind, EventKind::Limit);
  EXPECT_EQ(counters(events.back())["events_lost"], 20U);
}

// While the tables are restored nothing is written, not even that a router has connected.
TEST_F(LifeCycle, NothingIsSaidWhileRestoring) {
  h.shard().set_restoring(true);
  const SessionId s = h.open();
  EXPECT_EQ(kinds(), Kinds{});
  h.shard().set_restoring(false);
  h.send(s, peer_up(peer()));
  EXPECT_EQ(kinds(), (Kinds{EventKind::SessionUp, EventKind::PeerUp}));
}

TEST_F(LifeCycle, ASweepEndsWhenItsEventIsWritten) {
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(20)));
  h.send(s, peer_down(peer()));
  // Room for the withdraws, and none for what follows them.
  for (int i = 0; i < 3; ++i) {
    h.fill();
    h.shard().do_work();
    EXPECT_EQ(h.metric(IngestMetric::SweepsRunning), 1U);
    EXPECT_EQ(h.shard().impl().events.kept(), 0U) << "it waits, nothing has to be kept";
  }
  h.settle();
  EXPECT_EQ(h.events({EventKind::SyncEnd}).size(), 1U);
}

// drop-newest does not make a router wait for its events, until many are kept.
TEST(LifeCycleDropNewest, EventsAreKeptWithinABound) {
  ShardHarness h({.ring_bytes = 64 * 1024, .drop_newest = true});
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.fill();
  const Buffer report = statistics_report(peer());
  std::size_t taken = 0;
  while (h.shard().apply(s, report) == Shard::Applied::Done) ++taken;
  EXPECT_EQ(taken, ingestd::Events::kKeptOfMessages);
  for (int i = 0; i < 1000 && h.shard().impl().events.kept() > 0; ++i) {
    h.shard().publish();
    h.drain();
    h.shard().do_work();
  }
  h.shard().publish();
  h.drain();
  EXPECT_EQ(h.events({EventKind::Statistics}).size(), taken);
}

}  // namespace
}  // namespace arancini::testing
