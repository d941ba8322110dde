#include "ingestd/shard.h"

#include <gtest/gtest.h>

#include "tests/ingestd/bmp_builder.h"
#include "tests/ingestd/shard_harness.h"

namespace arancini::testing {
namespace {

using ingestd::SessionId;
using ingestd::Shard;

PeerSpec peer_a() {
  PeerSpec p;
  p.address = ip("10.0.0.1");
  p.asn = 65001;
  return p;
}
PeerSpec peer_b() {
  PeerSpec p;
  p.address = ip("2001:db8::2");
  p.asn = 65002;
  return p;
}
PeerSpec loc_rib(std::uint32_t asn = 65000) {
  PeerSpec p;
  p.type = 3;
  p.asn = asn;
  return p;
}

UpdateBuilder announce(const std::vector<Nlri>& nlri, std::uint32_t med = 0) {
  UpdateBuilder u;
  u.basics({65001, 65010}, ip("10.0.0.1"));
  if (med != 0) u.med(med);
  for (const Nlri& n : nlri) u.announce(n);
  return u;
}
UpdateBuilder withdraw(const std::vector<Nlri>& nlri) {
  UpdateBuilder u;
  for (const Nlri& n : nlri) u.withdraw(n);
  return u;
}
std::vector<Nlri> many(unsigned n, unsigned first = 0) {
  std::vector<Nlri> out;
  for (unsigned i = first; i < first + n; ++i) {
    out.emplace_back(IpAddress::from_v4(0x14000000U + (i << 8)), 24U);
  }
  return out;
}
// Announced in messages of at most 500 routes.
void announce_many(ShardHarness& h, SessionId s, const PeerSpec& p, unsigned n, std::uint32_t med = 0) {
  for (unsigned at = 0; at < n; at += 500)
    h.send(s, route_monitoring(p, announce(many(std::min(500U, n - at), at), med)));
}

TEST(Shard, AnnouncesNewAndChangedRoutesOnly) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24", "203.0.113.0/24"})));
  auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 2U);
  EXPECT_TRUE(updates[0].announced);
  EXPECT_EQ(updates[0].prefix_address, ip("198.51.100.0"));
  EXPECT_EQ(updates[0].prefix_length, 24);
  EXPECT_EQ(updates[0].as_path, (std::vector<std::uint32_t>{65001, 65010}));
  EXPECT_EQ(updates[0].next_hop, ip("10.0.0.1"));
  EXPECT_EQ(updates[0].router, ip("192.0.2.1"));
  EXPECT_EQ(updates[0].router_port, 30000);
  EXPECT_EQ(updates[0].peer_asn, 65001U);
  EXPECT_EQ(updates[0].family, kIpv4Unicast);
  EXPECT_EQ(updates[0].time_bmp_ns, 1'700'000'000'123'456'000U);
  EXPECT_EQ(updates[0].time_received_ns, h.clock().realtime_ns());

  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  EXPECT_TRUE(h.take_updates().empty());
  EXPECT_EQ(h.metric(IngestMetric::UpdatesSuppressedDuplicate), 1U);

  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"}, 7)));
  updates = h.take_updates();
  ASSERT_EQ(updates.size(), 1U);
  EXPECT_EQ(updates[0].med, 7U);
}

TEST(Shard, SuppressesWithdrawsOfWhatWasNotTold) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  h.send(s, route_monitoring(peer_a(), withdraw({"198.51.100.0/24"})));
  EXPECT_TRUE(h.take_updates().empty());
  EXPECT_EQ(h.metric(IngestMetric::UpdatesSuppressedUnknown), 1U);
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  h.send(s, route_monitoring(peer_a(), withdraw({"198.51.100.0/24", "198.51.100.0/24"})));
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 2U);
  EXPECT_FALSE(updates[1].announced);
  EXPECT_FALSE(updates[1].synthetic);
  EXPECT_TRUE(h.table().empty());
}

TEST(Shard, WithdrawsBeforeItAnnouncesWithinOneUpdate) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24", "203.0.113.0/24"})));
  (void)h.take_updates();
  // The same prefix withdrawn and announced, another one twice, all in one message.
  UpdateBuilder u = announce({"198.51.100.0/24", "192.0.2.0/24", "192.0.2.0/24"}, 5);
  u.withdraw("198.51.100.0/24").withdraw("203.0.113.0/24");
  h.send(s, route_monitoring(peer_a(), u));
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 4U);
  EXPECT_FALSE(updates[0].announced);
  EXPECT_FALSE(updates[1].announced);
  EXPECT_TRUE(updates[2].announced);
  EXPECT_TRUE(updates[3].announced);
  EXPECT_EQ(h.table().size(), 2U);
}

TEST(Shard, ClassicAndMpFieldsOfOneUpdateAllCount) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, route_monitoring(peer_b(), announce({"198.51.100.0/24"})
                                           .mp_announce(kIpv6Unicast, ip("2001:db8::1"),
                                                        {"2001:db8:1::/48", "2001:db8:2::/48"})));
  auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 3U);
  EXPECT_EQ(updates[0].family, kIpv4Unicast);
  EXPECT_EQ(updates[0].next_hop, ip("10.0.0.1"));
  EXPECT_EQ(updates[1].family, kIpv6Unicast);
  EXPECT_EQ(updates[1].next_hop, ip("2001:db8::1"));
  EXPECT_EQ(updates[1].prefix_address, ip("2001:db8:1::"));
  h.send(s, route_monitoring(peer_b(),
                             withdraw({"198.51.100.0/24"}).mp_withdraw(kIpv6Unicast, {"2001:db8:1::/48"})));
  updates = h.take_updates();
  ASSERT_EQ(updates.size(), 2U);
  EXPECT_EQ(updates[1].family, kIpv6Unicast);
  EXPECT_EQ(h.table().size(), 1U);
}

