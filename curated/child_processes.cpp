#include "curated/child_processes.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <system_error>

#include "common/base/error.h"

namespace arancini::curated {

namespace {

constexpr int kInheritedFd = 3;
constexpr int kHandoverFd = 4;
constexpr std::chrono::milliseconds kReadAgain{100};
constexpr std::chrono::milliseconds kBlockedFor{5'000};  // longer than who hands over waits for the answer
constexpr std::uint64_t kWakeEvent = ~std::uint64_t{0};  // no index of a child
constexpr std::uint64_t kNotifyEvent = kWakeEvent - 1;

std::uint64_t to_ns(std::chrono::milliseconds t) {
  return static_cast<std::uint64_t>(t.count()) * 1'000'000U;
}

void check_spawn(int rc, const char* what) {
  if (rc != 0) throw std::system_error(rc, std::generic_category(), what);
}

// The systemd protocol is between systemd and this process; a child that believes it is meant would answer
// for us. ARANCINI_NATS may hold a password: only the child that it is for gets it.
std::vector<char*> child_environment(std::vector<std::string>& own) {
  std::vector<char*> out;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string_view v(*e);
    const bool ours = v.starts_with("NOTIFY_SOCKET=") || v.starts_with("WATCHDOG_") ||
                      v.starts_with("LISTEN_") || v.starts_with("ARANCINI_NATS=");
    if (!ours) out.push_back(*e);
  }
  for (std::string& e : own) out.push_back(e.data());
  out.push_back(nullptr);
  return out;
}

class SpawnSettings {
 public:
  SpawnSettings(int inherit_fd, int kept_fd) {
    check_spawn(::posix_spawn_file_actions_init(&actions_), "posix_spawn_file_actions_init");
    check_spawn(::posix_spawnattr_init(&attributes_), "posix_spawnattr_init");
    check_spawn(::posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0), "addopen");
    // Our stdout carries the READY line and nothing else.
    check_spawn(::posix_spawn_file_actions_adddup2(&actions_, 2, 1), "adddup2");
    int first_closed = kInheritedFd;
    if (inherit_fd >= 0) {
      check_spawn(::posix_spawn_file_actions_adddup2(&actions_, inherit_fd, kInheritedFd), "adddup2");
      ++first_closed;
    }
    if (kept_fd >= 0) {  // never one of the numbers that children get
      check_spawn(::posix_spawn_file_actions_adddup2(&actions_, kept_fd, kHandoverFd), "adddup2");
      first_closed = kHandoverFd + 1;
    }
    check_spawn(::posix_spawn_file_actions_addclosefrom_np(&actions_, first_closed), "addclosefrom");
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    check_spawn(::posix_spawnattr_setsigmask(&attributes_, &none), "setsigmask");
    check_spawn(::posix_spawnattr_setsigdefault(&attributes_, &all), "setsigdefault");
    check_spawn(::posix_spawnattr_setflags(
                    &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID),
                "setflags");
  }
  ~SpawnSettings() {
    ::posix_spawnattr_destroy(&attributes_);
    ::posix_spawn_file_actions_destroy(&actions_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

std::string describe_end(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return fmt::format("exited with status {}", info.si_status);
  return fmt::format("killed by signal {} ({})", info.si_status, ::strsignal(info.si_status));
}

}  // namespace

std::uint64_t process_started_realtime_ns(int pid, const Clock& clock) {
  std::ifstream in(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(in, line);
  const std::size_t name_end = line.rfind(')');  // the name may hold blanks and parentheses itself
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;  // proc(5): starttime is the 22nd
  std::uint64_t ticks = 0;
  fields >> ticks;
  const auto per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const std::uint64_t started_ns = ticks * (1'000'000'000U / per_second);
  const std::uint64_t now_ns = clock.boottime_ns();
  return fields && now_ns >= started_ns ? clock.realtime_ns() - (now_ns - started_ns) : 0;
}

Fd open_pidfd(int pid) {
  // The descriptor is close-on-exec. glibc 2.36 has a wrapper, its header clashes with <linux/*>.
  return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

ChildProcesses::ChildProcesses(Logger& log, const Clock& clock, Options options)
    : log_(log),
      clock_(clock),
      options_(options),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      random_(options.seed) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeEvent;
  if (!epoll_ || !wake_ || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "epoll and eventfd");
  }
  if (options_.notify_path.empty()) return;
  notify_ = std::make_unique<NotifySocket>(options_.notify_path, log_);
  event.data.u64 = kNotifyEvent;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, notify_->fd(), &event) != 0)
    throw std::system_error(errno, std::generic_category(), "epoll_ctl(notify)");
}

ChildProcesses::~ChildProcesses() = default;

void ChildProcesses::add(ChildSpec spec) {
  const std::lock_guard lock(mutex_);
  Child child;
  child.seen.name = spec.name;
  child.seen.phase = ProcessPhase::Waiting;
  child.due_ns = clock_.boottime_ns();
  child.spec = std::move(spec);
  children_.push_back(std::move(child));
}

void ChildProcesses::adopt(ChildSpec spec, int pid, Fd pidfd, std::uint64_t started_realtime_ns) {
  const std::lock_guard lock(mutex_);
  Child child;
  child.seen.name = spec.name;
  child.seen.phase = ProcessPhase::Up;
  child.seen.pid = pid;
  child.seen.started_realtime_ns = started_realtime_ns;
  child.started_ns = clock_.boottime_ns();
  child.pidfd = std::move(pidfd);
  child.spec = std::move(spec);
  children_.push_back(std::move(child));
  watch(children_.size() - 1);
  log_.info("{} is running already (pid {}): adopted", children_.back().spec.name, pid);
}

void ChildProcesses::watch(std::size_t index) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = index;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, children_[index].pidfd.get(), &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "epoll_ctl(pidfd)");
  }
}

