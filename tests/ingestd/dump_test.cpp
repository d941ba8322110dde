#include "ingestd/dump.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "ingestd/dump_task.h"
#include "tests/ingestd/route_messages.h"
#include "tests/ingestd/shard_harness.h"

// Table dumps (docs/decisions/0012-dumps.md). ShardHarness checks each of them: a consumer that begins with
// it has the table at its end.
namespace arancini::testing {
namespace {

using ingestd::DumpTask;

// Until no dump is under way and everything is read.
void finish_dumps(ShardHarness& h) {
  for (int i = 0; i < 100000; ++i) {
    h.clock().now_ns += 1'000'000;
    h.shard().do_work();
    h.shard().publish();
    h.drain();
    if (h.shard().impl().dump.waiting() == 0) return;
  }
  FAIL() << "a dump never ends";
}

std::vector<schema::EventKind> kinds(ShardHarness& h) {
  std::vector<schema::EventKind> out;
  for (const auto& e : h.events()) {
    if (e.kind == schema::EventKind::DumpStart || e.kind == schema::EventKind::DumpEnd) out.push_back(e.kind);
  }
  return out;
}

TEST(Dump, TellsATableAgainBetweenMarks) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, peer_up(peer("10.0.0.2", 65002)));
  h.send(s, announce(peer(), many(300, 0)));
  h.send(s, announce(peer("10.0.0.2", 65002), many(300, 100), 7));
  const PeerSpec p6 = peer("2001:db8::9", 65003);
  UpdateBuilder u;
  u.origin(0).as_path({1, 2}).mp_announce(kIpv6Unicast, ip("2001:db8::1"), {Nlri("2001:db8:1::/48")});
  h.send(s, route_monitoring(p6, u));
  h.settle();
  h.take_updates();
  ASSERT_TRUE(h.shard().impl().dump.request(ip("192.0.2.1"), nullptr));
  finish_dumps(h);
  const auto told = h.take_updates();
  EXPECT_EQ(told.size(), 601U);
  for (const auto& update : told) {
    EXPECT_EQ(update.reason, Reason::Dump);
    EXPECT_TRUE(update.announced);
    EXPECT_TRUE(update.synthetic);
    EXPECT_EQ(update.time_bmp_ns, 0U);
    EXPECT_EQ(update.as_path.size(), 2U);
  }
  EXPECT_EQ(h.dumps(), 1U);
  EXPECT_EQ(kinds(h), (std::vector{schema::EventKind::DumpStart, schema::EventKind::DumpEnd}));
  EXPECT_EQ(h.metric(IngestMetric::UpdatesDumped), 601U);
  EXPECT_EQ(h.metric(IngestMetric::Dumps), 1U);
  h.expect_told_is_what_was_written();
}

TEST(Dump, BeginsOnlyWhenItsMarkIsInTheLog) {
  ShardHarness h({.log_follows = false});
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(10, 0)));
  h.settle();
  h.take_updates();
  h.shard().impl().dump.request_all(nullptr);
  for (int i = 0; i < 100; ++i) {
    h.clock().now_ns += 10'000'000;
    h.shard().do_work();
    h.shard().publish();
    h.drain();
  }
  ASSERT_EQ(kinds(h).size(), 1U);
  EXPECT_EQ(h.metric(IngestMetric::UpdatesDumped), 0U);
  EXPECT_GT(h.shard().impl().dump.next_deadline_ns(), h.clock().now_ns) << "it looks again";
  // What comes meanwhile may lie before the mark's place in the log; the dump tells it again.
  h.send(s, announce(peer(), many(10, 5), 2));
  h.send(s, withdraw(peer(), many(3, 0)));
  h.drain();
  h.put_in_log();
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 1U);
  EXPECT_EQ(h.metric(IngestMetric::UpdatesDumped), 12U);
}

TEST(Dump, OfAllRoutersOneAfterTheOther) {
  ShardHarness h;
  for (int r = 1; r <= 5; ++r) {
    const SessionId s = h.open("192.0.2." + std::to_string(r));
    h.send(s, peer_up(peer()));
    if (r != 3) h.send(s, announce(peer(), many(20, 0)));
  }
  h.settle();
  DumpTask task(std::nullopt);
  ASSERT_TRUE(h.shard().tasks().post(task));
  h.shard().do_work();
  DumpTask one(ip("192.0.2.4"));
  ASSERT_TRUE(h.shard().tasks().post(one));
  h.shard().do_work();
  finish_dumps(h);
  h.shard().do_work();
  ASSERT_TRUE(h.shard().tasks().done(task));
  EXPECT_EQ(task.result().routers, 5U);
  EXPECT_EQ(task.result().routes, 80U);
  ASSERT_TRUE(h.shard().tasks().done(one));
  EXPECT_EQ(one.result().routers, 1U) << "the same dump does for both";
  EXPECT_EQ(h.dumps(), 5U);
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  for (const auto& e : h.events()) {
    if (e.kind == schema::EventKind::DumpStart && first == 0) first = e.sequence;
    if (e.kind == schema::EventKind::DumpEnd) last = e.sequence;
  }
  EXPECT_EQ(task.result().start_event, first);
  EXPECT_EQ(task.result().end_event, last);
}

