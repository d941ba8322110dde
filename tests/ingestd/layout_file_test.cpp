#include "ingestd/layout_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/snapshot/file_store.h"
#include "tests/ingestd/shard_harness.h"

namespace arancini::testing {
namespace {

using namespace ingestd;

TEST(LayoutFile, HoldsSinceWhenUntilTheNumberChanges) {
  const TempDir dir;
  FakeClock clock;
  snapshot::FileStore store(dir.file("snapshots"));
  const auto began = [&](std::uint32_t count) {
    ++clock.now_ns;
    return layout_began(dir.file("state"), count, store, clock).value();
  };
  const std::uint64_t two = began(2);
  EXPECT_EQ(began(2), two);
  const std::uint64_t one = began(1);
  EXPECT_GT(one, two);
  EXPECT_GT(began(2), one) << "again, not still";
}

TEST(LayoutFile, IsForgottenByALifeThatDoesNotNoteIt) {
  const TempDir dir;
  FakeClock clock;
  snapshot::FileStore store(dir.file("snapshots"));
  EXPECT_EQ(forget_layout(dir.file("state")), "") << "no directory is no error, and none is made";
  EXPECT_FALSE(std::filesystem::exists(dir.file("state")));
  const std::uint64_t two = layout_began(dir.file("state"), 2, store, clock).value();
  EXPECT_EQ(forget_layout(dir.file("state")), "");
  EXPECT_EQ(forget_layout(dir.file("state")), "");
  ++clock.now_ns;
  EXPECT_GT(layout_began(dir.file("state"), 2, store, clock).value(), two);
  std::filesystem::remove(dir.file("state/layout"));
  std::filesystem::create_directories(dir.file("state/layout"));
  EXPECT_NE(forget_layout(dir.file("state")).find("layout: cannot be removed"), std::string::npos);
}

}  // namespace
}  // namespace arancini::testing
