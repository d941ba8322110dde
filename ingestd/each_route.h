#pragma once

#include "ingestd/peer_table.h"

namespace arancini::ingestd {

// Calls f(const Prefix&, RouteState&) for all routes of the table, in one go: not for the data path.
template <class F>
void each_route(RibTable& table, F&& f) {
  for (WalkCursor cursor; !cursor.done;) {
    table.routes.walk(cursor, 4096, [&](const Prefix& prefix, RouteState& route) {
      f(prefix, route);
      return WalkAction::Keep;
    });
  }
}

}  // namespace arancini::ingestd