TEST(Dump, OneThatBeganIsTooOldForANewRequest) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(10, 0)));
  h.settle();
  h.shard().impl().dump.request_all(nullptr);
  h.shard().do_work();  // dump_start
  h.shard().impl().dump.request_all(nullptr);
  h.shard().impl().dump.request_all(nullptr);
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 2U);
}

TEST(Dump, NobodyIsThere) {
  ShardHarness h;
  DumpTask task(ip("192.0.2.77"));
  ASSERT_TRUE(h.shard().tasks().post(task));
  h.shard().do_work();
  ASSERT_TRUE(h.shard().tasks().done(task));
  EXPECT_TRUE(task.no_such_router());
  DumpTask all(std::nullopt);
  ASSERT_TRUE(h.shard().tasks().post(all));
  h.shard().do_work();
  ASSERT_TRUE(h.shard().tasks().done(all));
  EXPECT_EQ(all.result().routers, 0U);
}

TEST(Dump, GoesOnWhenNobodyWaitsAnyMore) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(10, 0)));
  h.settle();
  {
    DumpTask task(std::nullopt);
    ASSERT_TRUE(h.shard().tasks().post(task));
    h.shard().do_work();
    task.cancel();
    h.shard().do_work();
    ASSERT_TRUE(h.shard().tasks().done(task));
    EXPECT_TRUE(task.given_up());
  }
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 1U);
}

TEST(Dump, AnswersALogThatBeganAnew) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(10, 0)));
  h.settle();
  EXPECT_EQ(h.dumps(), 0U);
  h.request_dump();
  h.shard().do_work();
  EXPECT_EQ(h.writer().dump_answered(), 0U) << "not yet";
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 1U);
  EXPECT_EQ(h.writer().dump_answered(), 1U);
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 1U) << "once";
  // The one that dies before the answer leaves it to its successor.
  h.request_dump();
  h.shard().do_work();
  h.restart();
  EXPECT_EQ(h.writer().dump_answered(), 1U);
  h.shard().do_work();
  EXPECT_EQ(h.writer().dump_answered(), 2U) << "it has no tables that it could tell";
}

TEST(Dump, ThatIsOwedComesWhenTheRoutersHaveToldTheirTables) {
  ShardHarness h({.grace_s = 100, .resync_timeout_s = 50});
  SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(10, 0)));
  h.settle();
  h.shard().impl().dump.owe_all();
  h.shard().close_session(s);
  h.pass_time(90);
  s = h.open();
  h.send(s, peer_up(peer()));
  h.pass_time(30);
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 0U) << "nothing is told again yet";
  h.send(s, announce(peer(), many(10, 5)));
  h.send(s, route_monitoring(peer(), UpdateBuilder{}));  // End-of-RIB
  h.pass_time(10);
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 1U);
  EXPECT_EQ(h.metric(IngestMetric::UpdatesDumped), 10U);
  h.pass_time(1000);
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 1U) << "once";
  EXPECT_EQ(h.writer().dump_answered(), h.writer().dump_request());
}

TEST(Dump, ThatIsOwedComesInTheEndAndIsLeftToASuccessor) {
  ShardHarness h({.grace_s = 100, .resync_timeout_s = 50});
  const SessionId s = h.open();
  h.shard().impl().dump.owe_all();
  for (int i = 0; i < 14; ++i) {  // a router that begins again and again
    h.pass_time(10);
    h.send(s, peer_up(peer()));
    h.send(s, announce(peer(), many(10, 0)));
    EXPECT_EQ(kinds(h).size(), 0U) << i;
  }
  h.pass_time(10);
  h.send(s, peer_up(peer()));
  h.pass_time(1);
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 1U);

  h.shard().impl().dump.owe_all();
  EXPECT_NE(h.writer().dump_answered(), h.writer().dump_request());
  h.restart();
  h.shard().do_work();  // it has no tables that it could tell
  EXPECT_EQ(h.writer().dump_answered(), h.writer().dump_request());
}

TEST(Dump, ThatIsOwedIsNotForgottenWithAnOlderOne) {
  ShardHarness h({.grace_s = 100, .resync_timeout_s = 50});
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(10, 0)));
  h.request_dump();  // before the process knew of a debt
  h.shard().impl().dump.owe_all();
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 1U);
  EXPECT_NE(h.writer().dump_answered(), h.writer().dump_request()) << "a successor still has to";
  h.pass_time(200);
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 2U);
  EXPECT_EQ(h.writer().dump_answered(), h.writer().dump_request());
}

