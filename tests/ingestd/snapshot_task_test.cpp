#include "ingestd/snapshot_task.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "common/snapshot/snapshot_reader.h"
#include "common/snapshot/snapshot_writer.h"
#include "ingestd/attribute_set.h"
#include "tests/common/snapshot/snapshot_maker.h"
#include "tests/ingestd/counting_malloc.h"
#include "tests/ingestd/route_messages.h"
#include "tests/ingestd/shard_harness.h"

// What a snapshot says, with the records written since it began on top, is what was told: whatever happens
// while it is made.
namespace arancini::testing {
namespace {

using ingestd::SnapshotTask;
using Told = std::map<RouteKey, ToldRoute>;

// A snapshot as the harness' table has it.
class TableReader final : public snapshot::SnapshotVisitor {
 public:
  bool router(const snapshot::RouterEntry& r) override {
    routers.push_back(r.address);
    sys_names.emplace_back(r.sys_name);
    return true;
  }
  bool view(const snapshot::ViewEntry& v) override {
    views.push_back(v);
    return true;
  }
  bool attributes(const snapshot::AttributesEntry& a) override {
    sets[a.id] = {{a.next_hop.begin(), a.next_hop.end()},
                  {a.flags.begin(), a.flags.end()},
                  {a.attributes.begin(), a.attributes.end()}};
    return true;
  }
  bool routes(const snapshot::TableEntry& t, std::span<const snapshot::RouteEntry> some) override {
    const snapshot::ViewEntry& v = views.at(t.view);
    for (const snapshot::RouteEntry& r : some) {
      const auto& [hop, flags, bytes] = sets.at(r.attributes);
      const ingestd::AttributeSet set({hop, flags, bytes}, t.family);
      const RouteKey key{routers.at(v.router),     v.address,       v.peer_type,
                         v.distinguisher,          v.view,          t.family,
                         prefix_address(r.prefix), r.prefix.length, r.prefix.path_id};
      const std::uint32_t med = set.attributes.med.empty() ? 0 : wire::load_be32(set.attributes.med.data());
      EXPECT_TRUE(table.emplace(key, ToldRoute{{}, set.next_hop, med, v.asn}).second) << "twice";
      paths[key] = r.paths;
    }
    return true;
  }

  Told table;
  std::map<RouteKey, std::uint8_t> paths;
  std::vector<IpAddress> routers;
  std::vector<std::string> sys_names;
  std::vector<snapshot::ViewEntry> views;
  std::map<std::uint32_t, std::tuple<Buffer, Buffer, Buffer>> sets;
};

// The cold side, in the test's thread.
class Taker {
 public:
  // With slice_ns 0 each slice is as short as it can be.
  explicit Taker(ShardHarness& h, std::uint64_t slice_ns = 0, std::uint32_t routers = 16)
      : harness(h), task(h.shard().tasks(), routers, slice_ns), writer(sink) {
    task.prepare(3, 5, 8, std::nullopt);
  }
  // One slice.
  ingestd::HotTask::Progress slice() {
    const auto progress = task.run(harness.shard().impl());
    ++slices;
    return progress;
  }
  // Takes at most `parts`.
  void take(int parts) {
    for (; parts > 0; --parts) {
      const auto blocks = task.take();
      if (blocks.empty()) return;
      if (!std::exchange(began, true)) writer.begin(task.header());
      writer.blocks(blocks);
      task.give_back();
    }
  }
  // Until the task is done.
  void rest() {
    for (int i = 0; i < 1'000'000; ++i) {
      const auto progress = slice();
      take(100);
      if (progress == ingestd::HotTask::Progress::Done) return;
    }
    FAIL() << "the task is never done";
  }
  void finish(TableReader& out) {
    ASSERT_EQ(task.outcome(), SnapshotTask::Outcome::Complete);
    if (!began) writer.begin(task.header());
    ASSERT_EQ(writer.finish(task.end()), "");
    snapshot::MemorySource source(sink.bytes);
    const auto read = snapshot::read_snapshot(source, out);
    ASSERT_TRUE(read) << read.error().text;
    ASSERT_EQ(read->end.routes, out.table.size());
    ASSERT_EQ(read->attributes, out.sets.size());
  }

