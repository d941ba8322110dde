#include "ingestd/restore.h"

#include <algorithm>
#include <span>
#include <utility>

#include "ingestd/attribute_set.h"
#include "ingestd/rib_shard.h"

namespace arancini::ingestd {

namespace {

// Routes, or steps without routes, of one slice: about a tenth of a millisecond.
constexpr std::uint32_t kSlice = 128;
constexpr std::uint32_t kPrefetch = 8;

}  // namespace

Restore::~Restore() {
  forget_attributes();
}

void Restore::forget_attributes() noexcept {
  for (const AttrId id : attributes_) {
    if (id != AttrId::None) context_.attributes.unref(id);
  }
  attributes_.clear();
}

Restore::Outcome Restore::apply(const RestoreBatch& batch, Cursor& cursor) noexcept {
  std::uint32_t budget = kSlice;
  for (; cursor.step < batch.steps.size(); ++cursor.step, cursor.route = 0) {
    if (budget == 0) return Outcome::More;
    const RestoreBatch::Step& step = batch.steps[cursor.step];
    switch (step.kind) {
      case Kind::Router:
        if (routers_.size() <= step.number) routers_.resize(step.number + std::size_t{1});
        routers_[step.number] = batch.routers[step.index];
        break;
      case Kind::View:
        if (views_.size() <= step.number) views_.resize(step.number + std::size_t{1});
        views_[step.number] = batch.views[step.index];
        break;
      case Kind::Attributes: {
        const AttrId id = context_.attributes.intern(batch.key(step.index));
        if (id == AttrId::None) return Outcome::NoMemory;
        if (attributes_.size() <= step.number) attributes_.resize(step.number + std::size_t{1}, AttrId::None);
        // One that comes twice: the reader has checked that it does not.
        if (attributes_[step.number] != AttrId::None) context_.attributes.unref(attributes_[step.number]);
        attributes_[step.number] = id;
        break;
      }
      case Kind::ForgetAttributes:
        for (; budget > 0 && !attributes_.empty(); --budget, attributes_.pop_back()) {
          if (attributes_.back() != AttrId::None) context_.attributes.unref(attributes_.back());
        }
        if (!attributes_.empty()) return Outcome::More;
        break;
      case Kind::Clear:
        if (!clear(budget)) return Outcome::More;
        break;
      case Kind::SnapshotRoutes:
      case Kind::Announce:
      case Kind::Withdraw: {
        const Outcome outcome = routes(batch, step, cursor, budget);
        if (outcome != Outcome::Applied) return outcome;
        continue;
      }
    }
    budget -= budget > 0 ? 1 : 0;
  }
  return Outcome::Applied;
}

PeerView* Restore::view_of(std::uint32_t number) noexcept {
  const RestoredView& told = views_[number];
  const RestoredRouter& from = routers_[told.router];
  Router* router = peers_.router(from.address, from.name);
  if (router == nullptr) return nullptr;
  if (router->sys_name[0] == 0) copy_text(router->sys_name, from.sys_name);
  if (router->sys_descr[0] == 0) copy_text(router->sys_descr, from.sys_descr);
  PeerView* view =
      peers_.view(*router, {router->row, told.peer_type, told.distinguisher, told.peer}, told.view);
  if (view == nullptr) return nullptr;
  view->asn = told.asn;
  view->bgp_id = told.bgp_id;
  view->told_asn = told.asn;
  view->told_bgp_id = told.bgp_id;
  view->router_port = told.router_port;
  return view;
}

Restore::Outcome Restore::routes(const RestoreBatch& batch, const RestoreBatch::Step& step, Cursor& cursor,
                                 std::uint32_t& budget) noexcept {
  const std::size_t index = table_index(step.family);
  PeerView* view = index == kNoTable ? nullptr : view_of(step.number);
  if (view == nullptr) {
    if (index != kNoTable && step.kind != Kind::Withdraw) {
      unplaced_ += step.count;
      if (!std::exchange(unplaced_said_, true)) {
        context_.log.error(
            "{}: no row for router {} or a peer of it: what consumers were told about it is not restored",
            number(ErrorCode::SessionLimit), routers_[views_[step.number].router].address.to_string());
      }
    }
    return Outcome::Applied;
  }
  RibTable& table = peers_.table(*view, index);
  AttrId attr = AttrId::None;
  if (step.kind == Kind::Announce) {
    attr = context_.attributes.intern(batch.key(step.index));
    if (attr == AttrId::None) return Outcome::NoMemory;
  }
  const std::uint64_t before = table.routes.size();
  const std::span<const RestoredRoute> all = std::span(batch.routes).subspan(step.first, step.count);
  bool memory = true;
  while (memory && budget > 0 && cursor.route < step.count) {
    if (cursor.route + kPrefetch < step.count) table.routes.prefetch(all[cursor.route + kPrefetch].prefix);
    const RestoredRoute& route = all[cursor.route];
    if (step.kind == Kind::Withdraw) {
      take(table, route.prefix);
    } else {
      memory = put(table, route, step.kind == Kind::Announce ? attr : attributes_[route.attributes]);
    }
    if (memory) {
      ++cursor.route;
      --budget;
    }
  }
  const std::uint64_t after = table.routes.size();
  count(table, after > before ? after - before : 0, before > after ? before - after : 0);
  if (attr != AttrId::None) context_.attributes.unref(attr);
  if (!memory) return Outcome::NoMemory;
  return cursor.route == step.count ? Outcome::Applied : Outcome::More;
}

bool Restore::put(RibTable& table, const RestoredRoute& told, AttrId attr) noexcept {
  const auto [route, is_new] = table.routes.insert(told.prefix);
  if (route == nullptr) return false;
  context_.attributes.ref(attr);
  if (!is_new) context_.attributes.unref(route->attr);
  route->attr = attr;
  route->generation = table.generations.current();
  route->flags = static_cast<std::uint8_t>(kRouteTold | std::min(told.paths, kMaxPaths) * kOnePath);
  table.without_ids |= told.prefix.path_id == 0;
  return true;
}

void Restore::take(RibTable& table, const Prefix& prefix) noexcept {
  const RouteState* route = table.routes.find(prefix);
  if (route == nullptr) return;
  table.generations.erased(route->generation);
  context_.attributes.unref(route->attr);
  table.routes.erase(prefix);
}

void Restore::count(RibTable& table, std::uint64_t added, std::uint64_t erased) noexcept {
  PeerView& view = table.view;
  view.routes += added - erased;
  view.peer.router->routes += added - erased;
  context_.routes += added - erased;
  peers_.touch(view);
}

bool Restore::clear(std::uint32_t& budget) noexcept {
  bool empty = true;
  peers_.each_view([&](PeerView& view) {
    view.each_table([&](RibTable& table) {
      if (budget == 0 || table.routes.size() == 0) {
        empty = empty && table.routes.size() == 0;
        return;
      }
      const std::uint64_t before = table.routes.size();
      // A walk from its start finds the first routes that are left.
      for (WalkCursor cursor; budget > 0 && !cursor.done;) {
        budget -= static_cast<std::uint32_t>(
            table.routes.walk(cursor, budget, [&](const Prefix&, RouteState& route) {
              table.generations.erased(route.generation);
              context_.attributes.unref(route.attr);
              return WalkAction::Erase;
            }));
      }
      count(table, 0, before - table.routes.size());
      empty = empty && table.routes.size() == 0;
    });
  });
  if (empty) unplaced_ = 0;
  return empty;
}

void Restore::finish(std::span<const Router* const> go_on) noexcept {
  forget_attributes();
  peers_.each_view([&](PeerView& view) {
    if (view.routes == 0 || std::ranges::binary_search(go_on, view.peer.router)) return;
    view.state = shm::PeerState::Stale;
    view.changed_realtime_ns = context_.realtime_ns;
    // Who tells it next takes it over: what is not told again is missing.
    view.owned_before = true;
    resync_.lost(view);
    Router& router = *view.peer.router;
    if (router.sessions == 0) router.state = shm::RouterState::Lost;
    peers_.touch(view);
  });
  peers_.forget_idle();
}

}  // namespace arancini::ingestd