// The end of the older one is no answer while what is owed waits behind it.
TEST(Dump, ThatIsOwedIsNotAnsweredByOneThatIsUnderWay) {
  ShardHarness h({.grace_s = 100, .resync_timeout_s = 50});
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(10, 0)));
  h.settle();
  h.shard().impl().dump.owe_all();
  h.pass_time(99);
  h.request_dump();
  h.shard().do_work();  // writes dump_start, which is not in the log yet
  h.clock().now_ns += 100'000'000'000;
  for (int i = 0; i < 10'000 && h.dumps() == 0; ++i) {
    h.shard().do_work();
    h.sink().publish();
    h.drain();
    h.clock().now_ns += 1'000'000;
  }
  EXPECT_EQ(h.dumps(), 1U);
  EXPECT_NE(h.writer().dump_answered(), h.writer().dump_request()) << "a successor still has to";
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 2U);
  EXPECT_EQ(h.writer().dump_answered(), h.writer().dump_request());
}

TEST(Dump, ComesPeriodically) {
  ShardHarness h({.dump_interval_s = 3600});
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(10, 0)));
  h.settle();
  h.pass_time(3000);
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 0U);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    h.pass_time(3600);
    finish_dumps(h);
    EXPECT_EQ(h.dumps(), i);
  }
}

TEST(Dump, NothingWhileRestoring) {
  ShardHarness h;
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  h.send(s, announce(peer(), many(10, 0)));
  h.settle();
  h.shard().set_restoring(true);
  h.shard().impl().dump.request_all(nullptr);
  for (int i = 0; i < 50; ++i) {
    h.shard().do_work();
    h.shard().publish();
    h.drain();
  }
  EXPECT_TRUE(kinds(h).empty());
  h.shard().set_restoring(false);
  finish_dumps(h);
  EXPECT_EQ(h.dumps(), 1U);
}

// Random changes between the slices, a ring that is full again and again, readers that read a record or two,
// peers that go and come under other AS numbers. Whatever happens: at each dump_end a consumer that began
// with the dump has the table.
void random_history(std::uint64_t seed, bool drop_newest) {
  SCOPED_TRACE("seed " + std::to_string(seed) + (drop_newest ? ", drop-newest" : ""));
  std::mt19937_64 rng(seed);
  const auto pick = [&](std::uint64_t n) { return rng() % n; };
  ShardHarness h({.ring_bytes = 64 * 1024,
                  .grace_s = 1,
                  .resync_timeout_s = 2,
                  .resync_settle_s = 0.5,
                  .keep_updates = false,
                  .drop_newest = drop_newest});
  constexpr unsigned kRouters = 3;
  std::array<std::optional<SessionId>, kRouters> sessions;
  std::array<std::uint32_t, 2> asn{65001, 65002};
  const auto the_peer = [&](std::uint64_t p) { return peer("10.0.0." + std::to_string(p + 1), asn[p]); };
  const unsigned prefixes = 1 + static_cast<unsigned>(pick(1500));
  const auto say = [&](SessionId id, const Buffer& message) {
    if (!drop_newest) return h.send(id, message);
    for (int i = 0; i < 1000; ++i) {
      if (h.shard().apply(id, message) == Shard::Applied::Done) return;
      h.shard().do_work();
    }
    FAIL() << "waits for room";
  };
  for (int step = 0; step < 600; ++step) {
    const std::uint64_t r = pick(kRouters);
    const std::uint64_t p = pick(2);
    if (!sessions[r]) {
      sessions[r] = h.open("192.0.2." + std::to_string(r + 1));
      say(*sessions[r], peer_up(the_peer(p)));
    }
    const auto first = static_cast<unsigned>(pick(prefixes));
    const auto count = static_cast<unsigned>(1 + pick(60));
    switch (pick(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        say(*sessions[r], announce(the_peer(p), many(count, first), static_cast<std::uint32_t>(pick(3))));
        break;
      case 5:
      case 6: say(*sessions[r], withdraw(the_peer(p), many(count, first))); break;
      case 7: h.shard().impl().dump.request_all(nullptr); break;
      case 8: h.fill(static_cast<std::uint32_t>(pick(4096))); break;
      case 9:
        if (pick(6) != 0) break;
        say(*sessions[r], peer_down(the_peer(p)));
        asn[p] = 65001 + static_cast<std::uint32_t>(pick(3));
        say(*sessions[r], peer_up(the_peer(p)));
        break;
      case 10:
        if (pick(8) != 0) break;
        h.shard().close_session(*sessions[r]);
        sessions[r].reset();
        break;
      case 11: h.clock().now_ns += pick(400) * 1'000'000; break;
      default:
        h.clock().now_ns += 1'000'000;
        h.shard().do_work();
        h.shard().publish();
        if (pick(3) != 0) h.drain(pick(6));
    }
    if (::testing::Test::HasFatalFailure()) return;
  }
  h.settle();
  finish_dumps(h);
  h.settle();
  EXPECT_GT(h.dumps(), 0U);
  h.expect_told_is_what_was_written();
}

TEST(DumpModel, BootstrapEqualsTheTableWhateverHappensMeanwhile) {
  const char* wanted = std::getenv("ARANCINI_HISTORIES");
  const std::uint64_t histories = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 100;
  for (std::uint64_t seed = 1; seed <= histories; ++seed) {
    random_history(seed, seed % 2 == 0);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace arancini::testing
