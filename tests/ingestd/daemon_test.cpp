// The binary itself: argv[1] is its path. Sockets in, ring out.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/reuseport.h"
#include "common/metrics/stats_file.h"
#include "common/ring/ring_reader.h"
#include "common/schema/update_decode.h"
#include "tests/ingestd/bmp_builder.h"

namespace arancini::ingestd {
namespace {

std::string binary;

using testing::Buffer;

void append(Buffer& to, const Buffer& more) {
  to.insert(to.end(), more.begin(), more.end());
}

template <class Condition>
[[nodiscard]] bool wait_until(Condition&& condition, int seconds = 15) {
  const std::uint64_t deadline =
      clock_ns(CLOCK_MONOTONIC) + static_cast<std::uint64_t>(seconds) * 1'000'000'000U;
  while (!condition()) {
    if (clock_ns(CLOCK_MONOTONIC) > deadline) return false;
    ::poll(nullptr, 0, 2);
  }
  return true;
}

// One ingestd; its standard error goes to a file.
class Daemon {
 public:
  Daemon() = default;
  Daemon(
      const std::string& log_path, std::vector<std::string> arguments,
      const std::function<void()>& in_child = [] {})
      : log_path_(log_path) {
    arguments.insert(arguments.begin(), binary);
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int log = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(log, 2);
    in_child();
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (std::string& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    ::execv(binary.c_str(), argv.data());
    ::_exit(127);
  }
  Daemon(Daemon&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), log_path_(std::move(other.log_path_)) {}
  Daemon& operator=(Daemon&& other) noexcept {
    if (this == &other) return *this;
    kill();
    pid_ = std::exchange(other.pid_, 0);
    log_path_ = std::move(other.log_path_);
    return *this;
  }
  ~Daemon() { kill(); }

  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, 0), nullptr, 0);
  }
  // Exit code, 128 + signal, or -1 when it does not end.
  int wait() {
    int status = 0;
    if (!wait_until([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; })) return -1;
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  int terminate() {
    ::kill(pid_, SIGTERM);
    return wait();
  }
  [[nodiscard]] std::string log() const {
    std::string text;
    if (std::FILE* f = std::fopen(log_path_.c_str(), "re")) {
      char buffer[4096];
      for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, f)) > 0;) text.append(buffer, n);
      std::fclose(f);
    }
    return text;
  }
  // Waits for the line with the address and returns the port, 0 if it does not come.
  [[nodiscard]] std::uint16_t port() const {
    std::uint16_t found = 0;
    (void)wait_until([&] {
      const std::string text = log();
      const auto at = text.find(" listens on 127.0.0.1:");
      if (at == std::string::npos) return false;
      found = static_cast<std::uint16_t>(std::atoi(text.c_str() + at + 22));
      return true;
    });
    return found;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
  std::string log_path_;
};

Fd connect_from(std::uint32_t source, std::uint16_t port) {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(source);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  a.sin_port = htons(port);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  return fd;
}

bool send_all(int fd, const Buffer& bytes) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t n = ::send(fd, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (n <= 0) return false;
    at += static_cast<std::size_t>(n);
  }
  return true;
}

