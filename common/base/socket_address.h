#pragma once

#include <sys/socket.h>

#include <optional>

#include "common/base/config.h"

namespace arancini {

// An IPv4 or IPv6 address with its port, as the kernel has it.
struct KernelAddress {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);

  [[nodiscard]] int family() const { return storage.ss_family; }
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// None where the host is no address.
std::optional<KernelAddress> kernel_address(const SocketAddress& address);

// The address that a socket is bound to; none if it is not a bound TCP/IP socket.
std::optional<SocketAddress> bound_address(int fd);

}  // namespace arancini
