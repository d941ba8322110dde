#include <gtest/gtest.h>

#include <map>
#include <string>

#include "ingestd/router_limits.h"
#include "ingestd/shard.h"
#include "tests/ingestd/route_messages.h"
#include "tests/ingestd/shard_harness.h"

// [[router]], bmp.allow, limits, and curation.enabled = false (docs/configuration.md).
namespace arancini::testing {
namespace {

using schema::EventFields;
using schema::EventKind;

RouterEntry entry(std::string_view address, std::string name, std::string sys_name = "") {
  RouterEntry e;
  e.address = *AddressRange::parse(address);
  e.name = std::move(name);
  e.sys_name = std::move(sys_name);
  return e;
}
std::map<std::string, std::uint64_t> counters(const EventFields& e) {
  std::map<std::string, std::uint64_t> out;
  for (const auto& c : e.counters) out[c.name] = c.value;
  return out;
}
std::vector<EventFields> limit_events(ShardHarness& h) {
  h.settle();
  return h.events({EventKind::Limit});
}

TEST(RouterRules, ANameAndTagsGoIntoUpdatesAndEvents) {
  ShardHarness::Options options;
  options.rules.entries = {entry("192.0.2.1", "edge-1")};
  options.rules.entries[0].tags = {"edge", "ams"};
  ShardHarness h(options);
  const SessionId s = h.open("192.0.2.1");
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(2)));
  const SessionId other = h.open("192.0.2.2");
  h.send(other, announce(peer(), many(1)));
  h.send(s, peer_down(peer()));
  h.settle();
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 5U);
  for (const auto& u : updates) {
    const bool named = u.router == ip("192.0.2.1");
    EXPECT_EQ(u.router_id, named ? "edge-1" : "");
    EXPECT_EQ(u.tags, named ? (std::vector<std::string>{"edge", "ams"}) : std::vector<std::string>{});
  }
  for (const EventFields& e : h.events())
    EXPECT_EQ(e.router_id, e.router == ip("192.0.2.1") ? "edge-1" : "") << e.text;
}

TEST(RouterRules, WhoIsNotAllowedIsClosedAndSeen) {
  ShardHarness::Options options;
  options.rules.allow = {*AddressRange::parse("192.0.2.0/24")};
  ShardHarness h(options);
  const SessionId good = h.open("192.0.2.1");
  const SessionId bad = h.open("198.51.100.1", 40001);
  EXPECT_EQ(h.shard().take_session_to_close(), bad);
  EXPECT_EQ(h.shard().take_session_to_close(), std::nullopt);
  EXPECT_EQ(h.shard().apply(bad, announce(peer(), many(1))), Shard::Applied::Done);
  h.shard().close_session(bad);
  h.send(good, announce(peer(), many(1)));
  const auto events = limit_events(h);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].error_code, number(ErrorCode::RouterRefused));
  EXPECT_EQ(events[0].router, ip("198.51.100.1"));
  EXPECT_EQ(events[0].router_port, 40001U);
  EXPECT_EQ(h.table().size(), 1U);
  EXPECT_EQ(h.metric(IngestMetric::SessionsRefusedByRule), 1U);
  EXPECT_EQ(h.metric(IngestMetric::SessionsOpen), 1U);
  std::map<std::string, shm::RouterState> states;
  for (const auto& row : h.rows().routers()) states[row.address] = row.state;
  EXPECT_EQ(states.at("198.51.100.1"), shm::RouterState::Refused);
  // A flood of them: counted, but told a few times a second only.
  for (int i = 0; i < 1000; ++i) h.shard().close_session(h.open("198.51.100.2"));
  EXPECT_EQ(h.metric(IngestMetric::SessionsRefusedByRule), 1001U);
  EXPECT_LE(limit_events(h).size(), 10U);
}

TEST(RouterRules, WhoIsRefusedDuringARestoreIsSeenBehindIt) {
  ShardHarness::Options options;
  options.rules.allow = {*AddressRange::parse("192.0.2.0/24")};
  ShardHarness h(options);
  h.shard().set_restoring(true);
  h.shard().close_session(h.open("198.51.100.1"));
  h.shard().impl().restore.finish();
  h.shard().set_restoring(false);
  h.settle();
  const auto rows = h.rows().routers();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].address, "198.51.100.1");
  EXPECT_EQ(rows[0].state, shm::RouterState::Refused);
  EXPECT_EQ(rows[0].last_error, number(ErrorCode::RouterRefused));
}

