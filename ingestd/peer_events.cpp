#include <algorithm>
#include <utility>

#include "ingestd/shard_impl.h"

// Peer Up, Peer Down, and which session tells a view (docs/decisions/0006-resync-and-sweeps.md).
namespace arancini::ingestd {

void Shard::Impl::set_up(Peer& peer, bool up) {
  if (peer.up == up) return;
  peer.up = up;
  peer.router->peers_up += up ? 1 : -1U;
  peers.touch(*peer.router);
}

Shard::Applied Shard::Impl::peer_up(Session& session, const wire::PerPeerHeader& header,
                                    wire::Bytes message) {
  Peer* peer = peers.find(session, header);
  std::size_t tables = 0;
  if (peer != nullptr) {
    for (const auto& view : peer->views) {
      if (view) view->each_table([&tables](const RibTable&) { ++tables; });
    }
  }
  if (!life_cycle.room_for(message, tables)) return Applied::NoRoom;
  if (peer == nullptr) {
    // Its row shows the peer while there are no routes.
    const PeerView* view = peers.view(session, header);
    if (view == nullptr) {
      context.stats.add(IngestMetric::OverLimit);
      fault(session, nullptr, ErrorCode::SessionLimit, static_cast<std::uint8_t>(wire::BmpType::PeerUp), 6,
            "no row for another peer; its messages are skipped");
      return Applied::Done;
    }
    peer = &view->peer;
  }

  wire::PeerUp up;
  std::uint32_t offset = 0;
  const ErrorCode error = wire::parse_peer_up(message, header, up, &offset);
  if (error != ErrorCode::None) {
    malformed(session, peer, nullptr, error, static_cast<std::uint8_t>(wire::BmpType::PeerUp), offset);
  }

  // One Peer Up for each family of a Loc-RIB (FRR 10): together they say what is negotiated.
  const bool more_of_it = peer->up && peer->up_session == session.serial;
  for (std::size_t i = 0; i < kTableFamilies.size(); ++i) {
    const bool in = peer->is_loc_rib() ? wire::addpath_negotiated(up, View::LocRib, kTableFamilies[i])
                                       : wire::addpath_negotiated_in(up, kTableFamilies[i]);
    const bool out = wire::addpath_negotiated_out(up, kTableFamilies[i]);
    peer->addpath_in[i] = in || (more_of_it && peer->addpath_in[i]);
    peer->addpath_out[i] = out || (more_of_it && peer->addpath_out[i]);
  }
  peer->up_session = session.serial;
  peer->unknown_said = false;
  if (!peer->up) {
    context.log.info("router {}: peer {} AS {} up", peer->router->address.to_string(),
                     header.address.to_string(), header.asn);
  }
  set_up(*peer, true);
  life_cycle.peer_up(session, header, up, message);
  for (const auto& view : peer->views) {
    // What another session tells is that session's: it gets its own Peer Up.
    if (view && (view->owner == nullptr || view->owner == &session)) view_up(session, *view, header);
  }
  return Applied::Done;
}

void Shard::Impl::view_up(Session& session, PeerView& view, const wire::PerPeerHeader& header) {
  const Peer& peer = view.peer;
  const bool repeated = view.owner == &session && view.state == shm::PeerState::Up;
  if (view.owner == nullptr) view.claimed_serial = 0;
  view.owner = &session;
  view.router_port = session.port;
  view.state = shm::PeerState::Up;
  view.changed_realtime_ns = context.realtime_ns;
  resync.found(view);
  peers.touch(view);

  std::erase(view.superseded, &session);
  adopt_addpath(view);
  if (adopt_identity(view, header)) return;
  // A Loc-RIB has no BGP session that could have begun anew: a second Peer Up is about another family (FRR
  // 10), and routes may have come in between.
  if (repeated && peer.is_loc_rib()) return;
  resync.begin(view);
}

void Shard::Impl::adopt_addpath(PeerView& view) {
  view.each_table([&view](RibTable& table) {
    const bool negotiated = view.peer.addpath(view.view, table_index(table.family));
    if (negotiated == table.negotiated) return;  // keeps what was learned from messages
    table.negotiated = negotiated;
    table.judge = wire::AddPathJudge(negotiated);
    table.mismatch_said = false;
  });
}

bool Shard::Impl::adopt_identity(PeerView& view, const wire::PerPeerHeader& header) {
  if (view.routes == 0) {
    view.identity_changes = false;
    if (header.asn == 0 && view.asn != 0) return false;
    view.asn = header.asn;
    view.bgp_id = header.bgp_id;
    return false;
  }
  // GoBGP's Loc-RIB says 0 when it shuts down; there is one Loc-RIB, whatever it says.
  if (view.peer.is_loc_rib() || header.asn == 0) return false;
  if (header.asn == view.asn) {
    view.identity_changes = false;
    view.bgp_id = header.bgp_id;
    return false;
  }
  // Subjects name the AS number: what was told under the old one is withdrawn under it, then the new one is
  // used.
  view.identity_changes = true;
  view.next_asn = header.asn;
  view.next_bgp_id = header.bgp_id;
  view.each_table(
      [this](RibTable& table) { sweep.request_all(table, Reason::ResyncMissing, SyncCause::AsChanged); });
  return true;
}

Shard::Applied Shard::Impl::peer_down(Session& session, const wire::PerPeerHeader& header,
                                      wire::Bytes message) {
  if (!life_cycle.room_for(message)) return Applied::NoRoom;
  Peer* peer = peers.find(session, header);
  wire::PeerDown down;
  const ErrorCode error = wire::parse_peer_down(message, down);
  if (error != ErrorCode::None) {
    malformed(session, peer, nullptr, error, static_cast<std::uint8_t>(wire::BmpType::PeerDown),
              message.size());
  }
  life_cycle.peer_down(session, header, down, peer == nullptr || session.serial >= peer->up_session, message);
  // FRR sends one at connect for each neighbour that is not up.
  if (peer == nullptr) return Applied::Done;
  if (peer->up && session.serial >= peer->up_session) {  // else late news of an older session
    context.log.info("router {}: peer {} AS {} down, reason {}", peer->router->address.to_string(),
                     header.address.to_string(), header.asn, down.reason);
    peer->unknown_said = false;
    set_up(*peer, false);
  }
  for (const auto& view : peer->views) {
    if (!view || (view->owner != nullptr && view->owner != &session)) continue;
    view->state = shm::PeerState::Down;
    view->down_reason = down.reason;
    view->changed_realtime_ns = context.realtime_ns;
    resync.found(*view);
    view->each_table(
        [this](RibTable& table) { sweep.request_all(table, Reason::PeerDown, SyncCause::PeerDown); });
    resync.ended();
    peers.touch(*view);
  }
  return Applied::Done;
}

bool Shard::Impl::claim(Session& session, PeerView& view, const wire::PerPeerHeader& header) {
  if (view.owner != &session) {
    if (view.claimed_serial > session.serial) {
      context.stats.add(IngestMetric::MessagesSuperseded);
      if (view.owner != nullptr) {
        supersede(session, *view.owner, view);
      } else {
        ask_to_close(session, "a newer one told its routes and is gone");
      }
      return false;
    }
    const bool taken_over = view.owned_before;
    if (view.owner != nullptr) supersede(*view.owner, session, view);
    std::erase(view.superseded, &session);
    if (view.peer.up_session == session.serial) adopt_addpath(view);
    view.owner = &session;
    view.router_port = session.port;
    view.owned_before = true;
    resync.found(view);
    if (view.state == shm::PeerState::Stale) {
      view.state = view.peer.up ? shm::PeerState::Up : shm::PeerState::Unknown;
    }
    if (!adopt_identity(view, header) && taken_over) resync.begin(view);
  }
  view.owned_before = true;
  view.claimed_serial = session.serial;
  return true;
}

void Shard::Impl::supersede(Session& session, const Session& newer, PeerView& view) {
  if (std::ranges::find(view.superseded, &session) != view.superseded.end()) return;
  view.superseded.push_back(&session);
  life_cycle.superseded(session, newer, view);
}

void Shard::Impl::ask_to_close(Session& session, std::string_view why) {
  if (std::exchange(session.must_close, true)) return;
  to_close.push_back(session.id);
  context.log.warn("router {}: session from port {} has to connect anew: {}",
                   session.router->address.to_string(), session.port, why);
}

bool Shard::Impl::settle_identity(PeerView& view) {
  if (!view.identity_changes) return true;
  if (view.routes > 0) {
    if (context.drop_newest) {
      sweep.run_view(view);
    } else {
      (void)sweep.run(1);
    }
  }
  if (view.routes > 0) return false;
  view.identity_changes = false;
  view.asn = view.next_asn;
  view.bgp_id = view.next_bgp_id;
  peers.touch(view);
  return true;
}

bool Shard::Impl::may_tell(PeerView& view) {
  if (Untold::same_identity(view)) return true;
  return view.untold.told == 0 && barriers.separate_identities(view);
}

}  // namespace arancini::ingestd
