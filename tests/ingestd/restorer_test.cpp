#include "ingestd/restorer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/snapshot/format.h"
#include "common/snapshot/snapshot_writer.h"
#include "tests/ingestd/shard_harness.h"

namespace arancini::testing {
namespace {

using namespace ingestd;

// One log after the other, as the test says.
class FakeLog final : public LogReader {
 public:
  using Read = std::function<std::string(const LogRequest&, LogVisitor&)>;
  explicit FakeLog(std::vector<Read> reads) : reads_(std::move(reads)) {}
  std::string read(const LogRequest& request, LogVisitor& visitor) override {
    requests.push_back(request);
    const Read& read = reads_[std::min(requests.size(), reads_.size()) - 1];
    return read(request, visitor);
  }
  void cancel() override {}

  std::vector<LogRequest> requests;

 private:
  std::vector<Read> reads_;
};

class FakeStore final : public snapshot::SnapshotStore {
 public:
  Result<std::vector<snapshot::SnapshotName>, std::string> list() override {
    if (lists_that_fail > 0) {
      --lists_that_fail;
      return Err(std::string("the disk fails"));
    }
    std::vector<snapshot::SnapshotName> names;
    for (const auto& [name, bytes] : files) names.push_back(name);
    return names;
  }
  Result<std::unique_ptr<snapshot::ByteSource>, std::string> open(
      const snapshot::SnapshotName& name) override {
    const auto found = files.find(name);
    if (found == files.end() || unreadable.contains(name)) return Err(std::string("cannot be opened"));
    return std::unique_ptr<snapshot::ByteSource>(std::make_unique<snapshot::MemorySource>(found->second));
  }
  Result<std::unique_ptr<snapshot::SnapshotSink>, std::string> create(
      const snapshot::SnapshotName&) override {
    return Err(std::string("read only"));
  }
  std::string set_aside(const snapshot::SnapshotName& name) override {
    aside.push_back(name);
    files.erase(name);
    return {};
  }
  std::string remove(const snapshot::SnapshotName&) override { return "read only"; }
  [[nodiscard]] std::string describe(const snapshot::SnapshotName& name) const override {
    return name.to_string();
  }

  int lists_that_fail = 0;
  std::set<snapshot::SnapshotName> unreadable;
  std::map<snapshot::SnapshotName, Buffer> files;
  std::vector<snapshot::SnapshotName> aside;
};

class Memory final : public snapshot::ByteSink {
 public:
  std::string write(std::span<const std::byte> bytes) override {
    all.insert(all.end(), bytes.begin(), bytes.end());
    return {};
  }
  Buffer all;
};

constexpr std::uint64_t kLog = 42;

Nlri prefix(unsigned i) {
  return {IpAddress::from_v4(0xc6000000U + (i << 8)), 24U, {}};
}

class RestorerTest : public ::testing::Test {
 protected:
  // Payloads that another life of the shard told: announcements of `count` prefixes, one a payload.
  static std::vector<Buffer> told(unsigned count) {
    ShardHarness h({.keep_log = true});
    tell(h, count);
    return h.log();
  }
  static void tell(ShardHarness& h, unsigned count, std::uint32_t first_asn = 65000) {
    const SessionId session = h.open();
    h.send(session, initiation("r", "d"));
    h.send(session, peer_up(PeerSpec{}, {}, {}));
    for (unsigned i = 0; i < count; ++i) {
      UpdateBuilder u;
      u.origin(0).as_path({first_asn, i + 1}).next_hop(ip("10.9.9.9")).announce(prefix(i));
      h.send(session, route_monitoring(PeerSpec{}, u));
    }
    h.settle();
  }
  static LogBegin begin(std::uint64_t from, std::uint64_t last, std::uint64_t identity = kLog) {
    LogBegin b;
    b.log_identity = identity;
    b.from_sequence = from;
    b.first_sequence = 1;
    b.last_sequence = last;
    return b;
  }
  // Messages [from, to] of the log.
  static bool give(LogVisitor& v, const std::vector<Buffer>& log, std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t i = from; i <= to; ++i) {
      if (!v.message(i, "batch-v2", log[i - 1])) return false;
    }
    return true;
  }
  std::string all(const std::vector<Buffer>& log, const LogRequest& request, LogVisitor& v) const {
    const std::uint64_t from = request.log_identity == kLog ? request.log_sequence + 1 : 1;
    if (v.begin(begin(from, log.size())) && give(v, log, from, log.size()))
      (void)v.done({.ring_position = h_.shard_ring_end(), .log_identity = kLog, .log_sequence = log.size()});
    return {};
  }
  // The shard's rounds, until it is restored.
  RestoreState run(FakeLog& log, snapshot::SnapshotStore* store = nullptr,
                   const Restorer::Options& options = {}) {
    Restorer restorer(options, h_.shard(), h_.writer(), store, log, h_.clock());
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    RestoreState state = restorer.state();
    bool waited = false;
    while (state.restoring && std::chrono::steady_clock::now() < deadline) {
      if (state.restoring && !waited && h_.shard().impl().restoring) {
        const SessionId early = h_.open();
        EXPECT_EQ(h_.shard().apply(early, initiation("r", "d")), Shard::Applied::NoRoom);
        h_.shard().close_session(early);
        waited = true;
      }
      h_.shard().do_work();
      std::this_thread::yield();
      state = restorer.state();
    }
    EXPECT_FALSE(state.restoring) << state.text;
    return state;
  }
  [[nodiscard]] std::uint64_t routes() { return h_.shard().impl().context.routes; }

