#include "ingestd/restart_adopt.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "ingestd/each_route.h"
#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

namespace {

// The newest that the life before gave to anything of `state`: those of sessions that ended still say who
// told a peer or a view.
std::uint64_t last_serial(const RestartState& state) {
  std::uint64_t last = 0;
  for (const RestartSession& session : state.sessions) last = std::max(last, session.serial);
  for (const RestartRouter& router : state.routers) {
    for (const RestartPeer& peer : router.peers) {
      last = std::max(last, peer.up_session);
      for (const RestartView& view : peer.views) last = std::max(last, view.claimed_serial);
    }
  }
  return last;
}

// Empty: its tables are what they were.
std::string_view differs(const Router* restored, const RestartRouter& was) {
  using Key = std::tuple<std::uint8_t, std::uint64_t, IpAddress>;
  std::map<Key, const Peer*> peers;
  if (restored != nullptr) {
    for (const Peer* peer : restored->peers)
      peers.emplace(Key(peer->key.type, peer->key.distinguisher, peer->key.address), peer);
  }
  std::uint64_t routes = 0;
  for (const RestartPeer& peer_was : was.peers) {
    const auto found = peers.find(Key(peer_was.type, peer_was.distinguisher, peer_was.address));
    const Peer* const peer = found == peers.end() ? nullptr : found->second;
    for (const RestartView& view_was : peer_was.views) {
      const PeerView* view =
          peer == nullptr ? nullptr : peer->views[static_cast<std::size_t>(view_was.view)].get();
      if (view != nullptr && view->routes > 0 && view->told_asn != view_was.told_asn)
        return "its routes were restored under another AS number";
      for (const RestartTable& table_was : view_was.tables) {
        const RibTable* table = view == nullptr ? nullptr : view->tables[table_index(table_was.family)].get();
        if ((table == nullptr ? 0 : table->routes.size()) != table_was.routes)
          return "its tables were restored with other routes";
        if (table == nullptr) {
          if (!table_was.keys.empty()) return "its tables were restored with other routes";
          continue;
        }
        for (const Prefix& key : table_was.keys) {
          if (table->routes.find(key) == nullptr) return "its tables were restored with other routes";
        }
        routes += table_was.routes;
      }
    }
  }
  if ((restored == nullptr ? 0 : restored->routes) != routes)
    return "its tables were restored with other routes";
  return {};
}

class Adopter {
 public:
  Adopter(Shard::Impl& shard, RestartAdoption& adoption) : shard_(shard), adoption_(adoption) {}

  void run(const std::vector<std::string_view>& why_not, std::string_view why_none) {
    const RestartState& state = adoption_.state;
    std::vector<std::string_view> why(why_not);
    routers_.assign(state.routers.size(), nullptr);
    for (std::size_t i = 0; i < routers_.size(); ++i) {
      if (!why[i].empty()) continue;
      routers_[i] = shard_.peers.router_if_room(state.routers[i].address, state.routers[i].name);
      if (routers_[i] == nullptr) why[i] = "no row for its router";
    }
    shard_.peers.leave_serials(last_serial(state));
    for (const RestartSession& was : state.sessions) {
      const bool unidentified = was.router == RestartSession::kNone;
      std::string_view no = unidentified ? why_none : why[was.router];
      const RouterRules& rules = shard_.context.rules;
      if (no.empty() && unidentified && !(rules.allows(was.source) && rules.needs_sys_name(was.source)))
        no = "the configuration knows its router otherwise";
      sessions_.push_back(no.empty() ? &adopt(was) : nullptr);
      adoption_.sessions.push_back({no.empty() ? std::optional(sessions_.back()->id) : std::nullopt, no});
    }
    shard_.context.stats.set(IngestMetric::SessionsOpen, shard_.peers.open_sessions());
    for (std::size_t i = 0; i < routers_.size(); ++i) {
      if (routers_[i] != nullptr) adopt(*routers_[i], state.routers[i]);
    }
    adoption_.decided = true;
  }

 private:
  Session& adopt(const RestartSession& was) {
    SessionId id{};
    Session& session = shard_.peers.open_session(was.port, id);
    session.source = was.source;
    session.serial = was.serial;
    session.opened_realtime_ns = was.opened_realtime_ns;
    session.messages = was.messages;
    session.bytes = was.bytes;
    // What was not read meanwhile cannot be missing.
    session.resumed_ns = shard_.context.now_ns;
    if (was.router == RestartSession::kNone) {
      session.unidentified = true;
      return session;
    }
    Router& router = *routers_[was.router];
    session.router = &router;
    ++router.sessions;
    if (was.in_progress) {
      shard_.set_waiting(session, false, true);
      session.progress = {.active = true,
                          .field = was.field,
                          .judged = was.judged,
                          .path_ids = was.path_ids,
                          .superseded = was.superseded,
                          .offset_bytes = was.offset_bytes};
    }
    return session;
  }

  void adopt(Router& router, const RestartRouter& was) {
    router.state = static_cast<shm::RouterState>(was.state);
    router.port = was.port;
    router.resumed_ns = shard_.context.now_ns;
    router.faults = was.faults;
    router.connected_realtime_ns = was.connected_realtime_ns;
    router.last_message_realtime_ns = was.last_message_realtime_ns;
    router.messages = was.messages;
    router.bytes = was.bytes;
    router.malformed = was.malformed;
    router.published = was.published;
    router.suppressed = was.suppressed;
    router.announcements_dropped = was.announcements_dropped;
    router.withdraws_dropped = was.withdraws_dropped;
    router.last_error = static_cast<ErrorCode>(was.last_error);
    copy_text(router.last_error_text, was.last_error_text);
    copy_text(router.sys_name, was.sys_name);
    copy_text(router.sys_descr, was.sys_descr);
    router.limit.skipped = was.limit_skipped;
    router.limit.said_ns = was.limit_said_ns;
    router.limit.asked_ns = was.limit_asked_ns;
    router.limit.freed_ns = was.limit_freed_ns;
    router.limit.over = was.limit_over;
    if (was.limit_over) shard_.limits.take_over(router);
    for (const RestartPeer& peer : was.peers) {
      for (const RestartView& view : peer.views) adopt(router, peer, view);
    }
    shard_.peers.touch(router);
  }

