// Huge pages of this machine, in a mount namespace of this process's own; what was reserved is given back.
// Skips where that is not permitted.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "common/ring/huge_mount.h"
#include "common/ring/ring_attach.h"
#include "tests/common/ring/ring_test_util.h"

namespace arancini::test {
namespace {

constexpr const char* kReserved = "/proc/sys/vm/nr_hugepages";

std::uint64_t reserved() {
  std::uint64_t n = 0;
  std::ifstream(kReserved) >> n;
  return n;
}
bool reserve(std::uint64_t n) {
  std::ofstream(kReserved) << n << std::flush;
  return reserved() == n;
}

RingFile::CreateOptions options(HugepageMode mode, std::uint64_t capacity = 1U << 20) {
  RingFile::CreateOptions o = small_ring(capacity);
  o.hugepages = mode;
  return o;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Without any mount: nobody sees the real ones of this machine.
struct RingHugepages : testing::Test {
  static void SetUpTestSuite() {
    before = reserved();
    isolated =
        ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    if (!isolated) return;
    for (const HugeMount& mount : huge_mounts()) ::umount2(mount.directory.c_str(), MNT_DETACH);
  }
  static void TearDownTestSuite() {
    if (reserved() != before) reserve(before);
  }
  void SetUp() override {
    if (!isolated || !huge_mounts().empty()) GTEST_SKIP() << "cannot have a mount namespace of its own";
  }
  void TearDown() override {
    if (!mounted.empty()) ::umount2(mounted.c_str(), MNT_DETACH);
  }
  // Mounts a hugetlbfs of 2 MiB pages and has `pages` free. False: not permitted.
  bool mount_pages(std::uint64_t pages) {
    const std::string at = dir.file("huge mount");  // a blank is \\040 in /proc/self/mounts
    std::filesystem::create_directory(at);
    if (::mount("hugetlbfs", at.c_str(), "hugetlbfs", 0, "pagesize=2M") != 0) return false;
    mounted = at;
    return reserve(pages);
  }
  [[nodiscard]] std::size_t huge_files() const {
    std::size_t n = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(mounted))
      n += entry.is_regular_file() ? 1 : 0;
    return n;
  }

  static inline std::uint64_t before = 0;
  static inline bool isolated = false;
  TempDir dir;
  std::string mounted;
};

TEST_F(RingHugepages, FallsBackWithOneLineThatSaysWhatToDo) {
  const std::string path = dir.file("ring");
  const RingFile file = create(path, options(HugepageMode::Auto));
  EXPECT_FALSE(file.on_hugepages());
  EXPECT_TRUE(contains(file.hugepage_note(), "no writable hugetlbfs mount")) << file.hugepage_note();
  EXPECT_TRUE(contains(file.hugepage_note(), "sysctl vm.nr_hugepages=")) << file.hugepage_note();
  EXPECT_EQ(file.hugepage_note().find('\n'), std::string::npos);
  const RingFile never = create(dir.file("other"), options(HugepageMode::Never));
  EXPECT_TRUE(never.hugepage_note().empty()) << "chosen, so nothing to warn about";
}

TEST_F(RingHugepages, RequireFailsAndLeavesNothing) {
  const std::string path = dir.file("ring");
  const auto file = RingFile::create_or_attach(path, options(HugepageMode::Require));
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().kind, RingFileError::Kind::NoHugepages);
  EXPECT_TRUE(contains(file.error().text, "sysctl vm.nr_hugepages=")) << file.error().text;
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  // A ring that is there already is left alone, too.
  { const RingFile plain = create(path, options(HugepageMode::Never)); }
  EXPECT_FALSE(RingFile::create_or_attach(path, options(HugepageMode::Require)).ok());
  EXPECT_TRUE(RingFile::attach(path, RingSide::Writer).ok());
}

TEST_F(RingHugepages, AMountWithoutFreePagesIsNotUsed) {
  if (!mount_pages(0)) GTEST_SKIP() << "cannot mount a hugetlbfs";
  const RingFile file = create(dir.file("ring"), options(HugepageMode::Auto));
  EXPECT_FALSE(file.on_hugepages());
  EXPECT_TRUE(contains(file.hugepage_note(), "sysctl vm.nr_hugepages=")) << file.hugepage_note();
  EXPECT_EQ(huge_files(), 0U);
}

TEST_F(RingHugepages, ADirectoryThatOthersMayWriteIsNotUsed) {
  if (!mount_pages(0)) GTEST_SKIP() << "cannot mount a hugetlbfs";
  const std::string path = dir.file("ring");
  const std::string trap = huge_directory(huge_mounts().at(0), path);
  std::filesystem::create_directory(trap);
  ASSERT_EQ(::chmod(trap.c_str(), 0777), 0);
  const RingFile file = create(path, options(HugepageMode::Auto));
  EXPECT_FALSE(file.on_hugepages());
  EXPECT_TRUE(contains(file.hugepage_note(), trap + " other users may write there")) << file.hugepage_note();
}

TEST_F(RingHugepages, RingLivesOnHugePages) {
  if (!mount_pages(8)) GTEST_SKIP() << "cannot reserve huge pages";
  const std::string path = dir.file("ring");
  {
    RingWriter writer(create(path, options(HugepageMode::Auto)));
    EXPECT_TRUE(writer.file().on_hugepages());
    EXPECT_TRUE(writer.file().hugepage_note().empty());
    EXPECT_TRUE(std::filesystem::is_symlink(path));
    EXPECT_EQ(RingFile::lock_holder(path, RingSide::Writer), ::getpid());
    ASSERT_TRUE(append(writer, 1000));
    writer.publish();
  }
  RingReader reader(attach(path, RingSide::Reader));
  EXPECT_TRUE(reader.file().on_hugepages());
  RingRecord record;
  ASSERT_EQ(reader.next(record), RingReader::Status::Record);
  EXPECT_TRUE(payload_intact(record));
  const RingWriter again(create(path, options(HugepageMode::Require)));
  EXPECT_FALSE(again.file().created());
  EXPECT_EQ(raw(again.next_sequence()), 2U);
}

TEST_F(RingHugepages, AReplacedRingIsDrainedThenItsPagesAreFree) {
  if (!mount_pages(8)) GTEST_SKIP() << "cannot reserve huge pages";
  const std::string path = dir.file("ring");
  {
    RingWriter writer(create(path, options(HugepageMode::Auto)));
    ASSERT_TRUE(append(writer, 1000));
    writer.publish();
  }
  const RingWriter successor(create(path, options(HugepageMode::Auto, 1U << 21)));
  EXPECT_TRUE(successor.file().on_hugepages());
  EXPECT_EQ(huge_files(), 2U) << "the former one is not drained";
  RingAttach attach(path);
  auto reader = attach.poll();
  ASSERT_TRUE(reader.has_value());
  RingRecord record;
  ASSERT_EQ(reader->next(record), RingReader::Status::Record);
  reader->release(record.end);
  reader.reset();
  attach.disconnect(RingAttach::Reason::Replaced);
  reader = attach.poll();
  ASSERT_TRUE(reader.has_value());
  EXPECT_EQ(reader->writer_id(), successor.writer_id());
  EXPECT_EQ(huge_files(), 1U);
}

TEST_F(RingHugepages, RequireReplacesARingOnNormalPages) {
  if (!mount_pages(8)) GTEST_SKIP() << "cannot reserve huge pages";
  const std::string path = dir.file("ring");
  { const RingFile plain = create(path, options(HugepageMode::Never)); }
  const RingFile file = create(path, options(HugepageMode::Require));
  EXPECT_TRUE(file.on_hugepages());
  EXPECT_EQ(RingFile::moved_aside(path).size(), 1U);
}

TEST_F(RingHugepages, FilesThatNoNameLeadsToAreRemoved) {
  if (!mount_pages(8)) GTEST_SKIP() << "cannot reserve huge pages";
  const std::string path = dir.file("ring");
  { const RingFile first = create(path, options(HugepageMode::Auto)); }
  std::filesystem::remove(path);  // the link only
  EXPECT_EQ(huge_files(), 1U);
  const RingFile second = create(path, options(HugepageMode::Auto));
  EXPECT_TRUE(second.created());
  EXPECT_EQ(huge_files(), 1U);
}

}  // namespace
}  // namespace arancini::test