TEST(Shard, OrderAndCompanyOfMpAttributesDoNotMakeAChange) {
  ShardHarness h;
  const SessionId s = h.open();
  UpdateBuilder one;
  one.origin(0).as_path({65001});
  one.mp_announce(kIpv6Unicast, ip("2001:db8::1"), {"2001:db8:1::/48"});
  h.send(s, route_monitoring(peer_b(), one));
  EXPECT_EQ(h.take_updates().size(), 1U);
  // MP_REACH between the others, and with more prefixes.
  UpdateBuilder other;
  ByteWriter v;
  v.u16(2).u8(1).u8(16).address(ip("2001:db8::1")).u8(0);
  write_nlri(v, "2001:db8:1::/48");
  write_nlri(v, "2001:db8:2::/48");
  other.origin(0).attribute(0x80, 14, v.bytes()).as_path({65001});
  h.send(s, route_monitoring(peer_b(), other));
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 1U);
  EXPECT_EQ(updates[0].prefix_address, ip("2001:db8:2::"));
  // Another next hop is a change.
  UpdateBuilder third;
  third.origin(0).as_path({65001}).mp_announce(kIpv6Unicast, ip("2001:db8::9"), {"2001:db8:1::/48"});
  h.send(s, route_monitoring(peer_b(), third));
  EXPECT_EQ(h.take_updates().size(), 1U);
}

TEST(Shard, MulticastIsATableOfItsOwnAndOtherFamiliesAreSkipped) {
  ShardHarness h;
  const SessionId s = h.open();
  UpdateBuilder u;
  u.origin(0).as_path({65001}).mp_announce(kIpv4Multicast, ip("10.0.0.1"), {"198.51.100.0/24"});
  h.send(s, route_monitoring(peer_a(), u));
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  EXPECT_EQ(h.take_updates().size(), 2U);
  UpdateBuilder vpn;
  vpn.origin(0).as_path({65001}).mp_announce(Family{1, 128}, ip("10.0.0.1"), {"198.51.100.0/24"});
  h.send(s, route_monitoring(peer_a(), vpn));
  EXPECT_TRUE(h.take_updates().empty());
  EXPECT_EQ(h.metric(IngestMetric::UnsupportedFamily), 1U);
}

TEST(Shard, ViewsOfAPeerAreTablesOfTheirOwn) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  for (const std::uint8_t flags : std::initializer_list<std::uint8_t>{0x00, 0x40, 0x10, 0x50}) {
    h.send(s, route_monitoring(peer_a().with_flags(flags), announce({"198.51.100.0/24"})));
  }
  h.send(s, route_monitoring(loc_rib(), announce({"198.51.100.0/24"})));
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 5U);
  EXPECT_EQ(updates[0].view, View::AdjInPre);
  EXPECT_EQ(updates[1].view, View::AdjInPost);
  EXPECT_EQ(updates[2].view, View::AdjOutPre);
  EXPECT_EQ(updates[3].view, View::AdjOutPost);
  EXPECT_EQ(updates[4].view, View::LocRib);
  EXPECT_EQ(h.rows().peers().size(), 5U);
}

TEST(Shard, TreatAsWithdrawWithdrawsWhatIsKnown) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  UpdateBuilder bad;
  bad.origin(9)
      .as_path({65001})
      .next_hop(ip("10.0.0.1"))
      .announce("198.51.100.0/24")
      .announce("203.0.113.0/24");
  h.send(s, route_monitoring(peer_a(), bad));
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 2U);
  EXPECT_FALSE(updates[1].announced);
  EXPECT_EQ(updates[1].prefix_address, ip("198.51.100.0"));
  EXPECT_EQ(h.metric(IngestMetric::TreatedAsWithdraw), 1U);
  EXPECT_TRUE(h.table().empty());
}

TEST(Shard, PathIdsKeepPathsApart) {
  ShardHarness h;
  const SessionId s = h.open();
  OpenSpec sent, received;
  sent.families = received.families = {kIpv4Unicast};
  sent.addpath = {{kIpv4Unicast, 1}};
  received.addpath = {{kIpv4Unicast, 2}};
  h.send(s, peer_up(peer_a(), sent, received));
  h.send(s, route_monitoring(peer_a(), announce({Nlri("198.51.100.0/24", 1), Nlri("198.51.100.0/24", 2)})));
  h.send(s, route_monitoring(peer_a(), withdraw({Nlri("198.51.100.0/24", 1)})));
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 3U);
  EXPECT_EQ(updates[0].path_id, 1U);
  EXPECT_EQ(updates[1].path_id, 2U);
  ASSERT_EQ(h.table().size(), 1U);
  EXPECT_EQ(h.table().begin()->first.path_id, 2U);
  EXPECT_EQ(h.metric(IngestMetric::AddPathMismatch), 0U);
}

TEST(Shard, NegotiatedPathIdsThatAreNotThereAreNoticed) {
  ShardHarness h;
  const SessionId s = h.open();
  OpenSpec sent, received;
  sent.addpath = {{kIpv4Unicast, 3}};
  received.addpath = {{kIpv4Unicast, 3}};
  h.send(s, peer_up(peer_a(), sent, received));
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 1U);
  EXPECT_EQ(updates[0].prefix_address, ip("198.51.100.0"));
  EXPECT_EQ(h.metric(IngestMetric::AddPathMismatch), 1U);
}

