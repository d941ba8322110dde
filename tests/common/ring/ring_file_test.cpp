#include "common/ring/ring_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "common/base/fd.h"
#include "common/ring/ring_attach.h"
#include "tests/common/ring/ring_test_util.h"

namespace arancini::test {
namespace {

using Kind = RingFileError::Kind;

// Overwrites bytes of a ring file that nobody has mapped.
template <class T>
void poke(const std::string& path, std::size_t offset, T value) {
  const Fd fd(::open(path.c_str(), O_WRONLY));
  ASSERT_EQ(::pwrite(fd.get(), &value, sizeof value, static_cast<off_t>(offset)), ssize_t{sizeof value});
}

RingFileError attach_error(const std::string& path, RingSide side = RingSide::Reader) {
  auto file = RingFile::attach(path, side);
  if (file) {
    ADD_FAILURE() << "attached to " << path;
    return {};
  }
  return file.error();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::size_t entries(const std::string& directory) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(directory), std::filesystem::directory_iterator()));
}

TEST(RingFile, SaysWhatToDoOnAFullFileSystem) {
  const TempDir dir;
  struct statfs s {};
  ASSERT_EQ(::statfs(dir.file("").c_str(), &s), 0);
  if (s.f_type != TMPFS_MAGIC || s.f_blocks == 0) GTEST_SKIP() << "/dev/shm is not a tmpfs with a limit";
  // More than its limit is refused by the kernel at once.
  auto file = RingFile::create_or_attach(dir.file("ring"), small_ring(shm::kRingMaxCapacityBytes));
  ASSERT_FALSE(file);
  EXPECT_TRUE(contains(file.error().text, "set a smaller ring.size_bytes")) << file.error().text;
  EXPECT_TRUE(contains(file.error().text, "mount -o remount,size=")) << file.error().text;
  EXPECT_TRUE(file.error().text.ends_with("M /dev/shm")) << file.error().text;
  EXPECT_EQ(entries(dir.file("")), 0U);
}

TEST(RingFile, CreatesOnceThenAttaches) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  WriterId id;
  {
    const RingFile file = create(path, small_ring(1U << 20));
    EXPECT_TRUE(file.created());
    EXPECT_FALSE(file.on_hugepages());
    EXPECT_FALSE(file.replaced());
    EXPECT_TRUE(file.replace_note().empty());
    EXPECT_EQ(file.header().identity.capacity_bytes, 1U << 20);
    EXPECT_EQ(std::filesystem::file_size(path), shm::kRingDataOffsetBytes + (1U << 20));
    std::copy_n(std::begin(file.header().identity.writer_id), 16, id.bytes.begin());
    EXPECT_EQ(id.bytes[6] >> 4, 4) << "a random UUID";
  }
  const RingFile again = create(path, small_ring(1U << 20));
  EXPECT_FALSE(again.created());
  EXPECT_TRUE(std::equal(id.bytes.begin(), id.bytes.end(), std::begin(again.header().identity.writer_id)));
  EXPECT_EQ(entries(dir.path()), 1U) << "no temporary file stays";
}

TEST(RingFile, RefusesImpossibleSizes) {
  const TempDir dir;
  for (const std::uint64_t size :
       {std::uint64_t{0}, std::uint64_t{4096}, std::uint64_t{100'000}, std::uint64_t{1} << 41}) {
    const auto file = RingFile::create_or_attach(dir.file("ring"), small_ring(size));
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_EQ(file.error().kind, Kind::System);
  }
  const auto nowhere = RingFile::create_or_attach(dir.file("no/such/ring"), small_ring());
  ASSERT_FALSE(nowhere.ok());
  EXPECT_TRUE(contains(nowhere.error().text, "No such file or directory"));
  EXPECT_EQ(entries(dir.path()), 0U);
}

TEST(RingFile, OneLivingProcessPerSide) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  EXPECT_EQ(RingFile::lock_holder(path, RingSide::Writer), 0);
  {
    const RingFile writer = create(path);
    EXPECT_EQ(RingFile::lock_holder(path, RingSide::Writer), ::getpid());
    EXPECT_EQ(RingFile::lock_holder(path, RingSide::Reader), 0);
    const auto second = RingFile::create_or_attach(path, small_ring());
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().kind, Kind::Locked);
    EXPECT_TRUE(contains(second.error().text, "pid " + std::to_string(::getpid()))) << second.error().text;
    const RingFile reader = attach(path, RingSide::Reader);
    EXPECT_EQ(RingFile::lock_holder(path, RingSide::Reader), ::getpid());
    EXPECT_EQ(attach_error(path).kind, Kind::Locked);
  }
  EXPECT_EQ(RingFile::lock_holder(path, RingSide::Writer), 0);
  EXPECT_EQ(RingFile::lock_holder(path, RingSide::Reader), 0);
}

