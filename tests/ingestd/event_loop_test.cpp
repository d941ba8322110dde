#include "ingestd/event_loop.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "common/base/reuseport.h"

namespace arancini::ingestd {
namespace {

std::string message(std::size_t size, unsigned seed) {
  std::string m(size, 0);
  std::mt19937 random(seed);
  for (char& c : m) c = static_cast<char>(random());
  m[0] = 3;
  for (int i = 0; i < 4; ++i) m[static_cast<std::size_t>(i) + 1] = static_cast<char>(size >> (24 - 8 * i));
  m[5] = 0;
  return m;
}

struct FakeSink : SessionSink {
  struct Seen {
    std::uint16_t port = 0;
    std::string bytes;
    bool closed = false;
    bool throttled = false;
    ErrorCode error = ErrorCode::None;
    std::string error_text;
  };
  std::vector<Seen> sessions;
  std::int64_t room = -1;  // messages that still fit; -1: no limit
  std::set<std::uint16_t> refused_ports;
  std::size_t refusals = 0;
  int publishes = 0;
  int heartbeats = 0;

  Seen& at(SessionId id) { return sessions[static_cast<std::size_t>(id)]; }
  // An empty one if there is no such session (yet).
  const Seen& by_port(std::uint16_t port) const {
    static const Seen kNone;
    for (const Seen& s : sessions) {
      if (s.port == port) return s;
    }
    return kNone;
  }
  bool knows(std::uint16_t port) const { return by_port(port).port != 0; }
  SessionId open_session(const IpAddress&, std::uint16_t port) override {
    sessions.push_back({});
    sessions.back().port = port;
    return SessionId{static_cast<std::uint32_t>(sessions.size() - 1)};
  }
  Shard::Applied apply(SessionId id, std::span<const std::byte> m) override {
    if (room == 0 || refused_ports.contains(at(id).port)) {
      ++refusals;
      return Shard::Applied::NoRoom;
    }
    if (room > 0) --room;
    EXPECT_FALSE(at(id).closed);
    at(id).bytes.append(reinterpret_cast<const char*>(m.data()), m.size());
    return Shard::Applied::Done;
  }
  void session_error(SessionId id, ErrorCode code, std::string_view text) override {
    at(id).error = code;
    at(id).error_text = text;
  }
  void close_session(SessionId id) override {
    EXPECT_FALSE(at(id).closed);
    at(id).closed = true;
  }
  void set_throttled(SessionId id, bool throttled) override { at(id).throttled = throttled; }
  std::optional<SessionId> unwanted;
  std::optional<SessionId> take_session_to_close() override { return std::exchange(unwanted, std::nullopt); }
  Shard::Work do_work() override { return {}; }
  void publish() override { ++publishes; }
  void heartbeat(std::uint64_t) override { ++heartbeats; }
  std::set<std::uint16_t> not_at_rest;  // ports
  RestartExport export_sessions() override {
    RestartExport out;
    for (std::uint32_t i = 0; i < sessions.size(); ++i) {
      if (sessions[i].closed) continue;
      if (not_at_rest.contains(sessions[i].port)) {
        out.closed.push_back({SessionId{i}, "not at rest"});
        continue;
      }
      out.sessions.push_back(SessionId{i});
      RestartSession& session = out.state.sessions.emplace_back();
      session.serial = i + 1;
      session.port = sessions[i].port;
    }
    return out;
  }
};

// Keeps what it gets for the next loop.
struct FakeKeeper final : SessionKeeper {
  bool there = true;
  std::string answer;
  RestartAdoption adoption;
  std::vector<Fd> sockets;
  int times = 0;
  bool ready() override { return there; }
  std::string keep(RestartState& state, std::span<const Fd> fds) override {
    ++times;
    if (!answer.empty()) return answer;
    adoption.state = state;
    sockets.clear();
    for (const Fd& fd : fds) sockets.emplace_back(::dup(fd.get()));
    return {};
  }
};

class EventLoopTest : public ::testing::TestWithParam<IoBackendKind> {
 protected:
  void SetUp() override {
    char name[] = "/tmp/arancini-loop-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory = name;
    auto page = StatsWriter::create(directory + "/stats",
                                    {.kind = shm::ProcessKind::Ingestd, .routers = 4, .peers = 4});
    ASSERT_TRUE(page.ok()) << page.error();
    stats = std::make_unique<StatsWriter>(std::move(page).value());
    make({});
  }
  void make(EventLoop::Options options) {
    options.io = GetParam();
    loop = std::make_unique<EventLoop>(options, sink, *stats, log, clock);
    std::string note;
    if (!loop->start(note)) GTEST_SKIP() << note;
    auto made = make_bmp_listener({"127.0.0.1", 0}, 512, 0);
    ASSERT_TRUE(made.ok()) << made.error();
    listener = std::move(made).value();
    socklen_t n = sizeof address;
    ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &n);
    loop->add_listener(listener.get());
  }
  void TearDown() override {
    loop.reset();
    std::filesystem::remove_all(directory);
  }

