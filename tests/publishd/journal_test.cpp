#include <fcntl.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>

#include "common/journal/checkpoint.h"
#include "common/journal/segment.h"
#include "tests/publishd/journal_harness.h"

// The journal against a real file system: what was acknowledged is there, whatever happens to the process.
namespace arancini::publishd::test {
namespace {

class JournalTest : public testing::Test {
 protected:
  void start() {
    host_.reset();
    host_ = std::make_unique<JournalHost>(options_);
    ASSERT_TRUE(host_->journal->wait_ready(20'000'000'000));
  }
  std::unique_ptr<SpillStore> open(std::uint8_t n = 1) {
    return host_->journal->open(writer_id(n), ShardId{n}, 1000 + n);
  }
  static void expect_records(SpillStore& store, Feed& feed, std::uint64_t from, std::uint64_t to) {
    RingRecord r;
    for (std::uint64_t n = from; n < to; ++n) {
      ASSERT_EQ(read_one(store, r), RingReader::Status::Record) << n;
      ASSERT_TRUE(feed.at(n).same(r)) << n;
      ASSERT_EQ(store.cursor(), r.end);
    }
  }

  TempTree tree_;
  JournalOptions options_ = [this] {
    JournalOptions o;
    o.directory = tree_.path() + "/state/journal";
    o.segment_bytes = 256 * 1024;
    o.frame_bytes = 16 * 1024;
    o.retry_ns = 20'000'000;
    o.drop_empty_ns = 0;
    return o;
  }();
  std::unique_ptr<JournalHost> host_;
};

TEST_F(JournalTest, GivesBackWhatWasAppendedAcrossSegmentsAndPadding) {
  start();
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 77, 88);
  EXPECT_EQ(store->begin(), store->end());
  feed.append_all(*store, 3000);  // 1.5 MB
  store->seek(store->begin());
  expect_records(*store, feed, 1, 3000);
  RingRecord r;
  EXPECT_EQ(store->next(r), RingReader::Status::Empty);
  // From the middle of a frame.
  const auto middle = feed.at(1234).record.begin;
  store->seek(middle);
  EXPECT_EQ(store->cursor(), middle);
  expect_records(*store, feed, 1234, 3000);
  EXPECT_GT(host_->journal->metric(PublishMetric::JournalSegments), 5U);
  EXPECT_EQ(host_->journal->metric(PublishMetric::JournalTrouble), 0U);
}

TEST_F(JournalTest, AllIsThereAfterARestart) {
  start();
  Feed feed;
  {
    auto store = open();
    store->restart(feed.at(1).record.begin, 77, 88);
    feed.append_all(*store, 1000);
    store->set_published(feed.at(300).record.begin, 99, 88);
  }
  start();
  const auto orphans = host_->journal->orphans({});
  ASSERT_EQ(orphans.size(), 1U);
  EXPECT_EQ(orphans[0].writer, writer_id(1));
  EXPECT_EQ(orphans[0].shard, ShardId{1});
  EXPECT_EQ(orphans[0].created_realtime_ns, 1001U);
  EXPECT_EQ(orphans[0].begin, feed.at(300).record.begin);
  EXPECT_TRUE(host_->journal->orphans({writer_id(1)}).empty());
  auto store = open();
  EXPECT_EQ(store->begin(), feed.at(300).record.begin);
  EXPECT_EQ(store->end(), feed.at(999).record.end);
  EXPECT_EQ(store->floor_stream_sequence(), 99U);
  EXPECT_EQ(store->floor_created_ns(), 88U);
  feed.append_all(*store, 2000);
  store->seek(store->begin());
  expect_records(*store, feed, 300, 2000);
}

std::uint64_t files_in(const std::string& dir) {
  std::uint64_t n = 0;
  for (const auto& e : std::filesystem::recursive_directory_iterator(dir))
    n += e.path().extension() == ".seg" ? 1 : 0;
  return n;
}

TEST_F(JournalTest, RestartSkipsWhatWentPastTheJournal) {
  start();
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 1, 88);
  feed.append_all(*store, 100);
  store->set_published(store->end(), 2, 88);
  // Records 100 to 499 went straight from the ring.
  store->restart(feed.at(500).record.begin, 3, 88);
  EXPECT_EQ(store->begin(), feed.at(500).record.begin);
  feed.next = 500;
  feed.append_all(*store, 600);
  store->seek(store->begin());
  expect_records(*store, feed, 500, 600);
  store.reset();
  start();
  store = open();
  EXPECT_EQ(store->begin(), feed.at(500).record.begin);
  EXPECT_EQ(store->floor_stream_sequence(), 3U);
  store->seek(store->begin());
  expect_records(*store, feed, 500, 600);
}

TEST_F(JournalTest, WhatIsPublishedLeavesTheDisk) {
  options_.drop_empty_ns = 1;
  start();
  Feed feed;
  auto store = open();
  store->restart(feed.at(1).record.begin, 1, 88);
  feed.append_all(*store, 3000);
  ASSERT_GT(files_in(options_.directory), 4U);
  store->set_published(feed.at(2000).record.begin, 2, 88);
  ASSERT_TRUE(wait_for([&] { return files_in(options_.directory) < 4; }));
  store->seek(store->begin());
  expect_records(*store, feed, 2000, 3000);
  EXPECT_EQ(host_->journal->metric(PublishMetric::JournalBytes), raw(store->end()) - raw(store->begin()));
  store->set_published(store->end(), 3, 88);
  ASSERT_TRUE(wait_for([&] { return files_in(options_.directory) == 0; }));
  // And is there again when it is needed.
  store->restart(feed.at(3500).record.begin, 4, 88);
  feed.next = 3500;
  feed.append_all(*store, 3600);
  store->seek(store->begin());
  expect_records(*store, feed, 3500, 3600);
  store->set_published(store->end(), 5, 88);
  store.reset();
  ASSERT_TRUE(
      wait_for([&] { return !std::filesystem::exists(options_.directory + "/" + writer_id(1).to_hex()); }));
  store = open();
  EXPECT_EQ(store->begin(), store->end());
}

TEST_F(JournalTest, OrphansComeInTheOrderOfTheirRecords) {
  start();
  {
    Feed feeds[3];
    std::unique_ptr<SpillStore> stores[3];
    for (const std::size_t n : {2, 0, 1}) {
      stores[n] = open(static_cast<std::uint8_t>(n));
      stores[n]->restart(feeds[n].at(1).record.begin, 1, 88);
      feeds[n].append_all(*stores[n], 200);
    }
    // The oldest of writer 2 is published: what is left of it is younger than the others.
    feeds[2].append_all(*stores[2], 400);
    stores[2]->set_published(feeds[2].at(300).record.begin, 2, 88);
  }
  start();
  const auto orphans = host_->journal->orphans({});
  ASSERT_EQ(orphans.size(), 3U);
  EXPECT_EQ(orphans[0].writer, writer_id(0));
  EXPECT_EQ(orphans[1].writer, writer_id(1));
  EXPECT_EQ(orphans[2].writer, writer_id(2));
  EXPECT_LT(orphans[1].order, orphans[2].order);
  // One that is published leaves no trace.
  auto store = open(0);
  store->set_published(store->end(), 9, 88);
  store.reset();
  ASSERT_TRUE(
      wait_for([&] { return !std::filesystem::exists(options_.directory + "/" + writer_id(0).to_hex()); }));
  EXPECT_EQ(host_->journal->orphans({}).size(), 2U);
}

TEST_F(JournalTest, LargestRecordsPass) {
  options_.frame_bytes = 1 << 20;
  start();
  auto store = open();
  Feed feed(3 << 20);
  store->restart(feed.at(1).record.begin, 1, 88);
  feed.append_all(*store, 12);
  store->seek(store->begin());
  expect_records(*store, feed, 1, 12);
}

TEST_F(JournalTest, WithoutAnEndOfRecordsAFlushIsEnough) {
  start();
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 1, 88);
  for (std::uint64_t n = 1; n < 30; ++n) feed.append_all(*store, n + 1);  // each waits for the disk
  EXPECT_EQ(store->appended(), store->end());
}

TEST_F(JournalTest, ASecondOneWaitsForTheFirst) {
  start();
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 1, 88);
  feed.append_all(*store, 50);
  JournalHost second(options_);
  ASSERT_TRUE(wait_for([&] { return second.journal->trouble() == ErrorCode::JournalFailed; }));
  EXPECT_FALSE(second.journal->ready());
  feed.append_all(*store, 100);
  store.reset();
  host_.reset();
  ASSERT_TRUE(second.journal->wait_ready(20'000'000'000));
  EXPECT_EQ(second.journal->trouble(), ErrorCode::None);
  store = second.journal->open(writer_id(1), ShardId{1}, 1001);
  store->seek(store->begin());
  expect_records(*store, feed, 1, 100);
  store.reset();  // before its journal
}

TEST_F(JournalTest, ALimitIsKeptAndWhatIsPublishedMakesRoom) {
  options_.max_bytes = 4 * options_.segment_bytes;
  start();
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 1, 88);
  ASSERT_TRUE(wait_for([&] {
    feed.append(*store, 1'000'000);
    return store->trouble() == ErrorCode::JournalFull;
  }));
  EXPECT_EQ(host_->journal->trouble(), ErrorCode::JournalFull);
  std::uint64_t bytes = 0;
  for (const auto& e : std::filesystem::recursive_directory_iterator(options_.directory))
    if (e.is_regular_file() && e.path().filename() != "checkpoint" && e.path().filename() != "lock")
      bytes += e.file_size();
  EXPECT_LE(bytes, options_.max_bytes);
  // What was taken before is all there, and flows on while it is read.
  const std::uint64_t target = feed.next + 5000;
  store->seek(store->begin());
  RingRecord r;
  for (std::uint64_t n = 1; n < target; ++n) {
    ASSERT_TRUE(wait_for([&] {
      feed.append(*store, target);
      store->flush();
      const auto status = store->next(r);
      EXPECT_NE(status, RingReader::Status::Corrupt);
      return status == RingReader::Status::Record;
    })) << n;
    ASSERT_TRUE(feed.at(n).same(r)) << n;
    store->set_published(r.end, n, 88);
  }
  ASSERT_TRUE(wait_for([&] { return host_->journal->trouble() == ErrorCode::None; }));
}

TEST_F(JournalTest, ManyRingsShareTheLimit) {
  options_.max_bytes = 8 * options_.segment_bytes;
  start();
  std::vector<std::unique_ptr<SpillStore>> stores;
  std::vector<Feed> feeds(24);
  for (std::size_t n = 0; n < feeds.size(); ++n) stores.push_back(open(static_cast<std::uint8_t>(n)));
  for (std::size_t n = 0; n < feeds.size(); ++n) {
    stores[n]->restart(feeds[n].at(1).record.begin, 1, 88);
    feeds[n].append_all(*stores[n], 20);
  }
  EXPECT_EQ(host_->journal->trouble(), ErrorCode::None);
}

TEST_F(JournalTest, TheSinkDiscardsItsOldestSegmentsOfAllRings) {
  options_.sink = options_.discard_old = true;
  options_.max_bytes = 8 * options_.segment_bytes;
  start();
  Feed feeds[2];
  std::unique_ptr<SpillStore> stores[2] = {open(0), open(1)};
  for (int n : {0, 1}) stores[n]->restart(feeds[n].at(1).record.begin, ~0ULL, 0);
  feeds[0].append_all(*stores[0], 100);  // then only the other one writes
  for (std::uint64_t to = 500; to < 20000; to += 500) feeds[1].append_all(*stores[1], to);
  EXPECT_EQ(stores[1]->trouble(), ErrorCode::None);
  ASSERT_GT(stores[1]->begin(), feeds[1].at(1).record.begin);
  const std::uint64_t first = feeds[1].first_at(stores[1]->begin());
  stores[1]->seek(stores[1]->begin());
  expect_records(*stores[1], feeds[1], first, 19500);
  stores[0].reset();
  stores[1].reset();
  start();
  stores[1] = open(1);
  EXPECT_EQ(stores[1]->end(), feeds[1].at(19499).record.end);
}

TEST_F(JournalTest, DamageIsToldOnceReadingGoesOnAndTheFileIsKept) {
  start();
  Feed feed;
  {
    auto store = open();
    store->restart(feed.at(1).record.begin, 1, 88);
    feed.append_all(*store, 2000);
  }
  host_.reset();
  // A bit in the middle of the second segment.
  std::vector<std::filesystem::path> segments;
  for (const auto& e : std::filesystem::recursive_directory_iterator(options_.directory))
    if (e.path().extension() == ".seg") segments.push_back(e.path());
  std::sort(segments.begin(), segments.end());
  ASSERT_GT(segments.size(), 2U);
  {
    const Fd fd(::open(segments[1].c_str(), O_RDWR));
    char byte = 0;
    ASSERT_EQ(::pread(fd.get(), &byte, 1, 100'000), 1);
    byte = static_cast<char>(byte ^ 4);
    ASSERT_EQ(::pwrite(fd.get(), &byte, 1, 100'000), 1);
  }
  start();
  auto store = open();
  EXPECT_EQ(store->end(), feed.at(1999).record.end);
  for (int round = 0; round < 2; ++round) {  // a new session reads it again
    store->seek(store->begin());
    std::uint64_t n = 1;
    int corrupt = 0;
    RingRecord r;
    for (;;) {
      const auto status = read_one(*store, r);
      if (status == RingReader::Status::Empty) break;
      if (status == RingReader::Status::Corrupt) {
        ++corrupt;
        n = feed.first_at(store->cursor());
        continue;
      }
      ASSERT_TRUE(feed.at(n).same(r)) << n;
      ++n;
    }
    EXPECT_EQ(n, 2000U);
    EXPECT_EQ(corrupt, 1);
  }
  EXPECT_EQ(host_->journal->trouble(), ErrorCode::JournalCorrupt);
  store->set_published(store->end(), 9, 88);
  const auto kept = std::filesystem::path(options_.directory) /
                    (writer_id(1).to_hex() + "-" + segments[1].filename().string() + ".corrupt");
  ASSERT_TRUE(wait_for([&] { return std::filesystem::exists(kept); }));
  EXPECT_EQ(host_->journal->trouble(), ErrorCode::JournalCorrupt);
  std::filesystem::remove(kept);
  EXPECT_TRUE(wait_for([&] { return host_->journal->trouble() == ErrorCode::None; }));
}

TEST_F(JournalTest, AFailedWriteIsRepeatedElsewhereAndNothingIsLost) {
  start();
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 1, 88);
  feed.append_all(*store, 200);
  // No file may be written beyond 100 kB: the middle of a segment.
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100'000, RLIM_INFINITY};
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const bool failed = wait_for([&] {
    feed.append(*store, 100'000);
    store->flush();
    return store->trouble() != ErrorCode::None;
  });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_TRUE(failed);
  const std::uint64_t to = feed.next + 500;
  feed.append_all(*store, to);
  store->seek(store->begin());
  expect_records(*store, feed, 1, to);
  EXPECT_TRUE(wait_for([&] { return host_->journal->trouble() == ErrorCode::None; }));
  store.reset();
  start();
  store = open();
  store->seek(store->begin());
  expect_records(*store, feed, 1, to);
}

TEST_F(JournalTest, AFullFileSystemLosesNothingAndIsLeftByItself) {
  const TempTree mount;
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("tmpfs", mount.path().c_str(), "tmpfs", 0, "size=3M") != 0) {
    GTEST_SKIP() << "cannot mount a tmpfs here: " << std::strerror(errno);
  }
  options_.directory = mount.path() + "/state/journal";
  const std::string filler = mount.path() + "/filler";
  start();
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 1, 88);
  feed.append_all(*store, 300);
  // Somebody else takes the room.
  {
    const Fd fd(::open(filler.c_str(), O_WRONLY | O_CREAT, 0600));
    const std::vector<char> block(65536);
    while (::write(fd.get(), block.data(), block.size()) > 0) continue;
  }
  ASSERT_TRUE(wait_for([&] {
    feed.append(*store, 1'000'000);
    store->flush();
    return store->trouble() == ErrorCode::JournalFull && feed.append(*store, 1'000'000) == 0;
  }));
  // What was acknowledged can be read meanwhile.
  store->seek(store->begin());
  expect_records(*store, feed, 1, feed.first_at(store->end()));
  // Room is looked for again by and by: after 20 ms, 40, 80 ... not as fast as a disk can refuse.
  const Fd watch(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  ASSERT_GE(::inotify_add_watch(watch.get(), options_.directory.c_str(), IN_CREATE), 0);
  std::this_thread::sleep_for(500ms);
  int tries = 0;
  alignas(inotify_event) char events[8192];
  for (ssize_t n = 0; (n = ::read(watch.get(), events, sizeof events)) > 0;) {
    for (ssize_t at = 0; at < n; ++tries) {
      inotify_event e{};
      std::memcpy(&e, events + at, sizeof e);
      at += static_cast<ssize_t>(sizeof e + e.len);
    }
  }
  EXPECT_LE(tries, 10);
  std::filesystem::remove(filler);
  const std::uint64_t more = feed.next + 100;
  feed.append(*store, more);
  store->flush();
  ASSERT_TRUE(wait_for([&] { return store->trouble() == ErrorCode::None; }));
  // And publishing makes room, too, where nobody else does.
  RingRecord r;
  const std::uint64_t target = feed.next + 8000;
  store->seek(store->begin());
  for (std::uint64_t n = 1; n < target; ++n) {
    ASSERT_TRUE(wait_for([&] {
      feed.append(*store, target);
      store->flush();
      return store->next(r) == RingReader::Status::Record;
    })) << n;
    ASSERT_TRUE(feed.at(n).same(r)) << n;
    store->set_published(r.end, n, 88);
  }
  store.reset();
  host_.reset();
  ::umount2(mount.path().c_str(), MNT_DETACH);
}

// ---- crashes
// --------------------------------------------------------------------------------------------------

// What a process that was killed had acknowledged, in shared memory.
struct Acknowledged {
  std::atomic<std::uint64_t> end;
  std::atomic<std::uint64_t> begin;
};

TEST_F(JournalTest, WhatWasAcknowledgedSurvivesEveryKill) {
  void* shared = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto* acknowledged = new (shared) Acknowledged{};
  Feed feed;
  std::minstd_rand random(5);
  options_.drop_empty_ns = 5'000'000'000;
  for (int life = 0; life < 25; ++life) {
    const pid_t child = ::fork();
    if (child == 0) {
      JournalHost host(options_);
      host.journal->wait_ready(20'000'000'000);
      auto store = host.journal->open(writer_id(1), ShardId{1}, 1001);
      if (raw(store->end()) == 0) store->restart(feed.at(1).record.begin, 1, 88);
      feed.next = feed.first_at(store->end());
      store->seek(store->begin());
      RingRecord r;
      for (std::uint64_t n = 0;; ++n) {
        if (feed.append(*store, feed.next + 1 + n % 50) == 0 || n % 3 == 0) store->flush();
        // An empty store ends where restart() said; nothing was promised yet.
        if (store->end() > feed.at(1).record.begin) acknowledged->end.store(raw(store->end()));
        // Reads some way behind.
        if (store->cursor() < store->end() && store->next(r) == RingReader::Status::Record && n % 7 == 0) {
          acknowledged->begin.store(raw(r.end));
          store->set_published(r.end, n, 88);
        }
      }
    }
    const std::uint64_t before = std::max(acknowledged->end.load(), raw(feed.at(1).record.begin));
    ASSERT_TRUE(wait_for([&] { return acknowledged->end.load() > before + 20'000; }));
    ::usleep(static_cast<useconds_t>(random() % 30'000));  // a random instant
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    start();
    auto store = open();
    ASSERT_GE(raw(store->end()), acknowledged->end.load());
    // The pair in force or the one before.
    ASSERT_LE(raw(store->begin()),
              acknowledged->begin.load() == 0 ? raw(store->end()) : acknowledged->begin.load());
    const std::uint64_t first = feed.first_at(store->begin());
    ASSERT_EQ(feed.at(feed.first_at(store->end()) - 1).record.end, store->end());
    store->seek(store->begin());
    expect_records(*store, feed, first, feed.first_at(store->end()));
    if (HasFatalFailure()) return;
    store.reset();
    host_.reset();  // no thread of ours is there when the next life is forked
  }
  ::munmap(shared, 4096);
}

// A power cut while the last batch was being written: of its frames anything may be on the disk, in any
// mixture; of the checkpoint an older page, or none.
TEST_F(JournalTest, WhatWasAcknowledgedSurvivesThePowerCut) {
  start();
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 1, 88);
  std::minstd_rand random(17);
  const std::string image = tree_.path() + "/image/journal";
  const std::string sub = "/" + writer_id(1).to_hex();
  std::uint64_t torn_frames = 0;
  for (int cut = 0; cut < 40; ++cut) {
    feed.append_all(*store, feed.next + 20 + random() % 400);
    std::filesystem::remove_all(image);
    std::filesystem::create_directories(image);
    std::filesystem::permissions(image, std::filesystem::perms::owner_all);
    std::filesystem::copy(options_.directory + sub, image + sub);
    std::filesystem::permissions(image + sub, std::filesystem::perms::owner_all);
    std::vector<std::filesystem::path> segments;
    for (const auto& e : std::filesystem::directory_iterator(image + sub))
      if (e.path().extension() == ".seg") segments.push_back(e.path());
    std::sort(segments.begin(), segments.end());

    // When the last frame was written, these were durable, and nothing else.
    journal::FrameHeader h{};
    std::uint64_t offset = 0;
    const auto frames_of = [&](const std::filesystem::path& path, const std::function<void()>& each) {
      const Fd dir(::open((image + sub).c_str(), O_RDONLY | O_DIRECTORY));
      auto segment = journal::SegmentFile::open(dir.get(), path.filename().string());
      ASSERT_TRUE(segment);
      for (offset = journal::kSegmentHeaderBytes;
           segment->read_header(offset, h) == journal::SegmentFile::Status::Frame;
           offset += journal::frame_file_bytes(h.payload_bytes)) {
        each();
      }
    };
    std::uint64_t durable = 0;
    frames_of(segments.back(), [&] { durable = h.durable_frame; });
    journal::Durable mark;
    std::uint64_t torn_at = 0;
    for (const auto& path : segments) {
      frames_of(path, [&] {
        if (h.frame <= durable) mark = {h.frame, RingPosition{h.begin + h.payload_bytes}, h.order};
        if (h.frame == durable + 1 && path == segments.back()) torn_at = offset;
        torn_frames += h.frame > durable ? 1 : 0;
      });
    }
    ASSERT_GT(torn_at, 0U);  // a segment begins with a durable past
    const auto size = std::filesystem::file_size(segments.back());
    const Fd fd(::open(segments.back().c_str(), O_RDWR));
    std::vector<char> rest(size - torn_at);
    const auto bytes = static_cast<ssize_t>(rest.size());
    ASSERT_EQ(::pread(fd.get(), rest.data(), rest.size(), static_cast<off_t>(torn_at)), bytes);
    switch (cut % 4) {
      case 0: std::fill(rest.begin(), rest.end(), '\0'); break;
      case 1:  // sectors are old or new
        for (std::size_t at = 0; at < rest.size(); at += 512) {
          if (random() % 2 == 0)
            std::fill_n(rest.begin() + static_cast<std::ptrdiff_t>(at),
                        std::min<std::size_t>(512, rest.size() - at), '\0');
        }
        break;
      case 2:
        for (std::size_t at = 0; at < std::min<std::size_t>(rest.size(), 20'000); ++at)
          if (random() % 50 == 0) rest[at] = static_cast<char>(random());
        break;
      default: break;  // all of it is there
    }
    ASSERT_EQ(::pwrite(fd.get(), rest.data(), rest.size(), static_cast<off_t>(torn_at)), bytes);
    if (cut % 5 == 0) {
      std::filesystem::remove(image + sub + "/checkpoint");
    } else {
      journal::CheckpointPage page;
      journal::init_checkpoint(page, writer_id(1), 1001, 1);
      journal::store(page, journal::Published{feed.at(1).record.begin, 1, 88});
      if (cut % 5 == 1 && mark.frame != 0) journal::store(page, mark);
      const Fd file(::open((image + sub + "/checkpoint").c_str(), O_WRONLY));
      ASSERT_EQ(::pwrite(file.get(), &page, sizeof page, 0), static_cast<ssize_t>(sizeof page));
    }

    JournalOptions options = options_;
    options.directory = image;
    JournalHost after(options);
    ASSERT_TRUE(after.journal->wait_ready(20'000'000'000));
    auto recovered = after.journal->open(writer_id(1), ShardId{1}, 1001);
    ASSERT_GE(recovered->end(), mark.end) << cut;
    ASSERT_EQ(recovered->floor_stream_sequence(), 1U);
    recovered->seek(recovered->begin());
    const std::uint64_t last = feed.first_at(recovered->end());
    expect_records(*recovered, feed, 1, last);
    if (HasFatalFailure()) FAIL() << "cut " << cut;
    // And it goes on from there.
    const std::uint64_t next = feed.next;
    feed.next = last;
    feed.append_all(*recovered, last + 50);
    recovered->seek(feed.at(last).record.begin);
    expect_records(*recovered, feed, last, last + 50);
    feed.next = next;
    if (HasFatalFailure()) FAIL() << "cut " << cut;
    ASSERT_EQ(after.journal->trouble(), ErrorCode::None) << cut;
  }
  EXPECT_GT(torn_frames, 40U);
}

TEST_F(JournalTest, WithoutACheckpointTheOldestSegmentKnowsTheFloor) {
  start();
  Feed feed;
  {
    auto store = open();
    store->restart(feed.at(1).record.begin, 41, 42);
    feed.append_all(*store, 500);
  }
  host_.reset();
  std::filesystem::remove(options_.directory + "/" + writer_id(1).to_hex() + "/checkpoint");
  start();
  auto store = open();
  EXPECT_EQ(store->begin(), feed.at(1).record.begin);
  EXPECT_EQ(store->floor_stream_sequence(), 41U);
  EXPECT_EQ(store->floor_created_ns(), 42U);
  store->seek(store->begin());
  expect_records(*store, feed, 1, 500);
}

TEST_F(JournalTest, ADirectoryOfOthersIsRefused) {
  std::filesystem::create_directories(options_.directory);
  std::filesystem::permissions(options_.directory, std::filesystem::perms::all);
  JournalHost host(options_);
  ASSERT_TRUE(wait_for([&] { return host.journal->trouble() == ErrorCode::JournalFailed; }));
  EXPECT_FALSE(host.journal->ready());
  std::filesystem::permissions(options_.directory, std::filesystem::perms::owner_all);
  EXPECT_TRUE(host.journal->wait_ready(20'000'000'000));
}

TEST_F(JournalTest, WhereNoneCanBeMadeNothingIsWaitedFor) {
  // Not even root makes a directory below a file.
  const std::string file = tree_.path() + "/file";
  { const Fd made(::open(file.c_str(), O_WRONLY | O_CREAT, 0600)); }
  options_.directory = file + "/state/journal";
  start();
  EXPECT_EQ(host_->journal->trouble(), ErrorCode::JournalFailed);
  EXPECT_TRUE(host_->journal->orphans({}).empty());
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 1, 88);
  EXPECT_EQ(store->trouble(), ErrorCode::JournalFailed);
  ASSERT_TRUE(wait_for([&] { return feed.append(*store, 100'000) == 0; }));  // takes a while, then no more
  EXPECT_EQ(store->begin(), store->end());
  // The operator makes room for it.
  std::filesystem::remove(file);
  const std::uint64_t to = feed.next;
  ASSERT_TRUE(wait_for([&] { return store->trouble() == ErrorCode::None; }));
  feed.append_all(*store, to + 100);
  store->seek(store->begin());
  expect_records(*store, feed, 1, to + 100);
}

}  // namespace
}  // namespace arancini::publishd::test
