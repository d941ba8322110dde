// A child for the supervisor's tests: `exit CODE`, `wait READY_FILE` (ends on SIGTERM with 0), `ignore
// READY_FILE` (cannot be stopped but by SIGKILL), `accept READY_FILE` (greets one connection on the listener
// at descriptor 3).
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
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
  if (argc != 3) return 64;
  const std::string mode = argv[1];
  if (mode == "exit") return std::atoi(argv[2]);
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigset_t blocked;
  sigprocmask(SIG_BLOCK, nullptr, &blocked);
  if (sigismember(&blocked, SIGTERM) != 0) return 10;               // the parent's mask must not reach us
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
  return 0;
}
