#include <gtest/gtest.h>

#include "tests/ingestd/bmp_builder.h"
#include "tests/ingestd/counting_malloc.h"
#include "tests/ingestd/shard_harness.h"

// The hot path does not touch the heap.
namespace arancini::testing {
namespace {

TEST(ShardAllocations, NoneOnceThePeersAreThere) {
  if (ARANCINI_COUNTS_MALLOC == 0) GTEST_SKIP() << "a sanitizer owns malloc";
  ShardHarness h({.ring_bytes = 16U << 20, .keep_updates = false});
  PeerSpec a, b;
  a.address = ip("10.0.0.1");
  b.address = ip("2001:db8::2");
  // Announcements, changes, duplicates, withdrawals, path changes in both families; a bad one; an End-of-RIB.
  std::vector<Buffer> messages;
  for (unsigned round = 0; round < 4; ++round) {
    for (unsigned i = 0; i < 400; ++i) {
      UpdateBuilder u;
      u.basics({65001, 65010 + i % 7, 64000 + round}, ip("10.0.0.1")).med(i % 5);
      for (unsigned k = 0; k < 5; ++k)
        u.announce(Nlri(IpAddress::from_v4(0x0b000000U + ((i * 5 + k) << 8)), 24));
      if (i % 3 == 0) u.withdraw(Nlri(IpAddress::from_v4(0x0b000000U + ((i / 2) << 8)), 24));
      messages.push_back(route_monitoring(a, u));
      UpdateBuilder v6;
      IpAddress prefix = ip("2001:db8::");
      prefix.bytes[4] = static_cast<std::uint8_t>(i);
      prefix.bytes[5] = static_cast<std::uint8_t>(i >> 8);
      v6.origin(0).as_path({65002}).med(round);
      if (i % 4 == 3) {
        v6.mp_withdraw(kIpv6Unicast, {Nlri(prefix, 48)});
      } else {
        v6.mp_announce(kIpv6Unicast, ip("2001:db8::2"), {Nlri(prefix, 48)});
      }
      messages.push_back(route_monitoring(b, v6));
    }
    UpdateBuilder bad;
    bad.origin(9).as_path({1}).next_hop(ip("10.0.0.1")).announce("11.0.0.0/24");
    messages.push_back(route_monitoring(a, bad));
    messages.push_back(end_of_rib(b, kIpv6Unicast));
    messages.push_back(statistics_report(a));
  }

  SessionId s = h.open();
  h.send(s, peer_up(a));
  h.send(s, peer_up(b));
  const auto play = [&] {
    for (std::size_t i = 0; i < messages.size(); ++i) {
      ASSERT_EQ(h.shard().apply(s, messages[i]), Shard::Applied::Done);
      if (i % 64 == 0) h.shard().do_work();
      h.shard().publish();
    }
  };
  play();  // tables and the attribute store reach their size
  h.settle();
  const std::uint64_t before = g_allocations;
  ASSERT_GT(before, 0U);  // it counts
  play();
  EXPECT_EQ(g_allocations - before, 0U);
  h.settle();

  // A sweep as well.
  h.send(s, peer_down(a));
  h.send(s, peer_up(a));
  const std::uint64_t before_sweep = g_allocations;
  while (h.shard().do_work().more) {
  }
  EXPECT_EQ(g_allocations - before_sweep, 0U);
  EXPECT_GT(h.metric(IngestMetric::UpdatesSynthetic), 0U);
}

// With drop-newest neither what is dropped nor what is told later; only the events do, and they are few.
TEST(ShardAllocations, NoneWhileTheRingIsFullAndAfterwards) {
  if (ARANCINI_COUNTS_MALLOC == 0) GTEST_SKIP() << "a sanitizer owns malloc";
  ShardHarness h({.ring_bytes = 1U << 20, .keep_updates = false, .drop_newest = true});
  PeerSpec peer;
  peer.address = ip("10.0.0.1");
  const SessionId s = h.open();
  h.send(s, peer_up(peer));
  std::vector<Buffer> messages;
  for (unsigned round = 0; round < 3; ++round) {
    for (unsigned i = 0; i < 300; ++i) {
      UpdateBuilder u;
      u.basics({65001, 65010 + i % 7}, ip("10.0.0.1")).med(1 + (i + round) % 5);
      for (unsigned k = 0; k < 5; ++k)
        u.announce(Nlri(IpAddress::from_v4(0x0b000000U + ((i * 5 + k) << 8)), 24));
      if (i % 3 == 0) u.withdraw(Nlri(IpAddress::from_v4(0x0b000000U + ((i / 2) << 8)), 24));
      messages.push_back(route_monitoring(peer, u));
    }
  }
  const auto drop = [&] {
    h.fill();
    for (const Buffer& m : messages) ASSERT_EQ(h.shard().apply(s, m), Shard::Applied::Done);
  };
  // The ring is emptied at once, so that the reader's decoding is not counted with it.
  std::uint64_t told_later = 0;
  const auto tell = [&] {
    h.peek();
    h.drain();
    const std::uint64_t events = h.metric(IngestMetric::EventsWritten);
    while (h.shard().impl().context.untold.entries > 0) {
      const std::uint64_t before = g_allocations;
      h.shard().do_work();
      if (h.metric(IngestMetric::EventsWritten) == events) told_later += g_allocations - before;
      h.shard().publish();
      h.drain();
    }
  };
  for (int i = 0; i < 3; ++i) {  // tables reach their size
    drop();
    tell();
    h.pass_time(2);
  }
  drop();  // opens the episode, with a line in the log
  const std::uint64_t before = g_allocations;
  for (const Buffer& m : messages) ASSERT_EQ(h.shard().apply(s, m), Shard::Applied::Done);
  EXPECT_EQ(g_allocations - before, 0U);
  EXPECT_GT(h.metric(IngestMetric::WithdrawsDropped), 0U);
  h.clock().now_ns += 1;
  told_later = 0;
  h.shard().do_work();
  tell();
  EXPECT_EQ(told_later, 0U);
  EXPECT_GT(h.metric(IngestMetric::UpdatesReconciled), 1000U);
}

}  // namespace
}  // namespace arancini::testing