  struct Client {
    Fd fd;
    std::uint16_t port = 0;
    void send(std::string_view bytes) const {
      while (!bytes.empty()) {
        const ssize_t n = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (n <= 0) return;
        bytes.remove_prefix(static_cast<std::size_t>(n));
      }
    }
  };
  Client connect() {
    Client c;
    c.fd = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(c.fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    sockaddr_in own{};
    socklen_t n = sizeof own;
    ::getsockname(c.fd.get(), reinterpret_cast<sockaddr*>(&own), &n);
    c.port = ntohs(own.sin_port);
    return c;
  }
  template <class Condition>
  [[nodiscard]] bool run_until(Condition&& condition) {
    const std::uint64_t deadline = clock.boottime_ns() + 10'000'000'000U;
    while (!condition()) {
      if (clock.boottime_ns() > deadline) return false;
      loop->run_once();
    }
    return true;
  }
  bool has(const Client& c, const std::string& bytes) { return sink.by_port(c.port).bytes == bytes; }
  bool ended(const Client& c) { return sink.by_port(c.port).closed; }

  std::string directory;
  SystemClock clock;
  Logger log{"test", LogLevel::Error};
  FakeSink sink;
  std::unique_ptr<StatsWriter> stats;
  Fd listener;
  sockaddr_in address{};
  std::unique_ptr<EventLoop> loop;
};

TEST_P(EventLoopTest, LooksForMoreForAWhileAndThenSleeps) {
  constexpr std::uint64_t kSpinNs = 300'000'000;
  make({.spin_ns = kSpinNs});
  const auto rounds_in = [&](std::uint64_t ns) {
    const std::uint64_t end = clock.boottime_ns() + ns;
    int rounds = 0;
    for (; clock.boottime_ns() < end; ++rounds) loop->run_once();
    return rounds;
  };
  // Until the first data it sleeps from one heartbeat to the next.
  const Client c = connect();
  EXPECT_LT(rounds_in(EventLoop::kHeartbeatNs), 10);
  const std::string text = message(100, 1);
  c.send(text);
  ASSERT_TRUE(run_until([&] { return has(c, text); }));
  EXPECT_GT(rounds_in(kSpinNs / 3), 100);
  rounds_in(kSpinNs);
  EXPECT_LT(rounds_in(EventLoop::kHeartbeatNs), 10);
}

TEST_P(EventLoopTest, MessagesReachTheSinkInOrder) {
  const Client a = connect();
  const Client b = connect();
  std::string stream_a;
  std::string stream_b;
  for (unsigned i = 0; i < 500; ++i) {
    stream_a += message(48 + i, i);
    stream_b += message(48 + 7 * i % 3000, i);
  }
  std::thread sender([&] {
    for (std::size_t at = 0; at < stream_b.size(); at += 997) {
      a.send(std::string_view(stream_a).substr(std::min(at, stream_a.size()), 997));
      b.send(std::string_view(stream_b).substr(at, 997));
    }
  });
  EXPECT_TRUE(run_until([&] { return has(a, stream_a.substr(0, stream_a.size())) && has(b, stream_b); }));
  sender.join();
  EXPECT_GT(sink.publishes, 0);
  EXPECT_GT(sink.heartbeats, 0);
  EXPECT_EQ(stats->get(IngestMetric::BytesReceived), stream_a.size() + stream_b.size());
  EXPECT_EQ(loop->open_sessions(), 2U);
  // One observation for each round that had data, at most one a round.
  std::uint64_t rounds = 0;
  for (std::size_t i = 0; i < kHistogramSum; ++i)
    rounds += stats->get(first_value(IngestHistogram::ReceiveToRing) + i);
  EXPECT_GT(rounds, 0U);
  EXPECT_LE(rounds, stats->get(IngestMetric::LoopIterations));
  EXPECT_GT(stats->get(first_value(IngestHistogram::ReceiveToRing) + kHistogramSum), 0U);
}

TEST_P(EventLoopTest, MalformedSessionsEndWithALocatedErrorAndDisturbNobody) {
  const Client good = connect();
  const Client version = connect();
  const Client oversized = connect();
  const Client random = connect();
  Client truncated = connect();
  const std::string first = message(100, 1);
  good.send(first);
  version.send(first + std::string("\x01\x00\x00\x00\x30\x00", 6));
  oversized.send(first + first + std::string("\x03\x7f\xff\xff\xff\x00", 6));
  random.send(std::string(1000, 'R'));
  truncated.send(first + first.substr(0, 57));
  ASSERT_TRUE(run_until([&] { return has(truncated, first); }));
  truncated.fd.reset();
  ASSERT_TRUE(
      run_until([&] { return ended(version) && ended(oversized) && ended(random) && ended(truncated); }));
  EXPECT_EQ(sink.by_port(version.port).error, ErrorCode::BmpBadVersion);
  EXPECT_NE(sink.by_port(version.port).error_text.find("at byte 100"), std::string::npos);
  EXPECT_EQ(sink.by_port(oversized.port).error, ErrorCode::BmpTooLong);
  EXPECT_NE(sink.by_port(oversized.port).error_text.find("at byte 200"), std::string::npos);
  EXPECT_EQ(sink.by_port(oversized.port).bytes, first + first);
  EXPECT_EQ(sink.by_port(random.port).error, ErrorCode::BmpBadVersion);
  EXPECT_EQ(sink.by_port(truncated.port).error, ErrorCode::BmpTruncated);
  char byte = 0;
  const timeval wait{5, 0};
  ::setsockopt(random.fd.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  EXPECT_LE(::recv(random.fd.get(), &byte, 1, 0), 0);  // closed by us
  good.send(first);
  ASSERT_TRUE(run_until([&] { return has(good, first + first); }));
  EXPECT_FALSE(ended(good));
  EXPECT_EQ(sink.by_port(good.port).error, ErrorCode::None);
  EXPECT_EQ(loop->open_sessions(), 1U);
}

TEST_P(EventLoopTest, NoRoomThrottlesAndLosesNothing) {
  sink.room = 10;
  const Client a = connect();
  const Client b = connect();
  std::string stream_a;
  std::string stream_b;
  for (unsigned i = 0; i < 3000; ++i) {
    stream_a += message(48 + i % 700, i);
    stream_b += message(48 + i % 333, i + 1);
  }
  std::thread sender_a([&] { a.send(stream_a); });
  std::thread sender_b([&] { b.send(stream_b); });
  EXPECT_TRUE(run_until([&] {
    if (sink.room == 0 && sink.refusals % 3 == 0) sink.room = 17;
    return has(a, stream_a) && has(b, stream_b);
  }));
  sender_a.join();
  sender_b.join();
  EXPECT_GT(sink.refusals, 10U);
  EXPECT_FALSE(sink.by_port(a.port).throttled);
}

TEST_P(EventLoopTest, AFullRingPushesBackOnTheRouter) {
  const Client a = connect();
  ASSERT_TRUE(run_until([&] { return sink.knows(a.port); }));
  sink.room = 0;
  const std::string block = message(60'000, 1);
  std::size_t sent = 0;
  std::size_t stuck = 0;
  // Until the socket buffers of both sides are full: the router waits, we hold a bounded part.
  while (stuck < 200 && sent < (256U << 20)) {
    const ssize_t n = ::send(a.fd.get(), block.data(), block.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    stuck = n > 0 ? 0 : stuck + 1;
    if (n > 0) sent += static_cast<std::size_t>(n);
    if (n > 0 && static_cast<std::size_t>(n) < block.size()) break;
    loop->run_once();
  }
  EXPECT_LT(sent, 200U << 20);
  EXPECT_TRUE(sink.by_port(a.port).throttled);
  EXPECT_LE(stats->get(IngestMetric::BytesReceived), 10U << 20);
}

TEST_P(EventLoopTest, ARefusedSessionDoesNotDisturbAnother) {
  const Client stuck = connect();
  const Client good = connect();
  const std::string m = message(500, 1);
  ASSERT_TRUE(run_until([&] { return sink.sessions.size() == 2; }));
  sink.refused_ports = {stuck.port};
  stuck.send(m + m);
  ASSERT_TRUE(run_until([&] { return sink.by_port(stuck.port).throttled; }));
  good.send(m);
  ASSERT_TRUE(run_until([&] { return has(good, m); }));
  sink.refused_ports.clear();
  ASSERT_TRUE(run_until([&] { return has(stuck, m + m); }));
}

TEST_P(EventLoopTest, ASessionThatEndsWhileThrottledIsAppliedFirst) {
  Client a = connect();
  ASSERT_TRUE(run_until([&] { return sink.knows(a.port); }));
  sink.room = 1;
  const std::string m = message(500, 1);
  a.send(m + m + m + m.substr(0, 100));
  ASSERT_TRUE(run_until([&] { return sink.by_port(a.port).throttled; }));
  a.fd.reset();
  for (int i = 0; i < 20; ++i) loop->run_once();
  EXPECT_FALSE(ended(a));
  sink.room = -1;
  ASSERT_TRUE(run_until([&] { return ended(a); }));
  EXPECT_EQ(sink.by_port(a.port).bytes, m + m + m);
  EXPECT_EQ(sink.by_port(a.port).error, ErrorCode::BmpTruncated);
}

TEST_P(EventLoopTest, RefusesSessionsAboveTheLimit) {
  make({.max_sessions = 2});
  const Client a = connect();
  const Client b = connect();
  ASSERT_TRUE(run_until([&] { return loop->open_sessions() == 2; }));
  const Client c = connect();
  ASSERT_TRUE(run_until([&] { return stats->get(IngestMetric::SessionsRefused) == 1; }));
  char byte = 0;
  EXPECT_EQ(::recv(c.fd.get(), &byte, 1, 0), 0);
  const std::string m = message(99, 1);
  a.send(m);
  ASSERT_TRUE(run_until([&] { return has(a, m); }));
}

TEST_P(EventLoopTest, StopAppliesWhatWasReceivedAndClosesSessions) {
  const Client a = connect();
  const std::string m = message(500, 1);
  ASSERT_TRUE(run_until([&] { return sink.knows(a.port); }));
  sink.room = 1;
  a.send(m + m);
  ASSERT_TRUE(run_until([&] { return sink.by_port(a.port).throttled; }));
  sink.room = -1;
  loop->request_stop();
  loop->run();
  EXPECT_EQ(sink.by_port(a.port).bytes, m + m);
  EXPECT_TRUE(ended(a));
  EXPECT_EQ(sink.by_port(a.port).error, ErrorCode::None);
  EXPECT_EQ(loop->open_sessions(), 0U);
}

// Loops follow one another in the middle of whatever comes; the stream of each session is whole.
TEST_P(EventLoopTest, SessionsGoOnInTheNextLoop) {
  const Client a = connect();
  const Client b = connect();
  const Client waits = connect();
  std::string stream_a;
  std::string stream_b;
  for (unsigned i = 0; i < 400; ++i) {
    stream_a += message(48 + i, i);
    stream_b += message(48 + 7 * i % 3000, i);
  }
  const std::string stream_c = message(300, 1) + message(400, 2) + message(500, 3);
  sink.refused_ports.insert(waits.port);
  waits.send(std::string_view(stream_c).substr(0, 750));
  std::thread sender([&] {
    for (std::size_t at = 0; at < stream_b.size(); at += 997) {
      a.send(std::string_view(stream_a).substr(std::min(at, stream_a.size()), 997));
      b.send(std::string_view(stream_b).substr(at, 997));
    }
  });
  FakeKeeper keeper;
  for (std::size_t part = 1; part <= 5; ++part) {
    EXPECT_TRUE(run_until([&] {
      return sink.by_port(b.port).bytes.size() > stream_b.size() * part / 7 &&
             sink.by_port(waits.port).throttled;
    }));
    loop->set_keeper(&keeper);
    loop->request_stop();
    loop->run();
    loop.reset();
    ASSERT_EQ(keeper.adoption.state.sessions.size(), 3U);
    for (RestartSession& session : keeper.adoption.state.sessions) {
      EXPECT_TRUE(session.port != waits.port || session.pending.size() == 750);
    }
    for (auto& session : sink.sessions) session.throttled = false;
    // What the shard would say.
    keeper.adoption.decided = false;
    keeper.adoption.sessions.clear();
    for (const RestartSession& session : keeper.adoption.state.sessions)
      keeper.adoption.sessions.push_back({SessionId{static_cast<std::uint32_t>(session.serial - 1)}, {}});
    make({});
    loop->inherit(keeper.adoption, std::move(keeper.sockets));
    loop->run_once();
    EXPECT_EQ(loop->open_sessions(), 0U) << "nothing is read before it is decided";
    keeper.adoption.decided = true;
    loop->run_once();
    EXPECT_EQ(loop->open_sessions(), 3U);
    EXPECT_EQ(stats->get(IngestMetric::RestartSessionsKept), 3U);
  }
  sink.refused_ports.clear();
  EXPECT_TRUE(run_until([&] { return has(a, stream_a) && has(b, stream_b); }));
  waits.send(std::string_view(stream_c).substr(750));
  EXPECT_TRUE(run_until([&] { return has(waits, stream_c); }));
  sender.join();
  for (const Client* c : {&a, &b, &waits}) EXPECT_FALSE(ended(*c));
  EXPECT_EQ(sink.sessions.size(), 3U);
}

TEST_P(EventLoopTest, WhatCannotBeKeptIsClosed) {
  const Client kept = connect();
  const Client restless = connect();
  const Client refused = connect();
  const std::string first = message(100, 1);
  for (const Client* c : {&kept, &restless, &refused}) c->send(first);
  ASSERT_TRUE(run_until([&] { return has(kept, first) && has(restless, first) && has(refused, first); }));
  sink.not_at_rest.insert(restless.port);
  FakeKeeper keeper;
  loop->set_keeper(&keeper);
  loop->request_stop();
  loop->run();
  loop.reset();
  EXPECT_TRUE(ended(restless));
  EXPECT_EQ(sink.by_port(restless.port).error, ErrorCode::SessionNotKept);
  EXPECT_EQ(sink.by_port(restless.port).error_text, "not at rest");
  EXPECT_FALSE(ended(kept));
  ASSERT_EQ(keeper.adoption.state.sessions.size(), 2U);
  EXPECT_EQ(keeper.adoption.state.sessions_closed, 1U);
  make({});
  for (const RestartSession& session : keeper.adoption.state.sessions) {
    const bool taken = session.port == kept.port;
    keeper.adoption.sessions.push_back(
        {taken ? std::optional(SessionId{static_cast<std::uint32_t>(session.serial - 1)}) : std::nullopt,
         "why"});
  }
  keeper.adoption.decided = true;
  loop->inherit(keeper.adoption, std::move(keeper.sockets));
  loop->run_once();
  EXPECT_EQ(loop->open_sessions(), 1U);
  EXPECT_EQ(stats->get(IngestMetric::RestartSessionsKept), 1U);
  EXPECT_EQ(stats->get(IngestMetric::RestartSessionsClosed), 2U);
  for (const Client* c : {&restless, &refused}) {
    char byte = 0;
    EXPECT_EQ(::recv(c->fd.get(), &byte, 1, 0), 0) << "closed";
  }
  kept.send(first);
  EXPECT_TRUE(run_until([&] { return has(kept, first + first); }));
}

TEST_P(EventLoopTest, WithoutAKeeperSessionsEnd) {
  for (const bool there : {false, true}) {
    const Client c = connect();
    const std::string first = message(100, 1);
    c.send(first + first.substr(0, 50));
    ASSERT_TRUE(run_until([&] { return has(c, first); }));
    FakeKeeper keeper;
    keeper.there = there;
    keeper.answer = "does not want to";
    loop->set_keeper(&keeper);
    loop->request_stop();
    loop->run();
    EXPECT_EQ(keeper.times, there ? 1 : 0);
    EXPECT_TRUE(ended(c));
    EXPECT_EQ(sink.by_port(c.port).error, ErrorCode::None);
    loop.reset();
    char byte = 0;
    EXPECT_EQ(::recv(c.fd.get(), &byte, 1, 0), 0) << "closed";
    make({});
  }
}

// Stopped before the shard has decided: what came goes on as it came.
TEST_P(EventLoopTest, WhatIsNotDecidedIsHandedOn) {
  const Client c = connect();
  const std::string first = message(100, 1);
  c.send(first.substr(0, 50));
  FakeKeeper keeper;
  ASSERT_TRUE(run_until([&] { return sink.knows(c.port) && stats->get(IngestMetric::BytesReceived) == 50; }));
  loop->set_keeper(&keeper);
  loop->request_stop();
  loop->run();
  const RestartState left = keeper.adoption.state;
  ASSERT_EQ(left.sessions.size(), 1U);
  ASSERT_EQ(left.sessions[0].pending.size(), 50U);
  for (int i = 0; i < 2; ++i) {
    make({});
    RestartAdoption adoption;
    adoption.state = keeper.adoption.state;
    loop->inherit(adoption, std::move(keeper.sockets));
    loop->run_once();
    loop->set_keeper(&keeper);
    loop->request_stop();
    loop->run();
    loop.reset();
    EXPECT_EQ(keeper.adoption.state, left);
    ASSERT_EQ(keeper.sockets.size(), 1U);
  }
  EXPECT_FALSE(ended(c));
  make({});
  keeper.adoption.sessions.push_back({SessionId{0}, {}});
  keeper.adoption.decided = true;
  loop->inherit(keeper.adoption, std::move(keeper.sockets));
  c.send(first.substr(50));
  EXPECT_TRUE(run_until([&] { return has(c, first); }));
}

TEST_P(EventLoopTest, ADrainedLoopReadsAndAcceptsNothingUntilItIsUndone) {
  const Client a = connect();
  const std::string first = message(100, 1);
  const std::string second = message(200, 2);
  a.send(first);
  ASSERT_TRUE(run_until([&] { return has(a, first); }));
  loop->drain(true);
  ASSERT_TRUE(run_until([&] { return loop->draining(); }));
  EXPECT_TRUE(sink.by_port(a.port).throttled);  // or the shard would take what is not read for missing
  a.send(second);
  const Client b = connect();
  b.send(second);
  const int beats = sink.heartbeats;
  ASSERT_TRUE(run_until([&] { return sink.heartbeats > beats + 1; }));
  EXPECT_TRUE(has(a, first));
  EXPECT_FALSE(sink.knows(b.port));
  EXPECT_EQ(StatsReader::open(directory + "/stats")->state(), shm::ProcessState::Draining);
  loop->drain(false);
  EXPECT_TRUE(run_until([&] { return has(a, first + second) && has(b, second); }));
  EXPECT_FALSE(sink.by_port(a.port).throttled);
  EXPECT_EQ(StatsReader::open(directory + "/stats")->state(), shm::ProcessState::Running);
}

TEST_P(EventLoopTest, ADrainAppliesWhatWasReceivedBefore) {
  const Client a = connect();
  const std::string first = message(100, 1);
  sink.room = 0;
  a.send(first);
  ASSERT_TRUE(run_until([&] { return sink.refusals > 0; }));
  loop->drain(true);
  ASSERT_TRUE(run_until([&] { return loop->draining(); }));
  EXPECT_EQ(loop->blocked_sessions(), 1U);
  sink.room = -1;
  EXPECT_TRUE(run_until([&] { return loop->blocked_sessions() == 0; }));
  EXPECT_TRUE(has(a, first));
  EXPECT_TRUE(sink.by_port(a.port).throttled);
  loop->drain(false);
  EXPECT_TRUE(run_until([&] { return !sink.by_port(a.port).throttled; }));
}

TEST_P(EventLoopTest, ClosesASessionThatTheShardGaveUp) {
  const Client a = connect();
  const Client b = connect();
  const std::string m = message(500, 1);
  ASSERT_TRUE(run_until([&] { return sink.sessions.size() == 2; }));
  sink.room = 0;
  a.send(m);
  b.send(m);
  ASSERT_TRUE(run_until([&] { return sink.by_port(a.port).throttled && sink.by_port(b.port).throttled; }));
  sink.unwanted = SessionId{sink.sessions[0].port == a.port ? 0U : 1U};
  ASSERT_TRUE(run_until([&] { return ended(a); }));
  char byte = 0;
  EXPECT_LE(::recv(a.fd.get(), &byte, 1, 0), 0);
  sink.room = -1;
  ASSERT_TRUE(run_until([&] { return has(b, m); }));
  EXPECT_EQ(loop->open_sessions(), 1U);
}

TEST_P(EventLoopTest, MisplacedSessionsMoveToTheirOwner) {
  Config config;
  config.paths.runtime_dir = directory;
  config.shards.count = 2;
  const auto start = [&](EventLoop& l, std::uint32_t) { EXPECT_EQ(l.start_handover(config, -1), ""); };
  // Both shards in this process; only shard 0 listens.
  FakeSink other_sink;
  EventLoop other({.shard = 1, .shard_count = 2, .io = GetParam()}, other_sink, *stats, log, clock);
  std::string note;
  ASSERT_TRUE(other.start(note)) << note;
  start(other, 1);
  make({.shard = 0, .shard_count = 2});
  start(*loop, 0);
  const std::string m = message(500, 1);
  std::vector<Client> clients;
  std::size_t expected_here = 0;
  constexpr std::uint32_t kClients = 40;
  for (std::uint32_t i = 1; i <= kClients; ++i) {
    Client c;
    c.fd = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in from{};
    from.sin_family = AF_INET;
    from.sin_addr.s_addr = htonl(0x7f000000U + i * 31);
    ASSERT_EQ(::bind(c.fd.get(), reinterpret_cast<sockaddr*>(&from), sizeof from), 0);
    ASSERT_EQ(::connect(c.fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    c.send(m);
    if (raw(owner_of(IpAddress::from_v4(0x7f000000U + i * 31), 2)) == 0) ++expected_here;
    clients.push_back(std::move(c));
  }
  const auto all = [&] {
    other.run_once();
    const auto complete = [&](const FakeSink& s, std::size_t n) {
      return s.sessions.size() == n && std::all_of(s.sessions.begin(), s.sessions.end(),
                                                   [&](const auto& one) { return one.bytes == m; });
    };
    return complete(sink, expected_here) && complete(other_sink, kClients - expected_here);
  };
  EXPECT_TRUE(run_until(all));
  EXPECT_GT(expected_here, 0U);
  EXPECT_LT(expected_here, kClients);
  EXPECT_TRUE(
      run_until([&] { return stats->get(IngestMetric::SessionsHandedOver) == kClients - expected_here; }));
}

INSTANTIATE_TEST_SUITE_P(Backends, EventLoopTest,
                         ::testing::Values(IoBackendKind::Uring, IoBackendKind::Epoll),
                         [](const auto& which) {
                           return which.param == IoBackendKind::Uring ? "Uring" : "Epoll";
                         });

}  // namespace
}  // namespace arancini::ingestd
