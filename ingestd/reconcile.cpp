#include "ingestd/reconcile.h"

#include <algorithm>
#include <tuple>

#include "common/metrics/metric_list.h"
#include "common/wire/bgp_update.h"
#include "ingestd/attribute_set.h"
#include "ingestd/batch_meta.h"
#include "ingestd/event_encode.h"

namespace arancini::ingestd {

bool Reconcile::run(std::size_t steps) {
  std::vector<RibTable*>& tables = untold_.tables();
  bool room = true;
  while (steps > 0 && room && !tables.empty()) {
    --steps;
    if (next_ >= tables.size()) next_ = 0;
    RibTable& table = *tables[next_];
    // Live updates may have told what was left.
    if (table.untold.size() > 0) {
      room = has_room() && step(table) == Step::More;
      if (table.untold.size() > 0) {
        ++next_;
        continue;
      }
    }
    table.has_untold = false;
    table.untold_cursor = WalkCursor{};
    tables.erase(tables.begin() + static_cast<std::ptrdiff_t>(next_));
  }
  return room;
}

void Reconcile::collect(RibTable& table, bool told_only) {
  WalkCursor& cursor = table.untold_cursor;
  if (cursor.done) cursor = WalkCursor{};
  count_ = 0;
  table.untold.walk(cursor, kStepRoutes, [&](const Prefix& prefix, RouteState& entry) {
    if (told_only && (entry.flags & kRouteTold) == 0) return WalkAction::Keep;
    Item& item = items_[count_];
    item =
        Item{.prefix = prefix, .attr = AttrId::None, .reason = 0, .order = static_cast<std::uint8_t>(count_)};
    // Also of a route that is there again: it was gone under the AS number that its withdraw names.
    if (told_only || (entry.flags & kRouteGone) != 0)
      item.reason = static_cast<std::uint8_t>(entry.generation);
    ++count_;
    return WalkAction::Keep;
  });
  for (std::uint32_t i = 0; i < count_ && !told_only; ++i) {
    if (const RouteState* route = table.routes.find(items_[i].prefix)) items_[i].attr = route->attr;
  }
  const auto found = items_.begin() + count_;
  const auto alike = [](const Item& item) { return std::tuple(raw(item.attr), item.reason, item.order); };
  std::sort(items_.begin(), found, [&](const Item& a, const Item& b) { return alike(a) < alike(b); });
  for (std::uint32_t i = 0; i < count_; ++i) {
    const bool same =
        i > 0 && items_[i].attr == items_[i - 1].attr && items_[i].reason == items_[i - 1].reason;
    items_[i].record = same ? items_[i - 1].record : items_[i].order;
  }
  // Records in the order in which they were found: which ids attributes have depends on who else holds some.
  const auto told = [](const Item& item) {
    return std::tuple(item.attr != AttrId::None, item.record, item.order);
  };
  std::sort(items_.begin(), found, [&](const Item& a, const Item& b) { return told(a) < told(b); });
}

Reconcile::Step Reconcile::step(RibTable& table) {
  PeerView& view = table.view;
  schema::BatchMeta meta = batch_meta(context_, view);
  bool former = false;
  if (!Untold::same_identity(view)) {
    // First what downstream knows under the former AS number goes, under that number.
    former = view.untold.told > 0;
    if (!former && !barriers_.separate_identities(view)) return Step::NoRoom;
    if (former) {
      meta.peer_asn = view.told_asn.value_or(0);
      meta.peer_bgp_id = view.told_bgp_id;
    }
  }
  meta.router_port = view.router_port;
  meta.family = table.family;

  const WalkCursor before = table.untold_cursor;
  collect(table, former);
  for (std::uint32_t first = 0; first < count_;) {
    std::uint32_t last = first + 1;
    while (last < count_ && items_[last].attr == items_[first].attr &&
           items_[last].reason == items_[first].reason)
      ++last;
    if (!has_room() || !tell(table, meta, first, last)) {
      table.untold_cursor = before;  // what is told by now is not found again
      return Step::NoRoom;
    }
    first = last;
  }
  return Step::More;
}

bool Reconcile::tell(RibTable& table, schema::BatchMeta meta, std::uint32_t first, std::uint32_t last) {
  return items_[first].attr == AttrId::None ? withdraw(table, meta, first, last)
                                            : announce(table, meta, first, last);
}

bool Reconcile::withdraw(RibTable& table, schema::BatchMeta& meta, std::uint32_t first, std::uint32_t last) {
  meta.reason = static_cast<Reason>(items_[first].reason);
  meta.synthetic = meta.reason != Reason::None;
  meta.via_mp = table.family != kIpv4Unicast;
  const schema::BatchAttributes attributes;
  SliceWriter writer(context_.ring, meta, attributes);
  const std::uint32_t limit = writer.max_routes();
  while (first < last) {
    const std::uint32_t end = std::min(last, first + limit);
    if (!writer.reserve(end - first)) return false;
    for (; first < end; ++first) {
      const Prefix& prefix = items_[first].prefix;
      RouteState& entry = *table.untold.find(prefix);
      if ((entry.flags & kRouteGone) != 0) {
        untold_.settle(table, prefix, entry, nullptr);
      } else {
        untold_.withdrawn(table, entry, *table.routes.find(prefix));
      }
      writer.add(prefix);
    }
    count(table, writer.commit(), false, meta.synthetic);
  }
  return true;
}

bool Reconcile::announce(RibTable& table, schema::BatchMeta& meta, std::uint32_t first, std::uint32_t last) {
  const AttrId attr = items_[first].attr;
  const AttributeSet set(context_.attributes.parts(attr), table.family);
  meta.announced = true;
  meta.via_mp = set.via_mp;
  const schema::BatchAttributes attributes{.attributes = &set.attributes, .next_hop = set.next_hop};
  SliceWriter writer(context_.ring, meta, attributes);
  // Not 0: a route that no record can hold is never in a table.
  const std::uint32_t limit = std::max(writer.max_routes(), 1U);
  while (first < last) {
    const std::uint32_t end = std::min(last, first + limit);
    if (!writer.reserve(end - first)) return false;
    for (; first < end; ++first) {
      const Prefix& prefix = items_[first].prefix;
      RouteState& entry = *table.untold.find(prefix);
      // Never what it is told already: an announcement that says so settles it.
      untold_.settle(table, prefix, entry, table.routes.find(prefix));
      writer.add(prefix);
    }
    count(table, writer.commit(), true, false);
  }
  return true;
}

void Reconcile::count(RibTable& table, std::uint32_t written, bool announced, bool synthetic) {
  if (written == 0) return;
  StatsWriter& stats = context_.stats;
  stats.add(announced ? IngestMetric::UpdatesAnnounced : IngestMetric::UpdatesWithdrawn, written);
  if (synthetic) {
    stats.add(IngestMetric::UpdatesSynthetic, written);
    table.view.synthetic += written;
  }
  stats.add(IngestMetric::UpdatesReconciled, written);
  stats.add(IngestMetric::RingRecords);
  table.view.published += written;
  table.view.peer.router->published += written;
  peers_.touch(table.view);
}

}  // namespace arancini::ingestd
