// The same for own children and, in a booted system (tests/systemd), for systemd's units: real processes and
// a real clock.
#include "curated/process_manager.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>

#include "curated/child_processes.h"
#include "curated/systemd_units.h"

namespace arancini::curated {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Where two processes run that a test describes: "ingestd@7" and "publishd".
class Host {
 public:
  virtual ~Host() = default;
  // Runs fake_child with these arguments; started again 100 ms after its end, killed 500 ms after SIGTERM.
  virtual void run(const std::string& name, const std::string& mode, const std::string& argument) = 0;
  virtual ProcessManager& manager() = 0;
};

std::string helper() {
  const char* path = std::getenv("FAKE_CHILD");
  return path != nullptr ? path : "";
}

class Children final : public Host {
 public:
  Children() : children_(log_, clock_, options()) {}
  ~Children() override {
    children_.stop();
    children_.stop();
    while (!children_.stopped()) {
      pollfd wait{children_.poll_fd(), POLLIN, 0};
      ::poll(&wait, 1, 1000);
      children_.do_work();
    }
  }
  void run(const std::string& name, const std::string& mode, const std::string& argument) override {
    children_.add({name, {helper(), mode, argument}, -1, 0});
  }
  ProcessManager& manager() override { return children_; }

 private:
  static ChildProcesses::Options options() {
    ChildProcesses::Options o;
    o.backoff_min = o.backoff_max = milliseconds(100);
    o.term_wait = milliseconds(500);
    return o;
  }
  Logger log_{"test", LogLevel::Error};
  SystemClock clock_;
  ChildProcesses children_;
};

class Units final : public Host {
 public:
  Units() : units_(log_, clock_, {}) { units_.do_work(); }
  ~Units() override {
    for (const std::string& name : names_) {
      systemctl("stop " + name);
      std::filesystem::remove(file(name));
    }
    systemctl("daemon-reload");
  }
  void run(const std::string& name, const std::string& mode, const std::string& argument) override {
    names_.push_back(name);
    std::ofstream(file(name)) << "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nExecStart="
                              << helper() << ' ' << mode << ' ' << argument
                              << "\nRestart=always\nRestartSec=100ms\nTimeoutStopSec=500ms\nLimitCORE=0\n";
    systemctl("daemon-reload");
    systemctl("start --no-block " + name);  // one that ends at once is no failed start
  }
  ProcessManager& manager() override { return units_; }

 private:
  static std::string file(const std::string& name) { return "/run/systemd/system/" + name + ".service"; }
  static void systemctl(const std::string& arguments) {
    EXPECT_EQ(std::system(("systemctl " + arguments).c_str()), 0) << arguments;
  }
  Logger log_{"test", LogLevel::Warn};
  SystemClock clock_;
  SystemdUnits units_;
  std::vector<std::string> names_;
};

class AnyManager : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "Units" && std::getenv("ARANCINI_BOOTED") == nullptr) {
      GTEST_SKIP() << "units need a systemd of their own: the test 'systemd' runs these cases";
    }
    char pattern[] = "/tmp/arancini-manager-XXXXXX";
    folder_ = ::mkdtemp(pattern);
    if (GetParam() == "Units") {
      host_ = std::make_unique<Units>();
    } else {
      host_ = std::make_unique<Children>();
    }
  }
  void TearDown() override {
    host_.reset();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  ManagedProcess state(const std::string& name = "ingestd@7") {
    for (ManagedProcess& p : host_->manager().processes()) {
      if (p.name == name) return std::move(p);
    }
    return {};
  }
  bool until(const std::function<bool()>& condition) {
    const auto give_up = steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
      if (steady_clock::now() > give_up) return false;
      pollfd wait{host_->manager().poll_fd(), POLLIN, 0};
      ::poll(&wait, 1, 20);
      host_->manager().do_work();
    }
    return true;
  }
  bool up(const std::string& name = "ingestd@7") {
    return until([&] { return state(name).phase == ProcessPhase::Up && state(name).pid > 0; });
  }
  bool another_than(int pid, const std::string& name = "ingestd@7") {
    return until([&] {
      return state(name).phase == ProcessPhase::Up && state(name).pid > 0 && state(name).pid != pid;
    });
  }
  std::string file(const std::string& name) const { return folder_ + "/" + name; }
  bool ready(const std::string& name) {
    return until([&] { return std::filesystem::exists(file(name)); });
  }

  std::string folder_;
  std::unique_ptr<Host> host_;
};

