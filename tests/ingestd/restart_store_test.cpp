#include "ingestd/restart_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "common/base/unix_socket.h"

namespace arancini::testing {
namespace {

using namespace ingestd;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

ino_t inode(const Fd& fd) {
  struct stat s {};
  EXPECT_EQ(::fstat(fd.get(), &s), 0);
  return s.st_ino;
}

std::vector<Fd> sockets(std::size_t count) {
  std::vector<Fd> out;
  while (out.size() < count) out.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return out;
}

TEST(RestartStore, SocketsComeInTheirOrder) {
  for (const std::size_t count : {0U, 1U, 253U, 254U, 4096U}) {
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < 3 * count + 100) GTEST_SKIP() << "not enough descriptors for " << count;
    std::vector<Fd> fds = sockets(count);
    std::vector<ino_t> before;
    for (const Fd& fd : fds) before.push_back(inode(fd));
    const auto state = bytes_of(std::string(3 << 20, 's'));
    auto parcel = pack_restart(state, fds);
    ASSERT_TRUE(parcel) << parcel.error();
    fds.clear();  // the parcel holds them
    const auto back = unpack_restart(*parcel);
    ASSERT_TRUE(back) << back.error();
    EXPECT_EQ(back->state, state);
    std::vector<ino_t> after;
    for (const Fd& fd : back->sockets) {
      after.push_back(inode(fd));
      EXPECT_EQ(::fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
    }
    EXPECT_EQ(after, before);
    // It can be taken once.
    EXPECT_FALSE(unpack_restart(*parcel));
  }
}

TEST(RestartStore, OtherDescriptorsAreRefused) {
  const Fd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(unpack_restart(file).error(), "receiving the state: Socket operation on non-socket");
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
  const Fd ours(pair[0]);
  const Fd theirs(pair[1]);
  EXPECT_FALSE(unpack_restart(ours)) << "nothing was said";
  ASSERT_EQ(::send(theirs.get(), "hello", 5, 0), 5);
  EXPECT_EQ(unpack_restart(ours).error(), "it holds no state");
  // A state that could change while it is read.
  const Fd open(::memfd_create("open", MFD_CLOEXEC));
  ASSERT_EQ(::write(open.get(), "x", 1), 1);
  const std::uint64_t head[3] = {0x5452545345524241ULL, 1, 0};
  ASSERT_TRUE(send_with_fd(theirs.get(), {reinterpret_cast<const char*>(head), sizeof head}, open.get(), 0));
  EXPECT_EQ(unpack_restart(ours).error(), "its state is not sealed, or of another size");
}

// The manager's side of the protocol.
class Manager {
 public:
  Manager() {
    std::string name = (std::filesystem::temp_directory_path() / "arancini-notify-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    directory_ = name;
    sockaddr_un address{};
    unix_address(directory_ + "/notify", address);
    socket_ = Fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      throw std::runtime_error("bind");
    ::setenv("NOTIFY_SOCKET", address.sun_path, 1);
  }
  ~Manager() {
    ::unsetenv("NOTIFY_SOCKET");
    std::filesystem::remove_all(directory_);
  }
  // The next message and its descriptor.
  std::string next(Fd& passed) {
    std::array<char, 512> text{};
    const auto n = receive_with_fd(socket_.get(), text, passed, 0);
    return {text.data(), static_cast<std::size_t>(std::max<std::ptrdiff_t>(n, 0))};
  }

 private:
  std::string directory_;
  Fd socket_;
};

TEST(RestartStore, IsHandedToTheManager) {
  EXPECT_FALSE(has_manager());
  EXPECT_EQ(store_restart(Fd{}, 1'000'000), "NOTIFY_SOCKET: is not set");
  Manager manager;
  EXPECT_TRUE(has_manager());
  auto parcel = pack_restart(bytes_of("state"), {});
  ASSERT_TRUE(parcel);
  Fd kept;
  std::string said, barrier;
  std::thread thread([&] {
    said = manager.next(kept);
    Fd pipe;
    barrier = manager.next(pipe);  // closed: that is the answer
  });
  EXPECT_EQ(store_restart(*parcel, 10'000'000'000), "");
  thread.join();
  EXPECT_EQ(said, "FDSTORE=1\nFDNAME=handover\nFDPOLL=0");
  EXPECT_EQ(barrier, "BARRIER=1");
  parcel->reset();
  const auto back = unpack_restart(kept);
  ASSERT_TRUE(back) << back.error();
  EXPECT_EQ(back->state, bytes_of("state"));
  forget_restart();
  Fd none;
  EXPECT_EQ(manager.next(none), "FDSTOREREMOVE=1\nFDNAME=handover");
}

TEST(RestartStore, AManagerThatDoesNotAnswerIsSaid) {
  auto parcel = pack_restart(bytes_of("state"), {});
  ASSERT_TRUE(parcel);
  {
    Manager manager;
    EXPECT_NE(store_restart(*parcel, 1'000'000).find("no answer on NOTIFY_SOCKET"), std::string::npos);
  }
  ::setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
  EXPECT_FALSE(has_manager());
  EXPECT_EQ(store_restart(*parcel, 1'000'000), "NOTIFY_SOCKET: No such file or directory");
  ::unsetenv("NOTIFY_SOCKET");
}

}  // namespace
}  // namespace arancini::testing
