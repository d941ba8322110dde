#include "ingestd/restore_task.h"

#include <utility>

#include "common/metrics/metric_list.h"
#include "ingestd/event_writer.h"
#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

RestoreBatch* RestoreTask::free_batch() {
  Slot& slot = slots_[next_give_];
  // Pairs with the hot thread's release: it is done with the batch.
  return slot.filled.load(std::memory_order_acquire) ? nullptr : &slot.batch;
}

void RestoreTask::give() {
  slots_[next_give_].filled.store(true, std::memory_order_release);
  next_give_ = (next_give_ + 1) % slots_.size();
}

void RestoreTask::end(std::vector<schema::EventFields> events, bool complete) {
  events_ = std::move(events);
  complete_ = complete;
  end_.store(true, std::memory_order_release);
}

bool RestoreTask::idle() const {
  for (const Slot& slot : slots_) {
    if (slot.filled.load(std::memory_order_acquire)) return false;
  }
  return true;
}

HotTask::Progress RestoreTask::run(Shard::Impl& shard) noexcept {
  if (cancelled()) {
    gone_.store(true, std::memory_order_release);
    return Progress::Done;
  }
  StatsWriter& stats = shard.context.stats;
  if (started_ns_ == 0) started_ns_ = shard.context.now_ns;
  stats.set(IngestMetric::RestoreState, waiting_.load(std::memory_order_relaxed) ? 2 : 1);
  Slot& slot = slots_[next_take_];
  if (slot.filled.load(std::memory_order_acquire)) {
    if (!std::exchange(begun_, true) && shard.context.witness != nullptr) {
      shard.context.witness->restore_batch(slot.batch);
    }
    const Restore::Outcome outcome = shard.restore.apply(slot.batch, cursor_);
    no_memory_.store(outcome == Restore::Outcome::NoMemory, std::memory_order_relaxed);
    switch (outcome) {
      case Restore::Outcome::More: return Progress::More;
      case Restore::Outcome::NoMemory: return Progress::Wait;
      case Restore::Outcome::Applied: break;
    }
    cursor_ = {};
    begun_ = false;
    slot.batch.clear();
    slot.filled.store(false, std::memory_order_release);
    next_take_ = (next_take_ + 1) % slots_.size();
    return Progress::More;
  }
  // The last batch was given before the end was said.
  if (!end_.load(std::memory_order_acquire)) return Progress::Wait;
  if (slot.filled.load(std::memory_order_acquire)) return Progress::More;
  if (!std::exchange(end_begun_, true) && shard.context.witness != nullptr) {
    if (adoption_ != nullptr) shard.context.witness->adopted(adoption_->bytes);
    shard.context.witness->restore_end(events_, complete_);
  }
  for (; next_event_ < events_.size(); ++next_event_) {
    if (!write_event(shard.context, shm::kAllRouters, events_[next_event_])) return Progress::Wait;
  }
  if (adoption_ == nullptr) {
    shard.restore.finish();
  } else {
    std::string_view why_none;
    if (!complete_) why_none = "the log lacks some of what was told";
    if (shard.restore.unplaced() > 0) why_none = "there are no rows for all that was told";
    const RestartCheck check(shard, adoption_->state, why_none);
    shard.restore.finish(check.go_on());
    adopt_restart(shard, *adoption_, check, why_none);
  }
  if (!complete_) shard.dump.owe_all();
  routers_ = shard.peers.routers();
  routes_ = shard.context.routes;
  unplaced_ = shard.restore.unplaced();
  shard.events.hold(false);
  shard.restoring = false;
  stats.set(IngestMetric::RestoreState, 0);
  stats.set(IngestMetric::RestoredRoutes, routes_);
  stats.set(IngestMetric::RestoreDurationNs, shard.context.now_ns - started_ns_);
  finished_.store(true, std::memory_order_release);
  return Progress::Done;
}

}  // namespace arancini::ingestd
