#include "ingestd/snapshot_worker.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <future>

#include "common/snapshot/file_store.h"
#include "common/snapshot/snapshot_reader.h"
#include "tests/common/snapshot/snapshot_maker.h"
#include "tests/ingestd/bmp_builder.h"
#include "tests/ingestd/shard_harness.h"

// Snapshots of a shard in a directory, made by the worker's own thread, while this thread is the hot one.
namespace arancini::testing {
namespace {

namespace fs = std::filesystem;
using ingestd::SnapshotState;
using ingestd::SnapshotWorker;
using snapshot::SnapshotName;

constexpr std::uint64_t kSecond = 1'000'000'000;

class SnapshotWorkerTest : public ::testing::Test {
 protected:
  SnapshotWorkerTest() : store(dir.file("snapshots")), session(h.open()) { h.send(session, peer_up(peer())); }
  ~SnapshotWorkerTest() override { h.shard().tasks().finish(h.shard().impl()); }

  static PeerSpec peer() {
    PeerSpec p;
    p.address = ip("10.0.0.1");
    return p;
  }
  void announce(unsigned med, unsigned count = 300) {
    for (unsigned i = 0; i < count; i += 100) {
      UpdateBuilder u;
      u.basics({65001}, ip("10.0.0.1")).med(med);
      for (unsigned k = i; k < i + 100; ++k) u.announce(Nlri(IpAddress::from_v4(0x14000000U + (k << 8)), 24));
      h.send(session, route_monitoring(peer(), u));
    }
  }
  std::unique_ptr<SnapshotWorker> worker(std::uint32_t shard = 0, std::uint32_t count = 1,
                                         double interval_s = 0) {
    auto w = std::make_unique<SnapshotWorker>(SnapshotWorker::Options{shard, count, interval_s},
                                              std::make_unique<snapshot::FileStore>(dir.file("snapshots")),
                                              h.shard().tasks(), h.writer(), stats, log, clock);
    w->start();
    return w;
  }
  // One round of the hot thread; with `read` somebody makes durable what is written.
  void round(bool read = true) {
    h.shard().do_work();
    h.shard().publish();
    if (read) h.drain();
  }
  template <class Condition>
  void rounds_until(Condition&& condition, bool read = true) {
    const std::uint64_t deadline = clock.boottime_ns() + 20 * kSecond;
    while (!condition()) {
      ASSERT_LT(clock.boottime_ns(), deadline);
      round(read);
    }
  }
  Result<SnapshotState, std::string> take(SnapshotWorker& w, bool read = true,
                                          std::uint64_t timeout_ns = 10 * kSecond) {
    auto answer = std::async(std::launch::async, [&] { return w.take(timeout_ns); });
    rounds_until([&] { return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }, read);
    return answer.get();
  }
  std::vector<SnapshotName> names() {
    auto list = *store.list();
    std::sort(list.begin(), list.end());
    return list;
  }
  std::size_t files() {
    if (!fs::exists(dir.file("snapshots"))) return 0;
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(dir.file("snapshots")), {}));
  }
  Result<snapshot::Totals, snapshot::ReadError> check(const SnapshotName& name) {
    auto source = store.open(name);
    EXPECT_TRUE(source) << source.error();
    return snapshot::check_snapshot(**source);
  }
  // An empty one of another shard, or another number of shards.
  void put(const SnapshotName& name, std::uint64_t log_identity, std::uint64_t log_sequence) {
    auto sink = store.create(name);
    ASSERT_TRUE(sink) << sink.error();
    snapshot::SnapshotWriter writer(**sink);
    snapshot::Header header;
    header.shard = name.shard;
    header.shard_count = name.shard_count;
    header.number = name.number;
    header.log_identity = log_identity;
    header.log_sequence = log_sequence;
    writer.begin(header);
    ASSERT_EQ(writer.finish({}), "");
    ASSERT_EQ((*sink)->commit(), "");
  }
  void set_log(std::uint64_t sequence, std::uint64_t identity) {
    h.reader().set_log_mark(sequence, identity);
  }

