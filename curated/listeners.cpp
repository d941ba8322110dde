#include "curated/listeners.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/base/reuseport.h"
#include "common/base/socket_address.h"
#include "common/base/types.h"
#include "common/base/unix_socket.h"

namespace arancini::curated {

namespace {

// Empty if nobody listens at `address`. A bind without SO_REUSEPORT fails where any listener is.
std::string foreign_listener(const SocketAddress& address) {
  const auto at = kernel_address(address);
  if (!at) return fmt::format("BMP listener {}: not an IPv4 or IPv6 address", address.to_string());
  const Fd fd(::socket(at->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      ::bind(fd.get(), at->get(), at->size) != 0) {
    return fmt::format(
        "BMP listener {}: {}{}", address.to_string(), std::strerror(errno),
        errno == EADDRINUSE ? "; another collector runs there: stop it, or choose another bmp.listen" : "");
  }
  return "";
}

}  // namespace

Result<Listeners, std::string> open_listeners(const Config::Bmp& config, std::vector<Fd> inherited) {
  Listeners out;
  out.address = config.listen;
  out.fds = std::move(inherited);
  const auto first = std::find_if(out.fds.begin(), out.fds.end(), [](const Fd& fd) { return fd.valid(); });
  if (first != out.fds.end()) {
    const auto address = bound_address(first->get());
    if (!address) return Err{std::string("an inherited BMP listener is not a bound TCP socket")};
    out.address = *address;
  } else if (config.listen.port != 0) {
    if (std::string error = foreign_listener(config.listen); !error.empty()) return Err{std::move(error)};
  }
  for (Fd& fd : out.fds) {
    if (fd) continue;
    auto made = make_bmp_listener(out.address, config.backlog, config.rcvbuf_bytes);
    if (!made) return Err{made.error()};
    fd = std::move(made).value();
    if (out.address.port == 0) out.address.port = bound_address(fd.get())->port;
  }
  if (!out.fds.empty() &&
      !attach_owner_program(out.fds[0].get(), static_cast<std::uint32_t>(out.fds.size()))) {
    out.steering_error = std::strerror(errno);
  }
  return out;
}

Fd fetch_listener(const std::string& handover_path, int timeout_ms) {
  sockaddr_un address{};
  if (!unix_address(handover_path, address)) return {};
  const Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const timeval wait{timeout_ms / 1000, timeout_ms % 1000 * 1000};
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) != 0 ||
      ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) != 0 ||
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::send(fd.get(), kHandoverAskForListener.data(), kHandoverAskForListener.size(), MSG_NOSIGNAL) !=
          static_cast<ssize_t>(kHandoverAskForListener.size())) {
    return {};
  }
  char answer = 0;
  Fd listener;
  if (receive_with_fd(fd.get(), {&answer, 1}, listener, 0) != 1) return {};
  int listening = 0;
  socklen_t size = sizeof listening;
  if (answer != kHandoverListener.front() || !listener ||
      ::getsockopt(listener.get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || listening == 0) {
    return {};
  }
  return listener;
}

}  // namespace arancini::curated
