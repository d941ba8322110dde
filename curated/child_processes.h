#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "curated/notify_socket.h"
#include "curated/process_manager.h"

namespace arancini::curated {

struct ChildSpec {
  std::string name;
  std::vector<std::string> argv;  // argv[0] is the path of the program
  int inherit_fd = -1;            // becomes descriptor 3 of the child; borrowed, outlives the manager
  std::uint32_t stop_group = 0;   // groups are stopped one after the other, the lowest first
  std::vector<std::string> environment{};  // "NAME=value", beyond what it inherits
  bool hands_over = false;  // has a NOTIFY_SOCKET; what it leaves there its successor gets (kHandoverFlag)
};

// With a descriptor of the process before: this flag and the descriptor's number are the last arguments.
inline constexpr const char* kHandoverFlag = "--handover-fd";

// The supervisor: children by posix_spawn (never fork: gRPC runs in this process), each in a session of its
// own, so that a terminal's Ctrl-C reaches only us and the order of stopping is ours. They outlive a killed
// supervisor; the next one adopts them.
class ChildProcesses final : public ProcessManager {
 public:
  struct Options {
    std::chrono::milliseconds backoff_min{100};
    std::chrono::milliseconds backoff_max{10'000};
    std::chrono::milliseconds backoff_reset{
        30'000};  // one that was up that long starts again at once at backoff_min
    std::chrono::milliseconds term_wait{10'000};  // between SIGTERM and SIGKILL
    std::uint64_t seed = 0;                       // of the jitter
    std::string notify_path{};                    // empty: nothing can be handed over
  };

  // What is handed over is kept that long for a successor that takes it, whatever becomes of those that do
  // not: then routers are better off with a new session.
  static constexpr std::chrono::milliseconds kKeptFor{60'000};

  // Borrows `log` and `clock`. Throws std::system_error.
  ChildProcesses(Logger& log, const Clock& clock, Options options);
  ~ChildProcesses() override;  // leaves children running: stop() first
  ChildProcesses(const ChildProcesses&) = delete;
  ChildProcesses& operator=(const ChildProcesses&) = delete;

  // Started by the next do_work().
  void add(ChildSpec spec);
  // Takes over a process that a former supervisor started. `pidfd` stands for it.
  void adopt(ChildSpec spec, int pid, Fd pidfd, std::uint64_t started_realtime_ns);

  [[nodiscard]] std::vector<ManagedProcess> processes() const override;
  [[nodiscard]] int poll_fd() const override { return epoll_.get(); }
  [[nodiscard]] std::uint64_t deadline_ns() const override;
  void do_work() override;
  Result<std::monostate, std::string> restart(const std::string& name) override;
  void stop() override;
  [[nodiscard]] bool stopped() const override;

 private:
  struct Child {
    ChildSpec spec;
    ManagedProcess seen;
    Fd pidfd;
    std::uint64_t started_ns = 0;  // boot time
    std::uint64_t due_ns = 0;      // boot time: of the start when Waiting, of SIGKILL when Stopping
    std::uint32_t failures = 0;
    bool killed = false;
    bool planned = false;             // it stops because of restart()
    Fd kept;                          // for its successor, which it stops for, until that one has taken it
    bool given = false;               // the running one was started with it
    std::uint64_t kept_until_ns = 0;  // boot time
  };

  void watch(std::size_t index);
  void start(std::size_t index);
  void ended(Child& child);
  void ask_to_stop(Child& child);
  void wait_before_restart(Child& child);
  void keep(int pid, Fd kept);
  void drop_kept(Child& child);
  void read_notifications();
  void watch_notifications(bool on);
  void advance_stop();
  void kill_child(Child& child);

  Logger& log_;
  const Clock& clock_;
  const Options options_;
  Fd epoll_;
  Fd wake_;                               // restart() has something for do_work(), maybe from another thread
  std::unique_ptr<NotifySocket> notify_;  // null: nothing is kept
  std::uint64_t read_again_ns_ = 0;       // not 0: what is there could not be taken, and is not watched
  std::uint64_t blocked_since_ns_ = 0;    // then
  std::mt19937_64 random_;
  mutable std::mutex mutex_;  // children_: the loop changes it, API threads read it
  std::vector<Child> children_;
  bool stopping_ = false;
  bool kill_now_ = false;
};

// When a process started, from /proc/PID/stat; 0 if there is none.
std::uint64_t process_started_realtime_ns(int pid, const Clock& clock);

// A pidfd, invalid (errno says why) if there is no such process.
Fd open_pidfd(int pid);

}  // namespace arancini::curated