  ShardHarness& harness;
  SnapshotTask task;
  snapshot::test::VectorSink sink;
  snapshot::SnapshotWriter writer;
  bool began = false;
  int slices = 0;
};

Told without_paths(const Told& told) {
  Told out = told;
  for (auto& [key, route] : out) route.as_path.clear();
  return out;
}

PeerSpec nth_peer(unsigned n, std::uint32_t asn = 65001) {
  PeerSpec p;
  p.address = IpAddress::from_v4(0x0a000001U + n);
  p.asn = asn;
  return p;
}
TEST(SnapshotTask, AnEmptyShard) {
  ShardHarness h;
  Taker t(h);
  t.rest();
  TableReader r;
  t.finish(r);
  EXPECT_TRUE(r.table.empty());
  EXPECT_EQ(t.task.header().writer, h.writer().writer_id());
  EXPECT_EQ(t.task.header().shard, 3U);
  EXPECT_EQ(t.task.header().shard_count, 5U);
  EXPECT_EQ(t.task.header().number, 8U);
}

TEST(SnapshotTask, HoldsWhatWasTold) {
  ShardHarness h;
  const SessionId s = h.open("192.0.2.1");
  h.send(s, initiation("edge-1", "a router"));
  const SessionId other = h.open("2001:db8::9");
  for (unsigned p = 0; p < 3; ++p) {
    h.send(s, peer_up(nth_peer(p)));
    for (unsigned i = 0; i < 20; ++i) h.send(s, announce(nth_peer(p), many(100, 100 * i), i));
  }
  PeerSpec v6 = nth_peer(9, 65009);
  v6.address = ip("2001:db8::2");
  v6.distinguisher = 77;
  UpdateBuilder u;
  u.origin(0).as_path({65001}).med(5).mp_announce(kIpv6Unicast, ip("2001:db8::1"),
                                                  {"2001:db8:1::/48", "::/0"});
  h.send(other, route_monitoring(v6, u));
  h.send(other, announce(nth_peer(0), many(1), 9));
  h.settle();

  Taker t(h);
  t.rest();
  TableReader r;
  t.finish(r);
  EXPECT_EQ(r.table, without_paths(h.table()));
  EXPECT_EQ(r.table.size(), 6003U);
  EXPECT_EQ(r.sets.size(), 21U) << "each once";
  EXPECT_EQ(r.routers.size(), 2U);
  EXPECT_EQ(r.sys_names[0], "edge-1");
  EXPECT_EQ(r.views.size(), 5U);
  EXPECT_GT(t.slices, 60);
  EXPECT_EQ(t.task.end().ring_position, h.writer().tail());
  EXPECT_EQ(t.task.end().next_sequence, h.writer().next_sequence());
  // Nothing is held any more: without the routes no attributes are left.
  h.send(s, termination());
  h.shard().close_session(s);
  h.shard().close_session(other);
  h.pass_time(400);
  EXPECT_TRUE(h.table().empty());
  EXPECT_EQ(h.shard().impl().context.attributes.size(), 0U);
}

TEST(SnapshotTask, WaitsForBuffersAndKeepsTheOrder) {
  ShardHarness h({.ring_bytes = 16U << 20});
  const SessionId s = h.open();
  for (unsigned i = 0; i < 400; ++i) {
    UpdateBuilder u;
    u.basics({65001}, ip("10.0.0.1")).med(i).attribute(0xc0, 99, Buffer(20'000));
    for (unsigned k = 0; k < 50; ++k) u.announce(nth(50 * i + k));
    h.send(s, route_monitoring(nth_peer(0), u));
  }
  h.settle();
  Taker t(h, 1'000'000'000);
  while (t.slice() == ingestd::HotTask::Progress::More) {
  }
  EXPECT_EQ(t.task.outcome(), SnapshotTask::Outcome::Running);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(t.slice(), ingestd::HotTask::Progress::Wait);
  while (t.task.outcome() == SnapshotTask::Outcome::Running) {
    t.take(1);
    t.slice();
  }
  t.rest();
  TableReader r;
  t.finish(r);
  EXPECT_EQ(r.table, without_paths(h.table()));
  EXPECT_GT(t.sink.bytes.size(), 8'000'000U) << "more than all buffers hold";
}

TEST(SnapshotTask, AttributesThatAreReleasedMeanwhileAreNotTakenForOthers) {
  ShardHarness h;
  const SessionId s = h.open();
  for (unsigned i = 0; i < 64; ++i) h.send(s, announce(nth_peer(0), many(100, 100 * i), i));
  h.settle();
  Taker t(h);
  for (unsigned i = 0; t.slice() == ingestd::HotTask::Progress::More; ++i) {
    t.take(1);
    // Each slice sees all routes with other attributes, which would get the ids of those before.
    if (i % 4 == 0) h.send(s, announce(nth_peer(0), many(100, 100 * (i / 4 % 64)), 1000 + i));
    h.take_updates();
  }
  t.take(100);
  TableReader r;
  t.finish(r);
  EXPECT_EQ(r.table.size(), 6400U);
}

// `when_full = "drop-newest"`: told routes move between two tables without a record.
class DroppingSnapshot : public ::testing::Test {
 protected:
  DroppingSnapshot() : h({.ring_bytes = 64 * 1024, .drop_newest = true}), s(h.open()) {
    h.send(s, peer_up(nth_peer(0)));
    h.send(s, announce(nth_peer(0), many(3000), 1));
    h.settle();
    h.fill();
  }
  void say(const Buffer& message) { ASSERT_EQ(h.shard().apply(s, message), Shard::Applied::Done); }
  ShardHarness h;
  SessionId s;
};

TEST_F(DroppingSnapshot, WhatIsUntoldIsAsItWasTold) {
  say(announce(nth_peer(0), many(100, 50), 2));    // changed
  say(withdraw(nth_peer(0), many(100, 200)));      // gone
  say(announce(nth_peer(0), many(100, 3000), 3));  // new
  Taker t(h);
  t.rest();
  TableReader r;
  t.finish(r);
  EXPECT_EQ(r.table, without_paths(h.table()));
  EXPECT_EQ(r.table.size(), 3000U);
}

// Gone before the walk and back after it, told and gone and so on, each in its slice: no record says
// anything.
TEST_F(DroppingSnapshot, RoutesThatMoveWithoutARecordAreNeitherLostNorTwice) {
  for (unsigned phase = 0; phase < 2; ++phase) {
    Taker t(h);
    bool gone = phase == 1;
    for (;;) {
      say(gone ? announce(nth_peer(0), many(3000), 1) : withdraw(nth_peer(0), many(3000)));
      gone = !gone;
      t.take(1);
      if (t.slice() == ingestd::HotTask::Progress::Done) break;
    }
    t.take(100);
    EXPECT_GT(t.slices, 50);
    TableReader r;
    t.finish(r);
    EXPECT_EQ(h.table().size(), 3000U);
    EXPECT_EQ(r.table, without_paths(h.table()));
    if (gone) say(announce(nth_peer(0), many(3000), 1));
  }
}

// The routes under a peer's former AS number, which are told, and those under the new one, which are not.
TEST_F(DroppingSnapshot, UnderTheAsNumberThatWasTold) {
  say(peer_down(nth_peer(0)));
  say(peer_up(nth_peer(0, 65077)));
  for (int i = 0;
       i < 100 && h.shard().apply(s, announce(nth_peer(0, 65077), many(10), 5)) != Shard::Applied::Done; ++i)
    h.shard().do_work();
  EXPECT_EQ(h.shard().impl().context.routes, 10U);
  Taker t(h);
  t.rest();
  TableReader r;
  t.finish(r);
  EXPECT_EQ(r.table, without_paths(h.table()));
  EXPECT_EQ(r.table.size(), 3000U);
  EXPECT_EQ(r.views.at(0).asn, 65001U);
}

TEST(SnapshotTask, RoutesWithoutPathIdKeepTheirCount) {
  ShardHarness h;
  const SessionId s = h.open();
  OpenSpec both;
  both.addpath = {{kIpv4Unicast, 3}};
  h.send(s, peer_up(nth_peer(0), both, both));
  h.send(s, announce(nth_peer(0), {nth(1), nth(1), nth(2)}, 1));
  h.send(s, announce(nth_peer(0), {nth(3, 7)}, 1));
  h.settle();
  ASSERT_EQ(h.table().size(), 3U);
  Taker t(h);
  t.rest();
  TableReader r;
  t.finish(r);
  std::vector<int> paths;
  for (const auto& [key, count] : r.paths) paths.push_back(count);
  EXPECT_EQ(paths, (std::vector{2, 1, 0}));
}

TEST(SnapshotTask, NotWhileRestoring) {
  ShardHarness h;
  h.shard().set_restoring(true);
  Taker t(h);
  t.rest();
  EXPECT_EQ(t.task.outcome(), SnapshotTask::Outcome::Restoring);
}

TEST(SnapshotTask, NotAgainWhenNothingWasWrittenSince) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, announce(nth_peer(0), many(10), 1));
  Taker first(h);
  first.rest();
  const SnapshotTask::Mark mark{first.task.end().ring_position, first.task.begin_mark().log};
  Taker again(h);
  again.task.prepare(0, 1, 2, mark);
  again.rest();
  EXPECT_EQ(again.task.outcome(), SnapshotTask::Outcome::Unchanged);
  h.send(s, announce(nth_peer(0), many(10), 2));
  again.task.prepare(0, 1, 2, mark);
  again.rest();
  TableReader r;
  again.finish(r);
  EXPECT_EQ(r.table.size(), 10U);
}

TEST(SnapshotTask, CancelledOrAbandonedItHoldsNothing) {
  for (const bool cancel : {false, true}) {
    ShardHarness h;
    const SessionId s = h.open();
    for (unsigned i = 0; i < 20; ++i) h.send(s, announce(nth_peer(0), many(100, 100 * i), i));
    Taker t(h);
    for (int i = 0; i < 20; ++i) t.slice();
    ASSERT_EQ(t.task.outcome(), SnapshotTask::Outcome::Running);
    if (cancel) {
      t.task.cancel();
      EXPECT_EQ(t.slice(), ingestd::HotTask::Progress::Done);
    } else {
      t.task.abandon();
      t.rest();
    }
    EXPECT_EQ(t.task.outcome(), SnapshotTask::Outcome::Abandoned);
    h.shard().close_session(s);
    h.pass_time(400);
    EXPECT_EQ(h.shard().impl().context.attributes.size(), 0U);
  }
}

TEST(SnapshotTask, DoesNotAllocateOnTheHotThread) {
  if (ARANCINI_COUNTS_MALLOC == 0) GTEST_SKIP() << "a sanitizer owns malloc";
  ShardHarness h;
  const SessionId s = h.open();
  for (unsigned i = 0; i < 20; ++i) h.send(s, announce(nth_peer(0), many(100, 100 * i), i));
  Taker t(h, SnapshotTask::kSliceNs);
  std::uint64_t allocations = 0;
  for (auto progress = ingestd::HotTask::Progress::More; progress != ingestd::HotTask::Progress::Done;) {
    const std::uint64_t before = g_allocations;
    progress = t.slice();
    allocations += g_allocations - before;
    t.take(100);
  }
  EXPECT_EQ(allocations, 0U);
}

// Random messages between the slices, with room and without. ARANCINI_SEED plays one of them.
class RandomHistory {
 public:
  explicit RandomHistory(std::uint64_t seed)
      : rng_(seed),
        h_({.ring_bytes = 64 * 1024,
            .peers = 6,
            .grace_s = 1,
            .resync_timeout_s = 2,
            .resync_settle_s = 0.1,
            .drop_newest = roll(3) != 0}) {
    sessions_ = {h_.open("192.0.2.1"), h_.open("192.0.2.2")};
    prefixes_ = roll(2) == 0 ? 60 : 4000;
  }

  void run() {
    const unsigned before = roll(60);
    for (unsigned i = 0; i < before; ++i) step();
    h_.peek();
    h_.updates().clear();
    Taker t(h_);
    const unsigned steps_a_slice = roll(4);
    auto progress = ingestd::HotTask::Progress::More;
    for (int i = 0; progress != ingestd::HotTask::Progress::Done && i < 20'000; ++i) {
      progress = t.slice();
      if (roll(2) == 0) t.take(1);
      for (unsigned k = roll(steps_a_slice + 1); k > 0 && i < 300; --k) step();
    }
    t.take(100);
    h_.peek();
    TableReader r;
    ASSERT_NO_FATAL_FAILURE(t.finish(r));
    Told folded = r.table;
    for (const schema::DecodedUpdate& u : h_.updates()) {
      const RouteKey key{u.router, u.peer,   u.peer_type,      u.peer_distinguisher,
                         u.view,   u.family, u.prefix_address, u.prefix_length,
                         u.path_id};
      if (u.announced) {
        folded[key] = {{}, u.next_hop, u.med, u.peer_asn};
      } else {
        folded.erase(key);
      }
    }
    const Told told = without_paths(h_.table());
    ASSERT_EQ(folded.size(), told.size());
    for (const auto& [key, route] : told) {
      const auto found = folded.find(key);
      ASSERT_NE(found, folded.end()) << "lost: " << key.prefix.to_string();
      ASSERT_EQ(found->second, route) << key.prefix.to_string();
    }
  }

 private:
  unsigned roll(unsigned n) { return static_cast<unsigned>(rng_() % n); }
  void say(SessionId s, const Buffer& message) {
    for (int i = 0; i < 3; ++i) {
      if (h_.shard().apply(s, message) == Shard::Applied::Done) return;
      h_.shard().do_work();
    }
    h_.send(s, message);  // reads the ring
  }
  std::vector<Nlri> some(bool v6) {
    std::vector<Nlri> out;
    const unsigned first = roll(prefixes_);
    for (unsigned i = first; i < first + 1 + roll(prefixes_ / 10); ++i) {
      IpAddress a = ip("2001:db8::");
      a.bytes[4] = static_cast<std::uint8_t>(i);
      a.bytes[5] = static_cast<std::uint8_t>(i >> 8);
      out.push_back(v6 ? Nlri(a, 48) : nth(i % prefixes_));
    }
    return out;
  }
  void step() {
    const std::size_t router = roll(2);
    SessionId& s = sessions_[router];
    PeerSpec p = nth_peer(roll(3), 65000 + asn_);
    if (roll(4) == 0) p.flags = PeerSpec::kPostPolicy;
    switch (roll(12)) {
      case 0: say(s, peer_up(p)); break;
      case 1:
        if (roll(3) == 0) say(s, peer_down(p));
        break;
      case 2:
        if (roll(8) == 0) ++asn_;
        break;
      case 3:
        if (roll(6) == 0) {
          h_.shard().close_session(s);
          s = h_.open(router == 0 ? "192.0.2.1" : "192.0.2.2");
        }
        break;
      case 4: h_.clock().now_ns += 300'000'000ULL * roll(4); break;
      case 5: h_.fill(roll(3) == 0 ? 2000 : 0); break;
      case 6: h_.drain(roll(100)); break;
      case 7: h_.shard().do_work(); break;
      case 8: say(s, withdraw(p, some(false))); break;
      case 9: {
        UpdateBuilder u;
        u.origin(0).as_path({65001}).med(roll(4)).mp_announce(kIpv6Unicast, ip("2001:db8::1"), some(true));
        say(s, route_monitoring(p, u));
        break;
      }
      default: say(s, announce(p, some(false), roll(4))); break;
    }
    h_.peek();
  }

  std::mt19937_64 rng_;
  ShardHarness h_;
  std::array<SessionId, 2> sessions_{};
  unsigned prefixes_ = 0;
  std::uint32_t asn_ = 0;
};

TEST(SnapshotTask, WithTheRecordsSinceItBeganItIsWhatWasTold) {
  const char* const seed = std::getenv("ARANCINI_SEED");
  const char* const many_of_them = std::getenv("ARANCINI_HISTORIES");
  const std::uint64_t first = seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1;
  const std::uint64_t count = seed != nullptr           ? 1
                              : many_of_them != nullptr ? std::strtoull(many_of_them, nullptr, 10)
                                                        : 400;
  for (std::uint64_t i = first; i < first + count; ++i) {
    RandomHistory history(i);
    history.run();
    ASSERT_FALSE(::testing::Test::HasFailure()) << "ARANCINI_SEED=" << i;
  }
}

}  // namespace
}  // namespace arancini::testing