void ChildProcesses::start(std::size_t index) {
  Child& child = children_[index];
  std::vector<std::string> words = child.spec.argv;
  std::vector<std::string> own = child.spec.environment;
  if (child.kept) words.insert(words.end(), {kHandoverFlag, std::to_string(kHandoverFd)});
  if (notify_ && child.spec.hands_over) own.push_back("NOTIFY_SOCKET=" + notify_->path());
  std::vector<char*> argv;
  for (std::string& a : words) argv.push_back(a.data());
  argv.push_back(nullptr);
  std::vector<char*> environment = child_environment(own);
  const SpawnSettings settings(child.spec.inherit_fd, child.kept.get());
  pid_t pid = 0;
  const int rc = ::posix_spawn(&pid, argv[0], &settings.actions_, &settings.attributes_, argv.data(),
                               environment.data());
  if (rc != 0) {
    child.seen.detail = fmt::format("cannot start {}: {}", child.spec.argv[0], std::strerror(rc));
    wait_before_restart(child);
    return;
  }
  // Until it says that it has taken it: it may end before.
  child.given = static_cast<bool>(child.kept);
  if (child.seen.started_realtime_ns != 0) ++child.seen.restarts;
  child.seen.phase = ProcessPhase::Up;
  child.seen.pid = pid;
  child.seen.started_realtime_ns = clock_.realtime_ns();
  child.started_ns = clock_.boottime_ns();
  child.killed = false;
  // Not reaped by anyone but us, so the pid cannot be re-used in between.
  child.pidfd = open_pidfd(pid);
  if (!child.pidfd) {  // nobody would see its end
    child.seen.detail = fmt::format("cannot watch process {}: {}", pid, std::strerror(errno));
    ::kill(pid, SIGKILL);
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
    wait_before_restart(child);
    return;
  }
  watch(index);
  log_.info("{} started, pid {}", child.spec.name, pid);
}

