#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "ingestd/drop_report.h"
#include "ingestd/shard.h"
#include "tests/ingestd/route_messages.h"
#include "tests/ingestd/shard_harness.h"

// ring.when_full = "drop-newest" (docs/decisions/0008-drop-newest.md).
namespace arancini::testing {
namespace {

class Drop : public ::testing::Test {
 protected:
  explicit Drop(std::uint32_t peers = 64)
      : h({.ring_bytes = 64 * 1024, .peers = peers, .drop_newest = true}), s(h.open()) {
    h.send(s, peer_up(peer()));
  }
  // Without reading the ring: work that is not about room may have to be done first.
  void say(const Buffer& message) {
    for (int i = 0; i < 100; ++i) {
      if (h.shard().apply(s, message) == Shard::Applied::Done) return;
      h.shard().do_work();
    }
    FAIL() << "waits for room";
  }
  [[nodiscard]] std::uint64_t metric(IngestMetric m) const { return h.metric(m); }
  std::uint64_t untold() { return h.shard().impl().context.untold.entries; }
  std::vector<schema::EventFields> reports() {
    return h.events({schema::EventKind::Dropped, schema::EventKind::Reconciled});
  }
  StatsReader::Router row() { return h.rows().routers().at(0); }

  ShardHarness h;
  SessionId s;
};

TEST_F(Drop, WhatFindsNoRoomIsAppliedCountedAndToldLater) {
  h.take_updates();
  h.fill();
  say(announce(peer(), many(10)));
  EXPECT_EQ(row().routes, 0U) << "told routes";
  EXPECT_EQ(row().routes_untold, 10U);
  EXPECT_EQ(row().announcements_dropped, 10U);
  EXPECT_EQ(row().updates_published, 0U);
  EXPECT_FALSE(row().throttled);
  EXPECT_EQ(metric(IngestMetric::Routes), 10U);
  EXPECT_EQ(metric(IngestMetric::RoutesUntold), 10U);
  EXPECT_EQ(metric(IngestMetric::AnnouncementsDropped), 10U);
  EXPECT_EQ(metric(IngestMetric::SessionsThrottled), 0U);
  h.expect_told_is_what_was_written();
  h.settle();
  EXPECT_EQ(h.table().size(), 10U);
  EXPECT_EQ(row().routes, 10U);
  EXPECT_EQ(row().routes_untold, 0U);
  EXPECT_EQ(metric(IngestMetric::UpdatesReconciled), 10U);
  EXPECT_EQ(metric(IngestMetric::UpdatesAnnounced), 10U);
  h.expect_told_is_what_was_written();
}

TEST_F(Drop, EventsSayWhatWasDroppedAndWhenAllIsTold) {
  h.send(s, announce(peer(), many(5, 100)));
  h.take_updates();
  h.fill();
  const std::uint64_t begin = h.clock().realtime_ns();
  say(announce(peer(), many(10)));
  h.clock().now_ns += 10;
  h.shard().do_work();
  say(withdraw(peer(), many(3, 100)));
  say(announce(peer(), many(10), 2));
  const std::uint64_t end = h.clock().realtime_ns();
  h.settle();
  ASSERT_EQ(reports().size(), 1U) << "it may be dropped again at once";
  h.pass_time(1.1);
  ASSERT_EQ(reports().size(), 2U);
  const schema::EventFields dropped = reports()[0];
  EXPECT_EQ(dropped.kind, schema::EventKind::Dropped);
  EXPECT_EQ(dropped.scope, schema::EventScope::Router);
  EXPECT_TRUE(dropped.has_router);
  EXPECT_EQ(dropped.router, ip("192.0.2.1"));
  EXPECT_EQ(dropped.peer_asn, 0U);
  EXPECT_EQ(dropped.since_ns, begin);
  EXPECT_EQ(dropped.until_ns, end);
  using Counters = std::vector<schema::EventFields::Counter>;
  EXPECT_EQ(dropped.counters, (Counters{{"announcements", 20}, {"withdraws", 3}, {"routes_untold", 13}}));
  EXPECT_EQ(dropped.last_update_sequence, 5U) << "before what the reconciler tells";
  const schema::EventFields reconciled = reports()[1];
  EXPECT_EQ(reconciled.kind, schema::EventKind::Reconciled);
  EXPECT_EQ(reconciled.since_ns, begin);
  EXPECT_EQ(reconciled.counters, (Counters{{"announcements", 20}, {"withdraws", 3}}));
  EXPECT_EQ(reconciled.last_update_sequence, 5U + 13U);
  h.pass_time(100);
  EXPECT_EQ(reports().size(), 2U);
}

// A ring that is never half empty still gets the counts out, at most once a second.
TEST_F(Drop, EventsComeWithoutTheReconcilerToo) {
  h.fill();
  say(announce(peer(), many(10)));
  h.drain(2);  // a record of a quarter of the ring
  h.fill(4000);
  h.shard().do_work();
  h.peek();
  EXPECT_TRUE(reports().empty());
  for (unsigned i = 0; i < 10; ++i) {
    h.clock().now_ns += 300'000'000;
    h.fill(2000);
    h.shard().do_work();
    h.peek();
  }
  ASSERT_EQ(reports().size(), 1U);
  EXPECT_EQ(reports()[0].kind, schema::EventKind::Dropped);
  EXPECT_EQ(untold(), 10U);
}

TEST_F(Drop, NewRouteThatGoesUntoldVanishes) {
  h.fill();
  say(announce(peer(), many(10)));
  say(withdraw(peer(), many(10)));
  EXPECT_EQ(untold(), 0U);
  EXPECT_EQ(metric(IngestMetric::WithdrawsDropped), 0U);
  EXPECT_EQ(metric(IngestMetric::UpdatesSuppressedUnknown), 10U);
  h.settle();
  EXPECT_TRUE(h.take_updates().empty());
}

TEST_F(Drop, WithdrawOfAToldRouteIsToldLater) {
  h.send(s, announce(peer(), many(10)));
  h.settle();
  h.take_updates();
  h.fill();
  say(withdraw(peer(), many(10)));
  say(withdraw(peer(), many(10)));
  EXPECT_EQ(row().routes, 10U) << "downstream still has them";
  EXPECT_EQ(h.shard().impl().context.routes, 0U);
  EXPECT_EQ(metric(IngestMetric::WithdrawsDropped), 10U);
  h.expect_told_is_what_was_written();
  h.settle();
  EXPECT_TRUE(h.table().empty());
  EXPECT_EQ(row().routes, 0U);
  for (const auto& u : h.updates()) EXPECT_EQ(u.reason, Reason::None);
}

TEST_F(Drop, BackToWhatWasToldIsNothingToTell) {
  h.send(s, announce(peer(), many(10)));
  h.settle();
  h.take_updates();
  h.fill();
  say(announce(peer(), many(5), 2));  // changed
  say(withdraw(peer(), many(5, 5)));  // gone
  EXPECT_EQ(untold(), 10U);
  say(announce(peer(), many(10)));
  EXPECT_EQ(untold(), 0U);
  h.settle();
  EXPECT_TRUE(h.take_updates().empty());
  // With room as well.
  h.fill();
  say(announce(peer(), many(5), 2));
  say(withdraw(peer(), many(5, 5)));
  h.drain();
  say(announce(peer(), many(10)));
  EXPECT_EQ(untold(), 0U);
  h.settle();
  EXPECT_TRUE(h.take_updates().empty());
}

TEST_F(Drop, ARepeatedAnnouncementOfWhatIsNotToldTellsIt) {
  h.fill();
  say(announce(peer(), many(10)));
  say(announce(peer(), many(10)));
  EXPECT_EQ(metric(IngestMetric::AnnouncementsDropped), 10U) << "each change once";
  h.drain();
  say(announce(peer(), many(4)));
  h.peek();
  EXPECT_EQ(h.table().size(), 4U);
  EXPECT_EQ(untold(), 6U);
  say(announce(peer(), many(2, 4), 7));
  say(withdraw(peer(), many(2, 6)));
  h.peek();
  EXPECT_EQ(h.table().size(), 6U);
  EXPECT_EQ(untold(), 2U);
  EXPECT_EQ(metric(IngestMetric::UpdatesReconciled), 0U);
  h.expect_told_is_what_was_written();
}

TEST_F(Drop, TheReconcilerLeavesHalfOfTheRing) {
  h.fill();
  say(announce(peer(), many(10)));
  while (h.writer().used_bytes() > h.writer().capacity_bytes() / 2 + 4096) h.drain(1);
  h.fill(30'000);
  ASSERT_GT(h.writer().used_bytes(), h.writer().capacity_bytes() / 2);
  const Shard::Work work = h.shard().do_work();
  EXPECT_FALSE(work.more) << "it does not spin";
  EXPECT_NE(work.next_deadline_ns, 0U);
  EXPECT_EQ(untold(), 10U);
  h.drain();
  h.shard().do_work();
  EXPECT_EQ(untold(), 0U);
}

TEST_F(Drop, OneStepOfTheReconcilerIsBounded) {
  h.fill();
  for (unsigned i = 0; i < 20; ++i) say(announce(peer(), many(500, 500 * i)));
  h.drain();
  std::uint64_t left = untold();
  EXPECT_EQ(left, 10'000U);
  while (left > 0) {
    h.shard().do_work();
    const std::uint64_t now = untold();
    ASSERT_LE(left - now, 512U);
    left = now;
    h.shard().publish();
    h.drain();
  }
  EXPECT_EQ(h.table().size(), 10'000U);
}

// All that downstream gets of a route must not depend on whether it was told at once.
TEST_F(Drop, ToldLaterIsToldTheSame) {
  UpdateBuilder rich;
  rich.origin(2)
      .as_path({65001, 4'200'000'000})
      .next_hop(ip("10.0.0.9"))
      .med(0)
      .local_pref(120)
      .attribute(0x40, 6, Buffer{})
      .communities({0xfde80001, 0xfde80002})
      .attribute_u32(0x80, 9, 0x0a000001)
      .attribute(0x80, 10, ByteWriter().u32(1).u32(2).bytes())
      .attribute(0xc0, 16, ByteWriter().u64(0x0002fde800000064).bytes())
      .attribute(0xc0, 32, ByteWriter().u32(65001).u32(1).u32(2).bytes())
      .attribute(0xc0, 99, ByteWriter().u32(7).bytes())
      .announce("198.51.100.0/24");
  UpdateBuilder set;  // AS_SET, aggregator
  set.origin(0)
      .attribute(0x40, 2, ByteWriter().u8(2).u8(1).u32(65001).u8(1).u8(2).u32(5).u32(6).bytes())
      .next_hop(ip("10.0.0.9"))
      .attribute(0xc0, 7, ByteWriter().u32(65001).u32(9).bytes())
      .announce("203.0.113.0/24");
  UpdateBuilder v6;
  v6.origin(0).as_path({65001}).med(5).mp_announce(kIpv6Unicast, ip("2001:db8::1"), {"2001:db8:1::/48"});
  UpdateBuilder v4_in_mp;
  v4_in_mp.origin(0).as_path({65001}).mp_announce(kIpv4Unicast, ip("2001:db8::7"), {"192.0.2.0/25"});
  UpdateBuilder two_byte;
  two_byte.origin(0).as_path({65001, 23456}, true).next_hop(ip("10.0.0.9"));
  two_byte.attribute(0xc0, 17, ByteWriter().u8(2).u8(1).u32(4'200'000'001).bytes())
      .announce("192.0.2.128/25");
  const std::array<Buffer, 5> messages{route_monitoring(peer(), rich), route_monitoring(peer(), set),
                                       route_monitoring(peer(), v6), route_monitoring(peer(), v4_in_mp),
                                       route_monitoring(peer().with_flags(PeerSpec::kTwoByteAs), two_byte)};

  for (const Buffer& m : messages) say(m);
  auto at_once = h.take_updates();
  ASSERT_EQ(at_once.size(), messages.size());
  h.send(s, peer_down(peer()));
  h.settle();
  h.take_updates();
  h.send(s, peer_up(peer()));
  h.fill();
  for (const Buffer& m : messages) say(m);
  EXPECT_EQ(untold(), messages.size());
  h.settle();
  auto later = h.take_updates();
  ASSERT_EQ(later.size(), at_once.size());
  const auto by_prefix = [](const schema::DecodedUpdate& a, const schema::DecodedUpdate& b) {
    return std::pair(a.prefix_address, a.prefix_length) < std::pair(b.prefix_address, b.prefix_length);
  };
  std::sort(at_once.begin(), at_once.end(), by_prefix);
  std::sort(later.begin(), later.end(), by_prefix);
  for (std::size_t i = 0; i < later.size(); ++i) {
    const auto &a = at_once[i], &b = later[i];
    SCOPED_TRACE(a.prefix_address.to_string());
    EXPECT_EQ(a.prefix_address, b.prefix_address);
    EXPECT_EQ(a.family, b.family);
    EXPECT_EQ(a.router, b.router);
    EXPECT_EQ(a.router_port, b.router_port);
    EXPECT_EQ(a.peer_asn, b.peer_asn);
    EXPECT_EQ(a.peer_bgp_id, b.peer_bgp_id);
    EXPECT_EQ(a.view, b.view);
    EXPECT_TRUE(b.announced);
    EXPECT_FALSE(b.synthetic);
    EXPECT_EQ(b.reason, Reason::None);
    EXPECT_EQ(a.attributes_present, b.attributes_present);
    EXPECT_EQ(a.origin, b.origin);
    EXPECT_EQ(a.as_path, b.as_path);
    EXPECT_EQ(a.as_segments.size(), b.as_segments.size());
    EXPECT_EQ(a.next_hop, b.next_hop);
    EXPECT_EQ(a.med, b.med);
    EXPECT_EQ(a.local_pref, b.local_pref);
    EXPECT_EQ(a.aggregator_asn, b.aggregator_asn);
    EXPECT_EQ(a.aggregator_bgp_id, b.aggregator_bgp_id);
    EXPECT_EQ(a.originator_id, b.originator_id);
    EXPECT_EQ(a.atomic_aggregate, b.atomic_aggregate);
    EXPECT_EQ(a.communities.size(), b.communities.size());
    EXPECT_EQ(a.large_communities.size(), b.large_communities.size());
    EXPECT_EQ(a.ext_communities, b.ext_communities);
    EXPECT_EQ(a.cluster_list, b.cluster_list);
    EXPECT_EQ(a.raw_attributes, b.raw_attributes);
    EXPECT_EQ(b.time_bmp_ns, 0U) << "not kept";
  }
}

TEST_F(Drop, SweepsWaitForRoomAndKeepTheirReason) {
  h.send(s, announce(peer(), many(10)));
  h.settle();
  h.fill();
  say(peer_down(peer()));
  h.shard().do_work();
  EXPECT_EQ(metric(IngestMetric::SweepsRunning), 1U);
  EXPECT_EQ(metric(IngestMetric::WithdrawsDropped), 0U);
  h.take_updates();
  h.settle();
  EXPECT_TRUE(h.table().empty());
  ASSERT_EQ(h.updates().size(), 10U);
  for (const auto& u : h.updates()) EXPECT_EQ(u.reason, Reason::PeerDown);
}

TEST_F(Drop, ASweepTellsWhatWasDroppedOfItsRoutes) {
  h.send(s, announce(peer(), many(6)));
  h.settle();
  h.fill();
  say(announce(peer(), many(3), 2));  // changed
  say(withdraw(peer(), many(1, 5)));  // gone
  say(announce(peer(), many(4, 6)));  // new
  say(peer_down(peer()));
  h.expect_told_is_what_was_written();
  h.settle();
  h.expect_told_is_what_was_written();
  EXPECT_TRUE(h.table().empty());
}

// Subjects change with the number: what was told under the old one is withdrawn under it first, then comes a
// barrier, and the session waits for none of that. The harness checks the order.
TEST_F(Drop, AnotherAsNumberWhileNothingCanBeTold) {
  h.send(s, announce(peer(), many(1000)));
  h.settle();
  h.take_updates();
  h.fill();
  say(announce(peer(), many(100), 2));
  say(withdraw(peer(), many(50, 100)));
  say(announce(peer(), many(50, 1000)));
  say(peer_down(peer()));
  say(peer_up(peer(65077)));
  say(announce(peer(65077), many(1050)));  // with the same attributes
  EXPECT_EQ(h.shard().impl().context.routes, 1050U);
  h.expect_told_is_what_was_written();
  EXPECT_EQ(h.table().size(), 1000U);
  h.settle();
  h.expect_told_is_what_was_written();
  ASSERT_EQ(h.table().size(), 1050U);
  for (const auto& [key, route] : h.table()) EXPECT_EQ(route.peer_asn, 65077U);
  EXPECT_EQ(h.barriers(), 1U);
  std::uint64_t withdrawn = 0;
  for (const auto& u : h.updates()) {
    if (u.announced) continue;
    ++withdrawn;
    EXPECT_EQ(u.peer_asn, 65001U);
  }
  EXPECT_EQ(withdrawn, 1000U);
}

TEST_F(Drop, AnotherAsNumberAndBack) {
  h.send(s, announce(peer(), many(10)));
  h.settle();
  h.take_updates();
  h.fill();
  say(withdraw(peer(), many(10)));
  say(announce(peer(65077), many(10)));
  h.expect_told_is_what_was_written();
  say(withdraw(peer(65077), many(10)));
  say(announce(peer(), many(8)));
  h.expect_told_is_what_was_written();
  h.settle();
  EXPECT_EQ(h.take_updates().size(), 2U) << "the two that did not come back are withdrawn";
  EXPECT_EQ(h.barriers(), 0U);
}

TEST_F(Drop, ASweepOfFormerAsNumberKeepsItsReason) {
  h.send(s, announce(peer(), many(10)));
  h.settle();
  h.take_updates();
  h.fill();
  say(peer_up(peer(65077)));
  say(announce(peer(65077), many(10)));
  EXPECT_EQ(metric(IngestMetric::WithdrawsDropped), 10U);
  h.settle();
  const auto updates = h.take_updates();
  ASSERT_EQ(updates.size(), 20U);
  for (const auto& u : updates) {
    EXPECT_EQ(u.reason, u.announced ? Reason::None : Reason::ResyncMissing);
    EXPECT_EQ(u.peer_asn, u.announced ? 65077U : 65001U);
  }
}

TEST_F(Drop, ShutdownSaysWhatWasDropped) {
  h.fill();
  say(announce(peer(), many(10)));
  h.drain(3);
  h.shard().finish();
  h.peek();
  ASSERT_EQ(reports().size(), 1U);
  EXPECT_EQ(reports()[0].counters.at(0).value, 10U);
}

TEST_F(Drop, WithoutMemoryToRememberNothingHappens) {
  h.send(s, announce(peer(), many(2000)));
  h.settle();
  h.take_updates();
  h.fill();
  ingestd::SegmentPool& pool = h.shard().impl().context.pool;
  pool.set_limit_bytes(pool.memory_bytes());
  // Its routes need entries, and there is no room for so many.
  const Buffer message = withdraw(peer(), many(2000));
  EXPECT_EQ(h.shard().apply(s, message), Shard::Applied::NoRoom);
  EXPECT_EQ(h.shard().apply(s, message), Shard::Applied::NoRoom);
  EXPECT_EQ(h.shard().impl().context.routes + untold(), 2000U);
  h.expect_told_is_what_was_written();
  pool.set_limit_bytes(UINT64_MAX);
  EXPECT_EQ(h.shard().apply(s, message), Shard::Applied::Done);
  EXPECT_EQ(metric(IngestMetric::WithdrawsDropped), 2000U);
  h.settle();
  EXPECT_TRUE(h.table().empty());
}

class DropWithOneRow : public Drop {
 protected:
  DropWithOneRow() : Drop(1) {}
};

// A row that still has something to tell is not given to another peer.
TEST_F(DropWithOneRow, WhatIsGoneAndUntoldKeepsItsRow) {
  PeerSpec other = peer();
  other.address = ip("10.0.0.2");
  h.send(s, announce(peer(), many(10)));
  h.settle();
  h.fill();
  say(withdraw(peer(), many(10)));
  say(peer_down(peer()));
  say(announce(other, many(1)));
  EXPECT_EQ(metric(IngestMetric::OverLimit), 1U);
  h.expect_told_is_what_was_written();
  h.settle();
  EXPECT_TRUE(h.table().empty());
  h.send(s, announce(other, many(1)));
  h.settle();
  EXPECT_EQ(h.table().size(), 1U);
}

// The same random messages to a shard that always has room and to one whose ring is full most of the time:
// what is told in the end is the same, mixed path ids (docs/decisions/0006) and AS numbers that come and go
// included, and no session ever waits for the ring. Attributes do not depend on the AS number.
// ARANCINI_MODEL_SEED=N runs that history only, ARANCINI_MODEL_HISTORIES=N that many.
class Twins {
 public:
  explicit Twins(std::uint64_t seed) : rng_(seed) {}

  void run() {
    connect();
    for (unsigned round = 0; round < 6 && !::testing::Test::HasFatalFailure(); ++round) {
      for (unsigned i = 0; i < 60; ++i) step();
      pool().set_limit_bytes(UINT64_MAX);
      for (int i = 0; i < 6; ++i) {
        a_.pass_time(100);
        b_.pass_time(100);
      }
      b_.expect_told_is_what_was_written();
      compare();
      through_ += b_.metric(IngestMetric::UpdatesReconciled);
    }
  }
  [[nodiscard]] std::uint64_t through() const { return through_; }
  [[nodiscard]] std::uint64_t refused() const { return refused_; }  // for want of memory

 private:
  ingestd::SegmentPool& pool() { return b_.shard().impl().context.pool; }
  unsigned pick(unsigned n) { return static_cast<unsigned>(rng_() % n); }
  bool chance(unsigned percent) { return pick(100) < percent; }

  void connect() {
    sa_ = a_.open();
    sb_ = b_.open();
  }

  void say(const Buffer& message) {
    a_.send(sa_, message);
    for (int i = 0; i < 20; ++i) {
      if (b_.shard().apply(sb_, message) == Shard::Applied::Done) return;
      b_.shard().do_work();
      if (i == 10) {
        refused_ += pool().limit_bytes() != UINT64_MAX ? 1 : 0;
        pool().set_limit_bytes(UINT64_MAX);
      }
    }
    FAIL() << "waits for room";
  }

  PeerSpec some_peer() {
    PeerSpec p;
    const unsigned which = pick(3);
    p.address = which == 2 ? ip("0.0.0.0") : IpAddress::from_v4(0x0a000001 + which);
    p.type = which == 2 ? 3 : 0;
    p.asn = asn_[which];
    return p;
  }

  void compare() {
    for (const auto& [key, route] : a_.table()) {
      const auto found = b_.table().find(key);
      ASSERT_NE(found, b_.table().end()) << describe(key);
      ASSERT_EQ(found->second, route) << describe(key);
    }
    for (const auto& [key, route] : b_.table()) ASSERT_TRUE(a_.table().contains(key)) << describe(key);
  }
  static std::string describe(const RouteKey& k) {
    return k.peer.to_string() + " " + std::string(to_string(k.view)) + " " + k.prefix.to_string() + " id " +
           std::to_string(k.path_id);
  }

  std::vector<Nlri> some_routes(unsigned most, bool ids) {
    std::vector<Nlri> out;
    for (unsigned n = 1 + pick(most); n > 0; --n) {
      const auto id = ids ? std::optional<std::uint32_t>(1 + pick(3)) : std::nullopt;
      out.emplace_back(IpAddress::from_v4(0x14000000U + (pick(12) << 8)), 24U, id);
    }
    return out;
  }

  void step() {
    switch (pick(20)) {
      case 0: {
        // Without Peer Up, and with a Loc-RIB, it would depend on how far a sweep has come.
        PeerSpec p = some_peer();
        if (p.type == 3) break;
        asn_[p.address == ip("10.0.0.1") ? 0 : 1] = p.asn = 65001 + pick(3);
        say(peer_up(p));
        break;
      }
      case 1: say(peer_up(some_peer())); break;
      case 2: say(peer_down(some_peer())); break;
      case 3: say(end_of_rib(some_peer(), kIpv4Unicast)); break;
      case 4:
        if (!chance(20)) break;
        a_.shard().close_session(sa_);
        b_.shard().close_session(sb_);
        connect();
        break;
      case 5: {
        const std::uint64_t ns = std::uint64_t{1} << pick(37);
        a_.clock().now_ns += ns;
        b_.clock().now_ns += ns;
        a_.settle();
        b_.shard().do_work();
        break;
      }
      case 6: b_.fill(pick(3) == 0 ? pick(3000) : 0); break;
      case 7:
        b_.shard().publish();
        b_.drain(chance(30) ? SIZE_MAX : pick(8));
        break;
      case 8: b_.shard().do_work(); break;
      case 9:
        if (chance(90)) {
          b_.expect_told_is_what_was_written();
        } else {
          pool().set_limit_bytes(pool().memory_bytes());  // until a message needs more
        }
        break;
      case 10:
      case 11:
      case 12: say(withdraw(some_peer(), some_routes(5, chance(60)))); break;
      default: say(announce(some_peer(), some_routes(6, chance(60)), 1 + pick(3))); break;
    }
  }

  std::mt19937_64 rng_;
  ShardHarness a_{{.ring_bytes = 1U << 20, .resync_timeout_s = 60, .keep_updates = false}};
  ShardHarness b_{
      {.ring_bytes = 64 * 1024, .resync_timeout_s = 60, .keep_updates = false, .drop_newest = true}};
  SessionId sa_{}, sb_{};
  std::array<std::uint32_t, 3> asn_{65001, 65002, 65003};
  std::uint64_t through_ = 0, refused_ = 0;
};

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(DropModel, InTheEndAsIfThereHadBeenRoom) {
  const std::uint64_t only = from_environment("ARANCINI_MODEL_SEED", 0);
  const std::uint64_t histories = from_environment("ARANCINI_MODEL_HISTORIES", 200);
  std::uint64_t through = 0, refused = 0;
  for (std::uint64_t seed = only != 0 ? only : 1; seed <= (only != 0 ? only : histories); ++seed) {
    SCOPED_TRACE("ARANCINI_MODEL_SEED=" + std::to_string(seed));
    Twins twins(seed);
    twins.run();
    if (::testing::Test::HasFailure()) return;
    through += twins.through();
    refused += twins.refused();
  }
  if (only != 0) return;
  EXPECT_GT(through, histories * 10);
  EXPECT_GT(refused, histories / 10);
}

}  // namespace
}  // namespace arancini::testing
