#include "curated/notify_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
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
  bool read(NotifySocket& socket, bool drop = false) {
    return socket.read(
        [this](int pid, Fd fd) {
          EXPECT_EQ(pid, ::getpid());
          kept_.push_back(std::move(fd));
        },
        drop);
  }

  Logger log_{"test", LogLevel::Error};
  std::string folder_, path_;
  std::vector<Fd> kept_;
};

TEST_F(Notify, TakesAndForgetsWhatIsHandedOver) {
  NotifySocket socket(path_, log_);
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
  EXPECT_TRUE(read(socket));
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
  NotifySocket socket(path_, log_);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fd = null.get();
  EXPECT_LT(::sd_notify_barrier(0, 1000), 0) << "nobody reads";
  std::atomic<int> heard{0};
  ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=handover", &fd, 1), 0);
  std::thread thread([&] { heard = ::sd_notify_barrier(0, 10'000'000); });
  while (heard == 0) {
    EXPECT_TRUE(read(socket));
    std::this_thread::yield();
  }
  thread.join();
  EXPECT_GT(heard, 0);
  EXPECT_EQ(kept_.size(), 1U);
}

// All descriptors that there may be are in use but for those that are given back.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit low = before_;
    low.rlim_cur = 64;
    ::setrlimit(RLIMIT_NOFILE, &low);
    for (int fd = ::dup(0); fd >= 0; fd = ::dup(0)) used_.emplace_back(fd);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;
  void give_back(std::size_t n) { used_.resize(used_.size() - n); }

 private:
  rlimit before_{};
  std::vector<Fd> used_;
};

TEST_F(Notify, TakesAHandOverOutOfItsReserveWhenNoDescriptorIsLeft) {
  NotifySocket socket(path_, log_);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fd = null.get();
  ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=handover", &fd, 1), 0);
  const NoDescriptors none;
  EXPECT_TRUE(read(socket));
  ASSERT_EQ(kept_.size(), 1U);
  EXPECT_TRUE(kept_[0]);
}

TEST_F(Notify, DoesNotAnswerForWhatItHasNoRoomFor) {
  NotifySocket socket(path_, log_);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fd = null.get();
  int barrier[2];
  ASSERT_EQ(::pipe2(barrier, O_CLOEXEC), 0);
  const Fd waits(barrier[0]);
  for (int i = 0; i < 8; ++i)
    ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=handover", &fd, 1), 0);
  ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "BARRIER=1", &barrier[1], 1), 0);
  ::close(barrier[1]);
  pollfd answer{waits.get(), POLLIN, 0};
  {
    NoDescriptors none;
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(read(socket));
    const std::size_t taken = kept_.size();  // by its reserve
    EXPECT_LT(taken, 8U);
    EXPECT_EQ(::poll(&answer, 1, 0), 0) << "nothing is answered";
    none.give_back(2);
    EXPECT_FALSE(read(socket));
    EXPECT_GT(kept_.size(), taken) << "goes on where it was";
    EXPECT_EQ(::poll(&answer, 1, 0), 0);
  }
  EXPECT_TRUE(read(socket));
  EXPECT_EQ(kept_.size(), 8U) << "none is lost";
  EXPECT_TRUE(std::ranges::all_of(kept_, [](const Fd& one) { return static_cast<bool>(one); }));
  EXPECT_EQ(::poll(&answer, 1, 0), 1);
}

TEST_F(Notify, DropsAHandOverThatWaitsForRoomTooLongAndDoesNotAnswerForIt) {
  NotifySocket socket(path_, log_);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fd = null.get();
  int barrier[2];
  ASSERT_EQ(::pipe2(barrier, O_CLOEXEC), 0);
  const Fd waits(barrier[0]);
  for (int i = 0; i < 5; ++i)
    ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=handover", &fd, 1), 0);
  ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "BARRIER=1", &barrier[1], 1), 0);
  ::close(barrier[1]);
  const NoDescriptors none;
  EXPECT_FALSE(read(socket));
  const std::size_t taken = kept_.size();
  ASSERT_LT(taken, 4U);
  for (std::size_t left = 5 - taken; left > 1; --left) EXPECT_FALSE(read(socket, true)) << "one at a time";
  EXPECT_TRUE(read(socket, true));
  EXPECT_EQ(kept_.size(), taken);
  pollfd answer{waits.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&answer, 1, 0), 0);
}

TEST_F(Notify, DoesNotAnswerForAHandOverThatIsNone) {
  NotifySocket socket(path_, log_);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fds[] = {null.get(), null.get()};
  for (const unsigned n : {0U, 2U}) {
    ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=handover", fds, n), 0);
    int barrier[2];
    ASSERT_EQ(::pipe2(barrier, O_CLOEXEC), 0);
    const Fd waits(barrier[0]);
    ASSERT_GT(::sd_pid_notify_with_fds(0, 0, "BARRIER=1", &barrier[1], 1), 0);
    ::close(barrier[1]);
    EXPECT_TRUE(read(socket));
    pollfd answer{waits.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&answer, 1, 0), 0);
  }
  EXPECT_TRUE(kept_.empty());
}

TEST_F(Notify, NobodyIsThereAfterwards) {
  { const NotifySocket socket(path_, log_); }
  EXPECT_EQ(::sd_notify(0, "READY=1"), -ENOENT);
  // The next one takes the place of one that was killed.
  const NotifySocket before(path_, log_);
  NotifySocket after(path_, log_);
  EXPECT_GT(::sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=handover"), 0);
  EXPECT_TRUE(read(after));
  EXPECT_EQ(kept_.size(), 1U);
}

}  // namespace
}  // namespace arancini::curated