void ChildProcesses::wait_before_restart(Child& child) {
  const std::uint64_t now = clock_.boottime_ns();
  if (child.started_ns != 0 && now - child.started_ns >= to_ns(options_.backoff_reset)) child.failures = 0;
  const std::uint64_t low = to_ns(options_.backoff_min);
  const std::uint64_t high = to_ns(options_.backoff_max);
  const std::uint64_t nominal = std::min(high, low << std::min(child.failures, 20U));
  // Up to a quarter more or less, so that shards that fell together do not rise together.
  const double jitter = std::uniform_real_distribution<double>(0.75, 1.25)(random_);
  const std::uint64_t pause =
      std::clamp(static_cast<std::uint64_t>(static_cast<double>(nominal) * jitter), low, high);
  ++child.failures;
  child.started_ns = 0;
  child.due_ns = now + pause;
  child.seen.phase = ProcessPhase::Waiting;
  child.seen.pid = 0;
  log_.warn("{}: {}; starting it again in {} ms", child.spec.name, child.seen.detail, pause / 1'000'000U);
}

void ChildProcesses::ended(Child& child) {
  siginfo_t info{};
  const int rc =
      ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(child.pidfd.get()), &info, WEXITED);
  // One that we adopted is not our child: its status went to somebody else.
  child.seen.detail = rc == 0 ? describe_end(info) : std::string("ended");
  child.pidfd.reset();
  if (stopping_) {
    log_.info("{} stopped ({})", child.spec.name, child.seen.detail);
    child.seen.phase = ProcessPhase::Stopped;
    child.seen.pid = 0;
    return;
  }
  if (child.planned || (child.kept && !child.given)) {
    child.planned = false;
    child.due_ns = clock_.boottime_ns();
    child.seen.phase = ProcessPhase::Waiting;
    child.seen.pid = 0;
    log_.info("{} ended for its restart ({})", child.spec.name, child.seen.detail);
    return;
  }
  wait_before_restart(child);
}

void ChildProcesses::keep(int pid, Fd kept) {
  const auto child = std::find_if(children_.begin(), children_.end(), [pid](const Child& c) {
    return c.spec.hands_over && c.pidfd && c.seen.pid == pid;
  });
  if (child == children_.end()) return;
  if (kept) log_.info("{} leaves its sessions to its successor", child->spec.name);
  child->kept = std::move(kept);
  child->given = false;
  child->kept_until_ns = clock_.boottime_ns() + to_ns(kKeptFor);
}

void ChildProcesses::drop_kept(Child& child) {
  log_.warn(
      "restart: the sessions of {} are closed ({}): no successor took them within {} s; their routers "
      "connect anew; see why it does not start: {}",
      child.spec.name, number(ErrorCode::SessionNotKept),
      std::chrono::duration_cast<std::chrono::seconds>(kKeptFor).count(),
      child.seen.detail.empty() ? std::string("its log") : child.seen.detail);
  child.kept.reset();
}

void ChildProcesses::ask_to_stop(Child& child) {
  child.seen.phase = ProcessPhase::Stopping;
  child.due_ns = clock_.boottime_ns() + to_ns(options_.term_wait);
  ::syscall(SYS_pidfd_send_signal, child.pidfd.get(), SIGTERM, nullptr, 0);
}

void ChildProcesses::kill_child(Child& child) {
  if (child.killed) return;
  child.killed = true;
  log_.warn("{} (pid {}) did not stop on SIGTERM: killed", child.spec.name, child.seen.pid);
  ::syscall(SYS_pidfd_send_signal, child.pidfd.get(), SIGKILL, nullptr, 0);
}

void ChildProcesses::advance_stop() {
  std::uint32_t group = ~std::uint32_t{0};
  for (Child& child : children_) {
    if (!child.pidfd) {
      child.seen.phase = ProcessPhase::Stopped;
    } else {
      group = std::min(group, child.spec.stop_group);
    }
  }
  const std::uint64_t now = clock_.boottime_ns();
  for (Child& child : children_) {
    if (!child.pidfd || (child.spec.stop_group != group && !kill_now_)) continue;
    if (child.seen.phase != ProcessPhase::Stopping) ask_to_stop(child);
    if (kill_now_ || now >= child.due_ns) kill_child(child);
  }
}

