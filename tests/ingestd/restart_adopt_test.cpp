#include "ingestd/restart_adopt.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "ingestd/replay.h"
#include "ingestd/restart_export.h"
#include "ingestd/restore_feed.h"
#include "ingestd/restore_task.h"
#include "tests/ingestd/bmp_builder.h"
#include "tests/ingestd/shard_harness.h"

// One shard after another: what goes on, what is refused and why, and that a recording of it replays. Random
// states are restore_model_test's.
namespace arancini::testing {
namespace {

using ingestd::RestartAdoption;
using ingestd::RestartExport;
using ingestd::RestoreBatch;
using ingestd::RestoreTask;

class TaskBatches final : public ingestd::BatchSink {
 public:
  TaskBatches(RestoreTask& task, ShardHarness& h) : task_(task), h_(h) {}
  RestoreBatch* batch() override {
    RestoreBatch* free = task_.free_batch();
    for (; free == nullptr; free = task_.free_batch()) h_.sink().do_work();
    return free;
  }
  void give() override { task_.give(); }

 private:
  RestoreTask& task_;
  ShardHarness& h_;
};

PeerSpec a_peer() {
  PeerSpec peer;
  peer.address = ip("10.0.0.1");
  peer.asn = 65001;
  return peer;
}

Buffer announcement(unsigned number, std::uint32_t med, const PeerSpec& peer = a_peer()) {
  UpdateBuilder u;
  u.origin(0).as_path({65001}).next_hop(ip("10.9.9.9")).med(med);
  u.announce({IpAddress::from_v4(0xc6000000U + (number << 8)), 24U, std::nullopt});
  return route_monitoring(peer, u);
}

constexpr unsigned kRoutesTold = 20;

// A life with one router, and what it leaves.
struct Before {
  explicit Before(const PeerSpec& peer = a_peer()) {
    session = h.open();
    h.send(session, initiation("router", "text"));
    h.send(session, peer_up(peer));
    for (unsigned i = 0; i < kRoutesTold; ++i) h.send(session, announcement(i, i, peer));
    h.settle();
    left = ingestd::export_restart(h.shard().impl());
  }
  ShardHarness h{{.keep_log = true}};
  SessionId session{};
  RestartExport left;
};

// The life after it.
struct After {
  After(const Before& before, const ShardHarness::Options& options, bool complete = true) : h(options) {
    h.follow(before.h);
    adoption.state = before.left.state;
    adoption.bytes = ingestd::encode_restart(adoption.state);
    h.shard().set_restoring(true);
    task.set_adoption(&adoption);
    EXPECT_TRUE(h.shard().tasks().post(task));
    TaskBatches sink(task, h);
    ingestd::RestoreFeed feed(sink, 0, 1);
    for (const Buffer& payload : before.h.log()) {
      std::optional<std::string> problem;
      EXPECT_TRUE(feed.payload(schema::PayloadFormat::BatchV2, payload, problem));
      EXPECT_EQ(problem, std::nullopt);
    }
    EXPECT_TRUE(feed.flush());
    task.end({}, complete);
    for (int i = 0; i < 100 && !task.finished(); ++i) h.settle();
    EXPECT_TRUE(task.finished());
    EXPECT_TRUE(adoption.decided);
  }
  RestoreTask task;  // lives longer than the shard
  RestartAdoption adoption;
  ShardHarness h;
};

std::string refused(const Before& before, const ShardHarness::Options& options = {}, bool complete = true) {
  After after(before, options, complete);
  EXPECT_EQ(after.adoption.sessions.size(), 1U);
  EXPECT_EQ(after.h.metric(IngestMetric::SessionsOpen), 0U);
  EXPECT_FALSE(after.adoption.sessions[0].id.has_value());
  // Its tables are as after any restore: when nobody comes, they are withdrawn.
  EXPECT_EQ(after.h.metric(IngestMetric::Routes), kRoutesTold);
  after.h.pass_time(options.grace_s + 10);
  EXPECT_EQ(after.h.metric(IngestMetric::Routes), 0U);
  return std::string(after.adoption.sessions[0].why);
}

TEST(RestartAdopt, ASessionGoesOnWithoutAWord) {
  const Before before;
  After after(before, {});
  ASSERT_TRUE(after.adoption.sessions[0].id.has_value()) << after.adoption.sessions[0].why;
  const SessionId session = *after.adoption.sessions[0].id;
  EXPECT_EQ(raw(after.h.writer().next_sequence()), 1U);
  EXPECT_EQ(after.h.writer().next_event_sequence(), 1U);
  const StatsReader stats = after.h.rows();
  ASSERT_EQ(stats.routers().size(), 1U);
  EXPECT_EQ(stats.routers()[0].sessions, 1U);
  EXPECT_EQ(stats.routers()[0].peers_up, 1U);
  EXPECT_EQ(stats.routers()[0].messages, kRoutesTold + 2U);
  EXPECT_EQ(stats.routers()[0].updates_published, kRoutesTold);
  EXPECT_EQ(stats.routers()[0].sys_name, "router");
  // What is said again is known, and what is new is told.
  for (unsigned i = 0; i < kRoutesTold; ++i) after.h.send(session, announcement(i, i));
  after.h.send(session, announcement(3, 99));
  after.h.settle();
  EXPECT_EQ(raw(after.h.writer().next_sequence()), 2U);
  // No grace time, no re-sync runs out.
  after.h.pass_time(1000);
  EXPECT_EQ(raw(after.h.writer().next_sequence()), 2U);
  EXPECT_EQ(after.h.metric(IngestMetric::Routes), kRoutesTold);
}

// A dump before the first message: what the view's records have in common is not made by a message then.
TEST(RestartAdopt, ATableWithoutNumbersIsToldAsItself) {
  PeerSpec loc_rib;
  loc_rib.type = 3;
  loc_rib.asn = 0;
  loc_rib.bgp_id = 0;
  const Before before(loc_rib);
  After after(before, {});
  ASSERT_TRUE(after.adoption.sessions[0].id.has_value()) << after.adoption.sessions[0].why;
  after.h.request_dump();
  after.h.settle();
  after.h.pass_time(1);
  EXPECT_EQ(after.h.take_updates().size(), kRoutesTold);
  after.h.send(*after.adoption.sessions[0].id, announcement(3, 99, loc_rib));
  after.h.settle();
  const auto updates = after.h.take_updates();
  ASSERT_EQ(updates.size(), 1U);
  EXPECT_EQ(updates[0].router, ip("192.0.2.1"));
  EXPECT_EQ(updates[0].peer_type, 3);
  EXPECT_EQ(updates[0].view, View::LocRib);
}

// Who told a view last may be a session that ended long ago, and none may be open at the restart.
TEST(RestartAdopt, SessionsOfTheLifeAfterAreNewerThanAllBefore) {
  for (const bool one_is_open : {false, true}) {
    Before before;
    for (int i = 0; i < 5; ++i) {
      before.h.sink().close_session(before.session);
      before.session = before.h.open();
      before.h.send(before.session, initiation("router", "text"));
      before.h.send(before.session, announcement(0, 0));
    }
    // The last but one of them goes on, or none.
    const SessionId older = before.h.open();
    before.h.send(older, initiation("router", "text"));
    const SessionId newest = before.h.open();
    before.h.send(newest, initiation("router", "text"));
    before.h.sink().close_session(before.session);
    before.h.send(newest, announcement(0, 0));
    before.h.sink().close_session(newest);
    if (!one_is_open) before.h.sink().close_session(older);
    before.h.settle();
    before.left = ingestd::export_restart(before.h.shard().impl());
    ASSERT_EQ(before.left.state.sessions.size(), one_is_open ? 1U : 0U);
    ASSERT_EQ(before.left.state.routers.size(), 1U);
    After after(before, {});
    const SessionId session = after.h.open();
    after.h.send(session, initiation("router", "text"));
    after.h.send(session, announcement(0, 7));  // without Peer Up
    after.h.settle();
    EXPECT_EQ(after.h.metric(IngestMetric::MessagesSuperseded), 0U);
    EXPECT_EQ(after.h.metric(IngestMetric::UpdatesAnnounced), 1U);
  }
}

TEST(RestartAdopt, OtherTablesAreRefused) {
  Before before;
  before.left.state.routers[0].peers[0].views[0].tables[0].routes += 1;
  EXPECT_EQ(refused(before), "its tables were restored with other routes");
  before.left.state.routers[0].peers[0].views[0].tables[0].routes -= 1;
  auto& table = before.left.state.routers[0].peers[0].views[0].tables[0];
  table.old = ingestd::RestartTable::Old::Keys;
  table.keys = {{0, kV4MappedLow | 0x01020300U, 0, 24}};
  EXPECT_EQ(refused(before), "its tables were restored with other routes");
  table.keys.clear();
  before.left.state.routers[0].peers[0].views[0].told_asn = 65009;
  EXPECT_EQ(refused(before), "its routes were restored under another AS number");
  before.left.state.routers[0].peers.clear();
  EXPECT_EQ(refused(before), "its tables were restored with other routes");
}

TEST(RestartAdopt, AnIncompleteLogIsRefused) {
  const Before before;
  EXPECT_EQ(refused(before, {}, false), "the log lacks some of what was told");
}

TEST(RestartAdopt, AnotherConfigurationIsRefused) {
  const Before before;
  ShardHarness::Options named;
  RouterEntry& entry = named.rules.entries.emplace_back();
  entry.name = "ams";
  entry.address = *AddressRange::parse("192.0.2.1");
  EXPECT_EQ(refused(before, named), "the configuration knows its router otherwise");
  ShardHarness::Options kept_out;
  kept_out.rules.allow.push_back(*AddressRange::parse("198.51.100.0/24"));
  EXPECT_EQ(refused(before, kept_out), "the configuration knows its router otherwise");
}

TEST(RestartAdopt, WhatIsNotAtRestIsNotLeft) {
  Before before;
  // Withdraws that find no room.
  before.h.fill();
  before.h.sink().close_session(before.session);
  const SessionId next = before.h.open();
  EXPECT_EQ(ingestd::export_restart(before.h.shard().impl()).closed.size(), 1U) << "events wait";
  before.h.settle();  // makes room
  before.h.settle();
  EXPECT_EQ(ingestd::export_restart(before.h.shard().impl()).sessions.size(), 1U);
  before.h.send(next, initiation("router", "text"));
  before.h.send(next, peer_up(a_peer()));
  before.h.send(next, peer_down(a_peer(), 1));
  before.h.fill(2048);
  before.h.sink().do_work();
  ASSERT_GT(before.h.metric(IngestMetric::SweepsRunning), 0U);
  const RestartExport left = ingestd::export_restart(before.h.shard().impl());
  ASSERT_EQ(left.closed.size(), 1U);
  EXPECT_EQ(left.closed[0].why, "withdraws of its router are under way");
  EXPECT_TRUE(left.state.sessions.empty());
  EXPECT_TRUE(left.state.routers.empty());
}

TEST(RestartAdopt, ARecordingOfItReplays) {
  const Before before;
  After after(before, {.record = true});
  ASSERT_TRUE(after.adoption.sessions[0].id.has_value()) << after.adoption.sessions[0].why;
  const SessionId session = *after.adoption.sessions[0].id;
  for (unsigned i = 0; i < kRoutesTold; ++i) after.h.send(session, announcement(i, 7));
  after.h.sink().close_session(session);
  after.h.pass_time(400);
  const std::string path = after.h.finish_recording();
  Logger log("replay", LogLevel::Error);
  Buffer records;
  const auto again =
      ingestd::replay(path, log, [&](const shm::RecordHeader& header, std::span<const std::byte> payload) {
        const auto bytes = std::as_bytes(std::span(&header, 1));
        records.insert(records.end(), bytes.begin(), bytes.end());
        records.insert(records.end(), payload.begin(), payload.end());
      });
  ASSERT_TRUE(again.ok()) << again.error();
  EXPECT_TRUE(again->complete);
  EXPECT_EQ(again->updates, 2 * kRoutesTold - 1) << "changed but for one, and withdrawn with the session";
  EXPECT_TRUE(records == after.h.records());
}

}  // namespace
}  // namespace arancini::testing
