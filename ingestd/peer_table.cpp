#include "ingestd/peer_table.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "ingestd/hash.h"

namespace arancini::ingestd {

namespace {

// Nothing is told under it, nothing is going on, and nobody says that it is there.
bool is_idle(const PeerView& view) {
  if (view.routes != 0 || view.grace_listed || view.identity_changes) return false;
  if (view.owner != nullptr && view.state != shm::PeerState::Down) return false;
  for (const auto& table : view.tables) {
    if (table && (table->sweep.running.active || table->resync.listed || table->has_untold)) return false;
  }
  return true;
}

bool is_idle(const Router& router) {
  if (router.sessions != 0 || router.drops.active || router.dumping || router.limit.over) return false;
  for (const Peer* peer : router.peers) {
    for (const auto& view : peer->views) {
      if (view && !is_idle(*view)) return false;
    }
  }
  return true;
}

// What downstream knows: without the routes that it was never told, with those that it still has.
std::uint64_t told_routes(std::uint64_t routes, const UntoldCounts& untold) {
  return routes - (untold.entries - untold.told) + untold.gone;
}

template <class Row>
std::uint32_t free_row(const std::vector<Row*>& rows) {
  std::uint32_t i = 0;
  while (i < rows.size() && rows[i] != nullptr) ++i;
  return i;
}

}  // namespace

bool Peer::addpath(View view, std::size_t table) const {
  switch (view) {
    case View::AdjInPre:
    case View::AdjInPost:
    case View::LocRib: return addpath_in[table];
    case View::AdjOutPre:
    case View::AdjOutPost: return addpath_out[table];
  }
  return false;
}

std::size_t PeerTable::KeyHash::operator()(const PeerKey& key) const {
  std::uint64_t address[2];
  std::memcpy(address, key.address.bytes.data(), sizeof address);
  const std::uint64_t who = (std::uint64_t{key.router} << 8) | key.type;
  return hash_words(address[0], hash_words(address[1], who, seed), key.distinguisher, seed);
}

PeerTable::PeerTable(ShardContext& context)
    : context_(context),
      peers_(64, KeyHash{context.pool.seed()}),
      router_rows_(context.stats.router_capacity()),
      view_rows_(context.stats.peer_capacity()) {
  dirty_routers_.reserve(router_rows_.size());
  dirty_views_.reserve(view_rows_.size());
  forgotten_ = raw(context_.ring.next_sequence()) != 1;
}

std::uint32_t PeerTable::take_router_row() {
  std::uint32_t row = free_row(router_rows_);
  if (row < router_rows_.size()) return row;
  for (row = 0; row < router_rows_.size() && !is_idle(*router_rows_[row]);) ++row;
  if (row < router_rows_.size()) remove(*router_rows_[row]);
  return row;
}

std::uint32_t PeerTable::take_view_row() {
  std::uint32_t row = free_row(view_rows_);
  if (row < view_rows_.size()) return row;
  for (row = 0; row < view_rows_.size() && !is_idle(*view_rows_[row]);) ++row;
  if (row < view_rows_.size()) remove(*view_rows_[row]);
  return row;
}

void PeerTable::remove(Router& router) {
  while (!router.peers.empty()) {
    Peer& peer = *router.peers.back();
    // The peer goes with its last view.
    std::size_t views = 0;
    for (const auto& view : peer.views) views += view != nullptr ? 1 : 0;
    for (std::size_t i = 0; views > 0 && i < kViewCount; ++i) {
      if (peer.views[i] == nullptr) continue;
      --views;
      remove(*peer.views[i]);
    }
  }
  std::erase(dirty_routers_, &router);
  context_.stats.update_router(router.row, [](shm::RouterRow& row) { row.in_use = 0; });
  router_rows_[router.row] = nullptr;
  routers_.erase(RouterKey{router.address, router.name});
}

void PeerTable::remove(PeerView& view) {
  Peer& peer = view.peer;
  ++epoch_;
  if (view.told_asn) forgotten_ = true;
  std::erase(dirty_views_, &view);
  context_.stats.update_peer(view.row, [](shm::PeerRow& row) { row.in_use = 0; });
  view_rows_[view.row] = nullptr;
  peer.views[static_cast<std::size_t>(view.view)].reset();
  for (const auto& other : peer.views) {
    if (other) return;
  }
  for (Session& session : sessions_) {
    std::ranges::replace(session.recent, &peer, nullptr);
  }
  if (peer.up) --peer.router->peers_up;
  std::erase(peer.router->peers, &peer);
  peers_.erase(PeerKey(peer.key));
}

Router* PeerTable::router(const IpAddress& address, std::string_view name) {
  RouterKey key{address, std::string(name)};
  const auto found = routers_.find(key);
  if (found != routers_.end()) return found->second.get();
  const std::uint32_t row = take_router_row();
  if (row == router_rows_.size()) return nullptr;
  auto router = std::make_unique<Router>();
  router->address = address;
  router->name = key.name;
  apply_rules(*router);
  router->row = row;
  router->serial = next_router_serial_++;
  router_rows_[row] = router.get();
  return routers_.emplace(std::move(key), std::move(router)).first->second.get();
}

void PeerTable::apply_rules(Router& router) const {
  router.entry = context_.rules.named(router.address, router.name);
  router.max_sessions = context_.rules.sessions_of(router.entry);
  const std::uint64_t most = context_.rules.routes_of(router.entry);
  router.limit.routes = most != 0 ? most : RouteLimit{}.routes;
}

Router* PeerTable::find_router(const RouterKey& key) {
  const auto found = routers_.find(key);
  return found == routers_.end() ? nullptr : found->second.get();
}

Router* PeerTable::router_if_room(const IpAddress& address, std::string_view name) {
  if (Router* found = find_router({address, std::string(name)}); found != nullptr) return found;
  return free_row(router_rows_) < router_rows_.size() ? router(address, name) : nullptr;
}

Session& PeerTable::open_session(std::uint16_t port, SessionId& id) {
  std::size_t index = sessions_.size();
  if (free_sessions_.empty()) {
    sessions_.emplace_back();
    free_sessions_.reserve(sessions_.size());  // so that closing does not allocate
  } else {
    index = free_sessions_.back();
    free_sessions_.pop_back();
  }
  id = SessionId{static_cast<std::uint32_t>(index)};
  Session& session = sessions_[index];
  session = Session{};
  session.id = id;
  session.open = true;
  session.port = port;
  session.serial = next_serial_++;
  ++open_sessions_;
  return session;
}

void PeerTable::leave_serials(std::uint64_t last) {
  each_session([last](Session& session) { session.serial += last; });
  next_serial_ += last;
}

void PeerTable::free_session(SessionId id) {
  session(id).open = false;
  free_sessions_.push_back(static_cast<std::uint32_t>(id));
  --open_sessions_;
}

Peer* PeerTable::find(const PeerKey& key) const {
  const auto found = peers_.find(key);
  return found == peers_.end() ? nullptr : found->second.get();
}

PeerView* PeerTable::view(Router& router, const PeerKey& key, View view) {
  auto found = peers_.find(key);
  if (found != peers_.end() && found->second->views[static_cast<std::size_t>(view)]) {
    return found->second->views[static_cast<std::size_t>(view)].get();
  }
  const std::uint32_t row = take_view_row();
  if (row == view_rows_.size()) return nullptr;
  found = peers_.find(key);  // giving up a row may have removed it
  if (found == peers_.end()) {
    auto& entry = peers_[key];
    entry = std::make_unique<Peer>();
    Peer& peer = *entry;
    peer.key = key;
    peer.router = &router;
    router.peers.push_back(&peer);
    found = peers_.find(key);
  }
  Peer& peer = *found->second;
  auto& entry = peer.views[static_cast<std::size_t>(view)];
  entry = std::make_unique<PeerView>(peer, view, row);
  view_rows_[row] = entry.get();
  if (peer.up) {
    entry->state = shm::PeerState::Up;
    entry->changed_realtime_ns = context_.realtime_ns;
  }
  touch(*entry);
  return entry.get();
}

RibTable& PeerTable::table(PeerView& view, std::size_t index) {
  auto& table = view.tables[index];
  if (!table) {
    table = std::make_unique<RibTable>(view, context_.pool, kTableFamilies[index],
                                       view.peer.addpath(view.view, index));
  }
  return *table;
}

void PeerTable::forget_idle() {
  for (PeerView* view : std::vector<PeerView*>(view_rows_)) {
    if (view != nullptr && view->owner == nullptr && is_idle(*view)) remove(*view);
  }
  for (Router* router : std::vector<Router*>(router_rows_)) {
    if (router == nullptr || router->state == shm::RouterState::Refused) continue;
    if (router->peers.empty() && is_idle(*router)) remove(*router);
  }
}

void PeerTable::touch(Router& router) {
  if (std::exchange(router.dirty, true)) return;
  dirty_routers_.push_back(&router);
}

void PeerTable::touch(PeerView& view) {
  touch(*view.peer.router);
  if (std::exchange(view.dirty, true)) return;
  dirty_views_.push_back(&view);
}

void PeerTable::write_rows() {
  for (Router* r : dirty_routers_) {
    r->dirty = false;
    context_.stats.update_router(r->row, [r](shm::RouterRow& row) {
      row.in_use = 1;
      std::memcpy(row.address, r->address.bytes.data(), sizeof row.address);
      row.port = r->port;
      row.sessions = r->sessions;
      row.state = static_cast<std::uint32_t>(r->state);
      row.peers_up = r->peers_up;
      row.last_error = static_cast<std::uint32_t>(r->last_error);
      row.connected_realtime_ns = r->connected_realtime_ns;
      row.last_message_realtime_ns = r->last_message_realtime_ns;
      row.messages = r->messages;
      row.bytes = r->bytes;
      row.malformed = r->malformed;
      row.updates_published = r->published;
      row.updates_suppressed = r->suppressed;
      row.routes = told_routes(r->routes, r->untold);
      row.announcements_dropped = r->announcements_dropped;
      row.withdraws_dropped = r->withdraws_dropped;
      row.routes_untold = static_cast<std::uint32_t>(std::min<std::uint64_t>(r->untold.entries, UINT32_MAX));
      row.throttled = r->waiting != 0 ? 1 : 0;
      copy_text(row.name, r->name);
      std::memcpy(row.sys_name, r->sys_name.data(), sizeof row.sys_name);
      std::memcpy(row.sys_descr, r->sys_descr.data(), sizeof row.sys_descr);
      std::memcpy(row.last_error_text, r->last_error_text.data(), sizeof row.last_error_text);
    });
  }
  dirty_routers_.clear();
  for (PeerView* v : dirty_views_) {
    v->dirty = false;
    context_.stats.update_peer(v->row, [v](shm::PeerRow& row) {
      const Peer& peer = v->peer;
      row.in_use = 1;
      row.router = peer.router->row;
      row.peer_type = peer.key.type;
      row.view = static_cast<std::uint8_t>(v->view);
      row.state = static_cast<std::uint8_t>(v->state);
      std::memcpy(row.address, peer.key.address.bytes.data(), sizeof row.address);
      row.distinguisher = peer.key.distinguisher;
      row.asn = v->asn;
      row.bgp_id = v->bgp_id;
      row.changed_realtime_ns = v->changed_realtime_ns;
      row.routes = told_routes(v->routes, v->untold);
      row.updates_published = v->published;
      row.updates_suppressed = v->suppressed;
      row.updates_malformed = v->malformed;
      row.synthetic_withdraws = v->synthetic;
      row.down_reason = v->down_reason;
    });
  }
  dirty_views_.clear();
}

}  // namespace arancini::ingestd
