#pragma once

#include <string_view>
#include <vector>

#include "ingestd/restart_state.h"
#include "ingestd/shard.h"

namespace arancini::ingestd {

// What can go on in another process (docs/decisions/0014-restart-without-drops.md).
struct RestartExport {
  struct Closed {
    SessionId session;
    std::string_view why;
  };
  // Without what is of the process, the ring and the loop.
  RestartState state;
  std::vector<SessionId> sessions;  // those of `state`, in that order
  std::vector<Closed> closed;       // the other open ones
};

// Everything about routers that are at rest; the shard is as it was.
[[nodiscard]] RestartExport export_restart(Shard::Impl& shard);

}  // namespace arancini::ingestd