TEST(Shard, NewsWithPathIdReplacesWhatWasDumpedWithout) {
  // GoBGP dumps its pre-policy table without path ids, and sends what changes later with them.
  ShardHarness h;
  const SessionId s = h.open();
  OpenSpec sent, received;
  sent.addpath = {{kIpv4Unicast, 3}};
  received.addpath = {{kIpv4Unicast, 3}};
  h.send(s, peer_up(peer_a(), sent, received));
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"}, 7)));
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"}, 8)));  // its second path
  h.send(s, route_monitoring(peer_a(), announce({"192.0.2.0/24", "203.0.113.64/26"})));
  h.settle();
  EXPECT_EQ(h.table().size(), 3U);
  // A change and a withdraw of prefixes with one path.
  h.send(s, route_monitoring(peer_a(), announce({Nlri("192.0.2.0/24", 1), Nlri("10.0.0.0/8", 1)}, 5)));
  h.send(s, route_monitoring(peer_a(), withdraw({Nlri("203.0.113.64/26", 1)})));
  h.settle();
  ASSERT_EQ(h.table().size(), 3U);  // 10/8, 192.0.2/24, 198.51.100/24
  for (const auto& [key, route] : h.table())
    EXPECT_EQ(key.path_id, key.prefix == ip("198.51.100.0") ? 0U : 1U);
  // The one with two: it is there as long as one of them may be.
  h.send(s, route_monitoring(peer_a(), withdraw({Nlri("198.51.100.0/24", 7)})));
  h.settle();
  EXPECT_EQ(h.table().size(), 3U);
  h.send(s, route_monitoring(peer_a(), announce({Nlri("198.51.100.0/24", 8)}, 9)));
  h.send(s, route_monitoring(peer_a(), announce({Nlri("198.51.100.0/24", 8)}, 9)));
  h.settle();
  ASSERT_EQ(h.table().size(), 3U);
  EXPECT_EQ(h.table().rbegin()->first.path_id, 8U);
  h.send(s, route_monitoring(peer_a(), withdraw({Nlri("198.51.100.0/24", 8)})));
  h.settle();
  EXPECT_EQ(h.table().size(), 2U);
}

TEST(Shard, WithdrawWithPathIdAfterADumpWithout) {
  // The route with its id is from before the re-sync and waits for its sweep: the dump stands for it.
  ShardHarness h;
  const SessionId s = h.open();
  OpenSpec sent, received;
  sent.addpath = {{kIpv4Unicast, 3}};
  received.addpath = {{kIpv4Unicast, 3}};
  h.send(s, peer_up(peer_a(), sent, received));
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24", "203.0.113.0/24"})));
  h.send(s, route_monitoring(peer_a(), announce({Nlri("198.51.100.0/24", 1)}, 5)));
  h.settle();
  ASSERT_EQ(h.table().size(), 2U);
  h.send(s, peer_up(peer_a(), sent, received));
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24", "203.0.113.0/24"})));
  h.send(s, route_monitoring(peer_a(), withdraw({Nlri("198.51.100.0/24", 1)})));
  h.settle();
  ASSERT_EQ(h.table().size(), 1U);
  EXPECT_EQ(h.table().begin()->first.prefix, ip("203.0.113.0"));
}

TEST(Shard, PeerDownWithdrawsAllViewsWithItsReason) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  h.send(s, route_monitoring(peer_a().with_flags(0x40), announce({"198.51.100.0/24", "203.0.113.0/24"})));
  UpdateBuilder v6;
  v6.origin(0).as_path({1}).mp_announce(kIpv6Unicast, ip("2001:db8::1"), {"2001:db8:1::/48"});
  h.send(s, route_monitoring(peer_a(), v6));
  h.send(s, route_monitoring(peer_b(), announce({"198.51.100.0/24"})));
  (void)h.take_updates();
  h.clock().now_ns += 1'000'000'000;
  h.send(s, peer_down(peer_a(), 2));
  h.settle();
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 4U);
  for (const auto& u : updates) {
    EXPECT_FALSE(u.announced);
    EXPECT_TRUE(u.synthetic);
    EXPECT_EQ(u.reason, Reason::PeerDown);
    EXPECT_EQ(u.peer, ip("10.0.0.1"));
    EXPECT_EQ(u.time_bmp_ns, 0U);
    EXPECT_EQ(u.time_received_ns, h.clock().realtime_ns());
    EXPECT_EQ(u.router_port, 30000);
  }
  EXPECT_EQ(h.table().size(), 1U);
  const auto rows = h.rows();
  ASSERT_EQ(rows.peers().size(), 3U);
  EXPECT_EQ(rows.peers()[0].state, shm::PeerState::Down);
  EXPECT_EQ(rows.peers()[0].down_reason, 2U);
  EXPECT_EQ(rows.peers()[0].synthetic_withdraws, 2U);
  EXPECT_EQ(rows.peers()[0].routes, 0U);
}

TEST(Shard, PeerDownOfANeverSeenPeerIsHarmless) {
  ShardHarness h;
  const SessionId s = h.open();
  PeerSpec p = peer_a();
  p.bgp_id = 0;
  h.send(s, peer_down(p, 2, ByteWriter().u16(0).bytes()));
  h.settle();
  EXPECT_TRUE(h.take_updates().empty());
  EXPECT_TRUE(h.rows().peers().empty());
  EXPECT_EQ(h.metric(IngestMetric::MessagesPeerDown), 1U);
}

TEST(Shard, RoutesAfterAPeerDownSurviveItsSweep) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 5000);
  h.send(s, peer_down(peer_a()));
  h.shard().do_work();  // the sweep has begun
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 1500);    // as before
  announce_many(h, s, peer_a(), 700, 9);  // changed
  h.send(s, route_monitoring(peer_a(), withdraw({many(1, 100)[0]})));
  h.settle();
  EXPECT_EQ(h.table().size(), 1499U);
  // And nothing happens to them later.
  h.send(s, end_of_rib(peer_a(), kIpv4Unicast));
  h.pass_time(1000);
  EXPECT_EQ(h.table().size(), 1499U);
}

TEST(Shard, ASecondPeerDownDuringTheSweepOfTheFirstTakesEverything) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 6000);
  h.send(s, peer_down(peer_a()));
  h.shard().do_work();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 6000);
  h.send(s, peer_down(peer_a()));
  h.shard().do_work();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 10, 4);
  h.settle();
  EXPECT_EQ(h.table().size(), 10U);
}

TEST(Shard, PeerUpWithToldRoutesIsAReSync) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 100);
  (void)h.take_updates();
  h.send(s, peer_up(peer_a()));
  h.settle();
  EXPECT_TRUE(h.take_updates().empty());
  announce_many(h, s, peer_a(), 60);
  h.send(s, end_of_rib(peer_a(), kIpv4Unicast));
  h.pass_time(4.9);
  EXPECT_TRUE(h.take_updates().empty());
  // News postpones the end.
  h.send(s, route_monitoring(peer_a(), announce({many(1, 60)[0]})));
  h.pass_time(4.9);
  EXPECT_TRUE(h.take_updates().empty());
  h.pass_time(0.2);
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 39U);
  for (const auto& u : updates) EXPECT_EQ(u.reason, Reason::ResyncMissing);
  EXPECT_EQ(h.table().size(), 61U);
}

