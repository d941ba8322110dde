#include "curated/child_processes.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "curated/listeners.h"
#include "tests/curated/no_descriptors.h"

namespace arancini::curated {
namespace {

using std::chrono::steady_clock;
constexpr std::uint64_t kMs = 1'000'000U;

class Supervisor : public ::testing::Test {
 protected:
  Supervisor() {
    char pattern[] = "/tmp/arancini-children-XXXXXX";
    folder_ = ::mkdtemp(pattern);
    const char* helper = std::getenv("FAKE_CHILD");
    helper_ = helper != nullptr ? helper : "";
  }
  ~Supervisor() override {
    if (children_) finish();
    std::filesystem::remove_all(folder_);
  }

  ChildProcesses& make(ChildProcesses::Options options = {}) {
    children_.emplace(log_, clock_, options);
    return *children_;
  }
  ChildSpec spec(const std::string& name, const std::string& mode, const std::string& argument,
                 std::uint32_t group = 0) {
    return {name, {helper_, mode, argument}, -1, group};
  }
  // With a child that leaves something to its successor.
  void make_leaving(const std::string& name) {
    ChildProcesses::Options options;
    options.notify_path = file("notify");
    ChildSpec leaves = spec(name, "leave", file(name));
    leaves.hands_over = true;
    make(options).add(leaves);
  }
  std::string file(const std::string& name) const { return folder_ + "/" + name; }
  // What the lives of a child wrote.
  std::string text(const std::string& name) const {
    std::ifstream in(file(name));
    return {std::istreambuf_iterator<char>(in), {}};
  }

  ManagedProcess state(std::size_t index = 0) const { return children_->processes()[index]; }

  // Runs the loop on real events, with the fake clock standing still, until `condition` or five seconds of
  // real time.
  template <class F>
  bool run_until(F&& condition) {
    const auto give_up = steady_clock::now() + std::chrono::seconds(5);
    while (!condition()) {
      if (steady_clock::now() > give_up) return false;
      pollfd wait{children_->poll_fd(), POLLIN, 0};
      ::poll(&wait, 1, 5);
      children_->do_work();
    }
    return true;
  }
  bool is_ready(const std::string& name) const { return std::filesystem::exists(file(name)); }

  void finish() {
    children_->stop();
    if (!run_until([&] { return children_->stopped(); })) {
      children_->stop();
      EXPECT_TRUE(run_until([&] { return children_->stopped(); }));
    }
    children_.reset();
  }

