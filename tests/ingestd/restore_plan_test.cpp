#include "ingestd/restore_plan.h"

#include <gtest/gtest.h>

#include <vector>

namespace arancini::ingestd {
namespace {

constexpr std::uint64_t kLog = 77;

KnownSnapshot snapshot_of(std::uint32_t shard, std::uint32_t count, std::uint64_t sequence,
                          std::uint64_t number = 1, std::uint64_t identity = kLog) {
  KnownSnapshot s;
  s.name = {shard, count, number};
  s.header.shard = shard;
  s.header.shard_count = count;
  s.header.number = number;
  s.header.log_identity = identity;
  s.header.log_sequence = sequence;
  s.header.started_realtime_ns = 1000 + number;
  s.header.ring_position = RingPosition{4096};
  return s;
}

RestoreSubject shard(std::uint32_t k, std::uint32_t n) {
  RestoreSubject s;
  s.shard = k;
  s.shard_count = n;
  s.log_identity = kLog;
  return s;
}

// Each router's base is the newest snapshot that covers it, and none is older than where reading begins.
void expect_sound(const RestorePlan& plan, std::uint32_t k, std::uint32_t n) {
  for (std::uint32_t i = 1; i < 2000; ++i) {
    const IpAddress router = IpAddress::from_v4(0x0a000000U + i);
    if (raw(owner_of(router, n)) != k) continue;
    const auto base = plan.base_of(router);
    if (plan.log_identity == 0) {
      EXPECT_FALSE(base.has_value());
      continue;
    }
    ASSERT_TRUE(base.has_value());
    EXPECT_GE(plan.snapshots[*base].header.log_sequence, plan.log_sequence);
  }
}

TEST(RestorePlan, WithoutSnapshotsAllOfTheLogIsRead) {
  const RestorePlan plan = plan_restore(shard(0, 2), {}, kLog);
  EXPECT_EQ(plan.log_identity, 0U);
  EXPECT_TRUE(plan.snapshots.empty());
}

TEST(RestorePlan, TheOwnSnapshotCoversAll) {
  const std::vector known{snapshot_of(0, 2, 100, 1), snapshot_of(0, 2, 200, 2), snapshot_of(1, 2, 900, 9)};
  const RestorePlan plan = plan_restore(shard(0, 2), known, kLog);
  EXPECT_EQ(plan.log_sequence, 200U);
  expect_sound(plan, 0, 2);
}

TEST(RestorePlan, AnOlderLayoutCoversAllIfAllItsShardsDo) {
  const std::vector known{snapshot_of(0, 2, 300), snapshot_of(1, 2, 250)};
  const RestorePlan plan = plan_restore(shard(2, 4), known, kLog);
  EXPECT_EQ(plan.log_sequence, 250U);
  EXPECT_EQ(plan.snapshots.size(), 2U);
  expect_sound(plan, 2, 4);
  // One is missing: its routers are in the log alone.
  const RestorePlan none = plan_restore(shard(2, 4), std::vector{snapshot_of(0, 2, 300)}, kLog);
  EXPECT_EQ(none.log_identity, 0U);
  expect_sound(none, 2, 4);
}

TEST(RestorePlan, AnOwnSnapshotOfLongAgoYieldsToANewerLayout) {
  // 1 shard, then 2, now 1 again.
  const std::vector known{snapshot_of(0, 1, 100), snapshot_of(0, 2, 500), snapshot_of(1, 2, 400)};
  const RestorePlan plan = plan_restore(shard(0, 1), known, kLog);
  EXPECT_EQ(plan.log_sequence, 400U);
  EXPECT_EQ(plan.snapshots.size(), 2U);
  expect_sound(plan, 0, 1);
}

TEST(RestorePlan, SnapshotsOfAnotherLogAreNotUsed) {
  const std::vector known{snapshot_of(0, 1, 100, 1), snapshot_of(0, 1, 900, 2, kLog + 1)};
  const RestorePlan plan = plan_restore(shard(0, 1), known, kLog);
  EXPECT_EQ(plan.log_sequence, 100U);
  EXPECT_EQ(likely_log(0, known), kLog + 1);
  EXPECT_EQ(likely_log(kLog, known), kLog);
}

TEST(RestorePlan, LocalOnlyWhileJournalAndRingHoldAllThatFollows) {
  const std::vector known{snapshot_of(0, 1, 100)};
  RestoreSubject s = shard(0, 1);
  s.in_log = RingPosition{4096};
  s.layout_began_ns = 500;
  EXPECT_EQ(raw(plan_restore(s, known, kLog).ring_position), 4096U);
  // The log has passed it.
  s.in_log = RingPosition{4104};
  EXPECT_EQ(raw(plan_restore(s, known, kLog).ring_position), 0U);
  s.in_log = RingPosition{4096};
  // Another number of shards was in force since.
  s.layout_began_ns = 2000;
  EXPECT_EQ(raw(plan_restore(s, known, kLog).ring_position), 0U);
  s.layout_began_ns = 500;
  // Another ring wrote it.
  s.writer.bytes[0] = 1;
  EXPECT_EQ(raw(plan_restore(s, known, kLog).ring_position), 0U);
}

}  // namespace
}  // namespace arancini::ingestd