TEST(Shard, APeerUpDuringASweepDoesNotWidenIt) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 6000);
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 4000);
  h.send(s, end_of_rib(peer_a(), kIpv4Unicast));
  h.clock().now_ns += 6'000'000'000;
  EXPECT_TRUE(h.shard().do_work().more);
  h.send(s, peer_up(peer_a()));
  h.settle();
  EXPECT_EQ(h.table().size(), 4000U);
  EXPECT_EQ(h.metric(IngestMetric::UpdatesSynthetic), 2000U);
  // Its own re-sync ends later.
  announce_many(h, s, peer_a(), 10);
  h.pass_time(400);
  EXPECT_EQ(h.table().size(), 10U);
}

TEST(Shard, SameInputSameRecords) {
  std::vector<Buffer> runs;
  for (int run = 0; run < 2; ++run) {
    ShardHarness h({.grace_s = 30, .keep_bytes = true});
    for (unsigned round = 0; round < 3; ++round) {
      const SessionId s = h.open("192.0.2.1", static_cast<std::uint16_t>(30000 + round));
      for (const PeerSpec& p : {peer_a(), peer_b(), loc_rib()}) {
        if (p.type != 3) h.send(s, peer_up(p));
        announce_many(h, s, p, 3000 - 700 * round, round);
      }
      h.send(s, peer_down(peer_a()));
      h.send(s, end_of_rib(peer_b(), kIpv4Unicast));
      h.pass_time(6);
      h.shard().close_session(s);
      h.pass_time(round == 1 ? 40 : 10);
    }
    runs.push_back(h.bytes());
  }
  ASSERT_FALSE(runs[0].empty());
  EXPECT_TRUE(runs[0] == runs[1]);
}

TEST(Shard, EndOfRibBeforeTheRoutesDoesNotEndTheReSync) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 100);
  h.send(s, peer_up(peer_a()));
  h.send(s, end_of_rib(peer_a(), kIpv4Unicast));
  h.pass_time(3);
  announce_many(h, s, peer_a(), 50);
  h.pass_time(3);
  for (unsigned at = 50; at < 100; ++at) h.send(s, route_monitoring(peer_a(), announce({many(1, at)[0]})));
  h.pass_time(20);
  EXPECT_EQ(h.table().size(), 100U);
  EXPECT_EQ(h.metric(IngestMetric::UpdatesSynthetic), 0U);
}

TEST(Shard, WithoutEndOfRibTheReSyncEndsAfterItsTimeOut) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 100);
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 30);
  h.pass_time(299.9);
  EXPECT_EQ(h.table().size(), 100U);
  h.pass_time(31);
  EXPECT_EQ(h.table().size(), 30U);
  EXPECT_EQ(h.take_updates().back().reason, Reason::ResyncMissing);
}

TEST(Shard, WhatIsNotReadForWantOfRoomIsNotMissing) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 100);
  h.send(s, peer_up(peer_a()));
  h.send(s, end_of_rib(peer_a(), kIpv4Unicast));
  h.shard().set_throttled(s, true);
  h.pass_time(1000);
  EXPECT_EQ(h.table().size(), 100U);
  EXPECT_EQ(h.metric(IngestMetric::SessionsThrottled), 1U);
  h.shard().set_throttled(s, false);
  h.pass_time(4);
  EXPECT_EQ(h.table().size(), 100U);
  h.pass_time(2);
  EXPECT_TRUE(h.table().empty());
}

TEST(Shard, ALostSessionKeepsItsTableForTheGraceTime) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 700);
  h.shard().close_session(s);
  h.pass_time(299.9);
  EXPECT_EQ(h.table().size(), 700U);
  EXPECT_EQ(h.rows().peers()[0].state, shm::PeerState::Stale);
  EXPECT_EQ(h.rows().routers()[0].state, shm::RouterState::Lost);
  h.pass_time(0.2);
  EXPECT_TRUE(h.table().empty());
  EXPECT_EQ(h.take_updates().back().reason, Reason::GraceExpired);
}

TEST(Shard, WithoutGraceTheTableIsWithdrawnAtOnce) {
  ShardHarness h({.grace_s = 0});
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 10);
  h.shard().close_session(s);
  h.settle();
  EXPECT_TRUE(h.table().empty());
  EXPECT_EQ(h.take_updates().back().reason, Reason::SessionLost);
}

TEST(Shard, AReconnectWithinTheGraceTimeIsAReSyncPerPeer) {
  ShardHarness h;
  SessionId s = h.open();
  for (const PeerSpec& p : {peer_a(), peer_b()}) {
    h.send(s, peer_up(p));
    announce_many(h, s, p, 20);
  }
  h.shard().close_session(s);
  h.pass_time(100);
  s = h.open("192.0.2.1", 31000);
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 15);
  h.send(s, end_of_rib(peer_a(), kIpv4Unicast));
  h.pass_time(6);
  EXPECT_EQ(h.table().size(), 35U);
  h.pass_time(195);  // B did not come back
  EXPECT_EQ(h.table().size(), 15U);
  const auto updates = h.take_updates();
  EXPECT_EQ(updates[40].reason, Reason::ResyncMissing);
  EXPECT_EQ(updates.back().reason, Reason::GraceExpired);
  EXPECT_EQ(updates.back().router_port, 30000);
}

TEST(Shard, AStalePeerThatComesBackWithoutPeerUpIsReSynced) {
  ShardHarness h;
  SessionId s = h.open();
  h.send(s, route_monitoring(loc_rib(), announce(many(20))));
  h.shard().close_session(s);
  h.pass_time(1);
  s = h.open();
  h.send(s, route_monitoring(loc_rib(), announce(many(15))));
  h.pass_time(299);
  EXPECT_EQ(h.table().size(), 20U);
  h.pass_time(60);
  EXPECT_EQ(h.table().size(), 15U);
  EXPECT_EQ(h.take_updates().back().reason, Reason::ResyncMissing);
}