void ChildProcesses::read_notifications() {
  const std::uint64_t now = clock_.boottime_ns();
  if (!notify_ || now < read_again_ns_) return;
  const bool late = read_again_ns_ != 0 && now - blocked_since_ns_ >= to_ns(kBlockedFor);
  const bool all = notify_->read([this](int pid, Fd kept) { keep(pid, std::move(kept)); }, late);
  if (all && read_again_ns_ == 0) return;
  if (read_again_ns_ == 0 || late) blocked_since_ns_ = now;
  watch_notifications(all);
  read_again_ns_ = all ? 0 : now + to_ns(kReadAgain);
}

// What cannot be read now would wake us without end.
void ChildProcesses::watch_notifications(bool on) {
  epoll_event event{};
  event.events = on ? EPOLLIN : 0U;
  event.data.u64 = kNotifyEvent;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, notify_->fd(), &event);
}

void ChildProcesses::do_work() {
  const std::lock_guard lock(mutex_);
  std::array<epoll_event, 64> events{};
  int n = 0;
  while ((n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0)) > 0) {
    for (int i = 0; i < n; ++i) {
      const std::uint64_t what = events[static_cast<std::size_t>(i)].data.u64;
      if (what == kNotifyEvent) {
        read_notifications();
      } else if (what != kWakeEvent) {
        read_notifications();  // what it said before it ended
        ended(children_[what]);
      } else {
        eventfd_t orders = 0;
        ::eventfd_read(wake_.get(), &orders);
      }
    }
  }
  if (stopping_) {
    advance_stop();
    return;
  }
  if (read_again_ns_ != 0) read_notifications();
  const std::uint64_t now = clock_.boottime_ns();
  for (std::size_t i = 0; i < children_.size(); ++i) {
    Child& child = children_[i];
    if (child.kept && child.kept_until_ns <= now) drop_kept(child);
    if (child.due_ns > now) continue;
    if (child.seen.phase == ProcessPhase::Waiting) start(i);
    if (child.seen.phase == ProcessPhase::Stopping) kill_child(child);
  }
}

Result<std::monostate, std::string> ChildProcesses::restart(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return Err{fmt::format("{} is not restarted: everything is being stopped", name)};
  const auto child =
      std::find_if(children_.begin(), children_.end(), [&](const Child& c) { return c.spec.name == name; });
  if (child == children_.end()) return Err{fmt::format("there is no process {}: see aranctl status", name)};
  if (child->pidfd) {
    if (child->seen.phase != ProcessPhase::Stopping) ask_to_stop(*child);
    child->planned = true;
  } else {
    child->due_ns = clock_.boottime_ns();  // it waits for its next start: now
  }
  ::eventfd_write(wake_.get(), 1);
  return std::monostate{};
}

std::uint64_t ChildProcesses::deadline_ns() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t next = notify_ ? read_again_ns_ : 0;
  for (const Child& child : children_) {
    if (child.kept && (next == 0 || child.kept_until_ns < next)) next = child.kept_until_ns;
    const bool timed = child.seen.phase == ProcessPhase::Waiting ||
                       (child.seen.phase == ProcessPhase::Stopping && !child.killed);
    if (timed && (next == 0 || child.due_ns < next)) next = child.due_ns;
  }
  return next;
}

void ChildProcesses::stop() {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) kill_now_ = true;
    stopping_ = true;
    // There will be no successors: with nobody there, sessions are ended in order.
    notify_.reset();
    for (Child& child : children_) child.kept.reset();
  }
  do_work();
}

bool ChildProcesses::stopped() const {
  const std::lock_guard lock(mutex_);
  return stopping_ &&
         std::all_of(children_.begin(), children_.end(), [](const Child& c) { return !c.pidfd; });
}

std::vector<ManagedProcess> ChildProcesses::processes() const {
  const std::lock_guard lock(mutex_);
  std::vector<ManagedProcess> out;
  out.reserve(children_.size());
  for (const Child& child : children_) out.push_back(child.seen);
  return out;
}

}  // namespace arancini::curated