  TempDir dir;
  ShardHarness h;
  SystemClock clock;
  Logger log{"test", LogLevel::Error};
  StatsWriter stats =
      StatsWriter::create(
          dir.file("stats"),
          {.kind = shm::ProcessKind::Ingestd, .shard = 0, .routers = 16, .peers = 64, .now_realtime_ns = 0})
          .value();
  snapshot::FileStore store;
  SessionId session;
};

TEST_F(SnapshotWorkerTest, OnDemandItIsInForceWhenItReturns) {
  announce(1);
  set_log(42, 7);
  auto w = worker(2, 4);
  const auto taken = take(*w);
  ASSERT_TRUE(taken) << taken.error();
  EXPECT_EQ(names(), (std::vector<SnapshotName>{{2, 4, 1}}));
  const auto read = check({2, 4, 1});
  ASSERT_TRUE(read) << read.error().text;
  EXPECT_EQ(read->header.shard, 2U);
  EXPECT_EQ(read->header.shard_count, 4U);
  EXPECT_EQ(read->header.log_sequence, 42U);
  EXPECT_EQ(read->header.log_identity, 7U);
  EXPECT_EQ(read->header.writer, h.writer().writer_id());
  EXPECT_EQ(read->routes, 300U);
  EXPECT_EQ(taken->routes, 300U);
  EXPECT_EQ(taken->bytes, read->bytes);
  EXPECT_EQ(taken->name, "shard-2-of-4-00000000000000000001.snap");
  EXPECT_EQ(taken->realtime_ns, read->header.started_realtime_ns);
  EXPECT_EQ(taken->error, "");
  EXPECT_EQ(stats.get(IngestMetric::SnapshotsTaken), 1U);
  EXPECT_EQ(stats.get(IngestMetric::SnapshotRoutes), 300U);
  EXPECT_EQ(stats.get(IngestMetric::SnapshotBytes), read->bytes);
  EXPECT_GT(stats.get(IngestMetric::SnapshotPauseNs), 0U);
}

TEST_F(SnapshotWorkerTest, TwoGenerationsAreKeptAndNumbersGoOn) {
  auto w = worker();
  for (unsigned i = 1; i <= 3; ++i) {
    announce(i);
    ASSERT_TRUE(take(*w));
  }
  EXPECT_EQ(names(), (std::vector<SnapshotName>{{0, 1, 2}, {0, 1, 3}}));
  w = worker();
  ASSERT_TRUE(take(*w));
  EXPECT_EQ(names(), (std::vector<SnapshotName>{{0, 1, 3}, {0, 1, 4}}));
}

TEST_F(SnapshotWorkerTest, WhatDidNotChangeIsNotWrittenAgain) {
  announce(1);
  auto w = worker();
  ASSERT_TRUE(take(*w));
  const auto again = take(*w);
  ASSERT_TRUE(again) << again.error();
  EXPECT_EQ(again->routes, 300U);
  EXPECT_EQ(names(), (std::vector<SnapshotName>{{0, 1, 1}}));
  ASSERT_EQ(store.remove({0, 1, 1}), "");
  ASSERT_TRUE(take(*w));
  EXPECT_EQ(names().size(), 1U) << "it was gone";
}

TEST_F(SnapshotWorkerTest, NotBeforeAllThatMayBeInItIsDurable) {
  round();
  announce(1);
  auto w = worker();
  auto answer = std::async(std::launch::async, [&] { return w->take(10 * kSecond); });
  // It is complete when the task is done; whether it is durable is what it waits for.
  rounds_until([&] { return files() == 1; }, false);
  for (int i = 0; i < 200; ++i) round(false);
  EXPECT_TRUE(names().empty());
  EXPECT_NE(answer.wait_for(std::chrono::seconds(0)), std::future_status::ready);
  rounds_until([&] { return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready; });
  EXPECT_TRUE(answer.get());
  EXPECT_EQ(names().size(), 1U);
}

