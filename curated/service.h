#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "curated/fleet.h"

namespace arancini::curated {

// arancini.control.v1 on a unix socket (mode 0660), with the standard health service and reflection. Calls
// are answered on gRPC's own threads, from the fleet's pages; connections are accepted by the caller's loop,
// which knows who calls before gRPC reads a byte.
class ControlServer {
 public:
  struct Setup {
    ProcessManager* manager = nullptr;  // borrowed; null: the daemons are somebody else's to restart
    ConfigFlags flags;                  // as curated was started with
    Config loaded;                      // what came of them, before ports were chosen
    std::function<void(LogLevel)> set_log_level = [](LogLevel) {};  // of curated's other loggers; any thread
  };
  // Borrows all. `config` says what is in force (ports resolved). Replaces a socket that a dead curated left
  // at config.control_path(). The error is one line for the operator.
  static Result<std::unique_ptr<ControlServer>, std::string> start(const Config& config, Fleet& fleet,
                                                                   Logger& log, Setup setup);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Readable when somebody calls; then accept_callers(). -1 (poll ignores it) while too many
  // connections are open, and for a moment when descriptors ran out: ask again before each wait, and wait for
  // a second at most.
  [[nodiscard]] int poll_fd() const;
  // Refuses whoever is neither root, nor this user, nor in this process's group, and says so in the log.
  void accept_callers();
  // What the RPC Reload does, for a signal; the log says what came of it. Any thread, takes seconds.
  void reload(const std::string& who);

 private:
  struct State;
  explicit ControlServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace arancini::curated
