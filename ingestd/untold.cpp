#include "ingestd/untold.h"

#include <utility>

namespace arancini::ingestd {

namespace {

bool is(const RouteState& route, std::uint8_t flag) {
  return (route.flags & flag) != 0;
}

void set(RouteState& route, std::uint8_t flag, bool on) {
  route.flags = static_cast<std::uint8_t>(on ? route.flags | flag : route.flags & ~flag);
}

}  // namespace

template <class F>
void Untold::count(RibTable& table, F&& f) {
  f(table.view.untold);
  f(table.view.peer.router->untold);
  f(context_.untold);
  peers_.touch(table.view);
}

RouteState* Untold::note(RibTable& table, const Prefix& prefix, bool told, AttrId attr) {
  RouteState* entry = table.untold.insert(prefix).first;
  if (entry == nullptr) return nullptr;
  set(*entry, kRouteTold, told);
  if (told) {
    entry->attr = attr;
    context_.attributes.ref(attr);
  }
  count(table, [told](UntoldCounts& c) {
    ++c.entries;
    c.told += told ? 1 : 0;
  });
  if (!std::exchange(table.has_untold, true)) tables_.push_back(&table);
  return entry;
}

void Untold::set_gone(RibTable& table, RouteState& entry, bool gone) {
  if (is(entry, kRouteGone) == gone) return;
  set(entry, kRouteGone, gone);
  count(table, [gone](UntoldCounts& c) { c.gone += gone ? 1 : -1ULL; });
}

void Untold::erase(RibTable& table, const Prefix& prefix, RouteState& entry) {
  set_gone(table, entry, false);
  const bool told = is(entry, kRouteTold);
  if (told) context_.attributes.unref(entry.attr);
  table.untold.erase(prefix);
  count(table, [told](UntoldCounts& c) {
    --c.entries;
    c.told -= told ? 1 : 0;
  });
}

Untold::Outcome Untold::announce(RibTable& table, const Prefix& prefix, const RouteState& route, bool is_new,
                                 AttrId attr, AttrId alias, bool telling, std::uint8_t& flags) {
  RouteState* entry = is_new || is(route, kRouteDirty) ? find(table, prefix) : nullptr;
  const bool told = entry != nullptr ? is(*entry, kRouteTold) : !is_new;
  const AttrId told_attr = entry != nullptr ? entry->attr : route.attr;
  const auto same = [&](AttrId other) { return other == attr || (other == alias && alias != AttrId::None); };
  const bool known = told && same(told_attr) && same_identity(table.view);
  flags = kRouteTold;
  if (known || telling) {
    if (entry != nullptr) erase(table, prefix, *entry);
    return known ? Outcome::Suppress : Outcome::Tell;
  }
  const bool changed = is_new || !same(route.attr);
  if (entry == nullptr) entry = note(table, prefix, told, told_attr);
  if (entry == nullptr) return Outcome::NoMemory;
  set_gone(table, *entry, false);
  flags = static_cast<std::uint8_t>(kRouteDirty | (told ? kRouteTold : 0));
  return changed ? Outcome::Dropped : Outcome::Suppress;
}

Untold::Outcome Untold::withdraw(RibTable& table, const Prefix& prefix, const RouteState& route, bool telling,
                                 Reason reason) {
  RouteState* entry = is(route, kRouteDirty) ? find(table, prefix) : nullptr;
  const bool told = entry == nullptr || is(*entry, kRouteTold);
  if (!told || telling) {
    if (entry != nullptr) erase(table, prefix, *entry);
    return told ? Outcome::Tell : Outcome::Suppress;
  }
  if (entry == nullptr) entry = note(table, prefix, true, route.attr);
  if (entry == nullptr) return Outcome::NoMemory;
  set_gone(table, *entry, true);
  entry->generation = static_cast<std::uint16_t>(reason);
  return Outcome::Dropped;
}

void Untold::settle(RibTable& table, const Prefix& prefix, RouteState& entry, RouteState* route) {
  erase(table, prefix, entry);
  if (route == nullptr) return;
  set(*route, kRouteDirty, false);
  set(*route, kRouteTold, true);
}

void Untold::withdrawn(RibTable& table, RouteState& entry, RouteState& route) {
  context_.attributes.unref(entry.attr);
  entry.attr = AttrId::None;
  set(entry, kRouteTold, false);
  set(route, kRouteTold, false);
  count(table, [](UntoldCounts& c) { --c.told; });
}

}  // namespace arancini::ingestd
