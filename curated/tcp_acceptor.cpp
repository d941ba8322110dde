#include "curated/tcp_acceptor.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "common/base/socket_address.h"

namespace arancini::curated {

namespace {

constexpr int kLookAgainMs = 100;  // while there is no room, or no descriptor

}  // namespace

void OpenConnections::add(int fd) {
  struct stat now {};
  if (::fstat(fd, &now) == 0) all_.push_back({fd, now.st_ino});
}

bool OpenConnections::room() {
  if (all_.size() < most_) return true;
  std::erase_if(all_, [](const One& one) {
    struct stat now {};
    return ::fstat(one.fd, &now) != 0 || now.st_ino != one.inode;
  });
  return all_.size() < most_;
}

Result<Fd, std::string> TcpAcceptor::listen(const SocketAddress& address) {
  const auto at = kernel_address(address);
  if (!at) return Err{std::string("not an IPv4 or IPv6 address")};
  Fd fd(::socket(at->family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int one = 1;
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
      ::bind(fd.get(), at->get(), at->size) != 0 || ::listen(fd.get(), 64) != 0) {
    return Err{std::string(std::strerror(errno))};
  }
  return fd;
}

TcpAcceptor::TcpAcceptor(Fd listener, std::size_t most, Hooks hooks)
    : listener_(std::move(listener)),
      most_(most),
      hooks_(std::move(hooks)),
      open_(most),
      stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      thread_([this] { run(); }) {}

TcpAcceptor::~TcpAcceptor() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void TcpAcceptor::run() {
  bool was_full = false;
  bool failed = false;
  std::uint64_t times = 0;
  for (;;) {
    const bool full = !open_.room();
    if (full && !was_full && std::has_single_bit(++times)) {  // the first, 2nd, 4th, 8th … time
      hooks_.warn(fmt::format(
          "{} connections are open, further ones wait: does somebody connect and say nothing?", most_));
    }
    was_full = full;
    pollfd wait[] = {{stop_.get(), POLLIN, 0}, {full || failed ? -1 : listener_.get(), POLLIN, 0}};
    const int n = ::poll(wait, 2, full || failed ? kLookAgainMs : -1);
    failed = false;
    if (n < 0 && errno != EINTR) return;
    if ((wait[0].revents & POLLIN) != 0) return;
    if ((wait[1].revents & POLLIN) == 0) continue;
    Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!connection) {
      failed = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
      continue;
    }
    open_.add(connection.get());
    hooks_.accepted(listener_.get(), std::move(connection));
  }
}

}  // namespace arancini::curated
