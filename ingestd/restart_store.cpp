#include "ingestd/restart_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "common/base/unix_socket.h"

namespace arancini::ingestd {

namespace {

constexpr std::uint64_t kMagic = 0x5452545345524241ULL;
constexpr std::uint32_t kMostSockets = 65536;
constexpr std::uint64_t kMostStateBytes = 1ULL << 30;
constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

struct Head {
  std::uint64_t magic = kMagic;
  std::uint64_t state_bytes = 0;
  std::uint32_t sockets = 0;
  std::uint32_t reserved = 0;
};

std::string failed(const char* what) {
  return fmt::format("{}: {}", what, std::strerror(errno));
}

Result<Fd, std::string> sealed(std::span<const std::byte> bytes) {
  Fd fd(::memfd_create("arancini-restart", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return Err{failed("memfd_create")};
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t n = ::write(fd.get(), bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Err{failed("writing the state")};
    at += static_cast<std::size_t>(n);
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return Err{failed("sealing the state")};
  return fd;
}

}  // namespace

Result<Fd, std::string> pack_restart(std::span<const std::byte> state, std::span<const Fd> sockets) {
  auto memory = sealed(state);
  if (!memory) return memory;
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
    return Err{failed("socketpair")};
  Fd receiver(pair[0]);
  const Fd sender(pair[1]);
  const Head head{.state_bytes = state.size(), .sockets = static_cast<std::uint32_t>(sockets.size())};
  const int memory_fd = memory->get();
  // The buffer takes them all, or it is an error: nobody reads meanwhile.
  if (!send_with_fds(sender.get(), std::as_bytes(std::span(&head, 1)), {&memory_fd, 1}, MSG_DONTWAIT))
    return Err{failed("passing the state")};
  while (!sockets.empty()) {
    std::array<int, kMostFdsInMessage> fds{};
    const std::size_t count = std::min(sockets.size(), fds.size());
    for (std::size_t i = 0; i < count; ++i) fds[i] = sockets[i].get();
    const std::byte some{};
    // ETOOMANYREFS: more descriptors are under way than LimitNOFILE allows.
    if (!send_with_fds(sender.get(), {&some, 1}, {fds.data(), count}, MSG_DONTWAIT))
      return Err{failed("passing the sockets")};
    sockets = sockets.subspan(count);
  }
  return receiver;
}

Result<RestartParcel, std::string> unpack_restart(const Fd& parcel) {
  Head head;
  std::vector<Fd> memory;
  const auto n =
      receive_with_fds(parcel.get(), std::as_writable_bytes(std::span(&head, 1)), memory, MSG_DONTWAIT);
  if (n < 0) return Err{failed("receiving the state")};
  if (n != static_cast<ssize_t>(sizeof head) || head.magic != kMagic || memory.size() != 1)
    return Err{std::string("it holds no state")};
  if (head.sockets > kMostSockets || head.state_bytes > kMostStateBytes)
    return Err{fmt::format("{} sockets and {} bytes of state are too many", head.sockets, head.state_bytes)};
  const int fd = memory.front().get();
  struct stat file {};
  if ((::fcntl(fd, F_GET_SEALS) & kSeals) != kSeals || ::fstat(fd, &file) != 0 ||
      static_cast<std::uint64_t>(file.st_size) != head.state_bytes) {
    return Err{std::string("its state is not sealed, or of another size")};
  }
  RestartParcel out;
  out.state.resize(head.state_bytes);
  for (std::size_t at = 0; at < out.state.size();) {
    const ssize_t got = ::pread(fd, out.state.data() + at, out.state.size() - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Err{failed("reading the state")};
    at += static_cast<std::size_t>(got);
  }
  out.sockets.reserve(head.sockets);
  while (out.sockets.size() < head.sockets) {
    std::byte some{};
    const std::size_t before = out.sockets.size();
    if (receive_with_fds(parcel.get(), {&some, 1}, out.sockets, MSG_DONTWAIT) < 0)
      return Err{failed("receiving the sockets")};
    if (out.sockets.size() == before) break;
  }
  if (out.sockets.size() != head.sockets)
    return Err{fmt::format("{} sockets instead of {}", out.sockets.size(), head.sockets)};
  return out;
}

bool has_manager() {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  if (path == nullptr || *path == 0 || !unix_address(path, address)) return false;
  if (address.sun_path[0] == '@') address.sun_path[0] = 0;  // abstract
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + std::strlen(path));
  const Fd channel(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return channel && ::connect(channel.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0;
}

std::string store_restart(const Fd& parcel, std::uint64_t timeout_ns) {
  const int fd = parcel.get();
  // Without FDPOLL=0 systemd would drop it at once: its other end is closed.
  const std::string text = fmt::format("FDSTORE=1\nFDNAME={}\nFDPOLL=0", kRestartFdName);
  const int sent = ::sd_pid_notify_with_fds(0, 0, text.c_str(), &fd, 1);
  if (sent <= 0) return fmt::format("NOTIFY_SOCKET: {}", sent == 0 ? "is not set" : std::strerror(-sent));
  const int heard = ::sd_notify_barrier(0, timeout_ns / 1000);
  if (heard <= 0) return fmt::format("no answer on NOTIFY_SOCKET: {}", std::strerror(-heard));
  return {};
}

void forget_restart() {
  (void)::sd_notify(0, fmt::format("FDSTOREREMOVE=1\nFDNAME={}", kRestartFdName).c_str());
}

}  // namespace arancini::ingestd
