#include "curated/notify_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
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
#include <utility>

#include "common/base/error.h"
#include "common/base/unix_socket.h"

namespace arancini::curated {

namespace {

constexpr int kMostMessages = 256;
constexpr std::size_t kMostFds = 8;  // the kernel closes those beyond
constexpr std::size_t kReserved = 4;
constexpr std::size_t kMostUnanswered = 16;
constexpr std::string_view kName = "handover";
// Above all descriptors that children get.
constexpr int kFirstKept = 16;

struct Notification {
  bool store = false, remove = false, barrier = false;
  std::string_view name;
};

Notification parse(std::string_view text) {
  Notification out;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line == "FDSTORE=1") out.store = true;
    if (line == "FDSTOREREMOVE=1") out.remove = true;
    if (line == "BARRIER=1") out.barrier = true;
    if (line.starts_with("FDNAME=")) out.name = line.substr(7);
  }
  return out;
}

}  // namespace

NotifySocket::NotifySocket(std::string path, Logger& log) : path_(std::move(path)), log_(log) {
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
  reserve();
}

NotifySocket::~NotifySocket() {
  ::unlink(path_.c_str());
}

void NotifySocket::reserve() {
  while (reserve_.size() < kReserved) {
    Fd fd(::fcntl(socket_.get(), F_DUPFD_CLOEXEC, kFirstKept));
    if (!fd) return;
    reserve_.push_back(std::move(fd));
  }
}

struct NotifySocket::Message {
  std::array<char, 4096> bytes{};
  std::string_view text;
  ucred sender{};
  std::vector<Fd> fds;
  bool complete = false;
};

// The next message, which stays where it is, with descriptors of our own. False: there is none.
bool NotifySocket::peek(Message& out) {
  iovec data{out.bytes.data(), out.bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(kMostFds * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t n = 0;
  do {
    n = ::recvmsg(socket_.get(), &message, MSG_PEEK | MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return false;
  out.text = {out.bytes.data(), static_cast<std::size_t>(n)};
  out.fds.clear();
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET) continue;
    if (c->cmsg_type == SCM_CREDENTIALS) std::memcpy(&out.sender, CMSG_DATA(c), sizeof out.sender);
    if (c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = 0; at + CMSG_LEN(sizeof(int)) <= c->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
      out.fds.emplace_back(fd);
    }
  }
  // More than we have room for is nothing that we take.
  out.complete = (message.msg_flags & MSG_CTRUNC) == 0 || out.fds.size() >= kMostFds;
  return true;
}

void NotifySocket::refuse(int pid) {
  if (unkept_.size() >= kMostUnanswered) unkept_.erase(unkept_.begin());
  unkept_.push_back(pid);
}

bool NotifySocket::read(const std::function<void(int pid, Fd kept)>& keep, bool drop) {
  std::erase_if(unanswered_, [](const Fd& fd) {
    pollfd other{fd.get(), 0, 0};
    return ::poll(&other, 1, 0) != 0;  // POLLERR: nobody waits for it any longer
  });
  for (int i = 0; i < kMostMessages; ++i) {
    Message message;
    if (!peek(message)) break;
    const int pid = message.sender.pid;
    const bool trusted = pid > 0 && (message.sender.uid == 0 || message.sender.uid == ::geteuid());
    const Notification said = trusted ? parse(message.text) : Notification{};
    const bool ours = said.name == kName;
    Fd kept;
    bool room = message.complete;
    if (room && ours && said.store && message.fds.size() == 1) {
      kept = Fd(::fcntl(message.fds.front().get(), F_DUPFD_CLOEXEC, kFirstKept));
      room = static_cast<bool>(kept);
    }
    if (!room) {
      // The kernel would drop what finds no room, and a barrier that is dropped is a barrier that is
      // answered.
      if (!reserve_.empty()) {
        reserve_.clear();
        continue;
      }
      if (!std::exchange(said_, true)) {
        log_.error(
            "restart: what a process hands over cannot be taken ({}): no descriptor is left; its sessions "
            "are closed if that lasts: raise LimitNOFILE of curated",
            number(ErrorCode::SessionNotKept));
      }
      if (!std::exchange(drop, false)) return false;
      if (ours && said.store) refuse(pid);
    }
    // Takes it away; its descriptors are those of the peek.
    char none = 0;
    (void)::recv(socket_.get(), &none, sizeof none, MSG_DONTWAIT);
    if (said.barrier && std::erase(unkept_, pid) > 0) {
      if (unanswered_.size() >= kMostUnanswered) unanswered_.erase(unanswered_.begin());
      for (Fd& fd : message.fds) unanswered_.push_back(std::move(fd));
      continue;
    }
    // Descriptors are closed at the end of the turn: that answers a barrier.
    if (!ours) continue;
    if (said.remove) keep(pid, Fd());
    if (!said.store) continue;
    if (!room) continue;
    std::erase(unkept_, pid);
    if (kept) {
      keep(pid, std::move(kept));
      continue;
    }
    log_.error(
        "restart: process {} hands over {} descriptors instead of one ({}): nothing is kept, its sessions "
        "are closed; do its version and that of curated differ?",
        pid, message.fds.size(), number(ErrorCode::SessionNotKept));
    refuse(pid);
  }
  said_ = false;
  reserve();
  return true;
}

}  // namespace arancini::curated
