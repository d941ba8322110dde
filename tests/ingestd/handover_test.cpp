#include "ingestd/handover.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>

#include "common/base/reuseport.h"
#include "common/base/unix_socket.h"

namespace arancini::ingestd {
namespace {

struct Events : HandoverEvents {
  std::vector<Fd> received;
  int passed = 0;
  std::vector<std::string> failed;
  void on_session_received(Fd session) noexcept override { received.push_back(std::move(session)); }
  void on_session_passed(const IpAddress&, ShardId) noexcept override { ++passed; }
  void on_handover_failed(const IpAddress&, ShardId, const std::string& why) noexcept override {
    failed.push_back(why);
  }
};

class HandoverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/arancini-handover-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory = name;
    config.paths.runtime_dir = directory;
    config.shards.count = 2;
  }
  void TearDown() override { std::filesystem::remove_all(directory); }

  std::unique_ptr<Handover> open(std::uint32_t shard, Events& events, const Clock& on, int listener = -1) {
    Handover::Options options;
    options.shard = shard;
    auto h = Handover::open(config, options, listener, events, on);
    EXPECT_TRUE(h.ok()) << h.error();
    return h ? std::move(h).value() : nullptr;
  }
  static bool readable(int fd, int timeout_ms) {
    pollfd p{fd, POLLIN, 0};
    return ::poll(&p, 1, timeout_ms) == 1;
  }
  // A connected TCP pair.
  static std::pair<Fd, Fd> tcp_pair() {
    auto listener = make_bmp_listener({"127.0.0.1", 0}, 4, 0);
    sockaddr_in a{};
    socklen_t n = sizeof a;
    ::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&a), &n);
    Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    EXPECT_TRUE(readable(listener->get(), 5000));
    Fd server(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    EXPECT_TRUE(server.valid());
    return {std::move(client), std::move(server)};
  }

  std::string directory;
  Config config;
  SystemClock system;
  FakeClock fake;
  const IpAddress source = *IpAddress::parse("192.0.2.1");
};

