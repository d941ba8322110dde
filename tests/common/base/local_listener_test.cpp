#include "common/base/local_listener.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>

namespace arancini {
namespace {

class LocalListenerTest : public ::testing::Test {
 protected:
  LocalListenerTest() {
    char pattern[] = "/tmp/arancini-socket-XXXXXX";
    dir_ = ::mkdtemp(pattern);
    path_ = dir_ + "/x.sock";
  }
  ~LocalListenerTest() override { std::filesystem::remove_all(dir_); }

  // Invalid if nobody listens there.
  [[nodiscard]] Fd call() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::copy(path_.begin(), path_.end(), address.sun_path);
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const bool up = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    return up ? std::move(fd) : Fd();
  }

  std::string dir_, path_;
  Logger log_{"test", LogLevel::Error};
};

TEST_F(LocalListenerTest, AcceptsOwnCallersOnAPrivateSocket) {
  auto made = LocalListener::open(path_, "test", LocalListener::Callers::Group, log_);
  ASSERT_TRUE(made) << made.error();
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0660U);
  EXPECT_FALSE(made->accept(1).valid()) << "nobody has called";
  const Fd caller = call();
  ASSERT_TRUE(caller.valid());
  pollfd wait{made->poll_fd(1), POLLIN, 0};
  ASSERT_EQ(::poll(&wait, 1, 5000), 1);
  const Fd served = made->accept(1);
  ASSERT_TRUE(served.valid());
  ASSERT_EQ(::write(served.get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(caller.get(), &byte, 1), 1);
}

TEST_F(LocalListenerTest, ReplacesWhatADeadProcessLeftAndCleansUp) {
  {
    auto first = LocalListener::open(path_, "test", LocalListener::Callers::Group, log_);
    ASSERT_TRUE(first);
    const auto kept = std::filesystem::path(path_ + ".kept");
    std::filesystem::rename(path_, kept);
    std::filesystem::create_hard_link(kept, path_);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::filesystem::rename(path_ + ".kept", path_);
  EXPECT_FALSE(call().valid()) << "the old one is dead";
  auto second = LocalListener::open(path_, "test", LocalListener::Callers::Group, log_);
  ASSERT_TRUE(second) << second.error();
  EXPECT_TRUE(call().valid());
}

TEST_F(LocalListenerTest, AnInternalSocketIsNotForTheGroup) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: callers with another uid";
  std::filesystem::permissions(dir_, std::filesystem::perms(0711));
  for (const auto callers : {LocalListener::Callers::User, LocalListener::Callers::Group}) {
    auto made = LocalListener::open(path_, "test", callers, log_);
    ASSERT_TRUE(made) << made.error();
    const bool group = callers == LocalListener::Callers::Group;
    struct stat info {};
    ASSERT_EQ(::stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, group ? 0660U : 0600U);
    // Past the mode of the file, so that the look at the caller is what decides.
    std::filesystem::permissions(path_, std::filesystem::perms(0666));
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      if (::setresuid(65534, 65534, 65534) != 0) ::_exit(2);  // the gid stays the group's
      ::_exit(call().valid() ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0) << "it was not refused by the mode of the file";
    EXPECT_EQ(made->accept(1).valid(), group);
  }
}

TEST_F(LocalListenerTest, SaysWhatIsWrongWithThePath) {
  const auto long_path =
      LocalListener::open(dir_ + "/" + std::string(200, 'x'), "control", LocalListener::Callers::Group, log_);
  ASSERT_FALSE(long_path);
  EXPECT_NE(long_path.error().find("--runtime-dir"), std::string::npos) << long_path.error();
  const auto missing =
      LocalListener::open(dir_ + "/no/x.sock", "control", LocalListener::Callers::Group, log_);
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().find("No such file"), std::string::npos) << missing.error();
}

}  // namespace
}  // namespace arancini