TEST(Shard, PeerUpPerFamilyOfALocRibLosesNothing) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(loc_rib(0)));
  h.send(s, route_monitoring(loc_rib(0), announce(many(20))));
  h.send(s, peer_up(loc_rib(0)));
  UpdateBuilder v6;
  v6.origin(0).as_path({1}).mp_announce(kIpv6Unicast, ip("2001:db8::1"), {"2001:db8:1::/48"});
  h.send(s, route_monitoring(loc_rib(0), v6));
  h.send(s, end_of_rib(loc_rib(0), kIpv4Unicast));
  h.pass_time(1000);
  EXPECT_EQ(h.table().size(), 21U);
}

TEST(Shard, RoutesWithoutPeerUpAreAcceptedAndCountedOnce) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, route_monitoring(loc_rib(65000), announce({"198.51.100.0/24"})));
  h.send(s, route_monitoring(loc_rib(65000), announce({"203.0.113.0/24"})));
  EXPECT_EQ(h.metric(IngestMetric::UnknownPeers), 1U);
  // AS and BGP id become 0 at shutdown: the withdraw goes where the announcement went.
  h.send(s, route_monitoring(loc_rib(0), withdraw({"203.0.113.0/24"})));
  EXPECT_EQ(h.take_updates().back().peer_asn, 65000U);
  EXPECT_EQ(h.table().size(), 1U);
  EXPECT_EQ(h.rows().peers()[0].state, shm::PeerState::Unknown);
}

TEST(Shard, ANewAsNumberWaitsUntilTheOldOnesRoutesAreWithdrawn) {
  ShardHarness h;
  SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 3000);
  PeerSpec changed = peer_a();
  changed.asn = 65099;
  h.send(s, peer_down(peer_a()));
  h.send(s, peer_up(changed));
  announce_many(h, s, changed, 100);
  h.settle();
  ASSERT_EQ(h.table().size(), 100U);
  for (const auto& [key, route] : h.table()) EXPECT_EQ(route.peer_asn, 65099U);
  EXPECT_EQ(h.barriers(), 1U);  // the harness looks that it is in its place
  // The same across a lost session.
  h.shard().close_session(s);
  s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 50);
  h.settle();
  ASSERT_EQ(h.table().size(), 50U);
  for (const auto& [key, route] : h.table()) EXPECT_EQ(route.peer_asn, 65001U);
  EXPECT_EQ(h.barriers(), 2U);
}

TEST(Shard, ABarrierStandsBetweenTwoAsNumbersHoweverTheRoutesWent) {
  ShardHarness h;
  const SessionId s = h.open();
  PeerSpec changed = peer_a();
  changed.asn = 65099;
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 100);
  h.send(s, peer_down(peer_a()));
  h.settle();  // nothing is told any more when the new number comes
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 100);
  h.settle();
  EXPECT_EQ(h.barriers(), 0U);  // same number
  h.send(s, route_monitoring(peer_a(), withdraw(many(100))));
  announce_many(h, s, changed, 100);  // without Peer Up
  h.settle();
  EXPECT_EQ(h.barriers(), 1U);
  EXPECT_EQ(h.barriers_for_all(), 0U);
  for (const auto& [key, route] : h.table()) EXPECT_EQ(route.peer_asn, 65099U);
}

TEST(Shard, ABarrierWaitsForRoom) {
  ShardHarness h({.ring_bytes = 64 * 1024});
  const SessionId s = h.open();
  PeerSpec changed = peer_a(), other = peer_a();
  changed.asn = 65099;
  other.address = ip("10.0.0.77");
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 10);
  h.send(s, route_monitoring(peer_a(), withdraw(many(10))));
  while (!h.writer().claim(sizeof(shm::RecordHeader)).empty()) {
    h.writer().abandon();
    shm::RecordHeader filler{};
    filler.size_bytes = sizeof filler;
    filler.kind = static_cast<std::uint8_t>(shm::RecordKind::Barrier);
    filler.format = shm::kRecordFormat;
    filler.first_sequence = raw(h.writer().next_sequence());
    filler.router_id = 5;  // another router
    ASSERT_FALSE(h.writer().claim(sizeof filler).empty());
    h.writer().append(filler);
  }
  const Buffer news = route_monitoring(changed, announce({"203.0.113.0/24"}));
  EXPECT_EQ(h.shard().apply(s, news), Shard::Applied::NoRoom);
  EXPECT_EQ(h.shard().apply(s, news), Shard::Applied::NoRoom);
  h.send(s, news);
  h.settle();
  ASSERT_EQ(h.table().size(), 1U);
  EXPECT_EQ(h.table().begin()->second.peer_asn, 65099U);
}

TEST(Shard, WhatWasForgottenIsBehindABarrierForAll) {
  ShardHarness h({.peers = 1});
  const SessionId s = h.open();
  PeerSpec changed = peer_a(), other = peer_a();
  changed.asn = 65099;
  other.address = ip("10.0.0.77");
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 10);
  h.send(s, peer_down(peer_a()));
  h.settle();
  h.send(s, peer_up(other));
  announce_many(h, s, other, 10);  // takes the row
  h.settle();
  EXPECT_EQ(h.barriers_for_all(), 1U);
  h.send(s, peer_down(other));
  h.settle();
  announce_many(h, s, changed, 10);
  h.settle();
  EXPECT_EQ(h.barriers_for_all(), 2U);
  EXPECT_EQ(h.table().size(), 10U);
}

TEST(Shard, ATakenOverRingGoesOnBehindABarrierForAll) {
  ShardHarness h;
  SessionId s = h.open();
  PeerSpec changed = peer_a();
  changed.asn = 65099;
  announce_many(h, s, peer_a(), 10);
  h.send(s, route_monitoring(peer_a(), withdraw(many(10))));
  EXPECT_EQ(h.barriers(), 0U);
  h.restart();
  s = h.open();
  announce_many(h, s, changed, 10);
  announce_many(h, s, peer_b(), 10);
  h.settle();
  EXPECT_EQ(h.barriers_for_all(), 1U);
  EXPECT_EQ(h.barriers(), 1U);
  EXPECT_EQ(h.table().size(), 20U);
}

