#include <fmt/format.h>

#include "common/base/error.h"
#include "common/metrics/stats_file.h"
#include "tests/publishd/harness.h"

// publishd as a process against a real nats-server; the test is the ingestd.
namespace arancini::publishd::test {
namespace {

class Publishd : public testing::Test {
 protected:
  void start(const std::string& format = "update-v1-concat") { start(publishd_, format); }
  void start(Child& child, const std::string& format = "update-v1-concat") {
    child.start({PUBLISHD, "--config", config(), "--runtime-dir", dir_.path() + "/run", "--state-dir",
                 dir_.path() + "/state", "--nats", nats_.url(), "--shards", std::to_string(shards_),
                 "--format", format},
                dir_.path() + "/publishd.log");
  }
  std::string config() {
    std::string path = dir_.path() + "/arancini.toml";
    std::FILE* f = std::fopen(path.c_str(), "we");
    std::fputs(toml_.c_str(), f);
    std::fclose(f);
    return path;
  }
  std::string ring(std::uint32_t shard) {
    std::filesystem::create_directories(dir_.path() + "/run");
    return fmt::format("{}/run/ring-{}", dir_.path(), shard);
  }
  [[nodiscard]] std::string log() const { return text_of_file(dir_.path() + "/publishd.log"); }
  [[nodiscard]] bool logged(const std::string& what) const { return log().find(what) != std::string::npos; }

  void expect_all(const std::vector<RingFeed*>& feeds) {
    const StreamCheck c = read_stream(nats_.url());
    std::uint64_t written = 0;
    for (RingFeed* f : feeds) {
      written += f->written();
      EXPECT_EQ(c.gaps(f->id(), f->written()), 0U);
    }
    EXPECT_EQ(c.updates, written);
    EXPECT_EQ(c.repeats, 0U);
    EXPECT_EQ(c.disorder, 0U);
    EXPECT_EQ(c.wrong, 0U);
    if (HasFailure()) std::fprintf(stderr, "%s\n", log().c_str());
  }
  // Writes until `updates` are written, with back-pressure, and calls `meanwhile` at each step.
  void feed(
      RingFeed& f, std::uint64_t updates, const std::function<void()>& meanwhile = [] {}) {
    std::minstd_rand random(7);
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    const std::uint64_t end = f.written() + updates;
    while (f.written() < end) {
      meanwhile();
      const auto subject = static_cast<std::uint32_t>(random() % 40);
      const auto count = static_cast<std::uint32_t>(1 + random() % 60);
      while (!f.write(subject, count)) {
        meanwhile();
        std::this_thread::sleep_for(1ms);  // the ring is full
        if (std::chrono::steady_clock::now() > deadline) {
          FAIL() << "ring stays full at " << f.written() << "\n" << log();
        }
      }
    }
  }