TEST(RouterRules, RoutersBehindOneAddressAreToldApartByTheirInitiation) {
  ShardHarness::Options options;
  options.rules.entries = {entry("192.0.2.7", "core-a", "a"), entry("192.0.2.7", "core-b", "b")};
  ShardHarness h(options);
  const SessionId a = h.open("192.0.2.7", 1);
  const SessionId b = h.open("192.0.2.7", 2);
  h.settle();
  EXPECT_TRUE(h.events().empty()) << "nobody knows who they are";
  h.send(a, initiation("a", "router a"));
  h.send(b, initiation("b", "router b"));
  h.send(a, peer_up(peer()));
  h.send(b, peer_up(peer()));
  h.send(a, announce(peer(), many(2), 1));
  h.send(b, announce(peer(), many(2), 2));
  h.shard().publish();
  h.drain();
  EXPECT_EQ(h.table().size(), 4U);
  h.shard().close_session(b);
  h.pass_time(301);
  EXPECT_EQ(h.table().size(), 2U);
  for (const auto& [key, route] : h.table()) EXPECT_EQ(key.name, "core-a");
  h.expect_told_is_what_was_written();
  EXPECT_FALSE(h.shard().take_session_to_close().has_value());

  const SessionId stranger = h.open("192.0.2.7", 3);
  h.send(stranger, initiation("c", "router c"));
  EXPECT_EQ(h.shard().take_session_to_close(), stranger);
  const SessionId early = h.open("192.0.2.7", 4);
  h.send(early, announce(peer(), many(1)));
  EXPECT_EQ(h.shard().take_session_to_close(), early);
  const auto events = limit_events(h);
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].error_code, number(ErrorCode::RouterRefused));
  EXPECT_NE(events[0].text.find("\"c\""), std::string::npos);
  EXPECT_EQ(events[1].error_code, number(ErrorCode::RouterUnidentified));
}

TEST(RouterRules, SessionsOfOneRouterAreLimited) {
  ShardHarness::Options options;
  options.rules.max_sessions = 2;
  options.rules.entries = {entry("192.0.2.9", "many")};
  options.rules.entries[0].max_sessions = 0;
  ShardHarness h(options);
  const SessionId first = h.open("192.0.2.1", 1);
  h.open("192.0.2.1", 2);
  const SessionId third = h.open("192.0.2.1", 3);
  EXPECT_EQ(h.shard().take_session_to_close(), third);
  h.shard().close_session(third);
  for (std::uint16_t i = 0; i < 5; ++i) h.open("192.0.2.9", i);
  EXPECT_EQ(h.shard().take_session_to_close(), std::nullopt);
  const auto events = limit_events(h);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].error_code, number(ErrorCode::RouterSessionLimit));
  const auto rows = h.rows();
  EXPECT_EQ(rows.routers().at(0).state, shm::RouterState::Connected);
  EXPECT_EQ(rows.routers().at(0).sessions, 2U);
  EXPECT_NE(rows.routers().at(0).last_error_text.find("as many sessions"), std::string::npos);
  h.shard().close_session(first);
  h.open("192.0.2.1", 4);
  EXPECT_EQ(h.shard().take_session_to_close(), std::nullopt);
}

// The routes that are missing matter more than a session that was refused meanwhile.
TEST(RouterRules, TheErrorThatLastsStands) {
  ShardHarness::Options options;
  options.rules.max_routes = 10;
  options.rules.max_sessions = 1;
  ShardHarness h(options);
  const SessionId s = h.open();
  h.send(s, announce(peer(), many(11)));
  h.open("192.0.2.1", 30001);
  EXPECT_EQ(h.metric(IngestMetric::SessionsRefusedByRule), 1U);
  const auto rows = h.rows();
  EXPECT_EQ(rows.routers().at(0).last_error, number(ErrorCode::RouterRouteLimit));
  EXPECT_NE(rows.routers().at(0).last_error_text.find("10 routes"), std::string::npos);
}

class RouteLimitTest : public ::testing::TestWithParam<bool> {};

