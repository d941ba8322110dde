#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ingestd/restart_state.h"
#include "ingestd/shard.h"

namespace arancini::ingestd {

struct Router;

// What the process before has left, on its way into a shard. Made by whoever starts the shard; changed by the
// shard's thread only.
struct RestartAdoption {
  struct Taken {
    std::optional<SessionId> id;  // none: its socket is to be closed
    std::string_view why;
  };

  RestartState state;
  std::vector<std::byte> bytes;  // of `state`, for recordings

  bool decided = false;
  std::vector<Taken> sessions;  // once decided, those of `state`
};

// Which routers' tables are what they were, so that they can go on: call when everything is restored. Nothing
// is changed. `why_none`: none of them can; empty: look.
class RestartCheck {
 public:
  RestartCheck(Shard::Impl& shard, const RestartState& state, std::string_view why_none);

  // Those that have tables, sorted.
  [[nodiscard]] const std::vector<const Router*>& go_on() const { return go_on_; }
  // By index in RestartState::routers; empty: it goes on.
  [[nodiscard]] const std::vector<std::string_view>& why_not() const { return why_not_; }

 private:
  std::vector<const Router*> go_on_;
  std::vector<std::string_view> why_not_;
};

// Behind Restore::finish(check.go_on()): sessions, peers and tables go on as if nothing had happened.
void adopt_restart(Shard::Impl& shard, RestartAdoption& adoption, const RestartCheck& check,
                   std::string_view why_none);

}  // namespace arancini::ingestd
