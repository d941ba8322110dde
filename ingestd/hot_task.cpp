#include "ingestd/hot_task.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace arancini::ingestd {

HotTasks::HotTasks() : wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_fd_) throw std::system_error(errno, std::generic_category(), "eventfd");
}

bool HotTasks::post(HotTask& task) {
  const std::lock_guard lock(posting_);
  if (closed_.load(std::memory_order_acquire)) return false;
  for (Slot& slot : slots_) {
    if (slot.state.load(std::memory_order_acquire) != State::Free) continue;
    slot.task = &task;
    posted_.fetch_add(1, std::memory_order_relaxed);
    slot.state.store(State::Posted, std::memory_order_release);
    wake();
    return true;
  }
  return false;
}

bool HotTasks::done(const HotTask& task) {
  const std::lock_guard lock(posting_);
  for (Slot& slot : slots_) {
    const State state = slot.state.load(std::memory_order_acquire);
    if (state == State::Free || slot.task != &task) continue;
    if (state != State::Done) return false;
    slot.task = nullptr;
    slot.state.store(State::Free, std::memory_order_release);
    return true;
  }
  return true;
}

void HotTasks::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(wake_fd_.get(), &one, sizeof one);  // full: it is awake anyway
}

void HotTasks::clear_wake() {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto n = ::read(wake_fd_.get(), &count, sizeof count);
}

HotTask::Progress HotTasks::run(Shard::Impl& shard) noexcept {
  if (posted_.load(std::memory_order_relaxed) == 0) return HotTask::Progress::Done;
  auto all = HotTask::Progress::Done;
  for (Slot& slot : slots_) {
    if (slot.state.load(std::memory_order_acquire) != State::Posted) continue;
    const HotTask::Progress progress = slot.task->run(shard);
    if (progress == HotTask::Progress::Done) {
      posted_.fetch_sub(1, std::memory_order_relaxed);
      slot.state.store(State::Done, std::memory_order_release);
    } else if (progress == HotTask::Progress::More || all == HotTask::Progress::Done) {
      all = progress;
    }
  }
  return all;
}

void HotTasks::finish(Shard::Impl& shard) noexcept {
  closed_.store(true, std::memory_order_release);
  {
    const std::lock_guard lock(posting_);  // whoever posts right now is in, or finds it closed
    for (Slot& slot : slots_) {
      if (slot.state.load(std::memory_order_acquire) == State::Posted) slot.task->cancel();
    }
  }
  while (posted_.load(std::memory_order_relaxed) != 0) (void)run(shard);
}

}  // namespace arancini::ingestd