  Buffer snapshot_of(unsigned routes, std::uint64_t sequence, std::uint64_t identity = kLog) {
    Memory memory;
    snapshot::SnapshotWriter w(memory);
    snapshot::Header header;
    header.shard_count = 1;
    header.number = 1;
    header.log_identity = identity;
    header.log_sequence = sequence;
    w.begin(header);
    w.router({.id = 0, .address = ip("192.0.2.1"), .name = {}, .sys_name = "r", .sys_descr = {}});
    w.view({.id = 0, .router = 0, .address = PeerSpec{}.address, .told = true, .asn = PeerSpec{}.asn});
    const std::byte flags[1] = {};
    const Buffer origin{std::byte{0x40}, std::byte{1}, std::byte{1}, std::byte{0}};
    w.attributes({.id = 1, .next_hop = {}, .flags = flags, .attributes = origin});
    w.table({.id = 0, .view = 0, .family = kIpv4Unicast});
    for (unsigned i = 0; i < routes; ++i) {
      const Prefix p{0, kV4MappedLow | (0xc6000000U + (i << 8)), 0, 24};
      w.route(0, kIpv4Unicast, {.prefix = p, .attributes = 1});
    }
    EXPECT_EQ(w.finish({.routes = routes}), "");
    return memory.all;
  }

  ShardHarness h_{{.keep_log = true}};
};

TEST_F(RestorerTest, ACompleteRestoreOwesNoDump) {
  tell(h_, 10);
  const std::vector<Buffer> payloads = h_.log();
  h_.crash();
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  EXPECT_FALSE(run(log).incomplete);
  tell(h_, 10);
  for (int i = 0; i < 400; ++i) h_.pass_time(2);
  EXPECT_EQ(h_.events({schema::EventKind::DumpStart}).size(), 0U);
}

TEST_F(RestorerTest, AnEmptyLogIsRestoredAtOnce) {
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all({}, r, v); }});
  const RestoreState state = run(log);
  EXPECT_EQ(routes(), 0U);
  EXPECT_FALSE(state.incomplete);
  EXPECT_EQ(log.requests.at(0).log_identity, 0U);
}

