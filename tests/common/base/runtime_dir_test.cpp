#include "common/base/runtime_dir.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/base/config.h"
#include "common/base/mask_url.h"

namespace arancini {
namespace {

namespace fs = std::filesystem;

class RuntimeDir : public ::testing::Test {
 protected:
  RuntimeDir() {
    char pattern[] = "/tmp/arancini-dir-XXXXXX";
    base_ = ::mkdtemp(pattern);
    dir_ = base_ + "/run";
  }
  ~RuntimeDir() override { fs::remove_all(base_); }

  std::string refusal() const {
    try {
      check_runtime_dir(dir_);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  }
  std::string content(const std::string& path) const {
    std::ifstream in(path);
    std::string text;
    std::getline(in, text);
    return text;
  }
  std::string base_, dir_;
};

TEST_F(RuntimeDir, IsMadeForThisUserAndItsGroup) {
  dir_ = base_ + "/a/b/";
  check_runtime_dir(dir_);
  struct stat st {};
  ASSERT_EQ(::stat(dir_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777U, 0750U);
  check_runtime_dir(dir_);
}

TEST_F(RuntimeDir, WhereOthersMayWriteIsRefused) {
  fs::create_directory(dir_);
  ASSERT_EQ(::chmod(dir_.c_str(), 0755), 0);
  EXPECT_EQ(refusal(), "");
  ASSERT_EQ(::chmod(dir_.c_str(), 0775), 0);
  EXPECT_EQ(refusal(), "") << "our own group";
  ASSERT_EQ(::chmod(dir_.c_str(), 01777), 0);
  EXPECT_NE(refusal().find("other users may write there (mode 1777"), std::string::npos) << refusal();
  EXPECT_NE(refusal().find("--runtime-dir"), std::string::npos);
}

TEST_F(RuntimeDir, OfAnotherUserOrGroupIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give a directory away";
  fs::create_directory(dir_);
  ASSERT_EQ(::chmod(dir_.c_str(), 0770), 0);
  ASSERT_EQ(::chown(dir_.c_str(), 0, 65534), 0);
  EXPECT_NE(refusal().find("other users may write"), std::string::npos) << refusal();
  ASSERT_EQ(::chmod(dir_.c_str(), 0750), 0);
  EXPECT_EQ(refusal(), "");
  ASSERT_EQ(::chown(dir_.c_str(), 65534, 0), 0);
  EXPECT_NE(refusal().find("belongs to uid 65534"), std::string::npos) << refusal();
}

TEST_F(RuntimeDir, ThatIsALinkOrAFileIsRefused) {
  fs::create_directory(base_ + "/real");
  fs::create_directory_symlink(base_ + "/real", dir_);
  EXPECT_NE(refusal().find("is not a directory"), std::string::npos) << refusal();
  dir_ += "/";
  EXPECT_NE(refusal().find("is not a directory"), std::string::npos) << refusal();
  dir_ += "below";  // a link above is the operator's
  EXPECT_EQ(refusal(), "");
  dir_ = base_ + "/file";
  std::ofstream(dir_) << "x";
  EXPECT_NE(refusal().find("is not a directory"), std::string::npos) << refusal();
}

TEST_F(RuntimeDir, LockFileHoldsThePidAndIsHeldOnce) {
  const Fd dir = open_own_dir(dir_, "--runtime-dir");
  {
    const auto first = lock_pid_file(dir, dir_, "lock");
    ASSERT_TRUE(first) << first.error().text;
    EXPECT_EQ(content(dir_ + "/lock"), std::to_string(::getpid()));
    const auto second = lock_pid_file(dir, dir_, "lock");
    ASSERT_FALSE(second);
    EXPECT_TRUE(second.error().held);
    EXPECT_EQ(second.error().pid, ::getpid());
  }
  EXPECT_TRUE(lock_pid_file(dir, dir_, "lock"));
}

TEST_F(RuntimeDir, LockFileIsNeverWrittenThroughALink) {
  const Fd dir = open_own_dir(dir_, "--runtime-dir");
  const std::string victim = base_ + "/victim";
  std::ofstream(victim) << "precious";
  fs::create_symlink(victim, dir_ + "/lock");
  const auto linked = lock_pid_file(dir, dir_, "lock");
  ASSERT_FALSE(linked);
  EXPECT_FALSE(linked.error().held);
  EXPECT_EQ(linked.error().text, dir_ + "/lock: is a symbolic link: remove it");
  fs::remove(dir_ + "/lock");
  fs::create_hard_link(victim, dir_ + "/lock");
  EXPECT_FALSE(lock_pid_file(dir, dir_, "lock"));
  fs::remove(dir_ + "/lock");
  ASSERT_EQ(::mkfifo((dir_ + "/lock").c_str(), 0600), 0);
  EXPECT_FALSE(lock_pid_file(dir, dir_, "lock"));
  EXPECT_EQ(content(victim), "precious");
}

TEST(MaskUrl, HidesPasswordsAndTokens) {
  EXPECT_EQ(mask_url("nats://127.0.0.1:4222"), "nats://127.0.0.1:4222");
  EXPECT_EQ(mask_url("nats://u:p@h:1,tls://token@h2"), "nats://u:***@h:1,tls://***@h2");
  EXPECT_EQ(mask_url("u:p@ss@h"), "u:***@h");
  EXPECT_EQ(mask_url(""), "");
}

}  // namespace
}  // namespace arancini
