#include "common/base/reuseport.h"

#include <fmt/format.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "common/base/socket_address.h"

namespace arancini {

namespace {

constexpr std::uint32_t kGolden = 0x9e3779b1U;  // owner_of()

bool set_int(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

}  // namespace

Result<Fd, std::string> make_bmp_listener(const SocketAddress& address, std::uint32_t backlog,
                                          std::uint32_t rcvbuf_bytes) {
  const auto failed = [&](const char* what) {
    return Err{fmt::format("BMP listener {}: {}: {}", address.to_string(), what, std::strerror(errno))};
  };
  const auto at = kernel_address(address);
  if (!at) return Err{fmt::format("BMP listener {}: not an IPv4 or IPv6 address", address.to_string())};
  Fd fd(::socket(at->family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return failed("socket");
  if (!set_int(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1)) return failed("SO_REUSEADDR");
  if (!set_int(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return failed("SO_REUSEPORT");
  if (!set_int(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1)) return failed("TCP_NODELAY");
  if (at->family() == AF_INET6 && !set_int(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0))
    return failed("IPV6_V6ONLY");
  if (rcvbuf_bytes > 0) {
    // Before listen(): the window scale is agreed in the handshake. FORCE goes beyond net.core.rmem_max where
    // permitted.
    const int bytes = static_cast<int>(rcvbuf_bytes);
    if (!set_int(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, bytes) &&
        !set_int(fd.get(), SOL_SOCKET, SO_RCVBUF, bytes)) {
      return failed("SO_RCVBUF");
    }
  }
  if (::bind(fd.get(), at->get(), at->size) != 0) return failed("bind");
  if (::listen(fd.get(), static_cast<int>(backlog)) != 0) return failed("listen");
  return fd;
}

bool attach_owner_program(int listener_fd, std::uint32_t shard_count) {
  if (shard_count == 0) {
    errno = EINVAL;
    return false;
  }
  // Offsets are relative to the network header: where `data` starts differs between kernel paths.
  const auto net = [](int offset) { return static_cast<std::uint32_t>(SKF_NET_OFF + offset); };
  std::array<sock_filter, 19> program{{
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, net(0)),  // IP version
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 2),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, net(12)),  // IPv4 source (RFC 791 3.1)
      BPF_STMT(BPF_JMP | BPF_JA, 10),               // to the multiplication
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, net(8)),   // IPv6 source (RFC 8200 3), four words folded
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, net(12)),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, net(16)),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, net(20)),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, kGolden),
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
      BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, shard_count),
      BPF_STMT(BPF_RET | BPF_A, 0),
  }};
  const sock_fprog code{static_cast<unsigned short>(program.size()), program.data()};
  return ::setsockopt(listener_fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &code, sizeof code) == 0;
}

}  // namespace arancini