TEST_F(RestorerTest, SnapshotThenWhatFollowsIt) {
  const std::vector<Buffer> payloads = told(10);
  FakeStore store;
  store.files[{0, 1, 1}] = snapshot_of(4, 6);
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  run(log, &store);
  EXPECT_EQ(log.requests.at(0).log_sequence, 6U);
  EXPECT_EQ(routes(), 8U);  // 0 to 3 of the snapshot, 6 to 9 of the log
}

// IPv4 in MP_REACH without next hop, as of a Loc-RIB: told by the update, by a dump, and known after both.
TEST_F(RestorerTest, WhatCameWithoutNextHopInMpReachIsKnown) {
  UpdateBuilder with, without;
  with.basics({65000}, ip("10.9.9.9")).mp_announce_raw(kIpv4Unicast, {}, {prefix(1)});
  without.origin(0).as_path({65000}).mp_announce_raw(kIpv4Unicast, {}, {prefix(2)});
  const auto tells = [&](ShardHarness& h) {
    const SessionId session = h.open();
    h.send(session, peer_up(PeerSpec{}, {}, {}));
    h.send(session, route_monitoring(PeerSpec{}, with));
    h.send(session, route_monitoring(PeerSpec{}, without));
    h.settle();
  };
  for (const bool dumped : {false, true}) {
    SCOPED_TRACE(dumped);
    ShardHarness before({.keep_log = true});
    tells(before);
    if (dumped) {
      before.request_dump();
      for (int i = 0; i < 100 && before.dumps() == 0; ++i) before.pass_time(0.1);
      ASSERT_EQ(before.dumps(), 1U);
    }
    for (const auto& u : before.take_updates()) EXPECT_TRUE(u.multiprotocol);
    const std::vector<Buffer> log = before.log();
    h_.crash();
    h_.lose_log();
    FakeLog reader({[&](const LogRequest& r, LogVisitor& v) { return all(log, r, v); }});
    (void)run(reader);
    ASSERT_EQ(routes(), 2U);
    const std::uint64_t told = h_.metric(IngestMetric::UpdatesAnnounced);
    tells(h_);
    EXPECT_EQ(h_.metric(IngestMetric::UpdatesAnnounced), told);
    EXPECT_EQ(h_.metric(IngestMetric::UpdatesSuppressedDuplicate), 2U);
  }
}

