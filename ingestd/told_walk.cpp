#include "ingestd/told_walk.h"

#include <algorithm>

namespace arancini::ingestd {

namespace {

bool behind(const WalkCursor& a, const WalkCursor& b) {
  if (a.done || b.done) return !a.done;
  if (a.hash_position != b.hash_position) return a.hash_position < b.hash_position;
  if (a.in_tie && b.in_tie) return a.tie < b.tie;
  return !a.in_tie;
}

// What downstream knows of a prefix; None: nothing.
AttrId told(const RibTable& table, const Prefix& prefix) {
  const RouteState* route = table.routes.find(prefix);
  if (route != nullptr && (route->flags & kRouteDirty) == 0) return route->attr;
  const RouteState* entry = table.untold.size() == 0 ? nullptr : table.untold.find(prefix);
  return entry != nullptr && (entry->flags & kRouteTold) != 0 ? entry->attr : AttrId::None;
}

}  // namespace

std::span<const ToldRoute> ToldWalk::again(RibTable& table, std::uint32_t taken) {
  std::uint32_t kept = 0;
  for (std::uint32_t i = taken; i < count_; ++i) {
    if (const AttrId attr = told(table, items_[i].prefix); attr != AttrId::None)
      items_[kept++] = {items_[i].prefix, attr};
  }
  count_ = kept;
  return sorted();
}

std::span<const ToldRoute> ToldWalk::next(RibTable& table, WalkCursor& cursor) {
  count_ = 0;
  WalkCursor of_routes = cursor;
  table.routes.walk(of_routes, kStep, [&](const Prefix& prefix, RouteState& route) {
    if ((route.flags & kRouteDirty) == 0) {
      add(prefix, route.attr);
    } else if (const RouteState* entry = table.untold.find(prefix);
               entry != nullptr && (entry->flags & kRouteTold) != 0) {
      add(prefix, entry->attr);
    }
    return WalkAction::Keep;
  });
  if (table.untold.size() == 0) {
    cursor = of_routes;
  } else {
    WalkCursor of_untold = cursor;
    table.untold.walk(of_untold, kStep, [&](const Prefix& prefix, RouteState& entry) {
      if ((entry.flags & kRouteGone) != 0) add(prefix, entry.attr);
      return WalkAction::Keep;
    });
    // As far as both have come; the rest is looked at again.
    cursor = behind(of_routes, of_untold) ? of_routes : of_untold;
    const auto* const end = std::remove_if(items_.begin(), items_.begin() + count_, [&](const ToldRoute& r) {
      return !table.routes.passed(cursor, r.prefix);
    });
    count_ = static_cast<std::uint32_t>(end - items_.begin());
  }
  return sorted();
}

std::span<const ToldRoute> ToldWalk::sorted() {
  // Ties by prefix: the same order in every run.
  std::sort(items_.begin(), items_.begin() + count_, [](const ToldRoute& a, const ToldRoute& b) {
    return a.attr != b.attr ? raw(a.attr) < raw(b.attr) : a.prefix < b.prefix;
  });
  return {items_.data(), count_};
}

}  // namespace arancini::ingestd