TEST(Shard, TheNewerOfTwoSessionsTellsAView) {
  ShardHarness h;
  const SessionId old = h.open("192.0.2.1", 30000);
  h.send(old, peer_up(peer_a()));
  announce_many(h, old, peer_a(), 20);
  const SessionId fresh = h.open("192.0.2.1", 30001);
  h.send(fresh, peer_up(peer_a()));
  h.send(old, route_monitoring(peer_a(), announce({"203.0.113.0/24"})));  // still the one that tells it
  EXPECT_EQ(h.metric(IngestMetric::MessagesSuperseded), 0U);
  announce_many(h, fresh, peer_a(), 15, 3);
  h.send(old, route_monitoring(peer_a(), withdraw(many(20))));  // not heard any more
  EXPECT_EQ(h.metric(IngestMetric::MessagesSuperseded), 1U);
  h.send(fresh, end_of_rib(peer_a(), kIpv4Unicast));
  h.pass_time(10);
  EXPECT_EQ(h.table().size(), 15U);
  h.shard().close_session(old);
  h.pass_time(1000);
  EXPECT_EQ(h.table().size(), 15U);
  h.shard().close_session(fresh);
  h.pass_time(1000);
  EXPECT_TRUE(h.table().empty());
}

TEST(Shard, ASessionThatWasNotHeardHasToConnectAnew) {
  ShardHarness h;
  const SessionId old = h.open("192.0.2.1", 30000);
  announce_many(h, old, peer_a(), 20);
  const SessionId fresh = h.open("192.0.2.1", 30001);
  announce_many(h, fresh, peer_a(), 20);
  h.send(old, route_monitoring(peer_a(), withdraw({many(1)[0]})));
  EXPECT_FALSE(h.shard().take_session_to_close().has_value());
  h.shard().close_session(fresh);  // the old one may be quiet from now on
  const auto id = h.shard().take_session_to_close();
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ(*id, old);
  h.send(old, route_monitoring(peer_a(), announce({"203.0.113.0/24"})));
  EXPECT_FALSE(h.shard().take_session_to_close().has_value());
  h.settle();
  EXPECT_EQ(h.table().size(), 20U);
  // The router connects anew and tells everything: nothing of it is news.
  h.shard().close_session(old);
  (void)h.take_updates();
  const SessionId again = h.open("192.0.2.1", 30002);
  h.send(again, peer_up(peer_a()));
  announce_many(h, again, peer_a(), 20);
  h.pass_time(1000);
  EXPECT_EQ(h.table().size(), 20U);
  EXPECT_TRUE(h.take_updates().empty());
}

TEST(Shard, ASessionThatSpeaksOnlyAfterTheNewerOneIsGoneHasToConnectAnew) {
  ShardHarness h;
  const SessionId old = h.open("192.0.2.1", 30000);
  const SessionId fresh = h.open("192.0.2.1", 30001);
  announce_many(h, fresh, peer_a(), 20);
  h.shard().close_session(fresh);
  EXPECT_FALSE(h.shard().take_session_to_close().has_value());  // it never told this
  h.send(old, route_monitoring(peer_a(), announce({"203.0.113.0/24"})));
  EXPECT_EQ(h.shard().take_session_to_close(), old);
}

TEST(Shard, OnlySessionsThatLostWhatIsWithoutOwnerHaveToConnectAnew) {
  ShardHarness h;
  PeerSpec other = peer_a(), third = peer_a();
  other.address = ip("10.0.0.77");
  third.address = ip("10.0.0.78");
  const SessionId one = h.open("192.0.2.1", 30000);
  const SessionId two = h.open("192.0.2.1", 30001);
  const SessionId three = h.open("192.0.2.1", 30002);
  const SessionId stranger = h.open("192.0.2.2", 30000);
  announce_many(h, one, peer_a(), 20);
  announce_many(h, two, other, 20);
  announce_many(h, three, third, 20);
  announce_many(h, stranger, peer_a(), 20);
  const SessionId fresh = h.open("192.0.2.1", 30003);
  announce_many(h, fresh, peer_a(), 20);  // from `one`
  announce_many(h, fresh, other, 20);     // from `two`
  const SessionId freshest = h.open("192.0.2.1", 30004);
  announce_many(h, freshest, other, 20);  // from `fresh`
  h.shard().close_session(fresh);
  EXPECT_EQ(h.shard().take_session_to_close(), one);  // what `two` lost is still told
  EXPECT_FALSE(h.shard().take_session_to_close().has_value());
  h.shard().close_session(one);
  h.shard().close_session(three);
  EXPECT_FALSE(h.shard().take_session_to_close().has_value());
  h.shard().close_session(freshest);
  EXPECT_EQ(h.shard().take_session_to_close(), two);
  EXPECT_FALSE(h.shard().take_session_to_close().has_value());
}

TEST(Shard, ATakeOverBringsWhatItsPeerUpNegotiated) {
  ShardHarness h;
  const SessionId old = h.open("192.0.2.1", 30000);
  h.send(old, peer_up(peer_a()));
  announce_many(h, old, peer_a(), 20);
  const SessionId fresh = h.open("192.0.2.1", 30001);
  OpenSpec open;
  open.addpath.push_back({kIpv4Unicast, 3});
  h.send(fresh, peer_up(peer_a(), open, open));
  // Parses both ways.
  h.send(fresh, route_monitoring(peer_a(), announce({Nlri("0.0.0.0/8", 1)})));
  h.send(fresh, end_of_rib(peer_a(), kIpv4Unicast));
  h.pass_time(1000);
  ASSERT_EQ(h.table().size(), 1U);
  EXPECT_EQ(h.table().begin()->first.path_id, 1U);
  EXPECT_EQ(h.metric(IngestMetric::AddPathMismatch), 0U);
}

