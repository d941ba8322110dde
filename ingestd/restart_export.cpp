#include "ingestd/restart_export.h"

#include <algorithm>
#include <map>
#include <string>

#include "ingestd/each_route.h"
#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

namespace {

std::string text_of(const std::array<char, shm::kStatsTextBytes>& text) {
  return {text.begin(), std::find(text.begin(), text.end(), 0)};
}

// Empty: it can be handed over.
std::string_view unrest(const Router& router) {
  if (router.drops.active || router.untold.entries > 0) return "changes of its router are not told yet";
  std::string_view why;
  for (const Peer* peer : router.peers) {
    for (const auto& view : peer->views) {
      if (!view) continue;
      if (view->identity_changes) why = "a peer's AS number is being replaced";
      view->each_table([&](const RibTable& table) {
        if (table.sweep.running.active) why = "withdraws of its router are under way";
      });
    }
  }
  return why;
}

std::uint32_t bits(const std::array<bool, kTableFamilies.size()>& flags) {
  std::uint32_t out = 0;
  for (std::size_t i = 0; i < flags.size(); ++i) out |= flags[i] ? 1U << i : 0U;
  return out;
}

RestartTable table_state(RibTable& table) {
  RestartTable out;
  out.family = table.family;
  out.routes = table.routes.size();
  out.negotiated = table.negotiated;
  out.mismatch_said = table.mismatch_said;
  out.without_ids = table.without_ids;
  out.learned = table.judge.learned();
  const ResyncState& resync = table.resync;
  if (resync.active) {
    out.sync_active = true;
    out.sync_deadline_ns = resync.deadline_ns;
    out.sync_end_of_rib_ns = resync.end_of_rib_ns;
    out.sync_news_ns = resync.news_ns;
    out.sync_since_realtime_ns = resync.since_realtime_ns;
  }
  // Ages matter to what ends a re-sync only: everything else begins with a new generation.
  const std::size_t old = resync.active ? table.generations.old_routes() : 0;
  if (old > 0 && old == table.routes.size()) {
    out.old = RestartTable::Old::All;
  } else if (old > 0) {
    const bool few = old <= table.routes.size() / 2;
    out.old = few ? RestartTable::Old::Keys : RestartTable::Old::Others;
    out.keys.reserve(few ? old : table.routes.size() - old);
    each_route(table, [&](const Prefix& prefix, const RouteState& route) {
      if ((route.generation != table.generations.current()) == few) out.keys.push_back(prefix);
    });
  }
  // Where path ids may come, it matters how many announcements without one there were.
  if (table.without_ids && (table.negotiated || out.learned.path_ids || table.routes.has_path_ids())) {
    each_route(table, [&](const Prefix& prefix, const RouteState& route) {
      if (prefix.path_id == 0 && paths_of(route) != 1) out.paths.push_back({prefix, paths_of(route)});
    });
  }
  return out;
}

class Exporter {
 public:
  explicit Exporter(Shard::Impl& shard) : shard_(shard) {}

  RestartExport run() {
    std::string_view why;
    if (!shard_.context.curate) why = "there is no curation";
    if (shard_.restoring) why = "the tables were not restored yet";
    if (why.empty() && shard_.events.kept() > 0) why = "events wait for room in the ring";

    std::vector<const Session*> sessions;
    shard_.peers.each_session([&](const Session& session) { sessions.push_back(&session); });
    std::ranges::sort(sessions, {}, &Session::serial);
    std::map<const Router*, std::string_view> routers;
    if (why.empty()) {
      shard_.peers.each_router([&](const Router& router) {
        if (router.sessions > 0 || !router.peers.empty()) routers[&router] = unrest(router);
      });
    }
    for (const Session* session : sessions) {
      if (session->must_close && session->router != nullptr)
        routers[session->router] = "its router has to connect anew";
    }
    for (const Session* session : sessions) {
      std::string_view no = why;
      if (no.empty() && session->router != nullptr) no = routers[session->router];
      if (no.empty() && session->router == nullptr && !session->unidentified) no = "no row for its router";
      if (no.empty() && session->must_close) no = "its router has to connect anew";
      if (!no.empty()) {
        out_.closed.push_back({session->id, no});
        continue;
      }
      index_[session] = static_cast<std::uint32_t>(out_.sessions.size());
      out_.sessions.push_back(session->id);
      out_.state.sessions.push_back(session_state(*session));
    }
    std::map<const Router*, std::uint32_t> numbers;
    shard_.peers.each_router([&](const Router& router) {
      const auto found = routers.find(&router);
      if (found == routers.end() || !found->second.empty()) return;
      numbers[&router] = static_cast<std::uint32_t>(out_.state.routers.size());
      out_.state.routers.push_back(router_state(router));
    });
    for (const auto& [session, index] : index_) {
      if (session->router != nullptr) out_.state.sessions[index].router = numbers.at(session->router);
    }
    return std::move(out_);
  }

