#include "common/base/local_listener.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace arancini {

namespace {

// How long nobody is accepted when descriptors ran out: the caller stays in the queue, which would keep the
// loop spinning.
constexpr std::uint64_t kDeafNs = 500'000'000U;

bool may_call(int fd, LocalListener::Callers callers, ucred& who) {
  socklen_t size = sizeof who;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) return false;
  if (who.uid == 0 || who.uid == ::geteuid()) return true;
  if (callers == LocalListener::Callers::User) return false;
  if (who.gid == ::getegid()) return true;
  std::array<gid_t, 256> groups{};
  size = sizeof groups;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) != 0) return false;
  const auto* end = groups.data() + size / sizeof(gid_t);
  return std::find(static_cast<const gid_t*>(groups.data()), end, ::getegid()) != end;
}

}  // namespace

Result<LocalListener, std::string> LocalListener::open(const std::string& path, const std::string& what,
                                                       Callers callers, Logger& log) {
  const auto failed = [&](const char* step) {
    return Err{fmt::format("{} socket {}: {}: {}", what, path, step, std::strerror(errno))};
  };
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Err{fmt::format("{} socket {}: the path is longer than {} bytes; choose a shorter --runtime-dir",
                           what, path, sizeof address.sun_path - 1)};
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return failed("socket");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return failed("unlink");
  // Linux gives the new name the mode of the socket, so there is no moment in which it is open to more.
  const mode_t mode = callers == Callers::Group ? 0660 : 0600;
  if (::fchmod(fd.get(), mode) != 0) return failed("fchmod");
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return failed("bind");
  if (::chmod(path.c_str(), mode) != 0) return failed("chmod");  // the umask took some of it away
  if (::listen(fd.get(), 64) != 0) return failed("listen");
  return LocalListener(std::move(fd), path, what, callers, log);
}

LocalListener::~LocalListener() {
  if (fd_) ::unlink(path_.c_str());
}

int LocalListener::poll_fd(std::uint64_t now_boottime_ns) const {
  return now_boottime_ns < deaf_until_ns_ ? -1 : fd_.get();
}

Fd LocalListener::accept(std::uint64_t now_boottime_ns, ucred* who) {
  for (;;) {
    Fd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE) deaf_until_ns_ = now_boottime_ns + kDeafNs;
      return fd;
    }
    ucred caller{};
    if (may_call(fd.get(), callers_, caller)) {
      if (who != nullptr) *who = caller;
      return fd;
    }
    log_->warn("{}: call of pid {}, uid {}, gid {} refused: not root, not uid {}{}", what_, caller.pid,
               caller.uid, caller.gid, ::geteuid(),
               callers_ == Callers::Group ? fmt::format(", not in group {}", ::getegid()) : "");
  }
}

}  // namespace arancini
