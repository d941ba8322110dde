#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <random>
#include <span>

#include "ingestd/replay.h"
#include "ingestd/shard.h"
#include "tests/ingestd/bmp_builder.h"
#include "tests/ingestd/shard_harness.h"
#include "tests/ingestd/shard_simulation.h"

// Histories of shard_simulation.h. ARANCINI_MODEL_SEED=N runs that one only, ARANCINI_MODEL_HISTORIES=N that
// many.
namespace arancini::testing {
namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// `all_through`: what the histories must have been through, or they prove little.
void run_histories(bool drop_newest, std::span<const IngestMetric> all_through) {
  const std::uint64_t only = from_environment("ARANCINI_MODEL_SEED", 0);
  const std::uint64_t histories = from_environment("ARANCINI_MODEL_HISTORIES", 400);
  const std::vector<IngestMetric> kThrough(all_through.begin(), all_through.end());
  std::vector<std::uint64_t> through(kThrough.size());
  for (std::uint64_t seed = only != 0 ? only : 1; seed <= (only != 0 ? only : histories); ++seed) {
    SCOPED_TRACE("ARANCINI_MODEL_SEED=" + std::to_string(seed));
    Simulation simulation(seed, drop_newest);
    simulation.run(8);
    if (::testing::Test::HasFailure()) return;
    for (std::size_t i = 0; i < kThrough.size(); ++i) through[i] += simulation.metric(kThrough[i]);
  }
  for (std::size_t i = 0; i < kThrough.size(); ++i) {
    EXPECT_GT(through[i], only != 0 ? 0 : histories / 10) << i;
    ::testing::Test::RecordProperty("through_" + std::to_string(i), std::to_string(through[i]));
  }
}

TEST(ShardModel, FoldEqualsTheRoutersAfterRandomHistories) {
  run_histories(false, std::array{IngestMetric::RingFullEvents, IngestMetric::MessagesSuperseded,
                                  IngestMetric::UpdatesSynthetic, IngestMetric::UpdatesSuppressedDuplicate,
                                  IngestMetric::EndOfRib, IngestMetric::UpdatesSuppressedUnknown,
                                  IngestMetric::UnknownPeers});
}

// The shard that runs on the recording of a history writes the same bytes, and so does the next one.
void replay_histories(bool drop_newest, std::span<const IngestMetric> all_through) {
  const std::uint64_t only = from_environment("ARANCINI_MODEL_SEED", 0);
  const std::uint64_t histories = from_environment("ARANCINI_MODEL_HISTORIES", 400) / 8;
  std::vector<std::uint64_t> through(all_through.size());
  Logger log("replay", LogLevel::Error);
  for (std::uint64_t seed = only != 0 ? only : 1; seed <= (only != 0 ? only : histories); ++seed) {
    SCOPED_TRACE("ARANCINI_MODEL_SEED=" + std::to_string(seed));
    Simulation simulation(seed, drop_newest, true);
    simulation.run(4);
    for (std::size_t i = 0; i < through.size(); ++i) through[i] += simulation.metric(all_through[i]);
    const std::string path = simulation.harness().finish_recording();
    ASSERT_FALSE(simulation.harness().records().empty());
    for (int time = 0; time < 2; ++time) {
      Buffer records;
      const auto result = ingestd::replay(
          path, log, [&](const shm::RecordHeader& header, std::span<const std::byte> payload) {
            const auto bytes = std::as_bytes(std::span(&header, 1));
            records.insert(records.end(), bytes.begin(), bytes.end());
            records.insert(records.end(), payload.begin(), payload.end());
          });
      ASSERT_TRUE(result.ok()) << result.error();
      EXPECT_TRUE(result->complete) << result->end;
      ASSERT_TRUE(records == simulation.harness().records());
    }
  }
  for (std::size_t i = 0; i < through.size(); ++i) EXPECT_GT(through[i], only != 0 ? 0 : histories / 10) << i;
}

TEST(ShardReplay, WritesTheSameRecords) {
  replay_histories(false, std::array{IngestMetric::RingFullEvents, IngestMetric::MessagesSuperseded,
                                     IngestMetric::UpdatesSynthetic, IngestMetric::EndOfRib});
}

TEST(ShardReplay, WritesTheSameRecordsWithDropNewest) {
  replay_histories(true, std::array{IngestMetric::AnnouncementsDropped, IngestMetric::UpdatesReconciled,
                                    IngestMetric::EventsWritten, IngestMetric::UpdatesSynthetic});
}

// drop-newest: at any time the shard knows what it has told, and in the end all is told.
TEST(ShardModel, DropNewestTellsEverythingInTheEnd) {
  run_histories(true, std::array{IngestMetric::AnnouncementsDropped, IngestMetric::WithdrawsDropped,
                                 IngestMetric::UpdatesReconciled, IngestMetric::EventsWritten,
                                 IngestMetric::UpdatesSynthetic, IngestMetric::UpdatesSuppressedDuplicate,
                                 IngestMetric::UpdatesSuppressedUnknown});
}

}  // namespace
}  // namespace arancini::testing
