#include "ingestd/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/base/reuseport.h"
#include "ingestd/restart_store.h"

namespace arancini::ingestd {

namespace {

bool set_int(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

bool is_tcp_listener(int fd) {
  return ::sd_is_socket(fd, AF_INET, SOCK_STREAM, 1) > 0 || ::sd_is_socket(fd, AF_INET6, SOCK_STREAM, 1) > 0;
}

// The flags and options that a listener of ours would have.
void prepare_inherited(int fd, const Config& config) {
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (const int bytes = static_cast<int>(config.bmp.rcvbuf_bytes); bytes > 0) {
    if (!set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes)) set_int(fd, SOL_SOCKET, SO_RCVBUF, bytes);
  }
}

// LISTEN_FDS with their names, in no order.
std::vector<std::pair<int, std::string>> inherited_fds() {
  std::vector<std::pair<int, std::string>> out;
  char** names = nullptr;
  const int count = ::sd_listen_fds_with_names(1, &names);
  for (int i = 0; i < count; ++i) {
    out.emplace_back(SD_LISTEN_FDS_START + i, names[i]);
    std::free(names[i]);
  }
  std::free(names);
  return out;
}

void attach_program(Listeners& listeners, const Config& config) {
  if (config.shards.count < 2) return;
  for (const Fd& fd : listeners.fds) {
    if (attach_owner_program(fd.get(), config.shards.count)) continue;
    listeners.note = fmt::format("the kernel does not choose the shard ({}): sessions are passed on instead",
                                 std::strerror(errno));
  }
}

bool from_sockaddr(const sockaddr_storage& storage, Remote& out) {
  if (storage.ss_family == AF_INET) {
    const auto& a = reinterpret_cast<const sockaddr_in&>(storage);
    out.address = IpAddress::from_v4(ntohl(a.sin_addr.s_addr));
    out.port = ntohs(a.sin_port);
    return true;
  }
  if (storage.ss_family == AF_INET6) {
    const auto& a = reinterpret_cast<const sockaddr_in6&>(storage);
    std::memcpy(out.address.bytes.data(), &a.sin6_addr, out.address.bytes.size());
    out.port = ntohs(a.sin6_port);
    return true;
  }
  return false;
}

}  // namespace

Result<Listeners, std::string> open_listeners(const Config& config, int listen_fd, int restart_fd) {
  Listeners out;
  if (restart_fd >= 0) {
    out.restart = Fd(restart_fd);
    ::fcntl(restart_fd, F_SETFD, FD_CLOEXEC);
  }
  if (listen_fd >= 0) {
    if (!is_tcp_listener(listen_fd)) {
      return Err{fmt::format("--listen-fd {}: not a listening TCP socket", listen_fd)};
    }
    out.fds.emplace_back(listen_fd);
    prepare_inherited(listen_fd, config);
    return out;
  }
  for (auto& [fd, name] : inherited_fds()) {
    Fd owned(fd);
    if (name == kRestartFdName) {
      ::fcntl(fd, F_SETFD, FD_CLOEXEC);
      out.restart = std::move(owned);
      continue;
    }
    if (!is_tcp_listener(fd))
      return Err{fmt::format("LISTEN_FDS: descriptor {} is no listening TCP socket", fd)};
    prepare_inherited(fd, config);
    out.fds.push_back(std::move(owned));
  }
  if (out.fds.empty()) {
    auto made = make_bmp_listener(config.bmp.listen, config.bmp.backlog, config.bmp.rcvbuf_bytes);
    if (!made) return Err{made.error()};
    out.fds.push_back(std::move(made).value());
  }
  // systemd cannot attach it; every shard attaches the same program, so it does not matter who is last.
  attach_program(out, config);
  return out;
}

std::string local_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  Remote local;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0 ||
      !from_sockaddr(storage, local)) {
    return "?";
  }
  const std::string host = local.address.to_string();
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, local.port)
                                             : fmt::format("[{}]:{}", host, local.port);
}

bool remote_of(int fd, Remote& out) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  return ::getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) == 0 && from_sockaddr(storage, out);
}

void prepare_session_socket(int fd) {
  set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

}  // namespace arancini::ingestd