  TempDir dir_;
  NatsServer nats_{dir_.path()};
  Child publishd_;
  std::uint32_t shards_ = 1;
  std::string toml_;
};

TEST_F(Publishd, PublishesWhatTheRingsHoldInAllFormats) {
  nats_.start();
  shards_ = 2;
  RingFeed a(ring(0), 0);
  RingFeed b(ring(1), 1);
  for (const char* format : {"update-v1-concat", "batch-v2", "update-v1"}) {
    start(format);
    feed(a, 3000);
    feed(b, 1000);
    ASSERT_TRUE(wait_until([&] { return a.drained() && b.drained(); })) << log();
    const int status = publishd_.kill(SIGTERM);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << log();
  }
  expect_all({&a, &b});
}

TEST_F(Publishd, WaitsForRingsAndBroker) {
  shards_ = 2;
  start();
  ASSERT_TRUE(wait_until([&] { return logged("NATS not reachable"); })) << log();
  RingFeed a(ring(0), 0);
  feed(a, 500);
  nats_.start();
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  RingFeed b(ring(1), 1);  // comes later
  feed(b, 500);
  ASSERT_TRUE(wait_until([&] { return b.drained(); })) << log();
  expect_all({&a, &b});
}

TEST_F(Publishd, TakesTheUrlFromTheEnvironmentAndKeepsThePasswordToItself) {
  const std::string address = nats_.url().substr(std::string("nats://").size());
  ASSERT_EQ(::setenv("ARANCINI_NATS", ("nats://operator:secret@" + address).c_str(), 1), 0);
  publishd_.start({PUBLISHD, "--config", config(), "--runtime-dir", dir_.path() + "/run", "--state-dir",
                   dir_.path() + "/state", "--shards", "1"},
                  dir_.path() + "/publishd.log");
  ASSERT_EQ(::unsetenv("ARANCINI_NATS"), 0);
  ASSERT_TRUE(wait_until([&] { return logged("NATS not reachable"); })) << log();
  nats_.start();
  ASSERT_TRUE(wait_until([&] { return logged("NATS connected: nats://operator:***@" + address); })) << log();
  EXPECT_FALSE(logged("secret")) << log();
}

TEST_F(Publishd, KilledInMidStream) {
  nats_.start();
  shards_ = 2;
  start();
  RingFeed a(ring(0), 0);
  RingFeed b(ring(1), 1);
  int kills = 0;
  std::minstd_rand random(11);
  auto next = std::chrono::steady_clock::now() + 60ms;
  const auto killer = [&] {
    if (kills >= 12 || std::chrono::steady_clock::now() < next) return;
    publishd_.kill(SIGKILL);
    ++kills;
    start(kills % 3 == 0 ? "batch-v2" : kills % 3 == 1 ? "update-v1" : "update-v1-concat");
    next = std::chrono::steady_clock::now() + std::chrono::milliseconds(20 + random() % 120);
  };
  while (kills < 12) {
    feed(a, 4000, killer);
    feed(b, 1000, killer);
    if (HasFatalFailure()) return;
  }
  ASSERT_TRUE(wait_until([&] { return a.drained() && b.drained(); })) << log();
  expect_all({&a, &b});
}

TEST_F(Publishd, EventsOnceThoughItIsKilled) {
  nats_.start();
  RingFeed a(ring(0), 0);
  std::uint32_t n = 0;
  for (int life = 0; life < 6; ++life) {
    start();
    feed(a, 5000, [&] {
      if (++n % 5 == 0) a.write_event(n);
    });
    if (life == 5) break;
    publishd_.kill(SIGKILL);
  }
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  const std::vector<std::uint64_t> events = read_events(nats_.url());
  EXPECT_GT(events.size(), 100U);
  EXPECT_EQ(events.size(), a.events_written());
  EXPECT_EQ(std::set<std::uint64_t>(events.begin(), events.end()).size(), events.size());
  expect_all({&a});
}

TEST_F(Publishd, BrokerKilledInMidStream) {
  nats_.start();
  start();
  RingFeed a(ring(0), 0);
  int kills = 0;
  auto next = std::chrono::steady_clock::now() + 100ms;
  while (kills < 4) {
    feed(a, 5000, [&] {
      if (kills >= 4 || std::chrono::steady_clock::now() < next) return;
      nats_.child().kill(kills % 2 == 0 ? SIGKILL : SIGTERM);
      nats_.start();
      ++kills;
      next = std::chrono::steady_clock::now() + 300ms;
    });
    if (HasFatalFailure()) return;
  }
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  expect_all({&a});
}

TEST_F(Publishd, FrozenBrokerIsNoticedByTheAckTimeout) {
  toml_ = "[nats]\nack_timeout_s = 0.5\n";
  nats_.start();
  start();
  RingFeed a(ring(0), 0);
  feed(a, 2000);
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  nats_.child().freeze();
  feed(a, 1000);
  EXPECT_TRUE(wait_until([&] { return logged("no ack in time"); })) << log();
  nats_.child().signal(SIGCONT);
  feed(a, 1000);
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  expect_all({&a});
}

TEST_F(Publishd, SecondOneWaitsAndTakesOver) {
  nats_.start();
  start();
  RingFeed a(ring(0), 0);
  feed(a, 2000);
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  Child second;
  start(second);
  ASSERT_TRUE(wait_until([&] { return logged("another publishd"); })) << log();
  feed(a, 2000);
  publishd_.kill(SIGKILL);
  feed(a, 2000);
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  EXPECT_TRUE(second.alive());
  expect_all({&a});
}

// Streams of the operator's own making.
class PublishdStream : public Publishd {
 protected:
  void SetUp() override {
    nats_.start();
    ASSERT_EQ(natsConnection_ConnectTo(&nc_, nats_.url().c_str()), NATS_OK);
    ASSERT_EQ(natsConnection_JetStream(&js_, nc_, nullptr), NATS_OK);
    jsStreamConfig_Init(&config_);
    config_.Name = "ARANCINI_UPDATES";
    config_.Subjects = subjects_;
    config_.SubjectsLen = 1;
  }
  void TearDown() override {
    jsCtx_Destroy(js_);
    natsConnection_Destroy(nc_);
  }
  void create() { ASSERT_EQ(js_AddStream(nullptr, js_, &config_, nullptr, nullptr), NATS_OK); }
  // One clear line, the ring fills, and once the operator has acted everything is there.
  void expect_refused(const std::string& why) {
    create();
    start();
    RingFeed a(ring(0), 0);
    feed(a, 300);
    ASSERT_TRUE(wait_until([&] { return logged(why); })) << log();
    EXPECT_TRUE(publishd_.alive());
    EXPECT_FALSE(a.drained());
    EXPECT_EQ(log().find(why), log().rfind(why)) << "said more than once";
    EXPECT_TRUE(wait_until([&] { return trouble() == ErrorCode::StreamUnusable; }));
    ASSERT_EQ(js_DeleteStream(js_, "ARANCINI_UPDATES", nullptr, nullptr), NATS_OK);
    ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
    EXPECT_TRUE(wait_until([&] { return trouble() == ErrorCode::None; }));
    expect_all({&a});
  }
  // As the stats page tells it.
  ErrorCode trouble() {
    const auto page = StatsReader::open(dir_.path() + "/run/publishd.stats");
    return page ? static_cast<ErrorCode>(page->value(static_cast<std::size_t>(PublishMetric::Trouble)))
                : ErrorCode::None;
  }
  natsConnection* nc_ = nullptr;
  jsCtx* js_ = nullptr;
  jsStreamConfig config_{};
  const char* subjects_[1] = {"arancini.updates.>"};
};

TEST_F(PublishdStream, OtherSubjectsAreRefused) {
  subjects_[0] = "arancini.updates.v4_10_0_0_1.>";
  expect_refused("its subjects do not cover arancini.updates.>");
}
TEST_F(PublishdStream, WithoutAcksIsRefused) {
  config_.NoAck = true;
  expect_refused("no_ack");
}
TEST_F(PublishdStream, WorkQueueIsRefused) {
  config_.Retention = js_WorkQueuePolicy;
  expect_refused("retention is not 'limits'");
}
TEST_F(PublishdStream, MemoryIsRefused) {
  config_.Storage = js_MemoryStorage;
  expect_refused("its storage is memory");
}
TEST_F(PublishdStream, LastPerSubjectIsRefused) {
  config_.MaxMsgsPerSubject = 1;
  expect_refused("max_msgs_per_subject");
}

TEST_F(PublishdStream, FullStreamHoldsBackAndLosesNothing) {
  config_.MaxMsgs = 3;
  config_.Discard = js_DiscardNew;
  create();
  start("update-v1");
  RingFeed a(ring(0), 0);
  feed(a, 200);
  ASSERT_TRUE(wait_until([&] { return logged("JetStream error 10077"); })) << log();
  config_.MaxMsgs = -1;
  ASSERT_EQ(js_UpdateStream(nullptr, js_, &config_, nullptr, nullptr), NATS_OK);
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  expect_all({&a});
}

TEST_F(PublishdStream, OneThatIsRightIsUsedAndNotChanged) {
  config_.MaxMsgs = 1'000'000;
  config_.Description = "mine";
  create();
  start();
  RingFeed a(ring(0), 0);
  feed(a, 500);
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  jsStreamInfo* info = nullptr;
  ASSERT_EQ(js_GetStreamInfo(&info, js_, "ARANCINI_UPDATES", nullptr, nullptr), NATS_OK);
  EXPECT_EQ(info->Config->MaxMsgs, 1'000'000);
  EXPECT_STREQ(info->Config->Description, "mine");
  jsStreamInfo_Destroy(info);
  expect_all({&a});
}

// Somebody else's message in our stream takes a sequence: everything behind it is refused, the tail is read,
// and all goes on.
TEST_F(PublishdStream, ForeignMessagesDoNoHarm) {
  start();
  RingFeed a(ring(0), 0);
  feed(a, 100);
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  int foreign = 0;
  feed(a, 20'000, [&] {
    if (a.written() / 1000 > static_cast<std::uint64_t>(foreign)) {
      js_Publish(nullptr, js_, "arancini.updates.x", "", 0, nullptr, nullptr);
      ++foreign;
    }
  });
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  EXPECT_TRUE(logged("stream does not end with the message before"));
  expect_all({&a});
}

TEST_F(Publishd, HelpVersionAndCheckConfig) {
  toml_ = "[publish]\nformat = \"carrier-pigeon\"\n";
  Child c;
  const std::string out = dir_.path() + "/out";
  c.start({PUBLISHD, "--check-config", "--config", config()}, out);
  EXPECT_EQ(WEXITSTATUS(c.wait()), 78);
  EXPECT_NE(text_of_file(out).find("publish.format"), std::string::npos) << text_of_file(out);
  for (const char* flag : {"--help", "--version"}) {
    c.start({PUBLISHD, flag}, out);
    EXPECT_EQ(WEXITSTATUS(c.wait()), 0);
  }
}

TEST_F(Publishd, CorruptRingIsGivenUpOthersGoOn) {
  nats_.start();
  shards_ = 2;
  RingFeed a(ring(0), 0);
  {
    RingFeed b(ring(1), 1);
    ASSERT_TRUE(b.write(0, 5));
    const int fd = ::open(ring(1).c_str(), O_RDWR | O_CLOEXEC);
    const std::uint32_t garbage = 0xfffffff1U;  // size of the first record
    ASSERT_EQ(::pwrite(fd, &garbage, sizeof garbage, shm::kRingDataOffsetBytes), 4);
    ::close(fd);
    start();
    feed(a, 500);
    ASSERT_TRUE(wait_until([&] { return a.drained() && logged("is corrupt"); })) << log();
  }
  feed(a, 500);
  ASSERT_TRUE(wait_until([&] { return a.drained(); })) << log();
  expect_all({&a});
}

TEST_F(Publishd, ReplacedRingIsDrainedBeforeItsSuccessor) {
  nats_.start();
  std::vector<std::unique_ptr<RingFeed>> feeds;
  start();
  for (const std::uint64_t capacity : {1U << 20, 1U << 21, 1U << 20}) {
    feeds.push_back(std::make_unique<RingFeed>(ring(0), 0, capacity));
    feed(*feeds.back(), 3000);
    feeds.back()->close();  // as if ingestd stopped; the next has another size
  }
  const auto files = [&] {
    std::size_t n = 0;
    for (const auto& e : std::filesystem::directory_iterator(dir_.path() + "/run")) {
      n += e.path().filename().string().starts_with("ring-0");
    }
    return n;
  };
  ASSERT_TRUE(wait_until([&] { return files() == 1; })) << log();
  ASSERT_TRUE(wait_until([&] { return read_stream(nats_.url()).updates >= 9000; })) << log();
  const StreamCheck c = read_stream(nats_.url());
  std::uint64_t written = 0;
  for (const auto& f : feeds) {
    written += f->written();
    EXPECT_EQ(c.gaps(f->id(), f->written()), 0U);
  }
  EXPECT_EQ(c.updates, written);
  EXPECT_EQ(c.repeats + c.disorder + c.wrong, 0U);
}

}  // namespace
}  // namespace arancini::publishd::test