TEST(Shard, TwoSessionsMayTellDifferentViewsOfOnePeer) {
  ShardHarness h;
  const PeerSpec post = peer_a().with_flags(PeerSpec::kPostPolicy);
  SessionId one = h.open("192.0.2.1", 30000);
  SessionId two = h.open("192.0.2.1", 30001);
  h.send(one, peer_up(peer_a()));
  h.send(two, peer_up(peer_a()));
  announce_many(h, one, peer_a(), 20);
  announce_many(h, two, post, 10);
  // Both come back, in the other order: the one that tells the second view is the older one now.
  h.shard().close_session(one);
  h.shard().close_session(two);
  two = h.open("192.0.2.1", 30002);
  one = h.open("192.0.2.1", 30003);
  h.send(one, peer_up(peer_a()));
  h.send(two, peer_up(peer_a()));
  announce_many(h, one, peer_a(), 20);
  announce_many(h, two, post, 10);
  EXPECT_EQ(h.metric(IngestMetric::MessagesSuperseded), 0U);
  h.send(one, end_of_rib(peer_a(), kIpv4Unicast));
  h.send(two, end_of_rib(post, kIpv4Unicast));
  h.pass_time(1000);
  EXPECT_EQ(h.table().size(), 30U);
  EXPECT_EQ(h.metric(IngestMetric::UpdatesSynthetic), 0U);
  // A late Peer Down of the one does not touch what the other tells.
  h.send(two, peer_down(peer_a()));
  h.settle();
  EXPECT_EQ(h.table().size(), 20U);
}

TEST(Shard, AMessageThatMeetsAFullRingIsAppliedOnce) {
  ShardHarness h({.ring_bytes = 64 * 1024});
  const SessionId s = h.open();
  OpenSpec open;
  h.send(s, peer_up(peer_a()));
  // Fills the ring without a reader.
  unsigned sent = 0;
  Buffer message;
  Shard::Applied applied = Shard::Applied::Done;
  while (applied == Shard::Applied::Done) {
    message = route_monitoring(peer_a(), announce(many(900, sent)).withdraw("198.51.100.0/24"));
    applied = h.shard().apply(s, message);
    sent += 900;
  }
  EXPECT_EQ(h.metric(IngestMetric::RingFullEvents), 1U);
  EXPECT_EQ(h.metric(IngestMetric::SessionsThrottled), 1U);
  const auto messages = h.metric(IngestMetric::MessagesRouteMonitoring);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(h.shard().apply(s, message), Shard::Applied::NoRoom);
  h.shard().publish();
  Buffer moved = message;  // the same bytes elsewhere
  h.drain(1);
  h.send(s, moved);
  EXPECT_EQ(h.metric(IngestMetric::MessagesRouteMonitoring), messages);
  EXPECT_EQ(h.metric(IngestMetric::SessionsThrottled), 0U);
  h.settle();
  EXPECT_EQ(h.table().size(), sent);
  EXPECT_EQ(h.metric(IngestMetric::UpdatesAnnounced), sent);
  EXPECT_EQ(h.metric(IngestMetric::UpdatesSuppressedDuplicate), 0U);
}

TEST(Shard, ASweepWaitsForRoom) {
  ShardHarness h({.ring_bytes = 64 * 1024});
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 9000);
  h.settle();
  h.send(s, peer_down(peer_a()));
  Shard::Work work;
  for (int i = 0; i < 50; ++i) work = h.shard().do_work();
  EXPECT_FALSE(work.more);  // does not spin
  EXPECT_NE(work.next_deadline_ns, 0U);
  EXPECT_EQ(h.metric(IngestMetric::SweepsRunning), 1U);
  h.settle();
  EXPECT_TRUE(h.table().empty());
}

TEST(Shard, AttributesThatNoRecordCanHoldAreANamedError) {
  ShardHarness h({.ring_bytes = 64 * 1024});
  const SessionId s = h.open();
  h.send(s, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  UpdateBuilder u = announce({"198.51.100.0/24"});
  const Buffer large(40000);
  u.attribute(0xc0, 99, large);
  h.send(s, route_monitoring(peer_a(), u));
  h.settle();
  EXPECT_EQ(h.metric(IngestMetric::RecordsTooLarge), 1U);
  EXPECT_TRUE(h.table().empty());
  EXPECT_EQ(h.rows().routers()[0].last_error, number(ErrorCode::RecordTooLarge));
}

TEST(Shard, MalformedContentIsCountedAndLocated) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  Buffer cut = UpdateBuilder(announce({"198.51.100.0/24"})).build();
  cut[20] = std::byte{200};  // withdrawn routes length
  h.send(s, route_monitoring(peer_a(), cut));
  EXPECT_EQ(h.metric(IngestMetric::MessagesMalformed), 1U);
  auto row = h.rows().routers()[0];
  EXPECT_EQ(row.last_error, number(ErrorCode::BgpUpdateMalformed));
  EXPECT_NE(row.last_error_text.find("10.0.0.1"), std::string::npos) << row.last_error_text;
  EXPECT_NE(row.last_error_text.find("byte 67"), std::string::npos) << row.last_error_text;
  // A prefix longer than its family allows: located in the message.
  Buffer bad = announce({"198.51.100.0/24", "203.0.113.0/24"}).build();
  bad[bad.size() - 4] = std::byte{77};
  h.send(s, route_monitoring(peer_a(), bad));
  row = h.rows().routers()[0];
  EXPECT_EQ(row.last_error, number(ErrorCode::BgpNlriMalformed));
  EXPECT_EQ(row.malformed, 2U);
  EXPECT_EQ(h.rows().peers()[0].updates_malformed, 2U);
  h.send(s, bmp_message(77, {}));
  EXPECT_EQ(h.metric(IngestMetric::MessagesUnknown), 1U);
  EXPECT_TRUE(h.take_updates().empty());
}