TEST_F(SnapshotWorkerTest, ACallerDoesNotWaitForever) {
  announce(1);
  auto w = worker();
  const auto taken = take(*w, false, kSecond / 10);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error(), "it takes longer than the caller waits");
}

TEST_F(SnapshotWorkerTest, StoppedItLeavesNothing) {
  announce(1);
  auto w = worker();
  auto answer = std::async(std::launch::async, [&] { return w->take(10 * kSecond); });
  rounds_until([&] { return files() == 1; }, false);
  h.shard().tasks().finish(h.shard().impl());
  w->stop();
  const auto taken = answer.get();
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error(), "ingestd stops");
  EXPECT_EQ(files(), 0U);
  EXPECT_EQ(h.shard().impl().context.attributes.references(ingestd::AttrId{1}), 300U) << "nothing is held";
}

TEST_F(SnapshotWorkerTest, StopsWhileTheHotThreadIsBusyElsewhere) {
  announce(1);
  auto w = worker();
  auto answer = std::async(std::launch::async, [&] { return w->take(10 * kSecond); });
  auto stopped = std::async(std::launch::async, [&] { w->stop(); });
  rounds_until([&] { return stopped.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }, false);
  EXPECT_FALSE(answer.get());
}

TEST_F(SnapshotWorkerTest, TroubleIsSaidCountedAndOver) {
  announce(1);
  auto w = worker();
  ASSERT_TRUE(take(*w));
  announce(2);
  fs::permissions(dir.file("snapshots"), fs::perms::all);
  for (unsigned i = 1; i <= 2; ++i) {
    const auto taken = take(*w);
    ASSERT_FALSE(taken);
    EXPECT_NE(taken.error().find("other users may write there"), std::string::npos) << taken.error();
    EXPECT_EQ(w->state().error, taken.error());
    EXPECT_EQ(w->state().routes, 300U) << "of the one before";
    EXPECT_EQ(stats.get(IngestMetric::SnapshotsFailed), i);
  }
  fs::permissions(dir.file("snapshots"), fs::perms::owner_all);
  ASSERT_TRUE(take(*w));
  EXPECT_EQ(w->state().error, "");
}

// A store that cannot make what it is asked for.
class BrokenStore final : public snapshot::SnapshotStore {
 public:
  Result<std::vector<SnapshotName>, std::string> list() override { return std::vector<SnapshotName>{}; }
  Result<std::unique_ptr<snapshot::ByteSource>, std::string> open(const SnapshotName&) override {
    return Err{std::string("none")};
  }
  Result<std::unique_ptr<snapshot::SnapshotSink>, std::string> create(const SnapshotName& name) override {
    return Err{name.to_string() + ".tmp: cannot be made"};
  }
  std::string set_aside(const SnapshotName&) override { return {}; }
  std::string remove(const SnapshotName&) override { return {}; }
  [[nodiscard]] std::string describe(const SnapshotName& name) const override { return name.to_string(); }
};

TEST_F(SnapshotWorkerTest, TheSameFailureHasTheSameText) {
  announce(1);
  SnapshotWorker w({0, 1, 0}, std::make_unique<BrokenStore>(), h.shard().tasks(), h.writer(), stats, log,
                   clock);
  w.start();
  for (int i = 0; i < 3; ++i) {
    const auto taken = take(w);
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error(), "shard-0-of-1-00000000000000000001.snap.tmp: cannot be made");
  }
  h.shard().tasks().finish(h.shard().impl());
}