TEST_F(HandoverTest, PassesAnUnreadSessionToAnotherProcess) {
  auto [client, server] = tcp_pair();
  ASSERT_EQ(::send(client.get(), "hello", 5, 0), 5);
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t owner = ::fork();
  if (owner == 0) {  // the owner: answers what the router said
    Events events;
    Handover::Options options;
    options.shard = 1;
    auto handover = Handover::open(config, options, -1, events, system);
    if (!handover || ::write(ready[1], "r", 1) != 1) ::_exit(1);
    for (int i = 0; i < 500 && events.received.empty(); ++i) {
      if (readable((*handover)->fd(), 10)) (*handover)->on_readable();
      (*handover)->do_work();
    }
    if (events.received.empty()) ::_exit(2);
    const int fd = events.received[0].get();
    char text[16] = {};
    if (!readable(fd, 5000) || ::recv(fd, text, sizeof text, 0) != 5) ::_exit(3);
    ::_exit(::send(fd, text, 5, 0) == 5 ? 0 : 4);
  }
  Events events;
  const auto handover = open(0, events, system);
  ASSERT_TRUE(readable(ready[0], 5000));
  handover->pass(ShardId{1}, std::move(server), source);
  for (int i = 0; i < 500 && events.passed == 0 && events.failed.empty(); ++i) {
    handover->do_work();
    ::poll(nullptr, 0, 5);
  }
  EXPECT_EQ(events.passed, 1);
  char text[16] = {};
  ASSERT_TRUE(readable(client.get(), 5000));
  EXPECT_EQ(::recv(client.get(), text, sizeof text, 0), 5);
  EXPECT_STREQ(text, "hello");
  int status = 0;
  ::waitpid(owner, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(::recv(client.get(), text, sizeof text, 0), 0);  // the owner ended, and no copy was left with us
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(HandoverTest, HoldsASessionUntilItsOwnerIsThere) {
  auto [client, server] = tcp_pair();
  Events events;
  Events owner_events;
  const auto handover = open(0, events, fake);
  handover->pass(ShardId{1}, std::move(server), source);
  EXPECT_EQ(handover->held(), 1U);
  for (int i = 0; i < 100; ++i) {
    fake.now_ns = handover->next_deadline_ns();
    handover->do_work();
  }
  EXPECT_EQ(handover->held(), 1U);
  EXPECT_TRUE(events.failed.empty());
  const auto owner = open(1, owner_events, fake);
  for (int i = 0; i < 4 && events.passed == 0; ++i) {
    fake.now_ns = handover->next_deadline_ns();
    handover->do_work();
    owner->on_readable();
  }
  EXPECT_EQ(events.passed, 1);
  EXPECT_EQ(owner_events.received.size(), 1U);
  EXPECT_EQ(handover->held(), 0U);
  EXPECT_EQ(handover->next_deadline_ns(), 0U);
}

TEST_F(HandoverTest, GivesUpAfterAWhileAndClosesTheSession) {
  auto [client, server] = tcp_pair();
  Events events;
  const auto handover = open(0, events, fake);
  const std::uint64_t start = fake.now_ns;
  handover->pass(ShardId{1}, std::move(server), source);
  while (handover->held() > 0) {
    fake.now_ns = handover->next_deadline_ns();
    handover->do_work();
  }
  EXPECT_GE(fake.now_ns - start, 5'000'000'000U);
  EXPECT_LT(fake.now_ns - start, 5'100'000'000U);
  ASSERT_EQ(events.failed.size(), 1U);
  EXPECT_NE(events.failed[0].find("No such file"), std::string::npos);
  char byte = 0;
  EXPECT_TRUE(readable(client.get(), 5000));
  EXPECT_EQ(::recv(client.get(), &byte, 1, 0), 0);
}

TEST_F(HandoverTest, AnOwnerThatDiedWithTheRequestDoesNotTakeTheSessionWithIt) {
  auto [client, server] = tcp_pair();
  Events events;
  Events owner_events;
  const auto handover = open(0, events, fake);
  auto owner = open(1, owner_events, fake);
  handover->pass(ShardId{1}, std::move(server), source);  // in the owner's queue, not yet read
  owner.reset();
  owner = open(1, owner_events, fake);  // its successor
  for (int i = 0; i < 4 && events.passed == 0; ++i) {
    fake.now_ns = handover->next_deadline_ns();
    handover->do_work();
    owner->on_readable();
  }
  EXPECT_EQ(events.passed, 1);
  EXPECT_EQ(owner_events.received.size(), 1U);
}

TEST_F(HandoverTest, HoldsABoundedNumber) {
  Events events;
  Handover::Options options;
  options.max_held = 3;
  auto handover = Handover::open(config, options, -1, events, fake);
  ASSERT_TRUE(handover.ok());
  for (int i = 0; i < 5; ++i) {
    auto [client, server] = tcp_pair();
    (*handover)->pass(ShardId{1}, std::move(server), source);
  }
  EXPECT_EQ((*handover)->held(), 3U);
  EXPECT_EQ(events.failed.size(), 2U);
}

// What a new supervisor does (curated).
TEST_F(HandoverTest, GivesTheListenerToWhoAsks) {
  auto listener = make_bmp_listener({"127.0.0.1", 0}, 4, 0);
  ASSERT_TRUE(listener.ok());
  Events events;
  const auto handover = open(0, events, fake, listener->get());
  Fd channel(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = config.handover_path(0);
  struct stat st {};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777U, 0600U);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  ASSERT_EQ(::connect(channel.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  handover->on_readable();  // connected, nothing said yet
  ASSERT_EQ(::send(channel.get(), "listener?", 9, 0), 9);
  ASSERT_NE(handover->next_deadline_ns(), 0U);
  fake.now_ns = handover->next_deadline_ns();
  handover->do_work();
  char answer = 0;
  Fd got;
  ASSERT_EQ(receive_with_fd(channel.get(), {&answer, 1}, got, MSG_DONTWAIT), 1);
  EXPECT_EQ(answer, 'L');
  ASSERT_TRUE(got);
  sockaddr_in mine{};
  sockaddr_in theirs{};
  socklen_t n = sizeof mine;
  ASSERT_EQ(::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&mine), &n), 0);
  ASSERT_EQ(::getsockname(got.get(), reinterpret_cast<sockaddr*>(&theirs), &n), 0);
  EXPECT_EQ(mine.sin_port, theirs.sin_port);
}

TEST_F(HandoverTest, NonsenseIsRefusedWithoutHarm) {
  Events events;
  const auto handover = open(0, events, fake);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = config.handover_path(0);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  for (const std::string text : {"session", "listener?", "", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}) {
    Fd channel(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(channel.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::send(channel.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
    handover->on_readable();
    char answer = 0;
    EXPECT_EQ(::recv(channel.get(), &answer, 1, MSG_DONTWAIT), 0) << text;
  }
  EXPECT_TRUE(events.received.empty());
  EXPECT_EQ(handover->next_deadline_ns(), 0U);
}

}  // namespace
}  // namespace arancini::ingestd
