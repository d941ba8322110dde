#include "ingestd/io_backend.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "common/base/clock.h"

namespace arancini::ingestd {
namespace {

// Remembers what happened; tests hook in where they need more.
class Recorder : public IoHandler {
 public:
  IoBackend* backend = nullptr;
  bool add_accepted = true;
  std::map<std::uint32_t, std::string> data;
  std::map<std::uint32_t, int> closed;
  std::vector<Fd> accepted;
  std::vector<ConnectionId> added;
  std::vector<int> accept_errors;
  int readable = 0;
  std::function<void(ConnectionId, std::span<const std::byte>)> data_hook;

  void on_accept(Fd fd) noexcept override {
    if (add_accepted) {
      added.push_back(backend->add_connection(std::move(fd)));
    } else {
      accepted.push_back(std::move(fd));
    }
  }
  void on_data(ConnectionId id, std::span<const std::byte> bytes) noexcept override {
    data[raw(id)].append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (data_hook) data_hook(id, bytes);
  }
  void on_closed(ConnectionId id, int error) noexcept override { closed[raw(id)] = error; }
  void on_readable(int fd) noexcept override {
    std::uint64_t value = 0;
    EXPECT_EQ(::read(fd, &value, sizeof value), 8);
    ++readable;
  }
  void on_accept_error(int error) noexcept override { accept_errors.push_back(error); }
};

std::pair<Fd, Fd> make_pair() {
  int fds[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  return {Fd(fds[0]), Fd(fds[1])};
}

std::string pattern(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string s(size, 0);
  for (char& c : s) c = static_cast<char>(random());
  return s;
}

// Loopback listener on a free port.
struct Listening {
  Fd fd;
  sockaddr_in address{};
  Listening() : fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd.get(), 512), 0);
    socklen_t size = sizeof address;
    EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  }
  [[nodiscard]] Fd connect() const {
    Fd c(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(c.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return c;
  }
};

class IoBackendTest : public ::testing::TestWithParam<IoBackendKind> {
 protected:
  void SetUp() override {
    try {
      make({});
    } catch (const std::exception& e) {
      GTEST_SKIP() << e.what();
    }
  }
  void make(IoOptions options) {
    backend.reset();
    options.kind = GetParam();
    std::string note;
    recorder = std::make_unique<Recorder>();
    backend = make_io_backend(options, *recorder, note);
    if (!backend) throw std::runtime_error(note);
    recorder->backend = backend.get();
  }
  void TearDown() override { backend.reset(); }

  template <class Condition>
  [[nodiscard]] bool run_until(Condition&& condition) {
    const std::uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + 10'000'000'000U;
    while (!condition()) {
      if (clock_ns(CLOCK_MONOTONIC) > deadline) return false;
      backend->run_once(1'000'000);
    }
    return true;
  }
  // Rounds until nothing happens any more.
  void settle() {
    for (int i = 0; i < 20; ++i) backend->run_once(1'000'000);
  }
  std::string& data(ConnectionId id) { return recorder->data[raw(id)]; }
  bool is_closed(ConnectionId id) { return recorder->closed.contains(raw(id)); }

  std::unique_ptr<Recorder> recorder;
  std::unique_ptr<IoBackend> backend;
};

TEST_P(IoBackendTest, DeliversByteByByte) {
  auto [ours, theirs] = make_pair();
  const ConnectionId id = backend->add_connection(std::move(ours));
  const std::string text = pattern(300, 1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    ASSERT_EQ(::send(theirs.get(), &text[i], 1, 0), 1);
    ASSERT_TRUE(run_until([&] { return data(id).size() == i + 1; }));
  }
  EXPECT_EQ(data(id), text);
  theirs.reset();
  ASSERT_TRUE(run_until([&] { return is_closed(id); }));
  EXPECT_EQ(recorder->closed[raw(id)], 0);
}

TEST_P(IoBackendTest, DeliversEverythingBeforeClose) {
  auto [ours, theirs] = make_pair();
  const std::string text = pattern(100'000, 2);
  ASSERT_EQ(::send(theirs.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  theirs.reset();
  const ConnectionId id = backend->add_connection(std::move(ours));
  ASSERT_TRUE(run_until([&] { return is_closed(id); }));
  EXPECT_EQ(data(id), text);
}

TEST_P(IoBackendTest, ReportsResetAsError) {
  Listening listening;
  ASSERT_TRUE(backend->add_listener(listening.fd.get()));
  Fd client = listening.connect();
  ASSERT_TRUE(run_until([&] { return recorder->added.size() == 1; }));
  const linger hard{1, 0};
  ::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  client.reset();
  ASSERT_TRUE(run_until([&] { return is_closed(recorder->added[0]); }));
  EXPECT_EQ(recorder->closed[raw(recorder->added[0])], ECONNRESET);
}

TEST_P(IoBackendTest, PausedConnectionIsLeftAloneAndLosesNothing) {
  auto [ours, theirs] = make_pair();
  auto [other_ours, other_theirs] = make_pair();
  const ConnectionId id = backend->add_connection(std::move(ours));
  const ConnectionId other = backend->add_connection(std::move(other_ours));
  ASSERT_EQ(::send(theirs.get(), "abc", 3, 0), 3);
  ASSERT_TRUE(run_until([&] { return data(id).size() == 3; }));
  backend->pause(id);
  settle();
  ASSERT_EQ(::send(theirs.get(), "def", 3, 0), 3);
  ASSERT_EQ(::send(other_theirs.get(), "xyz", 3, 0), 3);
  ASSERT_TRUE(run_until([&] { return data(other) == "xyz"; }));
  settle();
  EXPECT_EQ(data(id), "abc");
  backend->resume(id);
  ASSERT_TRUE(run_until([&] { return data(id).size() == 6; }));
  EXPECT_EQ(data(id), "abcdef");
}

TEST_P(IoBackendTest, PauseAndResumeAtEveryBufferLosesNothing) {
  make({.buffer_bytes = 4096, .buffer_count = 8});
  auto [ours, theirs] = make_pair();
  const ConnectionId id = backend->add_connection(std::move(ours));
  const std::string text = pattern(4'000'000, 3);
  std::mt19937 random(4);
  bool paused = false;
  recorder->data_hook = [&](ConnectionId c, std::span<const std::byte>) {
    const unsigned dice = random() % 4;
    if (dice == 0) {
      backend->pause(c);
      paused = true;
    } else if (dice == 1) {  // and back before anything was submitted
      backend->pause(c);
      backend->resume(c);
      paused = false;
    }
  };
  std::thread sender([&, fd = theirs.get()] {
    std::size_t at = 0;
    while (at < text.size()) {
      const ssize_t n = ::send(fd, text.data() + at, std::min<std::size_t>(50'000, text.size() - at), 0);
      if (n > 0)
        at += static_cast<std::size_t>(n);
      else
        std::this_thread::yield();
    }
  });
  EXPECT_TRUE(run_until([&] {
    if (paused && random() % 2 == 0) {
      backend->resume(id);
      paused = false;
    }
    return data(id).size() >= text.size();
  }));
  sender.join();
  EXPECT_TRUE(data(id) == text);
}

TEST_P(IoBackendTest, ClosedWhilePausedIsKnownAfterResume) {
  auto [ours, theirs] = make_pair();
  const ConnectionId id = backend->add_connection(std::move(ours));
  backend->pause(id);
  ASSERT_EQ(::send(theirs.get(), "last", 4, 0), 4);
  theirs.reset();
  const std::uint64_t before = backend->syscalls();
  settle();
  EXPECT_LE(backend->syscalls() - before, 25U);  // waits, does not spin on the hang-up
  if (is_closed(id)) {                           // the receive had completed before the pause took hold
    EXPECT_EQ(data(id), "last");
    return;
  }
  backend->resume(id);
  ASSERT_TRUE(run_until([&] { return is_closed(id); }));
  EXPECT_EQ(data(id), "last");
}

TEST_P(IoBackendTest, FewSmallBuffersAreEnoughForManyConnections) {
  make({.buffer_bytes = 512, .buffer_count = 2});  // io_uring: runs out all the time
  constexpr std::size_t kConnections = 20;
  std::vector<Fd> theirs;
  std::vector<ConnectionId> ids;
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < kConnections; ++i) {
    auto [a, b] = make_pair();
    theirs.push_back(std::move(b));
    texts.push_back(pattern(60'000, static_cast<unsigned>(i)));
    ASSERT_EQ(::send(theirs.back().get(), texts.back().data(), texts.back().size(), 0),
              static_cast<ssize_t>(texts.back().size()));
    ids.push_back(backend->add_connection(std::move(a)));
  }
  for (std::size_t i = 0; i < kConnections; ++i) {
    ASSERT_TRUE(run_until([&] { return data(ids[i]).size() == texts[i].size(); })) << i;
    EXPECT_TRUE(data(ids[i]) == texts[i]);
  }
}

TEST_P(IoBackendTest, AFloodLeavesBuffersToOthers) {
  make({.buffer_bytes = 512, .buffer_count = 4});  // io_uring: the flood takes them all whenever it is armed
  auto [flood, flooding] = make_pair();
  auto [small, other] = make_pair();
  const std::string text = pattern(150'000, 1);
  ASSERT_EQ(::send(flooding.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  const ConnectionId flood_id = backend->add_connection(std::move(flood));
  const ConnectionId small_id = backend->add_connection(std::move(small));
  ASSERT_TRUE(run_until([&] { return data(flood_id).size() >= 4096; }));
  ASSERT_EQ(::send(other.get(), "x", 1, 0), 1);
  const std::size_t before = data(flood_id).size();
  ASSERT_LT(before, text.size() / 2);
  ASSERT_TRUE(run_until([&] { return data(small_id) == "x"; }));
  EXPECT_LT(data(flood_id).size() - before, 32'768U);
}

TEST_P(IoBackendTest, TwoHundredConnections) {
  Listening listening;
  ASSERT_TRUE(backend->add_listener(listening.fd.get()));
  std::vector<Fd> clients;
  for (unsigned i = 0; i < 200; ++i) {
    clients.push_back(listening.connect());
    const std::string text = std::to_string(i) + ":" + pattern(3000, i);
    ASSERT_EQ(::send(clients.back().get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  clients.resize(100);  // half of them close at once
  ASSERT_TRUE(run_until([&] { return recorder->added.size() == 200 && recorder->closed.size() == 100; }));
  std::set<unsigned> seen;
  for (const auto& [id, text] : recorder->data) {
    const auto number = static_cast<unsigned>(std::stoul(text));
    EXPECT_TRUE(text == std::to_string(number) + ":" + pattern(3000, number)) << number;
    EXPECT_EQ(recorder->closed.contains(id), number >= 100);
    seen.insert(number);
  }
  EXPECT_EQ(seen.size(), 200U);
}

TEST_P(IoBackendTest, LateDataOfAClosedConnectionDoesNotReachItsSuccessor) {
  make({.max_connections = 1, .buffer_bytes = 256, .buffer_count = 4});
  std::vector<Fd> keep;
  for (int round = 0; round < 200; ++round) {
    auto [ours, theirs] = make_pair();
    const std::string text(1500, static_cast<char>('a' + round % 26));
    ASSERT_EQ(::send(theirs.get(), text.data(), text.size(), 0), 1500);
    const ConnectionId id = backend->add_connection(std::move(ours));
    ASSERT_NE(id, kNoConnection);
    data(id).clear();
    recorder->closed.clear();
    bool closing = true;
    recorder->data_hook = [&](ConnectionId c, std::span<const std::byte>) {
      // In the middle of its data, and before its receive was even submitted where nothing came.
      if (std::exchange(closing, false)) backend->close(c);
    };
    if (round % 3 == 0) {
      backend->close(id);
    } else {
      ASSERT_TRUE(run_until([&] { return !closing; }));
    }
    recorder->data_hook = nullptr;
    const std::string so_far = data(id);
    EXPECT_TRUE(so_far == text.substr(0, so_far.size()));
    data(id).clear();
    // The successor takes the same slot, and the same descriptor number.
    auto [next_ours, next_theirs] = make_pair();
    const ConnectionId next = backend->add_connection(std::move(next_ours));
    ASSERT_EQ(next, id);
    ASSERT_EQ(::send(next_theirs.get(), "NEXT", 4, 0), 4);
    ASSERT_TRUE(run_until([&] { return data(next).size() >= 4; }));
    EXPECT_EQ(data(next), "NEXT");
    EXPECT_FALSE(is_closed(next));
    char byte = 0;  // the closed one has seen its end
    ASSERT_TRUE(run_until(
        [&, fd = theirs.get()] { return ::recv(fd, &byte, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN; }));
    backend->close(next);
  }
}

TEST_P(IoBackendTest, RefusesMoreThanMaxConnections) {
  make({.max_connections = 2});
  auto [a, a2] = make_pair();
  auto [b, b2] = make_pair();
  auto [c, c2] = make_pair();
  EXPECT_NE(backend->add_connection(std::move(a)), kNoConnection);
  const ConnectionId id = backend->add_connection(std::move(b));
  EXPECT_EQ(backend->add_connection(std::move(c)), kNoConnection);
  backend->close(id);
  auto [d, d2] = make_pair();
  EXPECT_EQ(backend->add_connection(std::move(d)), id);
}

TEST_P(IoBackendTest, DetachHandsOverAtAnExactByte) {
  make({.buffer_bytes = 1000, .buffer_count = 4});
  for (int round = 0; round < 50; ++round) {
    auto [ours, theirs] = make_pair();
    auto [other_ours, other_theirs] = make_pair();
    const std::string text = pattern(20'000, static_cast<unsigned>(round));
    ASSERT_EQ(::send(theirs.get(), text.data(), text.size(), 0), 20'000);
    ASSERT_EQ(::send(other_theirs.get(), text.data(), text.size(), 0), 20'000);
    const ConnectionId id = backend->add_connection(std::move(ours));
    const ConnectionId other = backend->add_connection(std::move(other_ours));
    data(id).clear();
    data(other).clear();
    for (int i = 0; i < round % 5; ++i) backend->run_once(0);
    const Fd taken = backend->detach(id);
    ASSERT_TRUE(taken.valid());
    std::string rest(20'000, 0);
    const ssize_t n = ::recv(taken.get(), rest.data(), rest.size(), MSG_DONTWAIT);
    rest.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    EXPECT_TRUE(data(id) + rest == text) << round;
    ASSERT_TRUE(run_until([&] { return data(other).size() == text.size(); }));
    EXPECT_TRUE(data(other) == text) << round;
    backend->close(other);
  }
}

TEST_P(IoBackendTest, WatchedDescriptorWakesTheLoopEachTime) {
  const Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  ASSERT_TRUE(backend->watch(wake.get()));
  for (int i = 1; i <= 3; ++i) {
    const std::uint64_t one = 1;
    std::thread other([&] { ASSERT_EQ(::write(wake.get(), &one, 8), 8); });
    ASSERT_TRUE(run_until([&] { return recorder->readable == i; }));
    other.join();
  }
}

TEST_P(IoBackendTest, WaitsNoLongerThanAsked) {
  settle();
  const std::uint64_t start = clock_ns(CLOCK_MONOTONIC);
  backend->run_once(20'000'000);
  const std::uint64_t took = clock_ns(CLOCK_MONOTONIC) - start;
  EXPECT_GE(took, 19'000'000U);
  EXPECT_LT(took, 2'000'000'000U);
}

TEST_P(IoBackendTest, LookingWithoutWaitingSeesNewData) {
  auto [ours, theirs] = make_pair();
  const ConnectionId id = backend->add_connection(std::move(ours));
  for (std::size_t round = 1; round <= 5; ++round) {
    for (int i = 0; i < 10; ++i) backend->run_once(0);
    ASSERT_EQ(::send(theirs.get(), "x", 1, 0), 1);
    const std::uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + 5'000'000'000U;
    while (data(id).size() < round && clock_ns(CLOCK_MONOTONIC) < deadline) backend->run_once(0);
    ASSERT_EQ(data(id).size(), round);
  }
}

TEST_P(IoBackendTest, RemovedListenerAcceptsNoMore) {
  Listening listening;
  recorder->add_accepted = false;
  ASSERT_TRUE(backend->add_listener(listening.fd.get()));
  const Fd first = listening.connect();
  ASSERT_TRUE(run_until([&] { return recorder->accepted.size() == 1; }));
  backend->remove_listener(listening.fd.get());
  settle();
  const Fd second = listening.connect();  // waits in the backlog for whoever listens next
  settle();
  EXPECT_EQ(recorder->accepted.size(), 1U);
  const Fd next(::accept4(listening.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  EXPECT_TRUE(next.valid());
}

TEST_P(IoBackendTest, OutOfDescriptorsIsReportedAndTriedAgain) {
  Listening listening;
  const Fd client = listening.connect();
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit low{3, old.rlim_max};               // below every descriptor in use
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);  // io_uring looks at it when the request is submitted
  EXPECT_TRUE(backend->add_listener(listening.fd.get()));
  const bool reported = run_until([&] { return !recorder->accept_errors.empty(); });
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
  ASSERT_TRUE(reported);
  ASSERT_TRUE(run_until([&] { return recorder->added.size() == 1; }));
}

INSTANTIATE_TEST_SUITE_P(Backends, IoBackendTest,
                         ::testing::Values(IoBackendKind::Uring, IoBackendKind::Epoll),
                         [](const auto& which) {
                           return which.param == IoBackendKind::Uring ? "Uring" : "Epoll";
                         });

// The kernel forbids io_uring_setup, as container runtimes do.
int in_child_without_io_uring(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{4, code};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
      ::_exit(77);
    }
    ::_exit(body());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(MakeIoBackend, AutoFallsBackToEpollWithANote) {
  const int code = in_child_without_io_uring([] {
    Recorder recorder;
    std::string note;
    const auto backend = make_io_backend({.kind = IoBackendKind::Auto}, recorder, note);
    if (!backend || std::string(backend->name()) != "epoll") return 1;
    return note.find("io_uring is not available") != std::string::npos &&
                   note.find("Operation not permitted") != std::string::npos
               ? 0
               : 2;
  });
  if (code == 77) GTEST_SKIP() << "seccomp not available";
  EXPECT_EQ(code, 0);
}

TEST(MakeIoBackend, ForcedUringSaysWhyItCannotBe) {
  const int code = in_child_without_io_uring([] {
    Recorder recorder;
    std::string note;
    return make_io_backend({.kind = IoBackendKind::Uring}, recorder, note) == nullptr && !note.empty() ? 0
                                                                                                       : 1;
  });
  if (code == 77) GTEST_SKIP() << "seccomp not available";
  EXPECT_EQ(code, 0);
}

TEST(MakeIoBackend, UringNeedsFewSystemCalls) {
  Recorder recorder;
  std::string note;
  const auto backend = make_io_backend({.kind = IoBackendKind::Uring}, recorder, note);
  if (!backend) GTEST_SKIP() << note;
  recorder.backend = backend.get();
  Listening listening;
  const Fd client = listening.connect();
  Fd server(::accept4(listening.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  const ConnectionId id = backend->add_connection(std::move(server));
  constexpr std::size_t kBytes = 64U << 20;
  std::thread sender([&] {
    const std::string block(1U << 20, 'x');
    for (std::size_t sent = 0; sent < kBytes;) {
      const ssize_t n = ::send(client.get(), block.data(), block.size(), 0);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
  });
  const std::uint64_t before = backend->syscalls();
  std::size_t received = 0;
  recorder.data_hook = [&](ConnectionId c, std::span<const std::byte> bytes) {
    received += bytes.size();
    recorder.data[raw(c)].clear();
  };
  const std::uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + 15'000'000'000U;
  while (received < kBytes && clock_ns(CLOCK_MONOTONIC) < deadline) backend->run_once(10'000'000);
  sender.join();
  EXPECT_EQ(received, kBytes);
  EXPECT_FALSE(recorder.closed.contains(raw(id)));
  const double per_megabyte = static_cast<double>(backend->syscalls() - before) / (kBytes >> 20);
  RecordProperty("syscalls_per_MiB", std::to_string(per_megabyte));
  std::printf("io_uring: %.2f system calls per MiB\n", per_megabyte);
  EXPECT_LT(per_megabyte, 16.0);  // an epoll loop with 64 KiB reads needs 32 and more
}

}  // namespace
}  // namespace arancini::ingestd
