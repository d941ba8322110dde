#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/fd.h"
#include "common/base/log.h"

namespace arancini::curated {

// The end of NOTIFY_SOCKET where children say what they would say to systemd (sd_notify(3)). Of that only the
// descriptor that an ingestd leaves to its successor is taken, and barriers are answered.
class NotifySocket {
 public:
  // Binds `path`, in place of a former supervisor's; mode 0600. Borrows `log`. Throws std::system_error.
  NotifySocket(std::string path, Logger& log);
  ~NotifySocket();  // the path is gone as well: who sends hears that nobody is there
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }

  // Reads what is there, a bounded part of it. Process `pid`, of our user or root's, wants `kept` to be kept
  // in place of what was; an invalid one: nothing any longer. False: there is a message whose descriptors
  // find no room in this process; it stays, nobody's barrier is answered meanwhile: try again later.
  // `drop`: a message of that kind is dropped, when it is there so long that nobody waits for its answer.
  [[nodiscard]] bool read(const std::function<void(int pid, Fd kept)>& keep, bool drop = false);

 private:
  struct Message;
  bool peek(Message& out);
  void refuse(int pid);
  void reserve();

  const std::string path_;
  Logger& log_;
  Fd socket_;
  std::vector<Fd> reserve_;     // room for a hand-over when there is none left
  std::vector<int> unkept_;     // processes whose last hand-over was none: their barriers are not answered
  std::vector<Fd> unanswered_;  // those barriers, until the other end is gone
  bool said_ = false;           // that there is no room
};

}  // namespace arancini::curated