TEST_P(RouteLimitTest, NewPrefixesAreSkippedAndToldAnewLater) {
  ShardHarness::Options options;
  options.rules.max_routes = 100;
  options.drop_newest = GetParam();
  ShardHarness h(options);
  SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(90)));
  h.send(s, announce(peer(), many(60, 60)));  // 30 that are there, 10 that still may be, 20 that may not
  h.settle();
  EXPECT_EQ(h.table().size(), 100U);
  EXPECT_EQ(h.metric(IngestMetric::Routes), 100U);
  EXPECT_EQ(h.metric(IngestMetric::RoutesOverLimit), 20U);
  auto events = limit_events(h);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].error_code, number(ErrorCode::RouterRouteLimit));
  EXPECT_EQ(counters(events[0])["limit"], 100U);
  EXPECT_EQ(counters(events[0])["skipped"], 20U);
  // Changes go on, and withdraws; a skipped prefix was never told.
  h.send(s, announce(peer(), many(10), 7));
  h.send(s, withdraw(peer(), many(20, 100)));
  h.send(s, withdraw(peer(), many(5)));
  h.settle();
  EXPECT_EQ(h.table().size(), 95U);
  EXPECT_EQ(h.shard().take_session_to_close(), std::nullopt) << "not well below yet";
  h.send(s, withdraw(peer(), many(5, 5)));
  h.settle();
  EXPECT_EQ(h.shard().take_session_to_close(), s);
  h.shard().close_session(s);
  s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(90, 10)));
  h.settle();
  EXPECT_EQ(h.shard().take_session_to_close(), std::nullopt);
  h.expect_told_is_what_was_written();
  // It flaps around its limit: it is not asked all the time.
  for (int i = 0; i < 5; ++i) {
    h.send(s, announce(peer(), many(50, 1000 + static_cast<unsigned>(i) * 50)));
    h.send(s, withdraw(peer(), many(300, 1000)));
    h.settle();
    h.pass_time(11);
  }
  EXPECT_EQ(h.shard().take_session_to_close(), std::nullopt);
  h.pass_time(301);
  EXPECT_EQ(h.shard().take_session_to_close(), s);
}

// At its limit all the time, it comes back with other routes: they are skipped while the old ones stand
// there, and asked for when the sweep has removed those.
TEST_P(RouteLimitTest, WhatIsToldInsteadOfSweptRoutesIsAskedForAgain) {
  ShardHarness::Options options;
  options.rules.max_routes = 100;
  options.drop_newest = GetParam();
  ShardHarness h(options);
  SessionId s = h.open();
  const auto tells_anew = [&](unsigned first) {
    h.shard().close_session(s);
    s = h.open();
    h.send(s, peer_up(peer()));
    h.send(s, announce(peer(), many(100 - first, 100)));  // first, so that the table is full of the others
    h.send(s, announce(peer(), many(first)));
    h.send(s, end_of_rib(peer(), kIpv4Unicast));
    h.pass_time(6);
  };
  tells_anew(100);
  ASSERT_EQ(h.table().size(), 100U);
  tells_anew(97);
  EXPECT_EQ(h.metric(IngestMetric::RoutesOverLimit), 3U);
  EXPECT_EQ(h.table().size(), 97U);
  EXPECT_EQ(h.shard().take_session_to_close(), std::nullopt) << "other sweeps may follow";
  h.pass_time(10);
  EXPECT_EQ(h.shard().take_session_to_close(), s);
  tells_anew(97);
  EXPECT_EQ(h.table().size(), 100U) << "what the router has";
  h.expect_told_is_what_was_written();
  h.pass_time(1000);
  EXPECT_EQ(h.shard().take_session_to_close(), std::nullopt);
}

