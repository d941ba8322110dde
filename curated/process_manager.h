#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/result.h"

namespace arancini::curated {

enum class ProcessPhase : std::uint8_t {
  Up,       // there is a process; what it says of itself is in its stats page
  Waiting,  // it ended or could not be started; it is started again after a pause
  Stopping,
  Stopped,
};

struct ManagedProcess {
  std::string name;  // "ingestd@0", "publishd", "nats-server"
  ProcessPhase phase = ProcessPhase::Stopped;
  int pid = 0;  // 0 when there is none
  std::uint32_t restarts = 0;
  std::uint64_t started_realtime_ns = 0;  // of this pid, 0 when not known
  std::string detail;                     // why it ended last, one line, empty if it never did
};

// Starts, watches and stops the daemons: as own children, or as systemd units. Driven by one event loop: wait
// until poll_fd() is readable or deadline_ns() has come, then call do_work().
class ProcessManager {
 public:
  virtual ~ProcessManager() = default;

  // Any thread.
  [[nodiscard]] virtual std::vector<ManagedProcess> processes() const = 0;

  [[nodiscard]] virtual int poll_fd() const = 0;
  // Boot time of the next thing to do without an event, 0 if there is none.
  [[nodiscard]] virtual std::uint64_t deadline_ns() const = 0;
  // Starts what is due, takes note of what ended.
  virtual void do_work() = 0;

  // Stops and starts one process again, as an operator's plan; returns when the order is taken, not when it
  // is up. Any thread. The error is one line for the operator.
  virtual Result<std::monostate, std::string> restart(const std::string& name) = 0;

  // From now on nothing is started, and everything is stopped in order; a second call kills what is left.
  virtual void stop() = 0;
  [[nodiscard]] virtual bool stopped() const = 0;
};

}  // namespace arancini::curated
