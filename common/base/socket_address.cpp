#include "common/base/socket_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

namespace arancini {

std::optional<KernelAddress> kernel_address(const SocketAddress& address) {
  KernelAddress out;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  if (::inet_pton(AF_INET, address.host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address.port);
    out.size = sizeof *v4;
  } else if (::inet_pton(AF_INET6, address.host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(address.port);
    out.size = sizeof *v6;
  } else {
    return std::nullopt;
  }
  return out;
}

std::optional<SocketAddress> bound_address(int fd) {
  KernelAddress bound;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&bound.storage), &bound.size) != 0) return std::nullopt;
  char text[INET6_ADDRSTRLEN] = {};
  if (bound.family() == AF_INET) {
    const auto* a = reinterpret_cast<const sockaddr_in*>(&bound.storage);
    ::inet_ntop(AF_INET, &a->sin_addr, text, sizeof text);
    return SocketAddress{text, ntohs(a->sin_port)};
  }
  if (bound.family() == AF_INET6) {
    const auto* a = reinterpret_cast<const sockaddr_in6*>(&bound.storage);
    ::inet_ntop(AF_INET6, &a->sin6_addr, text, sizeof text);
    return SocketAddress{text, ntohs(a->sin6_port)};
  }
  return std::nullopt;
}

}  // namespace arancini
