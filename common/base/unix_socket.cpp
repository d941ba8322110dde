#include "common/base/unix_socket.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace arancini {

namespace {

union Control {
  cmsghdr header;
  char bytes[CMSG_SPACE(kMostFdsInMessage * sizeof(int))];
};

}  // namespace

bool unix_address(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::copy(path.begin(), path.end(), address.sun_path);
  return true;
}

bool send_with_fds(int channel, std::span<const std::byte> bytes, std::span<const int> fds, int flags) {
  if (fds.size() > kMostFdsInMessage) {
    errno = EINVAL;
    return false;
  }
  iovec data{const_cast<std::byte*>(bytes.data()), bytes.size()};
  Control control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = CMSG_SPACE(fds.size_bytes());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  return ::sendmsg(channel, &message, MSG_NOSIGNAL | flags) == static_cast<ssize_t>(bytes.size());
}

bool send_with_fd(int channel, std::string_view text, int fd, int flags) {
  return send_with_fds(channel, std::as_bytes(std::span(text)), {&fd, 1}, flags);
}

std::ptrdiff_t receive_with_fds(int channel, std::span<std::byte> bytes, std::vector<Fd>& passed, int flags) {
  iovec data{bytes.data(), bytes.size()};
  Control control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(channel, &message, MSG_CMSG_CLOEXEC | flags);
  if (n < 0) return n;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      passed.emplace_back(fd);
    }
  }
  if ((message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0) {
    errno = (message.msg_flags & MSG_CTRUNC) != 0 ? EMFILE : EMSGSIZE;
    return -1;
  }
  return n;
}

std::ptrdiff_t receive_with_fd(int channel, std::span<char> text, Fd& passed, int flags) {
  std::vector<Fd> all;
  const std::ptrdiff_t n = receive_with_fds(channel, std::as_writable_bytes(text), all, flags);
  if (n >= 0 && all.size() == 1) passed = std::move(all.front());
  return n;
}

}  // namespace arancini