  void adopt(Router& router, const RestartPeer& peer_was, const RestartView& was) {
    // There were rows for all of them, and a view with routes has one.
    PeerView* const found = shard_.peers.view(
        router, {router.row, peer_was.type, peer_was.distinguisher, peer_was.address}, was.view);
    if (found == nullptr) return;
    PeerView& view = *found;
    Peer& peer = view.peer;
    shard_.set_up(peer, peer_was.up);
    peer.unknown_said = peer_was.unknown_said;
    peer.up_session = peer_was.up_session;
    for (std::size_t i = 0; i < kTableFamilies.size(); ++i) {
      peer.addpath_in[i] = (peer_was.addpath_in >> i & 1U) != 0;
      peer.addpath_out[i] = (peer_was.addpath_out >> i & 1U) != 0;
    }
    view.state = static_cast<shm::PeerState>(was.state);
    view.asn = was.asn;
    view.bgp_id = was.bgp_id;
    view.as_width_said = was.as_width_said;
    view.told_asn = was.told_asn;
    view.told_bgp_id = was.told_bgp_id;
    if (was.owner != RestartSession::kNone) view.owner = sessions_[was.owner];
    for (const std::uint32_t session : was.superseded) view.superseded.push_back(sessions_[session]);
    view.owned_before = was.owned_before;
    view.claimed_serial = was.claimed_serial;
    view.router_port = was.router_port;
    if (was.grace_active) shard_.resync.take_over_grace(view, was.grace_deadline_ns);
    view.published = was.published;
    view.suppressed = was.suppressed;
    view.malformed = was.malformed;
    view.synthetic = was.synthetic;
    view.changed_realtime_ns = was.changed_realtime_ns;
    view.down_reason = was.down_reason;
    Shard::Impl::adopt_addpath(view);  // also of tables that only the log knows
    for (const RestartTable& table : was.tables)
      adopt(shard_.peers.table(view, table_index(table.family)), table);
    shard_.peers.touch(view);
  }

  void adopt(RibTable& table, const RestartTable& was) {
    table.negotiated = was.negotiated;
    table.mismatch_said = was.mismatch_said;
    table.without_ids = was.without_ids;
    table.judge = wire::AddPathJudge(was.negotiated, was.learned);
    if (was.old != RestartTable::Old::None) (void)table.generations.bump(table.routes.size());
    const std::uint16_t current = table.generations.current();
    if (was.without_ids || was.old == RestartTable::Old::Keys) {
      each_route(table, [&](const Prefix& prefix, RouteState& route) {
        if (prefix.path_id == 0) set_paths(route, 1);
        if (was.old != RestartTable::Old::Keys) return;
        table.generations.refreshed(route.generation);
        route.generation = current;
      });
    }
    for (const RestartTable::Paths& p : was.paths) {
      if (RouteState* route = table.routes.find(p.prefix); route != nullptr) set_paths(*route, p.count);
    }
    for (const Prefix& key : was.keys) {
      RouteState& route = *table.routes.find(key);  // differs() has seen it
      if (was.old == RestartTable::Old::Keys) {
        if (route.generation == current) route.generation = table.generations.outdate();
      } else if (was.old == RestartTable::Old::Others) {
        table.generations.refreshed(route.generation);
        route.generation = current;
      }
    }
    if (was.sync_active) {
      shard_.resync.take_over(table, {.active = true,
                                      .listed = true,
                                      .deadline_ns = was.sync_deadline_ns,
                                      .end_of_rib_ns = was.sync_end_of_rib_ns,
                                      .news_ns = was.sync_news_ns,
                                      .since_realtime_ns = was.sync_since_realtime_ns});
    }
  }

  static void set_paths(RouteState& route, std::uint8_t count) {
    route.flags = static_cast<std::uint8_t>((route.flags & (kOnePath - 1)) | count * kOnePath);
  }

  Shard::Impl& shard_;
  RestartAdoption& adoption_;
  std::vector<Router*> routers_;
  std::vector<Session*> sessions_;
};

}  // namespace

RestartCheck::RestartCheck(Shard::Impl& shard, const RestartState& state, std::string_view why_none) {
  for (const RestartRouter& was : state.routers) {
    std::string_view why = why_none;
    const Router* const restored = shard.peers.find_router({was.address, was.name});
    if (why.empty()) {
      const auto name = shard.context.rules.name_of(was.address, was.sys_name);
      if (!name || *name != was.name) why = "the configuration knows its router otherwise";
    }
    if (why.empty()) why = differs(restored, was);
    if (why.empty() && restored != nullptr) go_on_.push_back(restored);
    why_not_.push_back(why);
  }
  std::ranges::sort(go_on_);
}

void adopt_restart(Shard::Impl& shard, RestartAdoption& adoption, const RestartCheck& check,
                   std::string_view why_none) {
  Adopter(shard, adoption).run(check.why_not(), why_none);
}

}  // namespace arancini::ingestd