bool closed_by_peer(int fd) {
  pollfd p{fd, POLLIN, 0};
  char byte = 0;
  return ::poll(&p, 1, 10'000) == 1 && ::recv(fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

const testing::PeerSpec kPeer{.address = testing::ip("10.1.1.1"), .asn = 65001};

// A router's session: Initiation, Peer Up, then `prefixes` routes from `first` on.
Buffer routes(std::uint32_t first, std::uint32_t count) {
  Buffer out;
  for (std::uint32_t i = first; i < first + count; ++i) {
    append(out, testing::route_monitoring(
                    kPeer, testing::UpdateBuilder()
                               .basics({65001, i}, testing::ip("10.1.1.1"))
                               .announce(testing::Nlri(IpAddress::from_v4(0x14000000U + (i << 8)), 24))));
  }
  return out;
}
Buffer greeting() {
  Buffer out = testing::initiation("r1", "test");
  append(out, testing::peer_up(kPeer));
  return out;
}

// Reads a ring as publishd would and keeps what every router told.
class Consumer {
 public:
  explicit Consumer(const std::string& path) : path_(path) {}
  bool attach() {
    auto file = RingFile::attach(path_, RingSide::Reader);
    if (!file) return false;
    reader_ = std::make_unique<RingReader>(std::move(file).value());
    return true;
  }
  void drain() {
    if (!reader_ && !attach()) return;
    RingRecord record;
    while (reader_->next(record) == RingReader::Status::Record) {
      if (record.header.kind != static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch)) continue;
      const auto problem = schema::decode_payload(schema::PayloadFormat::BatchV2, record.payload,
                                                  [&](const schema::DecodedUpdate& u) {
                                                    EXPECT_EQ(u.sequence, next_sequence_++);
                                                    if (u.announced) told_[u.router].insert(u.prefix_address);
                                                  });
      EXPECT_FALSE(problem.has_value()) << *problem;
    }
    reader_->release(reader_->cursor());
  }
  std::size_t told(std::uint32_t router) {
    drain();
    return told_[IpAddress::from_v4(router)].size();
  }
  std::size_t routers() { return told_.size(); }

 private:
  std::string path_;
  std::unique_ptr<RingReader> reader_;
  std::uint64_t next_sequence_ = 1;
  std::map<IpAddress, std::set<IpAddress>> told_;
};

class IngestdTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (::access(binary.c_str(), X_OK) != 0) GTEST_SKIP() << "no ingestd binary";
    char name[] = "/tmp/arancini-ingestd-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory = name;
    config.paths.runtime_dir = directory;
    write_config("");
  }
  void TearDown() override { std::filesystem::remove_all(directory); }

  void write_config(const std::string& more) const {
    std::FILE* f = std::fopen((directory + "/arancini.toml").c_str(), "we");
    ASSERT_NE(f, nullptr);
    std::fprintf(f, "[ring]\nsize_bytes = %u\nhugepages = \"never\"\n[shards]\npin = false\n%s", 16U << 20,
                 more.c_str());
    std::fclose(f);
  }
  std::vector<std::string> arguments(std::uint32_t shard, std::uint32_t shards,
                                     const std::string& listen) const {
    return {"--no-restore",
            "--shard",
            std::to_string(shard),
            "--shards",
            std::to_string(shards),
            "--config",
            directory + "/arancini.toml",
            "--runtime-dir",
            directory,
            "--bmp-listen",
            listen,
            "--io",
            GetParam()};
  }
  Daemon start(std::uint32_t shard = 0, std::uint32_t shards = 1, const std::string& listen = "127.0.0.1:0") {
    return {directory + "/log-" + std::to_string(logs_++), arguments(shard, shards, listen)};
  }
  std::optional<StatsReader> stats(std::uint32_t shard) const {
    auto page = StatsReader::open(config.ingestd_stats_path(shard));
    if (!page) return std::nullopt;
    return std::move(page).value();
  }
  std::uint64_t metric(std::uint32_t shard, IngestMetric m) const {
    const auto page = stats(shard);
    return page ? page->value(static_cast<std::size_t>(m)) : 0;
  }

  std::string directory;
  Config config;
  int logs_ = 0;
};

