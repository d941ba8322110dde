#include "curated/notify_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

namespace arancini::curated {
namespace {

class Notify : public ::testing::Test {
 protected:
  Notify() {
    char pattern[] = "/tmp/arancini-notify-XXXXXX";
    folder_ = ::mkdtemp(pattern);
    path_ = folder_ + "/notify";
    ::setenv("NOTIFY_SOCKET", path_.c_str(), 1);
  }
  ~Notify() override {
    ::unsetenv("NOTIFY_SOCKET");
    std::filesystem::remove_all(folder_);
  }
  void read(NotifySocket& socket) {
    socket.read([this](int pid, Fd fd) {
      EXPECT_EQ(pid, ::getpid());
      kept_.push_back(std::move(fd));
    });
  }

  std::string folder_, path_;
  std::vector<Fd> kept_;
};

TEST_F(Notify, TakesAndForgetsWhatIsHandedOver) {
  NotifySocket socket(path_);
  struct stat mode {};
  ASSERT_EQ(::stat(path_.c_str(), &mode), 0);
  EXPECT_EQ(mode.st_mode & 0777U, 0600U);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fd = null.get();
  ASSERT_GT(::sd_notify(0, "READY=1\nSTATUS=Shard 0 of 1"), 0);
  ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=other", &fd, 1), 0);
  ASSERT_GT(::sd_notify(0, "FDSTORE=1\nFDNAME=handover"), 0);  // without one
  ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=handover\nFDPOLL=0", &fd, 1), 0);
  ASSERT_GT(::sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=handover"), 0);
  read(socket);
  ASSERT_EQ(kept_.size(), 2U);
  struct stat ours {
  }, theirs{};
  ASSERT_EQ(::fstat(fd, &ours), 0);
  ASSERT_EQ(::fstat(kept_[0].get(), &theirs), 0);
  EXPECT_EQ(ours.st_rdev, theirs.st_rdev);
  EXPECT_GE(kept_[0].get(), 16);
  EXPECT_EQ(::fcntl(kept_[0].get(), F_GETFD), FD_CLOEXEC);
  EXPECT_FALSE(kept_[1]);
}

TEST_F(Notify, AnswersBarriersBehindWhatWasSaidBefore) {
  NotifySocket socket(path_);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fd = null.get();
  EXPECT_LT(::sd_notify_barrier(0, 1000), 0) << "nobody reads";
  std::atomic<int> heard{0};
  ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=handover", &fd, 1), 0);
  std::thread thread([&] { heard = ::sd_notify_barrier(0, 10'000'000); });
  while (heard == 0) {
    read(socket);
    std::this_thread::yield();
  }
  thread.join();
  EXPECT_GT(heard, 0);
  EXPECT_EQ(kept_.size(), 1U);
}

TEST_F(Notify, NobodyIsThereAfterwards) {
  { const NotifySocket socket(path_); }
  EXPECT_EQ(::sd_notify(0, "READY=1"), -ENOENT);
  // The next one takes the place of one that was killed.
  const NotifySocket before(path_);
  NotifySocket after(path_);
  EXPECT_GT(::sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=handover"), 0);
  read(after);
  EXPECT_EQ(kept_.size(), 1U);
}

}  // namespace
}  // namespace arancini::curated
