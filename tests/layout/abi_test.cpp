// WHEN A TEST HERE FAILS, RAISE THE ABI VERSION of the file concerned (kRingAbiVersion, kStatsAbiVersion),
// then write the new number here. Processes of two releases meet in these files: during a rolling restart,
// and when a ring outlives the process that made it. The layout hash folds the ABI version and every offset
// and size.
#include <gtest/gtest.h>

#include "shm-layout/record.h"
#include "shm-layout/ring_header.h"
#include "shm-layout/stats_page.h"

namespace arancini::shm {
namespace {

TEST(WhenThisFailsRaiseTheAbiVersion, Ring) {
  EXPECT_EQ(kRingAbiVersion, 3U);
  EXPECT_EQ(kRingLayoutHash, 5705092383573874237ULL);
  EXPECT_EQ(kRingMagic, 0x474e495249434e41ULL);
  EXPECT_EQ(kRingDataOffsetBytes, 65'536U);
}

TEST(WhenThisFailsRaiseTheAbiVersion, StatsPage) {
  EXPECT_EQ(kStatsAbiVersion, 3U);
  EXPECT_EQ(kStatsLayoutHash, 6507543331682940767ULL);
  EXPECT_EQ(kStatsMagic, 0x5354415449434e41ULL);
  EXPECT_EQ(kStatsValues, 256U);
}

// Values that are stored in the files; offsets alone do not see them change.
TEST(WhenThisFailsRaiseTheAbiVersion, StoredValues) {
  EXPECT_EQ(static_cast<int>(RecordKind::Padding), 0);
  EXPECT_EQ(static_cast<int>(RecordKind::UpdateBatch), 1);
  EXPECT_EQ(static_cast<int>(RecordKind::Barrier), 2);
  EXPECT_EQ(static_cast<int>(RecordKind::Event), 3);
  EXPECT_EQ(kRecordFlagWithdraw, 1);
  EXPECT_EQ(kRecordFlagSynthetic, 2);
  EXPECT_EQ(kRecordMaxBytes, 4U << 20);
  EXPECT_EQ(kRingWriterLockByte, 0);
  EXPECT_EQ(kRingReaderLockByte, 1);
  EXPECT_EQ(static_cast<int>(ProcessKind::Ingestd), 1);
  EXPECT_EQ(static_cast<int>(ProcessKind::Publishd), 2);
  EXPECT_EQ(static_cast<int>(ProcessKind::Curated), 3);
  EXPECT_EQ(static_cast<int>(ProcessState::Starting), 0);
  EXPECT_EQ(static_cast<int>(ProcessState::Running), 1);
  EXPECT_EQ(static_cast<int>(ProcessState::Draining), 2);
  EXPECT_EQ(static_cast<int>(ProcessState::Degraded), 3);
  EXPECT_EQ(static_cast<int>(ProcessState::Stopped), 4);
  EXPECT_EQ(static_cast<int>(RouterState::Connected), 1);
  EXPECT_EQ(static_cast<int>(RouterState::Initiated), 2);
  EXPECT_EQ(static_cast<int>(RouterState::Lost), 3);
  EXPECT_EQ(static_cast<int>(RouterState::Refused), 4);
  EXPECT_EQ(static_cast<int>(PeerState::Unknown), 0);
  EXPECT_EQ(static_cast<int>(PeerState::Up), 1);
  EXPECT_EQ(static_cast<int>(PeerState::Down), 2);
  EXPECT_EQ(static_cast<int>(PeerState::Stale), 3);
}

}  // namespace
}  // namespace arancini::shm