TEST_P(IngestdTest, WhatRoutersSayReachesTheRingAndBadInputDisturbsNobody) {
  Daemon daemon = start();
  const std::uint16_t port = daemon.port();
  ASSERT_NE(port, 0) << daemon.log();
  EXPECT_NE(daemon.log().find(std::string(GetParam()) == "uring" ? "io_uring" : "epoll"), std::string::npos);
  const std::uint32_t good = 0x7f000101;
  const Fd session = connect_from(good, port);
  Buffer hello = greeting();
  append(hello, routes(0, 500));
  ASSERT_TRUE(send_all(session.get(), hello));
  Consumer consumer(config.ring_path(0));
  ASSERT_TRUE(wait_until([&] { return consumer.told(good) == 500; })) << daemon.log();

  const auto start_of = [] {
    Buffer b = greeting();
    append(b, routes(0, 3));
    return b;
  };
  std::mt19937 random(1);
  Buffer bad_version = start_of();
  const std::size_t bad_at = bad_version.size();
  append(bad_version, Buffer(100, std::byte{9}));
  Buffer oversized = start_of();
  append(oversized, testing::ByteWriter().u8(3).u32(0x7fffffff).u8(0).take());
  Buffer noise(3000);
  for (auto& b : noise) b = static_cast<std::byte>(random());
  noise[0] = std::byte{0x80};
  Buffer truncated = start_of();
  const Buffer one = routes(7, 1);
  truncated.insert(truncated.end(), one.begin(), one.end() - 5);

  const std::uint32_t base = 0x7f000200;
  std::uint32_t last = 0;
  for (const Buffer& bytes : {bad_version, oversized, noise, truncated}) {
    Fd s = connect_from(base + ++last, port);
    (void)send_all(s.get(), bytes);
    if (last < 4) {
      EXPECT_TRUE(closed_by_peer(s.get())) << last;
    }
    s.reset();
  }
  ASSERT_TRUE(wait_until([&] { return metric(0, IngestMetric::SessionsClosed) == 4; }));
  EXPECT_EQ(metric(0, IngestMetric::SessionsOpen), 1U);
  EXPECT_TRUE(wait_until([&] { return consumer.told(base + 4) == 3; }));  // published at the end of the round
  EXPECT_EQ(consumer.told(base + 1), 3U);
  EXPECT_EQ(consumer.told(base + 2), 3U);
  EXPECT_EQ(consumer.told(base + 3), 0U);

  std::map<std::string, StatsReader::Router> rows;
  ASSERT_TRUE(wait_until([&] {  // rows are written once a round
    rows.clear();
    for (auto& r : stats(0)->routers()) rows[r.address] = r;
    return rows.size() == 5 && rows["127.0.2.4"].last_error != 0;
  }));
  EXPECT_EQ(rows["127.0.2.1"].last_error, number(ErrorCode::BmpBadVersion));
  EXPECT_NE(rows["127.0.2.1"].last_error_text.find("byte " + std::to_string(bad_at)), std::string::npos)
      << rows["127.0.2.1"].last_error_text;
  EXPECT_EQ(rows["127.0.2.2"].last_error, number(ErrorCode::BmpTooLong));
  EXPECT_EQ(rows["127.0.2.3"].last_error, number(ErrorCode::BmpBadVersion));
  EXPECT_EQ(rows["127.0.2.4"].last_error, number(ErrorCode::BmpTruncated));
  EXPECT_EQ(rows["127.0.1.1"].last_error, 0U);
  EXPECT_EQ(rows["127.0.1.1"].sys_name, "r1");
  EXPECT_EQ(metric(0, IngestMetric::MessagesMalformed), 4U);

  ASSERT_TRUE(send_all(session.get(), routes(500, 500)));
  EXPECT_TRUE(wait_until([&] { return consumer.told(good) == 1000; }));
  EXPECT_EQ(daemon.terminate(), 0) << daemon.log();
  EXPECT_TRUE(closed_by_peer(session.get()));
  EXPECT_EQ(stats(0)->state(), shm::ProcessState::Stopped);
}