TEST_F(RestorerTest, GoesOnWhereItWasWhenPublishdComesBack) {
  const std::vector<Buffer> payloads = told(10);
  FakeLog log({[&](const LogRequest&, LogVisitor& v) {
                 EXPECT_TRUE(v.begin(begin(1, 10)));
                 EXPECT_TRUE(give(v, payloads, 1, 5));
                 return std::string("connection reset");
               },
               [&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  run(log);
  EXPECT_EQ(log.requests.at(1).log_sequence, 5U);
  EXPECT_EQ(log.requests.at(1).log_identity, kLog);
  EXPECT_EQ(routes(), 10U);
}

TEST_F(RestorerTest, WhatWasToldInALogThatIsGoneIsNotTold) {
  const std::vector<Buffer> payloads = told(10);
  FakeLog log({[&](const LogRequest&, LogVisitor& v) {
                 EXPECT_TRUE(v.begin(begin(1, 10)));
                 EXPECT_TRUE(give(v, payloads, 1, 9));
                 return std::string("connection reset");
               },
               [&](const LogRequest&, LogVisitor& v) {
                 LogBegin b = begin(1, 2, kLog + 1);
                 b.other_log = true;
                 EXPECT_FALSE(v.begin(b));
                 return std::string();
               },
               [&](const LogRequest&, LogVisitor& v) {
                 EXPECT_TRUE(v.begin(begin(1, 2, kLog + 1)));
                 EXPECT_TRUE(give(v, payloads, 1, 2));
                 (void)v.done({.ring_position = h_.shard_ring_end()});
                 return std::string();
               }});
  run(log);
  EXPECT_EQ(routes(), 2U);
}

TEST_F(RestorerTest, ACorruptSnapshotIsSetAsideAndTheLogReadFromItsBeginning) {
  const std::vector<Buffer> payloads = told(10);
  FakeStore store;
  Buffer bytes = snapshot_of(4, 6);
  bytes[bytes.size() / 2] ^= std::byte{1};
  store.files[{0, 1, 1}] = bytes;
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  run(log, &store);
  EXPECT_EQ(store.aside.size(), 1U);
  EXPECT_EQ(log.requests.at(0).log_identity, 0U);
  EXPECT_EQ(routes(), 10U);
}

TEST_F(RestorerTest, ASnapshotOfAnotherVersionIsRefusedAndKept) {
  const std::vector<Buffer> payloads = told(10);
  FakeStore store;
  Buffer bytes = snapshot_of(200, 6);
  bytes[offsetof(snapshot::FileHeader, version)] = std::byte{2};
  bytes[offsetof(snapshot::FileHeader, crc)] ^= std::byte{1};  // as that version has it
  store.files[{0, 1, 1}] = bytes;
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  run(log, &store);
  EXPECT_EQ(log.requests.at(0).log_identity, 0U);
  EXPECT_TRUE(store.aside.empty());
  EXPECT_EQ(store.files.size(), 1U);
  EXPECT_EQ(routes(), 10U);
}

TEST_F(RestorerTest, SnapshotsThatCannotBeListedAreWaitedFor) {
  const std::vector<Buffer> payloads = told(10);
  FakeStore store;
  store.files[{0, 1, 1}] = snapshot_of(4, 6);
  store.lists_that_fail = 2;
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  run(log, &store);
  EXPECT_EQ(log.requests.size(), 1U);
  EXPECT_EQ(log.requests.at(0).log_sequence, 6U);
  EXPECT_EQ(routes(), 8U);
}

TEST_F(RestorerTest, WithoutSnapshotsThatCannotBeHadWhenTheLogHasEverything) {
  const std::vector<Buffer> payloads = told(10);
  FakeStore store;
  store.files[{0, 1, 1}] = snapshot_of(4, 6);
  store.lists_that_fail = 1'000'000;
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  const RestoreState state = run(log, &store, {.snapshot_patience_ns = 0});
  EXPECT_FALSE(state.incomplete);
  EXPECT_EQ(log.requests.size(), 1U);
  EXPECT_EQ(log.requests.at(0).log_identity, 0U);
  EXPECT_EQ(routes(), 10U);
}

TEST_F(RestorerTest, OneThatCannotBeReadIsLeftOut) {
  const std::vector<Buffer> payloads = told(10);
  FakeStore store;
  store.files[{0, 1, 1}] = snapshot_of(4, 6);
  store.files[{0, 1, 2}] = snapshot_of(200, 8);
  store.unreadable.insert({0, 1, 2});
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  run(log, &store, {.snapshot_patience_ns = 0});
  EXPECT_EQ(log.requests.at(0).log_sequence, 6U);
  EXPECT_EQ(routes(), 8U);
}

TEST_F(RestorerTest, TheyAreTriedAgainWhenPublishdHasTheLog) {
  const std::vector<Buffer> payloads = told(10);
  FakeStore store;
  store.files[{0, 1, 1}] = snapshot_of(4, 6);
  store.lists_that_fail = 1;
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  run(log, &store, {.snapshot_patience_ns = 0});
  EXPECT_EQ(log.requests.size(), 2U);
  EXPECT_EQ(log.requests.at(1).log_sequence, 6U);
  EXPECT_EQ(routes(), 8U);
}

TEST_F(RestorerTest, TheyAreWaitedForWhenTheLogHasNotEverything) {
  const std::vector<Buffer> payloads = told(10);
  FakeStore store;
  store.files[{0, 1, 1}] = snapshot_of(4, 6);
  store.unreadable.insert({0, 1, 1});
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) {
    LogBegin b = begin(r.log_identity == kLog ? r.log_sequence + 1 : 1, 10);
    b.first_sequence = 6;
    if (!v.begin(b)) {
      if (log.requests.size() == 2) store.unreadable.clear();
      return std::string();
    }
    EXPECT_TRUE(give(v, payloads, b.from_sequence, 10));
    (void)v.done({.ring_position = h_.shard_ring_end()});
    return std::string();
  }});
  const RestoreState state = run(log, &store, {.snapshot_patience_ns = 0});
  EXPECT_EQ(log.requests.size(), 3U);
  EXPECT_FALSE(state.incomplete);
  EXPECT_EQ(routes(), 8U);
}