TEST(RingFile, AttachSaysWhatDiffers) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  EXPECT_EQ(attach_error(path).kind, Kind::Missing);
  struct Case {
    std::function<void()> damage;
    std::string text;
  };
  using shm::RingIdentity;
  const std::vector<Case> cases{
      {[&] { poke(path, offsetof(RingIdentity, magic), std::uint64_t{1}); }, "magic"},
      {[&] { poke(path, offsetof(RingIdentity, abi_version), std::uint32_t{0}); }, "never completed"},
      {[&] { poke(path, offsetof(RingIdentity, abi_version), shm::kRingAbiVersion + 1); },
       "ABI version " + std::to_string(shm::kRingAbiVersion + 1)},
      {[&] { poke(path, offsetof(RingIdentity, layout_hash), std::uint64_t{7}); }, "layout hash"},
      {[&] { poke(path, offsetof(RingIdentity, capacity_bytes), std::uint64_t{65'537}); },
       "capacity of 65537"},
      {[&] { poke(path, offsetof(RingIdentity, capacity_bytes), std::uint64_t{1} << 63); }, "capacity"},
      {[&] { poke(path, offsetof(RingIdentity, capacity_bytes), std::uint64_t{131'072}); },
       "its capacity needs"},
      {[&] { poke(path, offsetof(RingIdentity, data_offset_bytes), std::uint64_t{8}); }, "data at byte 8"},
      {[&] { std::filesystem::resize_file(path, 0); }, "too short"},
      {[&] { std::filesystem::resize_file(path, 700); }, "too short"},
      {[&] { std::filesystem::resize_file(path, 131'071); }, "too short"},
      {[&] { std::filesystem::resize_file(path, 200'000); }, "its capacity needs 131072"},
  };
  for (const Case& c : cases) {
    std::filesystem::remove(path);
    { const RingFile made = create(path); }
    c.damage();
    const RingFileError error = attach_error(path);
    EXPECT_EQ(error.kind, Kind::Incompatible) << c.text;
    EXPECT_TRUE(contains(error.text, c.text)) << error.text;
    EXPECT_TRUE(contains(error.text, path)) << error.text;
  }
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_EQ(attach_error(path).kind, Kind::System);
}

TEST(RingFile, WriterRefusesCorruptPositions) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  using shm::RingHeader;
  const std::size_t tail = offsetof(RingHeader, writer) + offsetof(shm::RingWriterLine, tail);
  const std::size_t head = offsetof(RingHeader, reader) + offsetof(shm::RingReaderLine, head);
  for (const auto& damage : std::vector<std::function<void()>>{
           [&] { poke(path, tail, std::uint64_t{4}); }, [&] { poke(path, tail, std::uint64_t{64}); },
           [&] { poke(path, head, std::uint64_t{8}); }, [&] { poke(path, tail, ~std::uint64_t{7}); }}) {
    std::filesystem::remove(path);
    { const RingFile made = create(path); }
    damage();
    EXPECT_EQ(attach_error(path, RingSide::Writer).kind, Kind::Incompatible);
    const RingFile successor = create(path);
    EXPECT_TRUE(successor.created());
    EXPECT_TRUE(contains(successor.replace_note(), "moved to " + path + ".bad-")) << successor.replace_note();
  }
}

TEST(RingFile, MovesAsideWhatCannotBeUsed) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  { const RingFile made = create(path); }
  const RingFile reader = attach(path, RingSide::Reader);
  EXPECT_FALSE(reader.replaced());
  {
    const RingFile bigger = create(path, small_ring(1U << 17));
    EXPECT_TRUE(bigger.created());
    EXPECT_TRUE(contains(bigger.replace_note(), "capacity")) << bigger.replace_note();
    EXPECT_TRUE(std::filesystem::exists(path + ".old-1"));
    EXPECT_TRUE(reader.replaced());
    EXPECT_EQ(bigger.header().identity.capacity_bytes, 1U << 17);
  }
  poke(path, offsetof(shm::RingIdentity, abi_version), shm::kRingAbiVersion + 1);
  { const RingFile third = create(path); }
  EXPECT_EQ(RingFile::moved_aside(path), (std::vector<std::string>{path + ".old-1", path + ".old-2"}));
  std::ofstream(path, std::ios::trunc) << "not a ring";
  { const RingFile fourth = create(path); }
  EXPECT_TRUE(std::filesystem::exists(path + ".bad-1"));
  EXPECT_EQ(RingFile::moved_aside(path).size(), 2U);
}

TEST(RingFile, RefusesTheRingOfAnotherShard) {
  const TempDir dir;
  { const RingFile made = create(dir.file("ring")); }
  RingFile::CreateOptions other = small_ring();
  other.shard = 5;
  const auto file = RingFile::create_or_attach(dir.file("ring"), other);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().kind, Kind::Incompatible);
}

TEST(RingFile, RemovesWhatDeadCreatorsLeft) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  std::ofstream(path + ".tmp-dead") << "half";
  const Fd living(::open((path + ".tmp-living").c_str(), O_RDWR | O_CREAT, 0600));
  ASSERT_EQ(ofd_lock(living.get(), shm::kRingWriterLockByte), LockState::Free);
  std::filesystem::create_symlink(dir.file("gone"), path);  // to a hugetlbfs that was unmounted
  const RingFile made = create(path);
  EXPECT_TRUE(made.created());
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp-dead"));
  EXPECT_TRUE(std::filesystem::exists(path + ".tmp-living"));
  EXPECT_FALSE(std::filesystem::is_symlink(path));
}

TEST(RingFile, CreatorsThatRaceAgreeOnOneRing) {
  const TempDir dir;
  for (int round = 0; round < 20; ++round) {
    const std::string path = dir.file("ring-" + std::to_string(round));
    std::vector<pid_t> children;
    for (int i = 0; i < 6; ++i) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        const auto file = RingFile::create_or_attach(path, small_ring(round % 2 == 0 ? 1U << 16 : 1U << 18));
        ::_exit(file.ok() || file.error().kind == Kind::Locked ? (file.ok() && file->created() ? 1 : 0) : 2);
      }
      children.push_back(pid);
    }
    int created = 0;
    for (const pid_t pid : children) {
      int status = 0;
      ASSERT_EQ(::waitpid(pid, &status, 0), pid);
      ASSERT_TRUE(WIFEXITED(status));
      EXPECT_LT(WEXITSTATUS(status), 2);
      created += WEXITSTATUS(status) == 1 ? 1 : 0;
    }
    EXPECT_EQ(created, 1);
    EXPECT_TRUE(RingFile::moved_aside(path).empty());
  }
  EXPECT_EQ(entries(dir.path()), 20U);
}

TEST(RingAttach, WaitsConnectsAndNoticesALivingReader) {
  const TempDir dir;
  RingAttach attach(dir.file("ring"));
  EXPECT_EQ(attach.state(), RingAttach::State::Waiting);
  EXPECT_FALSE(attach.poll().has_value());
  EXPECT_EQ(attach.reason(), RingAttach::Reason::NotThere);
  const RingWriter writer(create(dir.file("ring")));
  std::optional<RingReader> reader = attach.poll();
  ASSERT_TRUE(reader.has_value());
  EXPECT_EQ(attach.state(), RingAttach::State::Connected);
  EXPECT_FALSE(attach.poll().has_value()) << "once";
  RingAttach other(dir.file("ring"));
  EXPECT_FALSE(other.poll().has_value());
  EXPECT_EQ(other.state(), RingAttach::State::Waiting);
  EXPECT_EQ(other.reason(), RingAttach::Reason::LockedByOther);
  reader.reset();
  EXPECT_TRUE(other.poll().has_value());
}

TEST(RingAttach, StaysAwayFromACorruptRingUntilItIsReplaced) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  { const RingFile made = create(path); }
  RingAttach attach(path);
  ASSERT_TRUE(attach.poll().has_value());
  attach.disconnect(RingAttach::Reason::Corrupt, "record of an unknown kind");
  EXPECT_FALSE(attach.poll().has_value());
  EXPECT_EQ(attach.state(), RingAttach::State::Disconnected);
  EXPECT_EQ(attach.reason(), RingAttach::Reason::Corrupt);
  EXPECT_TRUE(contains(attach.text(), "unknown kind")) << attach.text();
  // Kept, so that the successor does not get the same inode.
  std::filesystem::rename(path, dir.file("evidence"));
  EXPECT_FALSE(attach.poll().has_value());
  EXPECT_EQ(attach.reason(), RingAttach::Reason::NotThere);
  const RingFile successor = create(path);
  EXPECT_TRUE(attach.poll().has_value());
}

TEST(RingAttach, IncompatibleRingSaysSoAndIsPolledOn) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  { const RingFile made = create(path); }
  poke(path, offsetof(shm::RingIdentity, abi_version), std::uint32_t{9});
  RingAttach attach(path);
  EXPECT_FALSE(attach.poll().has_value());
  EXPECT_EQ(attach.state(), RingAttach::State::Disconnected);
  EXPECT_EQ(attach.reason(), RingAttach::Reason::Incompatible);
  EXPECT_TRUE(contains(attach.text(), "ABI version 9")) << attach.text();
  poke(path, offsetof(shm::RingIdentity, abi_version), shm::kRingAbiVersion);
  EXPECT_TRUE(attach.poll().has_value());
}

TEST(RingAttach, DrainsReplacedRingsInOrderBeforeTheSuccessor) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  // Three generations, two of which wait to be drained; the reader was away.
  std::vector<WriterId> ids;
  for (const std::uint64_t capacity : {1U << 16, 1U << 17, 1U << 18}) {
    RingWriter writer(create(path, small_ring(capacity)));
    ASSERT_TRUE(append(writer, 30));
    writer.publish();
    ids.push_back(writer.writer_id());
  }
  RingAttach attach(path);
  for (const WriterId& id : ids) {
    std::optional<RingReader> reader = attach.poll();
    ASSERT_TRUE(reader.has_value()) << attach.text();
    EXPECT_EQ(reader->writer_id(), id);
    EXPECT_EQ(reader->file().replaced(), id != ids.back());
    RingRecord record;
    ASSERT_EQ(reader->next(record), RingReader::Status::Record);
    ASSERT_EQ(reader->next(record), RingReader::Status::Empty);
    reader->release(reader->cursor());
    if (id != ids.back()) {
      reader.reset();
      attach.disconnect(RingAttach::Reason::Replaced);
    }
  }
  EXPECT_TRUE(RingFile::moved_aside(path).empty()) << "drained rings are deleted";
  EXPECT_EQ(attach.attached_path(), path);
}

TEST(RingAttach, FollowsARingThatIsReplacedUnderIt) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  RingAttach attach(path);
  {
    RingWriter writer(create(path));
    ASSERT_TRUE(append(writer, 30));
    writer.publish();
  }
  std::optional<RingReader> reader = attach.poll();
  ASSERT_TRUE(reader.has_value());
  const RingWriter successor(create(path, small_ring(1U << 17)));
  EXPECT_TRUE(reader->file().replaced());
  RingRecord record;
  ASSERT_EQ(reader->next(record), RingReader::Status::Record);
  // Given up before it is released: it must come again, from the ring that was moved aside.
  reader.reset();
  attach.disconnect(RingAttach::Reason::Replaced);
  reader = attach.poll();
  ASSERT_TRUE(reader.has_value());
  EXPECT_EQ(attach.attached_path(), path + ".old-1");
  ASSERT_EQ(reader->next(record), RingReader::Status::Record);
  reader->release(record.end);
  reader.reset();
  attach.disconnect(RingAttach::Reason::Replaced);
  reader = attach.poll();
  ASSERT_TRUE(reader.has_value());
  EXPECT_EQ(reader->writer_id(), successor.writer_id());
}

}  // namespace
}  // namespace arancini::test