TEST_P(IngestdTest, AFullRingThrottlesAndLosesNothing) {
  Daemon daemon = start();
  const std::uint16_t port = daemon.port();
  ASSERT_NE(port, 0) << daemon.log();
  const std::uint32_t a = 0x7f000301;
  const std::uint32_t b = 0x7f000302;
  constexpr std::uint32_t kRoutes = 60'000;  // far more than 16 MiB hold
  Buffer all = greeting();
  append(all, routes(0, kRoutes));
  std::vector<std::thread> senders;
  std::vector<Fd> sessions;
  for (const std::uint32_t source : {a, b}) sessions.push_back(connect_from(source, port));
  senders.reserve(sessions.size());
  for (const Fd& s : sessions) senders.emplace_back([&all, fd = s.get()] { EXPECT_TRUE(send_all(fd, all)); });
  EXPECT_TRUE(wait_until([&] { return metric(0, IngestMetric::SessionsThrottled) == 2; })) << daemon.log();
  Consumer consumer(config.ring_path(0));
  EXPECT_TRUE(wait_until([&] { return consumer.told(a) == kRoutes && consumer.told(b) == kRoutes; }, 30))
      << consumer.told(a) << " " << consumer.told(b) << daemon.log();
  for (auto& t : senders) t.join();
  EXPECT_TRUE(wait_until([&] { return metric(0, IngestMetric::SessionsThrottled) == 0; }));
  EXPECT_GT(metric(0, IngestMetric::RingFullEvents), 0U);
  EXPECT_EQ(daemon.terminate(), 0);
}

TEST_P(IngestdTest, AfterAKillTheRingGoesOnWhereItWas) {
  Consumer consumer(config.ring_path(0));
  const std::uint32_t router = 0x7f000401;
  std::size_t expected = 0;
  for (std::uint32_t round = 0; round < 3; ++round) {
    Daemon daemon = start();
    const std::uint16_t port = daemon.port();
    ASSERT_NE(port, 0) << daemon.log();
    const Fd session = connect_from(router, port);
    Buffer hello = greeting();
    append(hello, routes(round * 100, 100));
    ASSERT_TRUE(send_all(session.get(), hello));
    expected += 100;
    ASSERT_TRUE(wait_until([&] { return consumer.told(router) == expected; })) << daemon.log();
    if (round == 0) {  // while it lives nobody else becomes this shard
      Daemon second = start();
      EXPECT_EQ(second.wait(), EX_TEMPFAIL);
      EXPECT_NE(second.log().find("process " + std::to_string(daemon.pid())), std::string::npos)
          << second.log();
      EXPECT_EQ(stats(0)->pid(), static_cast<std::uint32_t>(daemon.pid()));
    }
    daemon.kill();
  }
}

TEST_P(IngestdTest, ServesAnInheritedListenerAndWhatWaitsInIt) {
  for (const bool systemd : {false, true}) {
    auto listener = make_bmp_listener({"127.0.0.1", 0}, 16, 0);
    ASSERT_TRUE(listener.ok());
    sockaddr_in address{};
    socklen_t n = sizeof address;
    ::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&address), &n);
    const std::uint32_t router = systemd ? 0x7f000502 : 0x7f000501;
    const Fd session = connect_from(router, ntohs(address.sin_port));  // before there is a process
    Buffer hello = greeting();
    append(hello, routes(0, 10));
    ASSERT_TRUE(send_all(session.get(), hello));
    auto args = arguments(0, 1, "127.0.0.1:1");  // not used
    if (!systemd) args.insert(args.end(), {"--listen-fd", "3"});
    const int inherited = listener->get();
    Daemon daemon(directory + "/log-listen", args, [&] {
      if (inherited == 3) {
        ::fcntl(3, F_SETFD, 0);
      } else {
        ::dup2(inherited, 3);
      }
      if (systemd) {
        ::setenv("LISTEN_FDS", "1", 1);
        ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
      }
    });
    Consumer consumer(config.ring_path(0));
    ASSERT_TRUE(wait_until([&] { return consumer.told(router) == 10; })) << daemon.log();
    EXPECT_EQ(daemon.terminate(), 0);
    // The listener is not ours to close: routers wait in it for the next process.
    const Fd next = connect_from(router, ntohs(address.sin_port));
    EXPECT_TRUE(next.valid());
    std::filesystem::remove(config.ring_path(0));
  }
}

