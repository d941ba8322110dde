#include "curated/notify_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <system_error>
#include <vector>

#include "common/base/unix_socket.h"

namespace arancini::curated {

namespace {

constexpr int kMostMessages = 256;
constexpr std::size_t kMostFds = 8;  // the kernel closes those beyond
constexpr std::string_view kName = "handover";
// Above all descriptors that children get.
constexpr int kFirstKept = 16;

struct Notification {
  bool store = false, remove = false;
  std::string_view name;
};

Notification parse(std::string_view text) {
  Notification out;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line == "FDSTORE=1") out.store = true;
    if (line == "FDSTOREREMOVE=1") out.remove = true;
    if (line.starts_with("FDNAME=")) out.name = line.substr(7);
  }
  return out;
}

}  // namespace

NotifySocket::NotifySocket(std::string path) : path_(std::move(path)) {
  const std::string temporary = path_ + ".new";
  sockaddr_un address{};
  if (!unix_address(temporary, address))
    throw std::system_error(ENAMETOOLONG, std::generic_category(), path_);
  socket_ = Fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  ::unlink(temporary.c_str());
  if (!socket_ || ::setsockopt(socket_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0 ||
      ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(temporary.c_str(), 0600) != 0 || std::rename(temporary.c_str(), path_.c_str()) != 0) {
    throw std::system_error(errno, std::generic_category(), path_);
  }
}

NotifySocket::~NotifySocket() {
  ::unlink(path_.c_str());
}

void NotifySocket::read(const std::function<void(int pid, Fd kept)>& keep) {
  for (int i = 0; i < kMostMessages; ++i) {
    std::array<char, 4096> text{};
    iovec data{text.data(), text.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(kMostFds * sizeof(int))>
        control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;
    ucred sender{};
    std::vector<Fd> fds;  // closed at the end of the turn: that answers BARRIER=1
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_SOCKET) continue;
      if (c->cmsg_type == SCM_CREDENTIALS) std::memcpy(&sender, CMSG_DATA(c), sizeof sender);
      if (c->cmsg_type != SCM_RIGHTS) continue;
      for (std::size_t at = 0; at + CMSG_LEN(sizeof(int)) <= c->cmsg_len; at += sizeof(int)) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
        fds.emplace_back(fd);
      }
    }
    if (sender.pid <= 0 || (sender.uid != 0 && sender.uid != ::geteuid())) continue;
    const Notification said = parse({text.data(), static_cast<std::size_t>(n)});
    if (said.name != kName) continue;
    if (said.remove) keep(sender.pid, Fd());
    if (said.store && fds.size() == 1)
      keep(sender.pid, Fd(::fcntl(fds.front().get(), F_DUPFD_CLOEXEC, kFirstKept)));
  }
}

}  // namespace arancini::curated
