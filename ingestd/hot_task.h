#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "common/base/fd.h"
#include "ingestd/shard.h"

// Work that other threads want done on a shard's tables (snapshots, restore, look-ups, dumps): posted to the
// hot thread, which does it in slices between its rounds, and given back to be freed elsewhere.
namespace arancini::ingestd {

class HotTask {
 public:
  virtual ~HotTask() = default;
  enum class Progress : std::uint8_t {
    More,  // call again soon
    Wait,  // nothing to do until someone posts, or a millisecond has passed
    Done,
  };
  // One slice on the hot thread: at most about 0.2 ms, no lock, no allocation in steady state, no I/O.
  virtual Progress run(Shard::Impl& shard) noexcept = 0;
  // Any thread: the next slice should end with Done. The hot thread is going, or nobody waits any more.
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

class HotTasks {
 public:
  static constexpr std::size_t kMost = 64;  // posted and not taken back

  HotTasks();  // throws std::system_error
  HotTasks(const HotTasks&) = delete;
  HotTasks& operator=(const HotTasks&) = delete;

  // Any thread but the hot one. False: kMost are under way, try again later. `task` lives until done() was
  // true.
  [[nodiscard]] bool post(HotTask& task);
  // Any thread: is the hot thread done with it? Once true, the task was forgotten here.
  [[nodiscard]] bool done(const HotTask& task);
  // Any thread: the hot thread should look at its tasks now.
  void wake();

  // Readable after wake() and post(): for the hot thread's poll.
  [[nodiscard]] int wake_fd() const { return wake_fd_.get(); }
  void clear_wake();

  // Hot thread: one slice of each task. More if any of them has more to do.
  HotTask::Progress run(Shard::Impl& shard) noexcept;
  // Hot thread: cancels all and runs them to their end; nothing may be posted any more.
  void finish(Shard::Impl& shard) noexcept;

 private:
  enum class State : std::uint8_t { Free, Posted, Done };
  struct Slot {
    std::atomic<State> state{State::Free};
    HotTask* task = nullptr;
  };
  Fd wake_fd_;
  std::mutex posting_;  // of posters among themselves
  std::array<Slot, kMost> slots_;
  std::atomic<std::uint32_t> posted_{0};
  std::atomic<bool> closed_{false};
};

}  // namespace arancini::ingestd
