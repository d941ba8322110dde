#include <fcntl.h>
#include <fmt/format.h>

#include <cstring>

#include "common/base/error.h"
#include "common/journal/journal_reader.h"
#include "common/metrics/stats_file.h"
#include "tests/publishd/harness.h"

// publishd as a process with the journal as its sink; the test is the ingestd and the reader.
namespace arancini::publishd::test {
namespace {

struct JournalCheck {
  std::map<WriterId, std::vector<std::uint64_t>> sequences;  // as they come
  std::uint64_t wrong = 0, damaged = 0, events = 0, order_breaks = 0;
};

JournalCheck read_journal(const std::string& dir) {
  JournalCheck out;
  auto reader = journal::JournalReader::open(dir);
  EXPECT_TRUE(reader) << (reader ? "" : reader.error());
  if (!reader) return out;
  journal::Frame frame;
  journal::JournalReader::Writer writer;
  std::uint64_t order = 0;
  for (;;) {
    const auto status = reader->next(frame, writer);
    if (status == journal::JournalReader::Status::End) return out;
    if (status != journal::JournalReader::Status::Frame) {
      ++out.damaged;
      continue;
    }
    out.order_breaks += frame.header.order <= order;
    order = frame.header.order;
    for (std::size_t at = 0; at < frame.payload.size();) {
      shm::RecordHeader h;
      std::memcpy(&h, frame.payload.data() + at, sizeof h);
      out.events += h.kind == static_cast<std::uint8_t>(shm::RecordKind::Event) ? 1 : 0;
      if (h.kind == static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch)) {
        const auto error = schema::decode_payload(
            schema::PayloadFormat::BatchV2, frame.payload.subspan(at + sizeof h, h.payload_bytes),
            [&](const schema::DecodedUpdate& u) {
              out.sequences[u.writer].push_back(u.sequence);
              out.wrong += u.prefix_address != IpAddress::from_v4(static_cast<std::uint32_t>(u.sequence));
              out.wrong += u.writer != writer.id;
            });
        EXPECT_FALSE(error) << *error;
      }
      at += h.size_bytes;
    }
  }
}

class JournalSinkProcess : public testing::Test {
 protected:
  void start() { start(publishd_); }
  void start(Child& child) {
    const std::string path = dir_.path() + "/arancini.toml";
    std::FILE* f = std::fopen(path.c_str(), "we");
    std::fputs(("[sink]\nkind = \"journal\"\n" + toml_).c_str(), f);
    std::fclose(f);
    // A broker that does not exist: it must not matter.
    child.start({PUBLISHD, "--config", path, "--runtime-dir", dir_.path() + "/run", "--state-dir",
                 dir_.path() + "/state", "--nats", "nats://127.0.0.1:1", "--shards", "2"},
                dir_.path() + "/publishd.log");
  }
  std::string ring(std::uint32_t shard) {
    std::filesystem::create_directories(dir_.path() + "/run");
    return fmt::format("{}/run/ring-{}", dir_.path(), shard);
  }
  [[nodiscard]] std::string log() const { return text_of_file(dir_.path() + "/publishd.log"); }
  [[nodiscard]] bool logged(const std::string& what) const { return log().find(what) != std::string::npos; }
  [[nodiscard]] std::string journal() const { return dir_.path() + "/state/journal"; }
  [[nodiscard]] std::uint64_t metric(PublishMetric m) const {
    auto page = StatsReader::open(dir_.path() + "/run/publishd.stats");
    return page ? page->value(static_cast<std::size_t>(m)) : 0;
  }
  // False when the ring stays full.
  bool feed(
      RingFeed& f, std::uint64_t updates, const std::function<void()>& meanwhile = [] {},
      std::chrono::milliseconds limit = 60s) {
    std::minstd_rand random(7);
    const std::uint64_t end = f.written() + updates;
    while (f.written() < end) {
      meanwhile();
      const auto subject = static_cast<std::uint32_t>(random() % 40);
      const auto count = static_cast<std::uint32_t>(1 + random() % 60);
      if (!wait_until(
              [&] {
                meanwhile();
                return f.write(subject, count);
              },
              limit))
        return false;
    }
    return true;
  }
  void expect_all(const std::vector<RingFeed*>& feeds) {
    const JournalCheck c = read_journal(journal());
    EXPECT_EQ(c.damaged, 0U);
    EXPECT_EQ(c.wrong, 0U);
    EXPECT_EQ(c.order_breaks, 0U);
    for (RingFeed* f : feeds) {
      const auto it = c.sequences.find(f->id());
      const std::vector<std::uint64_t> seen =
          it == c.sequences.end() ? std::vector<std::uint64_t>{} : it->second;
      ASSERT_EQ(seen.size(), f->written());
      for (std::size_t i = 0; i < seen.size(); ++i) ASSERT_EQ(seen[i], i + 1);
    }
    if (HasFailure()) std::fprintf(stderr, "%s\n", log().c_str());
  }

