#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/metrics/metric_list.h"
#include "common/wire/bgp_update.h"
#include "common/wire/bmp.h"
#include "ingestd/barriers.h"
#include "ingestd/drop_report.h"
#include "ingestd/dump.h"
#include "ingestd/events.h"
#include "ingestd/forward.h"
#include "ingestd/hot_task.h"
#include "ingestd/life_cycle.h"
#include "ingestd/look_ahead.h"
#include "ingestd/peer_table.h"
#include "ingestd/reconcile.h"
#include "ingestd/restore.h"
#include "ingestd/resync.h"
#include "ingestd/rib_shard.h"
#include "ingestd/rib_sweep.h"
#include "ingestd/router_limits.h"
#include "ingestd/shard.h"
#include "ingestd/shard_context.h"
#include "ingestd/untold.h"

namespace arancini::ingestd {

// shard.cpp: sessions, timers, messages about the router. peer_events.cpp: Peer Up and Down, who tells a
// view. route_monitoring.cpp: routes.
struct Shard::Impl {
  Impl(const Config& config, RingWriter& ring, StatsWriter& stats, Logger& log, const Clock& clock,
       const HashSeed& seed);

  // The session is one of this router's, unless a limit stands against it.
  void attach(Session& session, std::string_view name);
  // The loop closes it.
  void refuse(Session& session, std::string_view name, ErrorCode code, std::string_view detail);
  // The first message of a session whose router is not known yet. False: it is refused.
  bool identify(Session& session, wire::Bytes message);

  // `known`: what the message is known to be, if it was looked at before.
  Applied dispatch(Session& session, wire::Bytes message, const KnownMessage* known);
  void observe_lag(std::uint64_t router_time_ns);
  Applied initiation(Session& session, wire::Bytes message);
  Applied termination(Session& session, wire::Bytes message);
  Applied statistics(Session& session, const wire::PerPeerHeader& header, wire::Bytes message);

  // Events about what was dropped, and a bounded part of it; after what is kept was written.
  void tell_dropped(Work& work, bool all_told);

  // The session waits for room, or no longer does.
  void set_waiting(Session& session, bool throttled, bool in_progress);
  void set_up(Peer& peer, bool up);

  Applied peer_up(Session& session, const wire::PerPeerHeader& header, wire::Bytes message);
  Applied peer_down(Session& session, const wire::PerPeerHeader& header, wire::Bytes message);
  void view_up(Session& session, PeerView& view, const wire::PerPeerHeader& header);
  // True if the session is the one that tells the view, now that it sends routes of it.
  bool claim(Session& session, PeerView& view, const wire::PerPeerHeader& header);
  // What is published of the peer. True if that must wait until what is told now is withdrawn.
  bool adopt_identity(PeerView& view, const wire::PerPeerHeader& header);
  // A peer's new AS number is published once what was told under the old one is withdrawn. False: not yet.
  bool settle_identity(PeerView& view);
  // Nothing stands between the view and what is told of it next. False: withdraws under its former AS number
  // that were dropped, or a barrier for which there is no room.
  bool may_tell(PeerView& view);
  // The session is not heard about the view.
  void supersede(Session& session, const Session& newer, PeerView& view);
  // The session will be closed by the loop, and is not heard until then. `why`: for the log.
  void ask_to_close(Session& session, std::string_view why);
  // Tables of a view use what the peer has negotiated by now.
  static void adopt_addpath(PeerView& view);

  Applied route_monitoring(Session& session, const wire::PerPeerHeader& header, wire::Bytes message);
  Applied route_monitoring(Session& session, const wire::PerPeerHeader& header, wire::Bytes message,
                           const wire::Update& update, const KnownMessage* known);
  Applied apply_fields(Session& session, PeerView& view, const wire::PerPeerHeader& header,
                       const wire::Update& update, wire::Bytes message, bool tell, const KnownMessage* known);
  void note_disposition(Session& session, PeerView& view, const wire::Update& update);
  bool judge(Session& session, RibTable& table, const NlriField& field);

  // The last error of a router: what, in which message, at which byte of it. Logged at the first, 2nd, 4th,
  // 8th … of them.
  void fault(Session& session, const Peer* peer, ErrorCode code, std::uint8_t type, std::size_t offset_bytes,
             std::string_view detail);
  // fault() for what did not parse.
  void malformed(Session& session, const Peer* peer, PeerView* view, ErrorCode code, std::uint8_t type,
                 std::size_t offset_bytes);

  ShardContext context;
  PeerTable peers;
  LookAhead ahead;
  Events events;
  LifeCycle life_cycle;
  Limits limits;
  Barriers barriers;
  Untold untold;
  DropReport drop_report;
  RibShard rib;
  Forward forward;
  RibSweep sweep;
  Resync resync;
  Reconcile reconcile;
  Dump dump;
  Restore restore;
  HotTasks tasks;
  std::vector<SessionId> to_close;
  bool clock_is_fresh = false;
  bool restoring = false;
};

}  // namespace arancini::ingestd
