#pragma once

#include <functional>
#include <string>

#include "common/base/fd.h"

namespace arancini::curated {

// The end of NOTIFY_SOCKET where children say what they would say to systemd (sd_notify(3)). Of that only the
// descriptor that an ingestd leaves to its successor is taken, and barriers are answered.
class NotifySocket {
 public:
  // Binds `path`, in place of a former supervisor's; mode 0600. Throws std::system_error.
  explicit NotifySocket(std::string path);
  ~NotifySocket();  // the path is gone as well: who sends hears that nobody is there
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }

  // Reads what is there, a bounded part of it. Process `pid`, of our user or root's, wants `kept` to be kept
  // in place of what was; an invalid one: nothing any longer.
  void read(const std::function<void(int pid, Fd kept)>& keep);

 private:
  const std::string path_;
  Fd socket_;
};

}  // namespace arancini::curated