// A store that takes so many bytes.
class SmallStore final : public snapshot::SnapshotStore {
 public:
  class Sink final : public snapshot::SnapshotSink {
   public:
    std::string write(std::span<const std::byte> bytes) override {
      size += bytes.size();
      return size > 1000 ? "no space left" : "";
    }
    std::string commit() override { return "never committed"; }
    std::size_t size = 0;
  };
  Result<std::vector<SnapshotName>, std::string> list() override { return std::vector<SnapshotName>{}; }
  Result<std::unique_ptr<snapshot::ByteSource>, std::string> open(const SnapshotName&) override {
    return Err{std::string("none")};
  }
  Result<std::unique_ptr<snapshot::SnapshotSink>, std::string> create(const SnapshotName&) override {
    return std::unique_ptr<snapshot::SnapshotSink>(std::make_unique<Sink>());
  }
  std::string set_aside(const SnapshotName&) override { return {}; }
  std::string remove(const SnapshotName&) override { return {}; }
  [[nodiscard]] std::string describe(const SnapshotName& name) const override { return name.to_string(); }
};

TEST_F(SnapshotWorkerTest, AStoreThatIsFullEndsTheWalk) {
  for (unsigned i = 0; i < 60; ++i) {
    UpdateBuilder u;
    u.basics({65001}, ip("10.0.0.1")).med(i).attribute(0xc0, 99, Buffer(60'000));
    u.announce(Nlri(IpAddress::from_v4(0x14000000U + (i << 8)), 24));
    h.send(session, route_monitoring(peer(), u));
  }
  SnapshotWorker w({0, 1, 0}, std::make_unique<SmallStore>(), h.shard().tasks(), h.writer(), stats, log,
                   clock);
  w.start();
  for (int i = 0; i < 2; ++i) {
    const auto taken = take(w);
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error(), "no space left");
  }
  h.shard().tasks().finish(h.shard().impl());
}

TEST_F(SnapshotWorkerTest, NotWhileTheTablesAreRestored) {
  h.shard().set_restoring(true);
  auto w = worker();
  const auto taken = take(*w);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error(), "the tables are being restored");
  EXPECT_EQ(stats.get(IngestMetric::SnapshotsFailed), 0U);
  EXPECT_EQ(w->state().error, "") << "nothing that stays when it is over";
  h.shard().set_restoring(false);
  EXPECT_TRUE(take(*w));
}

TEST_F(SnapshotWorkerTest, ByItselfEverySoOften) {
  auto w = worker(0, 1, 0.02);
  for (std::uint64_t n = 1; n <= 3; ++n) {
    announce(static_cast<unsigned>(n));
    rounds_until([&] { return stats.get(IngestMetric::SnapshotsTaken) >= n; });
  }
}

TEST_F(SnapshotWorkerTest, OtherNumbersOfShardsGoWhenAllTheirRoutersAreCovered) {
  set_log(100, 7);
  for (std::uint32_t k = 0; k < 2; ++k) put({k, 2, 5}, 7, 90 + k);
  put({0, 3, 5}, 7, 101);  // knows more of the log than we do
  put({1, 3, 5}, 6, 500);  // of a former log
  std::ofstream(store.describe({2, 3, 5})) << "nonsense";
  auto w = worker(0, 1);
  ASSERT_TRUE(take(*w));
  EXPECT_EQ(names(), (std::vector<SnapshotName>{{0, 1, 1}, {0, 3, 5}}));
  EXPECT_TRUE(fs::exists(store.describe({2, 3, 5}) + ".corrupt"));
  EXPECT_EQ(files(), 3U);
}

TEST_F(SnapshotWorkerTest, OtherNumbersOfShardsStayWhileAShardOfTodayHasNone) {
  set_log(100, 7);
  put({0, 1, 5}, 7, 90);
  auto w = worker(0, 2);
  ASSERT_TRUE(take(*w));
  EXPECT_EQ(names().size(), 2U);
  put({1, 2, 1}, 7, 80);
  announce(1);
  ASSERT_TRUE(take(*w));
  EXPECT_EQ(names().size(), 4U) << "the other one does not cover it yet";
  put({1, 2, 2}, 7, 95);
  announce(2);
  ASSERT_TRUE(take(*w));
  const auto left = names();
  EXPECT_EQ(std::count(left.begin(), left.end(), SnapshotName{0, 1, 5}), 0);
}

}  // namespace
}  // namespace arancini::testing
