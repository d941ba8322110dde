#include "tools/net_client.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "common/base/clock.h"
#include "common/base/socket_address.h"
#include "common/base/types.h"

namespace arancini::tools {

namespace {

// IPv4 where it is mapped into IPv6.
KernelAddress endpoint(const std::string& host, std::uint16_t port) {
  const auto ip = IpAddress::parse(host);
  if (!ip) throw std::runtime_error(fmt::format("'{}' is not an IP address", host));
  return *kernel_address({ip->to_string(), port});
}

}  // namespace

Fd connect_router(const SocketAddress& to, const std::string& source, double retry_s) {
  const KernelAddress remote = endpoint(to.host == "0.0.0.0" ? "127.0.0.1" : to.host, to.port);
  const std::uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + static_cast<std::uint64_t>(retry_s * 1e9);
  for (;;) {
    Fd fd(::socket(remote.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) throw std::runtime_error(fmt::format("socket: {}", std::strerror(errno)));
    if (!source.empty()) {
      const KernelAddress local = endpoint(source, 0);
      if (::bind(fd.get(), local.get(), local.size) != 0) {
        throw std::runtime_error(
            fmt::format("cannot use source address {}: {}", source, std::strerror(errno)));
      }
    }
    const int one = 1;
    (void)::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)::setsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    if (::connect(fd.get(), remote.get(), remote.size) == 0) return fd;
    const int error = errno;
    if (clock_ns(CLOCK_MONOTONIC) >= deadline) {
      throw std::runtime_error(fmt::format("cannot connect to {}: {}; is the collector listening there?",
                                           to.to_string(), std::strerror(error)));
    }
    const timespec pause{0, 50'000'000};
    ::nanosleep(&pause, nullptr);
  }
}

void send_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      throw std::runtime_error(fmt::format("the collector closed the session: {}", std::strerror(errno)));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

bool hold(int fd, double seconds) {
  const std::uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + static_cast<std::uint64_t>(seconds * 1e9);
  for (;;) {
    const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
    if (now >= deadline) return true;
    pollfd p{fd, POLLIN, 0};
    const int ms = static_cast<int>(std::min<std::uint64_t>((deadline - now) / 1'000'000 + 1, 60'000));
    if (::poll(&p, 1, ms) > 0) {
      char sink[256];
      const ssize_t n = ::recv(fd, sink, sizeof sink, 0);
      if (n == 0 || (n < 0 && errno != EINTR)) return false;
    }
  }
}

}  // namespace arancini::tools
