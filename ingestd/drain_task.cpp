#include "ingestd/drain_task.h"

#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

HotTask::Progress DrainTask::run(Shard::Impl& shard) noexcept {
  if (cancelled()) return Progress::Done;
  if (action_ != Action::Look) sessions_.drain(action_ == Action::Begin);
  left_ = {.draining = sessions_.draining(),
           .sessions_blocked = sessions_.blocked_sessions(),
           .ring_used_bytes = shard.context.ring.used_bytes(),
           .sessions = shard.peers.open_sessions()};
  return Progress::Done;
}

}  // namespace arancini::ingestd
