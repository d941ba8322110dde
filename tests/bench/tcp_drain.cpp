// The least that a receiver of BMP can do: accept and recv(), 64 KiB at a time, and look at nothing. An upper
// bound for collectors. Commands as in progress.h; done are bytes.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/fd.h"
#include "tests/bench/progress.h"

namespace arancini {
namespace {

[[noreturn]] void fail(const char* what) {
  throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
}

Fd listen_on_loopback(std::uint16_t port) {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("bind");
  if (::listen(fd.get(), 1024) != 0) fail("listen");
  return fd;
}

// What a receive left behind.
enum class After : std::uint8_t { More, Nothing, End };

class Receiver {
 public:
  After receive(int fd) {
    const ssize_t n = ::recv(fd, buffer_.data(), buffer_.size(), 0);
    if (n < 0) return errno == EAGAIN || errno == EINTR ? After::Nothing : After::End;
    if (n == 0) return After::End;
    progress_.at(bytes_ += static_cast<std::uint64_t>(n));
    return After::More;
  }
  void idle() { progress_.at(bytes_); }

 private:
  std::array<char, 64 * 1024> buffer_{};
  std::uint64_t bytes_ = 0;
  bench::Progress progress_;
};

void run(std::uint16_t port, std::uint32_t sessions) {
  const Fd listener = listen_on_loopback(port);
  fmt::print("ready\n");
  std::fflush(stdout);
  Receiver receiver;
  std::vector<Fd> connections;
  const Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  const timeval patience{0, 20'000};  // for questions that come when nothing else does
  while (connections.size() < sessions) {
    connections.emplace_back(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const int fd = connections.back().get();
    epoll_event event{EPOLLIN, {.fd = fd}};
    if (fd < 0) fail("accept");
    if (::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0) fail("SO_RCVTIMEO");
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
  }
  std::array<epoll_event, 64> events{};
  for (;;) {
    const int n = ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), 20);
    for (int i = 0; i < n; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      After after = receiver.receive(fd);
      // A single connection is read, blocking, as long as something comes: no epoll_wait() between.
      while (after == After::More && sessions == 1) after = receiver.receive(fd);
      if (after == After::End) ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
    }
    receiver.idle();
  }
}

}  // namespace
}  // namespace arancini

int main(int argc, char** argv) {
  CLI::App app{
      "Accepts connections on loopback and receives what comes; `wait N` on standard input: when N bytes "
      "came"};
  std::uint16_t port = 0;
  std::uint32_t sessions = 1;
  app.add_option("--port", port, "on 127.0.0.1")->required();
  app.add_option("--sessions", sessions, "connections that come before anything is read")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    arancini::run(port, sessions);
  } catch (const std::exception& e) {
    fmt::print(stderr, "tcp_drain: {}\n", e.what());
    return 70;  // EX_SOFTWARE
  }
}