TEST_F(RestorerTest, ASnapshotAheadOfTheLogIsRefusedAndKept) {
  const std::vector<Buffer> payloads = told(10);
  FakeStore store;
  store.files[{0, 1, 1}] = snapshot_of(200, 60);
  FakeLog log({[&](const LogRequest& r, LogVisitor& v) { return all(payloads, r, v); }});
  run(log, &store);
  EXPECT_EQ(log.requests.size(), 2U);
  EXPECT_EQ(log.requests.at(1).log_identity, 0U);
  EXPECT_TRUE(store.aside.empty());
  EXPECT_EQ(routes(), 10U);
}

TEST_F(RestorerTest, WhatRetentionDiscardedIsSaidByAnEvent) {
  const std::vector<Buffer> payloads = told(10);
  FakeLog log({[&](const LogRequest&, LogVisitor& v) {
    LogBegin b = begin(1, 10);
    b.first_sequence = 4;
    EXPECT_TRUE(v.begin(b));
    EXPECT_TRUE(give(v, payloads, 4, 10));
    (void)v.done({.ring_position = h_.shard_ring_end()});
    return std::string();
  }});
  const RestoreState state = run(log);
  EXPECT_TRUE(state.incomplete);
  EXPECT_EQ(routes(), 7U);
  h_.settle();
  const auto gaps = h_.events({schema::EventKind::RetentionGap});
  ASSERT_EQ(gaps.size(), 1U);
  EXPECT_EQ(gaps[0].error_code, 805U);
  EXPECT_EQ(gaps[0].details.at(1).value, "3");
}

TEST_F(RestorerTest, AfterAnIncompleteRestoreTheTablesAreDumped) {
  tell(h_, 10);
  const std::vector<Buffer> payloads = h_.log();
  h_.crash();
  FakeLog log({[&](const LogRequest&, LogVisitor& v) {
    LogBegin b = begin(1, 10);
    b.first_sequence = 4;
    EXPECT_TRUE(v.begin(b));
    EXPECT_TRUE(give(v, payloads, 4, 10));
    (void)v.done({.ring_position = h_.shard_ring_end()});
    return std::string();
  }});
  EXPECT_TRUE(run(log).incomplete);
  EXPECT_EQ(routes(), 7U);
  // Also about routers that the log did not know.
  tell(h_, 10, 65001);
  (void)h_.open("192.0.2.2");
  h_.settle();
  EXPECT_EQ(h_.dumps(), 0U) << "not before the routers have told their tables again";
  for (int i = 0; i < 400 && h_.dumps() < 2; ++i) h_.pass_time(2);
  EXPECT_EQ(h_.dumps(), 2U);
  EXPECT_EQ(h_.metric(IngestMetric::UpdatesDumped), 10U);
  EXPECT_EQ(h_.table().size(), 10U);
}

TEST_F(RestorerTest, StopsWhileItWaits) {
  FakeLog log({[](const LogRequest&, LogVisitor& v) {
    (void)v.waiting("the broker is away");
    return std::string("gone");
  }});
  {
    Restorer restorer({}, h_.shard(), h_.writer(), nullptr, log, h_.clock());
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!restorer.state().waiting && std::chrono::steady_clock::now() < deadline)
      std::this_thread::yield();
    EXPECT_TRUE(restorer.state().waiting);
    EXPECT_TRUE(restorer.state().restoring);
    h_.shard().finish();
  }
  EXPECT_EQ(routes(), 0U);
}

}  // namespace
}  // namespace arancini::testing