TEST_P(AnyManager, TellsOfAProcessThatRuns) {
  host_->run("ingestd@7", "wait", file("a"));
  ASSERT_TRUE(ready("a"));
  ASSERT_TRUE(up());
  const ManagedProcess p = state();
  EXPECT_EQ(::kill(p.pid, 0), 0);
  EXPECT_EQ(p.restarts, 0U);
  EXPECT_EQ(p.detail, "");
  const std::uint64_t now = SystemClock().realtime_ns();
  EXPECT_LE(p.started_realtime_ns, now);
  EXPECT_GT(p.started_realtime_ns + 60'000'000'000U, now);
}

TEST_P(AnyManager, SeesAKilledProcessAndItsSuccessor) {
  host_->run("ingestd@7", "wait", file("a"));
  ASSERT_TRUE(ready("a"));
  ASSERT_TRUE(up());
  const int before = state().pid;
  ::kill(before, SIGKILL);
  ASSERT_TRUE(another_than(before));
  EXPECT_EQ(state().restarts, 1U);
  EXPECT_EQ(state().detail, "killed by signal 9 (Killed)");
}

TEST_P(AnyManager, SaysHowAProcessEndsThatCannotStay) {
  host_->run("ingestd@7", "exit", "3");
  ASSERT_TRUE(until([&] { return state().phase == ProcessPhase::Waiting && !state().detail.empty(); }));
  EXPECT_EQ(state().detail, "exited with status 3");
  EXPECT_EQ(state().pid, 0);
  ASSERT_TRUE(until([&] { return state().restarts >= 2; }));
}

TEST_P(AnyManager, RestartsOneByPlan) {
  host_->run("ingestd@7", "wait", file("a"));
  host_->run("publishd", "wait", file("b"));
  ASSERT_TRUE(ready("a"));
  ASSERT_TRUE(ready("b"));
  ASSERT_TRUE(up());
  ASSERT_TRUE(up("publishd"));
  const int other = state("publishd").pid;
  for (std::uint32_t i = 1; i <= 3; ++i) {
    const int before = state().pid;
    const auto taken = host_->manager().restart("ingestd@7");
    ASSERT_TRUE(taken) << taken.error();
    ASSERT_TRUE(another_than(before));
    EXPECT_EQ(state().restarts, i);
  }
  EXPECT_EQ(state("publishd").pid, other);
  EXPECT_EQ(state("publishd").restarts, 0U);
}

TEST_P(AnyManager, KillsWhatDoesNotStopForItsRestart) {
  host_->run("ingestd@7", "ignore", file("a"));
  ASSERT_TRUE(ready("a"));
  ASSERT_TRUE(up());
  const int before = state().pid;
  ASSERT_TRUE(host_->manager().restart("ingestd@7"));
  ASSERT_TRUE(until([&] { return state().phase == ProcessPhase::Stopping || state().pid != before; }));
  ASSERT_TRUE(another_than(before));
  EXPECT_EQ(state().restarts, 1U);
}

TEST_P(AnyManager, RefusesWhatItDoesNotKnow) {
  host_->run("ingestd@7", "wait", file("a"));
  ASSERT_TRUE(ready("a"));
  ASSERT_TRUE(up());
  EXPECT_EQ(host_->manager().restart("ingestd@8").error(),
            "there is no process ingestd@8: see aranctl status");
  EXPECT_EQ(host_->manager().restart("dbus").error(), "there is no process dbus: see aranctl status");
}

INSTANTIATE_TEST_SUITE_P(Children, AnyManager, ::testing::Values("Children"));
INSTANTIATE_TEST_SUITE_P(Units, AnyManager, ::testing::Values("Units"));

bool booted_and_unprivileged() {
  return std::getenv("ARANCINI_BOOTED") != nullptr && ::getuid() != 0;
}

// Run by user arancini.
TEST(SystemdUnits, RestartsWhatPolkitAllows) {
  if (!booted_and_unprivileged()) {
    GTEST_SKIP() << "takes a systemd of its own and user arancini: the test 'systemd' runs it";
  }
  SystemClock clock;
  Logger log("test", LogLevel::Warn);
  SystemdUnits units(log, clock, {});
  units.do_work();
  for (const ManagedProcess& p : units.processes()) {
    const auto taken = units.restart(p.name);
    EXPECT_TRUE(taken) << taken.error();
  }
  EXPECT_EQ(units.processes().size(), 3U) << "publishd and two shards";
}

// Run by somebody whom polkit lets restart nothing.
TEST(SystemdUnits, SaysWhatToDoWhenSystemdRefuses) {
  if (!booted_and_unprivileged()) {
    GTEST_SKIP() << "takes a systemd of its own and a user without rights: the test 'systemd' runs it";
  }
  SystemClock clock;
  Logger log("test", LogLevel::Warn);
  SystemdUnits units(log, clock, {});
  units.do_work();
  const auto taken = units.restart("publishd");
  ASSERT_FALSE(taken);
  EXPECT_NE(taken.error().find("publishd is not restarted: systemd: "), std::string::npos) << taken.error();
  EXPECT_NE(taken.error().find("run: systemctl restart publishd.service"), std::string::npos)
      << taken.error();
}

TEST(SystemdUnits, ABusThatIsNotThereIsSaidOnceAndTriedAgain) {
  ::setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus", 1);
  FakeClock clock;
  clock.now_ns = 1'000'000'000U;
  Logger log("test", LogLevel::Error);
  SystemdUnits units(log, clock, {});
  units.do_work();
  EXPECT_TRUE(units.processes().empty());
  EXPECT_EQ(units.restart("ingestd@0").error(),
            "ingestd@0 is not restarted: the system bus: No such file or directory");
  EXPECT_EQ(units.deadline_ns(), clock.now_ns + 1'000'000'000U);
  EXPECT_FALSE(units.stopped());
  units.stop();
  EXPECT_TRUE(units.stopped());
  ::unsetenv("DBUS_SYSTEM_BUS_ADDRESS");
}

}  // namespace
}  // namespace arancini::curated