TEST(Shard, OtherMessagesAreCountedAndShown) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, initiation("edge-1", "a router"));
  h.send(s, statistics_report(peer_a()));
  h.send(s, route_mirroring(peer_a(), announce({"198.51.100.0/24"}).build()));
  h.send(s, termination());
  EXPECT_TRUE(h.take_updates().empty());
  EXPECT_EQ(h.metric(IngestMetric::MessagesInitiation), 1U);
  EXPECT_EQ(h.metric(IngestMetric::MessagesStatistics), 1U);
  EXPECT_EQ(h.metric(IngestMetric::MessagesRouteMirroring), 1U);
  EXPECT_EQ(h.metric(IngestMetric::MessagesTermination), 1U);
  const auto row = h.rows().routers()[0];
  EXPECT_EQ(row.sys_name, "edge-1");
  EXPECT_EQ(row.sys_descr, "a router");
  EXPECT_EQ(row.state, shm::RouterState::Initiated);
  EXPECT_EQ(row.messages, 4U);
}

TEST(Shard, RowsFollowTheTables) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer_a()));
  announce_many(h, s, peer_a(), 10);
  announce_many(h, s, peer_a(), 4);
  auto rows = h.rows();
  ASSERT_EQ(rows.routers().size(), 1U);
  EXPECT_EQ(rows.routers()[0].routes, 10U);
  EXPECT_EQ(rows.routers()[0].peers_up, 1U);
  EXPECT_EQ(rows.routers()[0].updates_published, 10U);
  EXPECT_EQ(rows.routers()[0].updates_suppressed, 4U);
  EXPECT_EQ(rows.routers()[0].sessions, 1U);
  ASSERT_EQ(rows.peers().size(), 1U);
  EXPECT_EQ(rows.peers()[0].routes, 10U);
  EXPECT_EQ(rows.peers()[0].asn, 65001U);
  EXPECT_EQ(rows.peers()[0].state, shm::PeerState::Up);
  EXPECT_EQ(h.metric(IngestMetric::Routes), 10U);
  EXPECT_EQ(h.metric(IngestMetric::AttributeSets), 1U);
}

TEST(Shard, OverTheLimitOfRoutersASessionIsSkippedUntilARowIsFree) {
  ShardHarness h({.routers = 2, .grace_s = 1});
  const SessionId one = h.open("192.0.2.1");
  const SessionId two = h.open("192.0.2.2");
  h.send(one, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  h.send(two, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  SessionId three = h.open("192.0.2.3");
  h.send(three, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  h.settle();
  EXPECT_EQ(h.table().size(), 2U);
  EXPECT_EQ(h.metric(IngestMetric::OverLimit), 2U);
  h.shard().close_session(three);
  h.shard().close_session(one);
  h.pass_time(2);
  EXPECT_EQ(h.table().size(), 1U);
  three = h.open("192.0.2.3");
  h.send(three, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  h.settle();
  EXPECT_EQ(h.table().size(), 2U);
  EXPECT_EQ(h.rows().routers().size(), 2U);
}

TEST(Shard, OverTheLimitOfPeersMessagesAreSkippedUntilARowIsFree) {
  ShardHarness h({.peers = 2});
  const SessionId s = h.open();
  PeerSpec p = peer_a();
  for (std::uint32_t i = 0; i < 4; ++i) {
    p.address = IpAddress::from_v4(0x0a000001 + i);
    h.send(s, peer_up(p));
    h.send(s, route_monitoring(p, announce({"198.51.100.0/24"})));
  }
  h.settle();
  EXPECT_EQ(h.table().size(), 2U);
  EXPECT_EQ(h.metric(IngestMetric::OverLimit), 4U);
  p.address = IpAddress::from_v4(0x0a000001);
  h.send(s, peer_down(p));
  h.settle();
  p.address = IpAddress::from_v4(0x0a000004);
  h.send(s, peer_up(p));
  h.send(s, route_monitoring(p, announce({"198.51.100.0/24"})));
  h.settle();
  EXPECT_EQ(h.table().size(), 2U);
  EXPECT_EQ(h.rows().peers().size(), 2U);
  EXPECT_EQ(h.rows().routers()[0].peers_up, 2U);
}

TEST(Shard, LagIsOursLessTheRoutersTimeAndClocksAheadAreCountedApart) {
  ShardHarness h;
  const SessionId s = h.open();
  const std::uint64_t now_ns = h.clock().realtime_ns();
  PeerSpec p = peer_a();
  const auto send_from = [&](std::uint64_t router_time_ns) {
    p.seconds = static_cast<std::uint32_t>(router_time_ns / 1'000'000'000U);
    p.microseconds = static_cast<std::uint32_t>(router_time_ns % 1'000'000'000U / 1000U);
    h.send(s, route_monitoring(p, announce({"198.51.100.0/24"})));
  };
  send_from(now_ns - 3'000'000);
  send_from(now_ns - 7'200'000'000'000U);
  send_from(now_ns + 1'000'000);
  send_from(0);  // it does not say
  const auto value = [&](std::size_t i) {
    return h.metric(static_cast<IngestMetric>(first_value(IngestHistogram::BmpLag) + i));
  };
  EXPECT_EQ(value(bucket_of(kLagBoundsMs, 3)), 1U);
  EXPECT_EQ(value(bucket_of(kLagBoundsMs, 7'200'000)), 1U);
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < kHistogramSum; ++i) count += value(i);
  EXPECT_EQ(count, 2U);
  EXPECT_EQ(value(kHistogramSum), 7'200'003U);
  EXPECT_EQ(h.metric(IngestMetric::MessagesAhead), 1U);
}

TEST(Shard, RoutersAreKnownByAddress) {
  ShardHarness h;
  const SessionId one = h.open("192.0.2.1");
  const SessionId two = h.open("2001:db8::1");
  h.send(one, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  h.send(two, route_monitoring(peer_a(), announce({"198.51.100.0/24"})));
  h.send(one, peer_down(peer_a()));
  h.settle();
  ASSERT_EQ(h.table().size(), 1U);
  EXPECT_EQ(h.table().begin()->first.router, ip("2001:db8::1"));
}

}  // namespace
}  // namespace arancini::testing
