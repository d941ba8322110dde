// A child for the supervisor's tests: `exit CODE`, `wait READY_FILE` (ends on SIGTERM with 0), `ignore
// READY_FILE` (cannot be stopped but by SIGKILL), `accept READY_FILE` (greets one connection on the listener
// at descriptor 3), `leave READY_FILE` (ends on SIGTERM and leaves READY_FILE, open, to its successor, which
// writes into it; started with --handover-fd 4; while READY_FILE.broken exists it fails before it takes it).
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace {

void ready(const char* path) {
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
  if (fd < 0 || ::write(fd, "r\n", 2) != 2) ::_exit(9);
  ::close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  const bool successor = mode == "leave" && argc == 5 && argv[3] == std::string("--handover-fd");
  if (argc != 3 && !successor) return 64;
  if (mode == "exit") return std::atoi(argv[2]);
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigset_t blocked;
  sigprocmask(SIG_BLOCK, nullptr, &blocked);
  if (sigismember(&blocked, SIGTERM) != 0) return 10;  // the parent's mask must not reach us
  if (successor) {
    if (::access((std::string(argv[2]) + ".broken").c_str(), F_OK) == 0) return 78;
    ::sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=handover");
    if (std::string(argv[4]) != "4" || ::write(4, "successor\n", 10) != 10 || ::fcntl(5, F_GETFD) != -1)
      return 13;
    ::close(4);
  }
  if (::fcntl(mode == "accept" ? 4 : 3, F_GETFD) != -1) return 11;  // nor its descriptors
  if (mode == "ignore") {
    sigprocmask(SIG_BLOCK, &stop, nullptr);
    ready(argv[2]);
    for (;;) ::pause();
  }
  if (mode == "accept") {
    ready(argv[2]);
    pollfd wait{3, POLLIN, 0};
    ::poll(&wait, 1, 10000);
    const int fd = ::accept4(3, nullptr, nullptr, SOCK_CLOEXEC);
    return fd >= 0 && ::write(fd, "hello", 5) == 5 ? 0 : 12;
  }
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  ready(argv[2]);
  int signal = 0;
  sigwait(&stop, &signal);
  if (mode == "leave") {
    const int fd = ::open(argv[2], O_WRONLY | O_CLOEXEC | O_APPEND);
    if (::sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=handover\nFDPOLL=0", &fd, 1) > 0 &&
        ::sd_notify_barrier(0, 5'000'000) <= 0) {
      return 14;
    }
  }
  return 0;
}
