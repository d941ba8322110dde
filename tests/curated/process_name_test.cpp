#include "curated/process_name.h"

#include <gtest/gtest.h>

namespace arancini::curated {
namespace {

TEST(ProcessName, TellsTheShardOfAnIngestd) {
  EXPECT_EQ(ingestd_name(1023), "ingestd@1023");
  EXPECT_EQ(shard_of("ingestd@0"), 0U);
  EXPECT_EQ(shard_of("ingestd@1023"), 1023U);
  for (const char* other : {"", "publishd", "ingestd", "ingestd@", "ingestd@x", "ingestd@1x", "ingestd@-1",
                            "ingestd@+1", "ingestd@1.service", "ingestd@4294967296"})
    EXPECT_EQ(shard_of(other), std::nullopt) << other;
}

TEST(ProcessName, KnowsDaemonsFromTheRest) {
  EXPECT_TRUE(is_daemon("publishd"));
  EXPECT_TRUE(is_daemon("ingestd@7"));
  EXPECT_FALSE(is_daemon("curated"));
  EXPECT_FALSE(is_daemon("nats-server"));
}

}  // namespace
}  // namespace arancini::curated