 private:
  static RestartSession session_state(const Session& session) {
    RestartSession out;
    out.serial = session.serial;
    out.source = session.source;
    out.port = session.port;
    out.opened_realtime_ns = session.opened_realtime_ns;
    out.messages = session.messages;
    out.bytes = session.bytes;
    const Session::Progress& progress = session.progress;
    out.in_progress = progress.active;
    out.field = progress.field;
    out.judged = progress.judged;
    out.path_ids = progress.path_ids;
    out.superseded = progress.superseded;
    out.offset_bytes = progress.offset_bytes;
    return out;
  }

  RestartRouter router_state(const Router& router) {
    RestartRouter out;
    out.address = router.address;
    out.name = router.name;
    out.state = static_cast<std::uint32_t>(router.state);
    out.port = router.port;
    out.faults = router.faults;
    out.connected_realtime_ns = router.connected_realtime_ns;
    out.last_message_realtime_ns = router.last_message_realtime_ns;
    out.messages = router.messages;
    out.bytes = router.bytes;
    out.malformed = router.malformed;
    out.published = router.published;
    out.suppressed = router.suppressed;
    out.announcements_dropped = router.announcements_dropped;
    out.withdraws_dropped = router.withdraws_dropped;
    out.last_error = static_cast<std::uint32_t>(router.last_error);
    out.last_error_text = text_of(router.last_error_text);
    out.sys_name = text_of(router.sys_name);
    out.sys_descr = text_of(router.sys_descr);
    out.limit_over = router.limit.over;
    out.limit_skipped = router.limit.skipped;
    out.limit_said_ns = router.limit.said_ns;
    out.limit_asked_ns = router.limit.asked_ns;
    out.limit_freed_ns = router.limit.freed_ns;
    for (const Peer* peer : router.peers) out.peers.push_back(peer_state(*peer));
    return out;
  }

  RestartPeer peer_state(const Peer& peer) {
    RestartPeer out;
    out.type = peer.key.type;
    out.distinguisher = peer.key.distinguisher;
    out.address = peer.key.address;
    out.up = peer.up;
    out.unknown_said = peer.unknown_said;
    out.up_session = peer.up_session;
    out.addpath_in = bits(peer.addpath_in);
    out.addpath_out = bits(peer.addpath_out);
    for (const auto& view : peer.views) {
      if (view) out.views.push_back(view_state(*view));
    }
    return out;
  }

  RestartView view_state(PeerView& view) {
    RestartView out;
    out.view = view.view;
    out.state = static_cast<std::uint32_t>(view.state);
    out.asn = view.asn;
    out.bgp_id = view.bgp_id;
    out.as_width_said = view.as_width_said;
    out.told_asn = view.told_asn;
    out.told_bgp_id = view.told_bgp_id;
    if (view.owner != nullptr) out.owner = index_.at(view.owner);
    for (const Session* session : view.superseded) out.superseded.push_back(index_.at(session));
    out.owned_before = view.owned_before;
    out.claimed_serial = view.claimed_serial;
    out.router_port = view.router_port;
    out.grace_active = view.grace_active;
    if (view.grace_active) out.grace_deadline_ns = view.grace_deadline_ns;
    out.published = view.published;
    out.suppressed = view.suppressed;
    out.malformed = view.malformed;
    out.synthetic = view.synthetic;
    out.changed_realtime_ns = view.changed_realtime_ns;
    out.down_reason = view.down_reason;
    view.each_table([&](RibTable& table) { out.tables.push_back(table_state(table)); });
    return out;
  }

  Shard::Impl& shard_;
  RestartExport out_;
  std::map<const Session*, std::uint32_t> index_;
};

}  // namespace

RestartExport export_restart(Shard::Impl& shard) {
  return Exporter(shard).run();
}

}  // namespace arancini::ingestd