  TempDir dir_;
  Child publishd_;
  std::string toml_ = "[journal]\nsegment_bytes = 8388608\n";
};

TEST_F(JournalSinkProcess, KeepsEveryRecordOnceThroughKills) {
  RingFeed a(ring(0), 0);
  RingFeed b(ring(1), 1);
  start();
  int kills = 0;
  std::minstd_rand random(3);
  auto next = std::chrono::steady_clock::now() + 60ms;
  const auto killer = [&] {
    if (kills >= 12 || std::chrono::steady_clock::now() < next) return;
    publishd_.kill(SIGKILL);
    ++kills;
    start();
    next = std::chrono::steady_clock::now() + std::chrono::milliseconds(30 + random() % 150);
  };
  while (kills < 12) {
    ASSERT_TRUE(feed(a, 4000, killer)) << log();
    ASSERT_TRUE(feed(b, 1000, killer)) << log();
    ASSERT_TRUE(a.write_event(3) || kills > 0);
  }
  ASSERT_TRUE(wait_until([&] { return a.drained() && b.drained(); })) << log();
  expect_all({&a, &b});  // beside the running publishd
  const int status = publishd_.kill(SIGTERM);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << log();
  expect_all({&a, &b});
  EXPECT_EQ(read_journal(journal()).events, a.events_written());
}

TEST_F(JournalSinkProcess, CountsWhatIsDurableAndSaysSo) {
  RingFeed a(ring(0), 0);
  start();
  ASSERT_TRUE(feed(a, 5000)) << log();
  ASSERT_TRUE(wait_until([&] { return metric(PublishMetric::UpdatesAcked) == a.written(); }))
      << metric(PublishMetric::UpdatesAcked) << " of " << a.written();
  EXPECT_EQ(metric(PublishMetric::UpdatesRead), a.written());
  EXPECT_GT(metric(PublishMetric::JournalBytes), 0U);
  EXPECT_GE(metric(PublishMetric::JournalSegments), 1U);
  EXPECT_EQ(metric(PublishMetric::Trouble), 0U);
  auto page = StatsReader::open(dir_.path() + "/run/publishd.stats");
  ASSERT_TRUE(page);
  EXPECT_TRUE(wait_until([&] { return page->state() == shm::ProcessState::Running; }));
  EXPECT_FALSE(logged("NATS not reachable")) << log();
}

TEST_F(JournalSinkProcess, FullMeansThatTheRingsWaitAndNothingIsLost) {
  toml_ = "[journal]\nsegment_bytes = 8388608\nmax_bytes = 16777216\n";
  RingFeed a(ring(0), 0);
  start();
  std::uint64_t steps = 0;
  while (feed(
      a, 20'000, [] {}, 500ms))
    ASSERT_LT(++steps, 200U) << "never full";
  EXPECT_TRUE(wait_until([&] { return metric(PublishMetric::Trouble) == number(ErrorCode::JournalFull); }))
      << log();
  auto page = StatsReader::open(dir_.path() + "/run/publishd.stats");
  ASSERT_TRUE(page);
  EXPECT_TRUE(wait_until([&] { return page->state() == shm::ProcessState::Degraded; }));
  EXPECT_TRUE(wait_until([&] { return logged("journal is full (601)"); })) << log();
  EXPECT_TRUE(wait_until([&] { return logged("journal.max_bytes is 16777216"); })) << log();
  // The operator raises the limit.
  publishd_.kill(SIGTERM);
  toml_ = "[journal]\nsegment_bytes = 8388608\nmax_bytes = 67108864\n";
  start();
  ASSERT_TRUE(feed(a, 5000)) << log();
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  expect_all({&a});
}

TEST_F(JournalSinkProcess, DiscardsItsOldestWhereThatWasChosen) {
  toml_ = "[journal]\nsegment_bytes = 8388608\nmax_bytes = 16777216\nwhen_full = \"discard-old\"\n";
  RingFeed a(ring(0), 0);
  start();
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(feed(a, 20'000)) << log();
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  EXPECT_TRUE(wait_until([&] { return logged("the oldest segment was discarded"); })) << log();
  const JournalCheck c = read_journal(journal());
  EXPECT_EQ(c.damaged, 0U);
  const auto& seen = c.sequences.at(a.id());
  EXPECT_GT(seen.front(), 1U);
  EXPECT_EQ(seen.back(), a.written());
  for (std::size_t i = 1; i < seen.size(); ++i) ASSERT_EQ(seen[i], seen[i - 1] + 1);
  std::uint64_t bytes = 0;
  for (const auto& e : std::filesystem::recursive_directory_iterator(journal()))
    if (e.is_regular_file()) bytes += e.file_size();
  EXPECT_LE(bytes, 16777216U + 65536U);
}

TEST_F(JournalSinkProcess, ACorruptRingIsGivenUpAndTheOtherGoesOn) {
  RingFeed a(ring(0), 0);
  RingFeed b(ring(1), 1);
  ASSERT_TRUE(feed(a, 300));
  {
    // The second record's kind.
    const Fd fd(::open(ring(0).c_str(), O_RDWR));
    shm::RecordHeader h;
    ASSERT_EQ(::pread(fd.get(), &h, sizeof h, static_cast<off_t>(shm::kRingDataOffsetBytes)),
              static_cast<ssize_t>(sizeof h));
    const char bad = 99;
    ASSERT_EQ(::pwrite(fd.get(), &bad, 1, static_cast<off_t>(shm::kRingDataOffsetBytes + h.size_bytes + 4)),
              1);
  }
  start();
  ASSERT_TRUE(wait_until([&] { return metric(PublishMetric::RingsCorrupt) == 1; })) << log();
  EXPECT_TRUE(wait_until([&] { return logged("this ring is given up"); })) << log();
  ASSERT_TRUE(feed(b, 3000)) << log();
  ASSERT_TRUE(wait_until([&] { return b.drained(); })) << log();
  const JournalCheck c = read_journal(journal());
  EXPECT_EQ(c.sequences.at(b.id()).size(), b.written());
  EXPECT_GE(c.sequences.at(a.id()).size(), 1U);  // the record before it
}

TEST_F(JournalSinkProcess, AReplacedRingIsDrainedBeforeItsSuccessor) {
  auto old = std::make_unique<RingFeed>(ring(0), 0);
  ASSERT_TRUE(feed(*old, 500));
  old->close();
  RingFeed now(ring(0), 0, 2U << 20);
  ASSERT_TRUE(feed(now, 500));
  start();
  ASSERT_TRUE(wait_until([&] { return now.drained(); })) << log();
  expect_all({old.get(), &now});
  EXPECT_TRUE(wait_until([&] { return RingFile::moved_aside(ring(0)).empty(); })) << log();
}

TEST_F(JournalSinkProcess, ASecondPublishdWaitsForTheFirstToGo) {
  RingFeed a(ring(0), 0);
  start();
  ASSERT_TRUE(feed(a, 1000)) << log();
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  Child second;
  start(second);
  ASSERT_TRUE(wait_until([&] { return logged("another publishd (pid"); })) << log();
  ASSERT_TRUE(feed(a, 1000)) << log();
  publishd_.kill(SIGKILL);
  ASSERT_TRUE(feed(a, 1000)) << log();
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  expect_all({&a});
}

}  // namespace
}  // namespace arancini::publishd::test
