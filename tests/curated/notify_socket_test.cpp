#include "curated/notify_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/curated/no_descriptors.h"

namespace arancini::curated {
namespace {

class Notify : public ::testing::Test {
 protected:
  Notify() {
    char pattern[] = "/tmp/arancini-notify-XXXXXX";
    folder_ = ::mkdtemp(pattern);
    path_ = folder_ + "/notify";
    ::setenv("NOTIFY_SOCKET", path_.c_str(), 1);
    socket_.emplace(path_, log_);
  }
  ~Notify() override {
    socket_.reset();
    ::unsetenv("NOTIFY_SOCKET");
    std::filesystem::remove_all(folder_);
  }
  // What a child says, with descriptors.
  void say(const char* text, unsigned fds = 0) {
    const int all[] = {null_.get(), null_.get()};
    ASSERT_GT(::sd_pid_notify_with_fds(0, 0, text, all, fds), 0);
  }
  void hand_over() { say("FDSTORE=1\nFDNAME=handover", 1); }
  // sd_notify_barrier(3) without the wait.
  Fd barrier() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const Fd theirs(ends[1]);
    EXPECT_GT(::sd_pid_notify_with_fds(0, 0, "BARRIER=1", &ends[1], 1), 0);
    return Fd(ends[0]);
  }
  static bool answered(const Fd& barrier) {
    pollfd answer{barrier.get(), POLLIN, 0};
    return ::poll(&answer, 1, 0) == 1;
  }
  bool read(bool drop = false) { return read(*socket_, drop); }
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
  const Fd null_{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  std::optional<NotifySocket> socket_;
};

TEST_F(Notify, TakesAndForgetsWhatIsHandedOver) {
  struct stat mode {};
  ASSERT_EQ(::stat(path_.c_str(), &mode), 0);
  EXPECT_EQ(mode.st_mode & 0777U, 0600U);
  say("READY=1\nSTATUS=Shard 0 of 1");
  say("FDSTORE=1\nFDNAME=other", 1);
  say("FDSTORE=1\nFDNAME=handover");  // without one
  say("FDSTORE=1\nFDNAME=handover\nFDPOLL=0", 1);
  say("FDSTOREREMOVE=1\nFDNAME=handover");
  EXPECT_TRUE(read());
  ASSERT_EQ(kept_.size(), 2U);
  struct stat ours {
  }, theirs{};
  ASSERT_EQ(::fstat(null_.get(), &ours), 0);
  ASSERT_EQ(::fstat(kept_[0].get(), &theirs), 0);
  EXPECT_EQ(ours.st_rdev, theirs.st_rdev);
  EXPECT_GE(kept_[0].get(), 16);
  EXPECT_EQ(::fcntl(kept_[0].get(), F_GETFD), FD_CLOEXEC);
  EXPECT_FALSE(kept_[1]);
}

TEST_F(Notify, AnswersBarriersBehindWhatWasSaidBefore) {
  EXPECT_LT(::sd_notify_barrier(0, 1000), 0) << "nobody reads";
  std::atomic<int> heard{0};
  hand_over();
  std::thread thread([&] { heard = ::sd_notify_barrier(0, 10'000'000); });
  while (heard == 0) {
    EXPECT_TRUE(read());
    std::this_thread::yield();
  }
  thread.join();
  EXPECT_GT(heard, 0);
  EXPECT_EQ(kept_.size(), 1U);
}

TEST_F(Notify, TakesAHandOverOutOfItsReserveWhenNoDescriptorIsLeft) {
  hand_over();
  const NoDescriptors none;
  EXPECT_TRUE(read());
  ASSERT_EQ(kept_.size(), 1U);
  EXPECT_TRUE(kept_[0]);
}

TEST_F(Notify, DoesNotAnswerForWhatItHasNoRoomFor) {
  for (int i = 0; i < 8; ++i) hand_over();
  const Fd waits = barrier();
  {
    NoDescriptors none;
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(read());
    const std::size_t taken = kept_.size();  // by its reserve
    EXPECT_LT(taken, 8U);
    EXPECT_FALSE(answered(waits)) << "nothing is answered";
    none.give_back(2);
    EXPECT_FALSE(read());
    EXPECT_GT(kept_.size(), taken) << "goes on where it was";
    EXPECT_FALSE(answered(waits));
  }
  EXPECT_TRUE(read());
  EXPECT_EQ(kept_.size(), 8U) << "none is lost";
  EXPECT_TRUE(std::ranges::all_of(kept_, [](const Fd& one) { return static_cast<bool>(one); }));
  EXPECT_TRUE(answered(waits));
}

TEST_F(Notify, DropsAHandOverThatWaitsForRoomTooLongAndDoesNotAnswerForIt) {
  for (int i = 0; i < 5; ++i) hand_over();
  const Fd waits = barrier();
  const NoDescriptors none;
  EXPECT_FALSE(read());
  const std::size_t taken = kept_.size();
  ASSERT_LT(taken, 4U);
  for (std::size_t left = 5 - taken; left > 1; --left) EXPECT_FALSE(read(true)) << "one at a time";
  EXPECT_TRUE(read(true));
  EXPECT_EQ(kept_.size(), taken);
  EXPECT_FALSE(answered(waits));
}

TEST_F(Notify, DoesNotAnswerForAHandOverThatIsNone) {
  for (const unsigned n : {0U, 2U}) {
    say("FDSTORE=1\nFDNAME=handover", n);
    const Fd waits = barrier();
    EXPECT_TRUE(read());
    EXPECT_FALSE(answered(waits));
  }
  EXPECT_TRUE(kept_.empty());
}

TEST_F(Notify, NobodyIsThereAfterwards) {
  socket_.reset();
  EXPECT_EQ(::sd_notify(0, "READY=1"), -ENOENT);
  // The next one takes the place of one that was killed.
  const NotifySocket before(path_, log_);
  NotifySocket after(path_, log_);
  say("FDSTOREREMOVE=1\nFDNAME=handover");
  EXPECT_TRUE(read(after));
  EXPECT_EQ(kept_.size(), 1U);
}

}  // namespace
}  // namespace arancini::curated