  Logger log_{"test", LogLevel::Error};
  FakeClock clock_;
  std::string folder_;
  std::string helper_;
  std::optional<ChildProcesses> children_;
};

TEST_F(Supervisor, StartsAChildAndStopsItCleanly) {
  make().add(spec("a", "wait", file("a")));
  EXPECT_EQ(state().phase, ProcessPhase::Waiting);
  children_->do_work();
  EXPECT_EQ(state().phase, ProcessPhase::Up);
  EXPECT_GT(state().pid, 0);
  ASSERT_TRUE(run_until([&] { return is_ready("a"); }));
  children_->stop();
  EXPECT_EQ(state().phase, ProcessPhase::Stopping);
  ASSERT_TRUE(run_until([&] { return children_->stopped(); }));
  EXPECT_EQ(state().detail, "exited with status 0");
  EXPECT_EQ(state().restarts, 0U);
}

TEST_F(Supervisor, RestartsWithGrowingPausesThatStayWithinTheirBounds) {
  ChildProcesses::Options options;
  options.seed = 7;
  make(options).add(spec("a", "exit", "3"));
  std::uint64_t nominal = 100 * kMs;
  for (int i = 0; i < 10; ++i) {
    children_->do_work();
    ASSERT_EQ(state().restarts, static_cast<std::uint32_t>(i));
    ASSERT_TRUE(run_until([&] { return state().phase == ProcessPhase::Waiting; }));
    EXPECT_EQ(state().detail, "exited with status 3");
    const std::uint64_t pause = children_->deadline_ns() - clock_.boottime_ns();
    EXPECT_GE(pause, std::max(100 * kMs, nominal * 3 / 4)) << i;
    EXPECT_LE(pause, std::min(10'000 * kMs, nominal * 5 / 4)) << i;
    nominal = std::min(nominal * 2, 10'000 * kMs);
    clock_.now_ns += pause - 1;
    children_->do_work();
    EXPECT_EQ(state().phase, ProcessPhase::Waiting) << "not before its time";
    clock_.now_ns += 1;
  }
}

TEST_F(Supervisor, ForgetsOldFailuresOfAChildThatStayedUp) {
  make().add(spec("a", "wait", file("a")));
  for (int i = 0; i < 5; ++i) {
    children_->do_work();
    ASSERT_EQ(state().phase, ProcessPhase::Up);
    ::kill(state().pid, SIGKILL);
    ASSERT_TRUE(run_until([&] { return state().phase == ProcessPhase::Waiting; }));
    clock_.now_ns = children_->deadline_ns();
  }
  EXPECT_EQ(state().detail, "killed by signal 9 (Killed)");
  children_->do_work();
  clock_.now_ns += 30'000 * kMs;
  ::kill(state().pid, SIGKILL);
  ASSERT_TRUE(run_until([&] { return state().phase == ProcessPhase::Waiting; }));
  EXPECT_LE(children_->deadline_ns() - clock_.boottime_ns(), 125 * kMs);
}

TEST_F(Supervisor, KeepsTryingAProgramThatIsNotThere) {
  make().add({"a", {"/nonexistent/program"}, -1, 0});
  children_->do_work();
  EXPECT_EQ(state().phase, ProcessPhase::Waiting);
  EXPECT_EQ(state().detail, "cannot start /nonexistent/program: No such file or directory");
  EXPECT_EQ(state().restarts, 0U);
}

TEST_F(Supervisor, LeavesNothingThatItCannotWatch) {
  make().add(spec("a", "wait", file("a")));
  {
    const NoDescriptors none;
    children_->do_work();
  }
  EXPECT_EQ(state().phase, ProcessPhase::Waiting);
  EXPECT_NE(state().detail.find("Too many open files"), std::string::npos) << state().detail;
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "no child is left";
  clock_.now_ns = children_->deadline_ns();
  children_->do_work();
  EXPECT_EQ(state().phase, ProcessPhase::Up);
}

TEST_F(Supervisor, GivesASuccessorWhatItsPredecessorLeft) {
  make_leaving("a");
  children_->add(spec("b", "leave", file("b")));  // has nobody to leave it to
  children_->do_work();
  ASSERT_TRUE(run_until([&] { return text("a") == "r\n" && text("b") == "r\n"; }));
  // It ends by itself, in order: that is no failure, and there is no pause. The clock stands still.
  std::string expected = "r\n";
  for (unsigned i = 1; i <= 3; ++i) {
    ::kill(state(0).pid, SIGTERM);
    expected += "successor\nr\n";
    ASSERT_TRUE(run_until([&] { return text("a") == expected; })) << text("a");
    EXPECT_EQ(state(0).restarts, i);
  }
  ::kill(state(1).pid, SIGTERM);
  ASSERT_TRUE(run_until([&] { return state(1).phase == ProcessPhase::Waiting; }));
  EXPECT_EQ(state(1).detail, "exited with status 0");
  // At the end nobody takes it.
  children_->stop();
  ASSERT_TRUE(run_until([&] { return children_->stopped(); }));
  EXPECT_EQ(text("a"), expected);
  EXPECT_FALSE(is_ready("notify"));
}

// Successors that cannot start: what was left is kept for the one that can, for a bounded time.
TEST_F(Supervisor, KeepsWhatWasLeftUntilASuccessorHasTakenIt) {
  make_leaving("a");
  children_->do_work();
  ASSERT_TRUE(run_until([&] { return text("a") == "r\n"; }));
  const std::string broken = file("a.broken");
  std::ofstream{broken};
  ::kill(state().pid, SIGTERM);
  std::uint64_t nominal = 100 * kMs;
  for (std::uint32_t i = 1; i <= 4; ++i) {
    ASSERT_TRUE(run_until([&] { return state().restarts == i && state().phase == ProcessPhase::Waiting; }));
    EXPECT_EQ(state().detail, "exited with status 78");
    const std::uint64_t pause = children_->deadline_ns() - clock_.boottime_ns();
    EXPECT_GE(pause, nominal * 3 / 4) << "each is a failure";
    nominal *= 2;
    if (i == 4) std::filesystem::remove(broken);
    clock_.now_ns += pause;
  }
  ASSERT_TRUE(run_until([&] { return text("a") == "r\nsuccessor\nr\n"; })) << text("a");
  // It was taken: a third life has nothing of it.
  ::kill(state().pid, SIGKILL);
  ASSERT_TRUE(run_until([&] { return state().phase == ProcessPhase::Waiting; }));
  clock_.now_ns = children_->deadline_ns();
  ASSERT_TRUE(run_until([&] { return text("a") == "r\nsuccessor\nr\nr\n"; })) << text("a");

  // And when no one can, it is dropped.
  std::ofstream{broken};
  const std::uint32_t restarts = state().restarts;
  ::kill(state().pid, SIGTERM);
  ASSERT_TRUE(
      run_until([&] { return state().restarts > restarts && state().phase == ProcessPhase::Waiting; }));
  clock_.now_ns += 60'000 * kMs;
  ASSERT_TRUE(run_until([&] { return text("a") == "r\nsuccessor\nr\nr\nr\n"; })) << text("a");
}

TEST_F(Supervisor, StopsGroupAfterGroup) {
  make().add(spec("first", "ignore", file("first"), 0));
  children_->add(spec("second", "wait", file("second"), 1));
  children_->do_work();
  ASSERT_TRUE(run_until([&] { return is_ready("first") && is_ready("second"); }));
  children_->stop();
  EXPECT_EQ(state(0).phase, ProcessPhase::Stopping);
  EXPECT_EQ(state(1).phase, ProcessPhase::Up) << "its turn has not come";
  EXPECT_EQ(children_->deadline_ns(), clock_.boottime_ns() + 10'000 * kMs);
  clock_.now_ns += 9'999 * kMs;
  children_->do_work();
  EXPECT_EQ(state(0).phase, ProcessPhase::Stopping);
  clock_.now_ns += 1 * kMs;
  ASSERT_TRUE(run_until([&] { return children_->stopped(); }));
  EXPECT_EQ(state(0).detail, "killed by signal 9 (Killed)");
  EXPECT_EQ(state(1).detail, "exited with status 0");
}

TEST_F(Supervisor, ASecondStopKillsAtOnce) {
  make().add(spec("a", "ignore", file("a")));
  children_->do_work();
  ASSERT_TRUE(run_until([&] { return is_ready("a"); }));
  children_->stop();
  EXPECT_FALSE(children_->stopped());
  children_->stop();
  ASSERT_TRUE(run_until([&] { return children_->stopped(); }));
}

TEST_F(Supervisor, StartsNothingWhileItStops) {
  make().add(spec("a", "exit", "1"));
  children_->do_work();
  ASSERT_TRUE(run_until([&] { return state().phase == ProcessPhase::Waiting; }));
  children_->stop();
  clock_.now_ns += 60'000 * kMs;
  children_->do_work();
  EXPECT_TRUE(children_->stopped());
  EXPECT_EQ(state().phase, ProcessPhase::Stopped);
}

TEST_F(Supervisor, RestartsByPlanAtOnceAndCallsItNoFailure) {
  make().add(spec("a", "wait", file("a")));
  children_->add(spec("b", "wait", file("b")));
  children_->do_work();
  ASSERT_TRUE(run_until([&] { return is_ready("a"); }));
  for (std::uint32_t i = 0; i < 5; ++i) {
    const int before = state().pid;
    // From another thread, as the API does it; the loop is woken.
    std::thread caller([&] { EXPECT_TRUE(children_->restart("a")); });
    caller.join();
    EXPECT_EQ(state().phase, ProcessPhase::Stopping);
    // The clock stands still: a pause would never end.
    ASSERT_TRUE(run_until([&] { return state().pid != 0 && state().pid != before; }));
    EXPECT_EQ(state().phase, ProcessPhase::Up);
    EXPECT_EQ(state().restarts, i + 1);
  }
  EXPECT_EQ(state(1).restarts, 0U);
  ::kill(state().pid, SIGKILL);
  ASSERT_TRUE(run_until([&] { return state().phase == ProcessPhase::Waiting; }));
  EXPECT_LE(children_->deadline_ns() - clock_.boottime_ns(), 125 * kMs) << "the pause of a first failure";
}

TEST_F(Supervisor, KillsWhatDoesNotStopForItsRestart) {
  make().add(spec("a", "ignore", file("a")));
  children_->do_work();
  ASSERT_TRUE(run_until([&] { return is_ready("a"); }));
  const int before = state().pid;
  ASSERT_TRUE(children_->restart("a"));
  EXPECT_EQ(children_->deadline_ns(), clock_.boottime_ns() + 10'000 * kMs);
  clock_.now_ns += 5'000 * kMs;
  ASSERT_TRUE(children_->restart("a")) << "said twice";
  EXPECT_EQ(children_->deadline_ns(), clock_.boottime_ns() + 5'000 * kMs) << "is done once";
  clock_.now_ns += 5'000 * kMs;
  ASSERT_TRUE(run_until([&] { return state().pid != 0 && state().pid != before; }));
  EXPECT_EQ(state().detail, "killed by signal 9 (Killed)");
  EXPECT_EQ(state().restarts, 1U);
}

TEST_F(Supervisor, ARestartEndsThePauseOfAFailedChild) {
  make().add(spec("a", "exit", "1"));
  children_->do_work();
  ASSERT_TRUE(run_until([&] { return state().phase == ProcessPhase::Waiting; }));
  pollfd wait{children_->poll_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&wait, 1, 0), 0);
  ASSERT_TRUE(children_->restart("a"));
  EXPECT_EQ(::poll(&wait, 1, 0), 1) << "the loop is woken";
  children_->do_work();
  EXPECT_EQ(state().restarts, 1U);
}

TEST_F(Supervisor, RefusesToRestartWhatItDoesNotKnowOrWhileItStops) {
  make().add(spec("a", "ignore", file("a")));
  children_->do_work();
  ASSERT_TRUE(run_until([&] { return is_ready("a"); }));
  EXPECT_EQ(children_->restart("ingestd@9").error(), "there is no process ingestd@9: see aranctl status");
  children_->stop();
  EXPECT_EQ(children_->restart("a").error(), "a is not restarted: everything is being stopped");
}

TEST_F(Supervisor, AdoptsAProcessAndStartsItAnewWhenItEnds) {
  // What a killed supervisor leaves behind: a process that is nobody's child (here: ours, but not this
  // manager's).
  ChildProcesses before(log_, clock_, {});
  before.add(spec("a", "wait", file("a")));
  before.do_work();
  const int pid = before.processes()[0].pid;
  ASSERT_TRUE((make(), run_until([&] { return is_ready("a"); })));
  children_->adopt(spec("a", "wait", file("a")), pid, open_pidfd(pid), 5);
  children_->do_work();
  EXPECT_EQ(state().pid, pid);
  ::kill(pid, SIGKILL);
  ASSERT_TRUE(run_until([&] { return state().phase == ProcessPhase::Waiting; }));
  clock_.now_ns = children_->deadline_ns();
  children_->do_work();
  EXPECT_EQ(state().phase, ProcessPhase::Up);
  EXPECT_NE(state().pid, pid);
  EXPECT_EQ(state().restarts, 1U);
}

TEST_F(Supervisor, PassesTheListenerWhichSurvivesTheChild) {
  Config::Bmp config;
  config.listen = {"127.0.0.1", 0};
  auto listeners = open_listeners(config, std::vector<Fd>(1));
  ASSERT_TRUE(listeners) << listeners.error();
  ASSERT_NE(listeners->address.port, 0);
  ChildSpec child = spec("a", "accept", file("a"));
  child.inherit_fd = listeners->fds[0].get();
  make().add(child);
  for (int round = 0; round < 2; ++round) {
    // The connection is made while nobody serves the listener, and waits in its queue.
    const Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(listeners->address.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    children_->do_work();
    char text[8] = {};
    ASSERT_EQ(::recv(client.get(), text, sizeof text, MSG_WAITALL), 5);
    EXPECT_STREQ(text, "hello");
    ASSERT_TRUE(run_until([&] { return state().phase == ProcessPhase::Waiting; }));
    EXPECT_EQ(state().detail, "exited with status 0");
    clock_.now_ns = children_->deadline_ns();
  }
}

TEST(ProcessStart, IsReadFromProc) {
  const SystemClock clock;
  const std::uint64_t started = process_started_realtime_ns(::getpid(), clock);
  EXPECT_LE(started, clock.realtime_ns());
  EXPECT_GT(started + 60'000 * kMs, clock.realtime_ns()) << "this test runs for less than a minute";
  EXPECT_EQ(process_started_realtime_ns(-1, clock), 0U);
}

}  // namespace
}  // namespace arancini::curated