TEST_P(IngestdTest, EveryRouterIsServedByItsOwner) {
  auto free_port = make_bmp_listener({"127.0.0.1", 0}, 1, 0);
  ASSERT_TRUE(free_port.ok());
  sockaddr_in address{};
  socklen_t n = sizeof address;
  ::getsockname(free_port->get(), reinterpret_cast<sockaddr*>(&address), &n);
  const std::uint16_t port = ntohs(address.sin_port);
  free_port->reset();
  const std::string listen = "127.0.0.1:" + std::to_string(port);
  // In this order the kernel's choice is wrong for every router: all of them are passed on.
  std::vector<Daemon> daemons;
  daemons.push_back(start(1, 2, listen));
  ASSERT_EQ(daemons[0].port(), port) << daemons[0].log();
  daemons.push_back(start(0, 2, listen));
  ASSERT_EQ(daemons[1].port(), port) << daemons[1].log();
  std::vector<Fd> sessions;
  std::array<std::set<std::uint32_t>, 2> expected;
  for (std::uint32_t i = 0; i < 60; ++i) {
    const std::uint32_t source = 0x7f000600U + i * 257;
    expected[raw(owner_of(IpAddress::from_v4(source), 2))].insert(source);
    sessions.push_back(connect_from(source, port));
    Buffer hello = greeting();
    append(hello, routes(0, 5));
    ASSERT_TRUE(send_all(sessions.back().get(), hello));
  }
  for (std::uint32_t shard = 0; shard < 2; ++shard) {
    ASSERT_FALSE(expected[shard].empty());
    Consumer consumer(config.ring_path(shard));
    EXPECT_TRUE(wait_until([&] {
      return std::all_of(expected[shard].begin(), expected[shard].end(),
                         [&](std::uint32_t source) { return consumer.told(source) == 5; });
    })) << daemons[0].log()
        << daemons[1].log();
    EXPECT_EQ(consumer.routers(), expected[shard].size());
  }
  EXPECT_TRUE(wait_until([&] {
    return metric(0, IngestMetric::SessionsHandedOver) + metric(1, IngestMetric::SessionsHandedOver) == 60;
  }));
  EXPECT_EQ(metric(0, IngestMetric::HandoversFailed) + metric(1, IngestMetric::HandoversFailed), 0U);
  EXPECT_EQ(daemons[0].terminate(), 0);
  EXPECT_EQ(daemons[1].terminate(), 0);
}

TEST_P(IngestdTest, IdleCostsNothing) {
  Daemon daemon = start();
  ASSERT_NE(daemon.port(), 0) << daemon.log();
  const auto iterations = [&] { return metric(0, IngestMetric::LoopIterations); };
  const std::uint64_t before = iterations();
  const std::uint64_t heartbeat = stats(0)->heartbeat_boottime_ns();
  ASSERT_TRUE(wait_until([&] { return stats(0)->heartbeat_boottime_ns() > heartbeat + 900'000'000U; }));
  EXPECT_LT(iterations() - before, 30U);
}

TEST_P(IngestdTest, RefusesAWrongConfigurationByName) {
  write_config("[bmp]\nbogus = 1\n");
  Daemon daemon = start();
  EXPECT_EQ(daemon.wait(), EX_CONFIG);
  const std::string text = daemon.log();
  EXPECT_NE(text.find("arancini.toml:"), std::string::npos) << text;
  EXPECT_NE(text.find("bogus"), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
}

INSTANTIATE_TEST_SUITE_P(Backends, IngestdTest, ::testing::Values("uring", "epoll"),
                         [](const auto& which) { return std::string(which.param); });

}  // namespace
}  // namespace arancini::ingestd

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc < 2) return 2;
  arancini::ingestd::binary = argv[1];
  return RUN_ALL_TESTS();
}
