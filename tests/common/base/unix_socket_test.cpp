#include "common/base/unix_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

namespace arancini {
namespace {

class UnixSocket : public testing::Test {
 protected:
  UnixSocket() {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
      throw std::runtime_error("socketpair");
    ours_ = Fd(pair[0]);
    theirs_ = Fd(pair[1]);
  }
  static Fd null() { return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
  // A number that a new descriptor would get.
  static int next_number() { return null().get(); }

  Fd ours_, theirs_;
};

TEST_F(UnixSocket, PassesDescriptorsThatAreClosedOnExec) {
  const Fd file = null();
  const std::vector<int> sent(kMostFdsInMessage, file.get());
  std::byte one{7};
  ASSERT_TRUE(send_with_fds(ours_.get(), {&one, 1}, sent, MSG_DONTWAIT)) << std::strerror(errno);
  one = {};
  std::vector<Fd> passed;
  ASSERT_EQ(receive_with_fds(theirs_.get(), {&one, 1}, passed, MSG_DONTWAIT), 1);
  EXPECT_EQ(one, std::byte{7});
  ASSERT_EQ(passed.size(), kMostFdsInMessage);
  for (const Fd& fd : passed) EXPECT_EQ(::fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_FALSE(send_with_fds(ours_.get(), {&one, 1}, std::vector<int>(kMostFdsInMessage + 1, file.get()), 0));
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(UnixSocket, KeepsNoDescriptorOfAMessageThatItDoesNotTake) {
  const Fd file = null();
  const int before = next_number();
  const std::array two{file.get(), file.get()};
  const std::byte one{};
  ASSERT_TRUE(send_with_fds(ours_.get(), {&one, 1}, two, 0));
  char text[4];
  Fd passed;
  EXPECT_EQ(receive_with_fd(theirs_.get(), text, passed, MSG_DONTWAIT), 1);
  EXPECT_FALSE(passed) << "one of two";
  ASSERT_TRUE(send_with_fd(ours_.get(), "longer", file.get(), 0));
  EXPECT_EQ(receive_with_fd(theirs_.get(), text, passed, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EMSGSIZE);
  EXPECT_FALSE(passed);
  EXPECT_EQ(next_number(), before) << "a descriptor is left open";
}

TEST_F(UnixSocket, TellsTheEndFromNothingYet) {
  char text[4];
  Fd passed;
  EXPECT_EQ(receive_with_fd(theirs_.get(), text, passed, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  ours_.reset();
  EXPECT_EQ(receive_with_fd(theirs_.get(), text, passed, MSG_DONTWAIT), 0);
}

}  // namespace
}  // namespace arancini
