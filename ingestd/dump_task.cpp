#include "ingestd/dump_task.h"

#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

HotTask::Progress DumpTask::run(Shard::Impl& shard) noexcept {
  if (!asked_ && !cancelled()) {
    asked_ = true;
    if (shard.context.witness != nullptr) shard.context.witness->dump_asked(router_ ? &*router_ : nullptr);
    if (router_) {
      no_such_router_ = !shard.dump.request(*router_, &waiter_);
    } else {
      shard.dump.request_all(&waiter_);
    }
  }
  if (asked_ && waiter_.left == 0) return Progress::Done;
  if (!cancelled()) return Progress::Wait;
  given_up_ = true;
  shard.dump.forget(waiter_);
  return Progress::Done;
}

}  // namespace arancini::ingestd
