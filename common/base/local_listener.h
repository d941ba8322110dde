#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/result.h"

namespace arancini {

// The unix socket of a service; whoever calls is looked at before the service reads a byte.
// For one thread, which accepts and hands the connections on.
class LocalListener {
 public:
  // Who may call: root and this user, or members of this process's group as well. The mode of the socket is
  // 0600 or 0660.
  enum class Callers : std::uint8_t { User, Group };
  // Listens at `path` and replaces a socket that a dead process left there. `what` names it in messages
  // ("control"). The error is one line for the operator. `log` is borrowed.
  static Result<LocalListener, std::string> open(const std::string& path, const std::string& what,
                                                 Callers callers, Logger& log);
  LocalListener(LocalListener&&) = default;
  LocalListener& operator=(LocalListener&&) = delete;
  ~LocalListener();  // removes the name

  // Readable when somebody calls; then accept(). -1 (poll ignores it) for a moment when descriptors ran out:
  // ask again before each wait, and wait for a second at most.
  [[nodiscard]] int poll_fd(std::uint64_t now_boottime_ns) const;
  // The connection of the next caller (not blocking); invalid when nobody waits. Whoever may not call is
  // refused, and that is said in the log. `who`, when given, is the caller as it was when it connected.
  [[nodiscard]] Fd accept(std::uint64_t now_boottime_ns, ucred* who = nullptr);

 private:
  LocalListener(Fd fd, std::string path, std::string what, Callers callers, Logger& log)
      : fd_(std::move(fd)), path_(std::move(path)), what_(std::move(what)), callers_(callers), log_(&log) {}

  Fd fd_;
  std::string path_;
  std::string what_;
  Callers callers_;
  Logger* log_;
  std::uint64_t deaf_until_ns_ = 0;  // boot time
};

}  // namespace arancini