// The same with a peer that does not come back.
TEST_P(RouteLimitTest, WhatIsToldInsteadOfAPeerThatIsGoneIsAskedForAgain) {
  ShardHarness::Options options;
  options.rules.max_routes = 100;
  options.drop_newest = GetParam();
  ShardHarness h(options);
  PeerSpec gone = peer();
  gone.address = ip("10.0.0.9");
  UpdateBuilder u;
  u.basics({64999}, gone.address).announce("30.0.0.0/24").announce("30.0.1.0/24");
  SessionId s = h.open();
  h.send(s, peer_up(gone));
  h.send(s, route_monitoring(gone, u));
  h.send(s, announce(peer(), many(98)));
  h.shard().close_session(s);
  const auto tells_anew = [&] {
    s = h.open();
    h.send(s, peer_up(peer()));
    h.send(s, announce(peer(), many(100)));
    h.send(s, end_of_rib(peer(), kIpv4Unicast));
    h.settle();
  };
  tells_anew();
  EXPECT_EQ(h.metric(IngestMetric::RoutesOverLimit), 2U);
  h.pass_time(301);
  EXPECT_EQ(h.table().size(), 98U);
  h.pass_time(10);
  EXPECT_EQ(h.shard().take_session_to_close(), s);
  h.shard().close_session(s);
  tells_anew();
  EXPECT_EQ(h.table().size(), 100U);
}

// Swept, but other routes took the room: nothing is asked for, then or later.
TEST_P(RouteLimitTest, RoomThatIsTakenIsNotAskedFor) {
  ShardHarness::Options options;
  options.rules.max_routes = 100;
  options.drop_newest = GetParam();
  ShardHarness h(options);
  SessionId s = h.open();
  h.send(s, announce(peer(), many(100)));
  h.shard().close_session(s);
  s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(97)));
  h.send(s, announce(peer(), many(3, 200)));
  h.send(s, end_of_rib(peer(), kIpv4Unicast));
  h.pass_time(6);
  h.send(s, announce(peer(), many(3, 300)));
  h.pass_time(10);
  EXPECT_EQ(h.table().size(), 100U);
  h.send(s, withdraw(peer(), many(1)));
  h.pass_time(10);
  EXPECT_EQ(h.shard().take_session_to_close(), std::nullopt) << "a withdraw makes room for a tenth only";
}
INSTANTIATE_TEST_SUITE_P(WhenFull, RouteLimitTest, ::testing::Bool());

TEST(CurationOff, EverythingIsForwardedAsItCame) {
  ShardHarness h({.curate = false});
  const SessionId s = h.open();
  h.send(s, initiation("a", "b"));
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(3)));
  h.send(s, announce(peer(), many(3)));      // again
  h.send(s, withdraw(peer(), many(2, 50)));  // never announced
  UpdateBuilder both;
  both.basics({1}, ip("10.0.0.1")).announce("20.0.0.0/24").withdraw("20.0.1.0/24");
  h.send(s, route_monitoring(peer(), both));
  h.send(s, end_of_rib(peer(), kIpv4Unicast));
  h.send(s, peer_down(peer()));
  h.shard().close_session(s);
  h.pass_time(1000);
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 10U) << "and no withdraws of the collector's";
  for (std::size_t i = 0; i < 6; ++i) EXPECT_TRUE(updates[i].announced);
  EXPECT_FALSE(updates[6].announced || updates[7].announced || updates[8].announced);
  EXPECT_TRUE(updates[9].announced) << "withdrawals of one UPDATE come first";
  for (const auto& u : updates) EXPECT_FALSE(u.synthetic);
  EXPECT_EQ(h.metric(IngestMetric::Routes), 0U);
  EXPECT_TRUE(h.events({EventKind::SyncStart, EventKind::SyncEnd}).empty());
  EXPECT_EQ(h.events({EventKind::PeerUp, EventKind::PeerDown}).size(), 2U);
}

// There are no tables: a dump that is asked for stays owed to a time with curation.
TEST(CurationOff, NothingIsDumped) {
  ShardHarness h({.curate = false});
  const SessionId s = h.open();
  h.send(s, announce(peer(), many(3)));
  h.request_dump();
  h.settle();
  EXPECT_TRUE(h.events({EventKind::DumpStart, EventKind::DumpEnd}).empty());
  EXPECT_NE(h.writer().dump_answered(), h.writer().dump_request());
}

// A message that meets a full ring is not told twice.
TEST(CurationOff, AMessageThatWaitsForRoomComesOnce) {
  ShardHarness h({.ring_bytes = 64 * 1024, .curate = false});
  const SessionId s = h.open();
  std::size_t routes = 0;
  for (unsigned i = 0; i < 50; ++i) {
    h.send(s, announce(peer(), many(900, i * 900)));
    routes += 900;
  }
  EXPECT_EQ(h.take_updates().size(), routes);
}

}  // namespace
}  // namespace arancini::testing
