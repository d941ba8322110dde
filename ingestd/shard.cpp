#include "ingestd/shard.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "ingestd/deadline.h"
#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

namespace {

// Steps of kSliceRoutes routes per do_work(): about a tenth of a millisecond.
constexpr std::size_t kSweepSteps = 4;
// Steps of Reconcile::kStepRoutes routes, each possibly with attributes of its own: a few tenths of one.
constexpr std::size_t kReconcileSteps = 4;
// Segments of discarded tables freed per do_work().
constexpr std::size_t kReclaimSegments = 8;
// How soon a sweep that found the ring full tries again.
constexpr std::uint64_t kRetryNs = 1'000'000;

std::string_view text_of(wire::Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

Shard::Impl::Impl(const Config& config, RingWriter& ring, StatsWriter& stats, Logger& log, const Clock& clock,
                  const HashSeed& seed)
    : context(config, ring, stats, log, clock, seed),
      peers(context),
      ahead(context, peers),
      events(context),
      life_cycle(context, events),
      limits(context, peers, events),
      barriers(context, peers),
      untold(context, peers),
      drop_report(context, peers),
      rib(context, peers, untold, drop_report, limits),
      forward(context, peers),
      sweep(context, peers, untold, drop_report, life_cycle),
      resync(context, sweep, life_cycle),
      reconcile(context, peers, untold, barriers),
      dump(context, peers, barriers),
      restore(context, peers, resync) {
  stats.set(IngestMetric::RingCapacityBytes, ring.capacity_bytes());
}

Shard::Shard(const Config& config, RingWriter& ring, StatsWriter& stats, Logger& log, const Clock& clock,
             const HashSeed& seed)
    : ring_(ring), impl_(std::make_unique<Impl>(config, ring, stats, log, clock, seed)) {}

Shard::~Shard() = default;

SessionId Shard::open_session(const IpAddress& source, std::uint16_t port) {
  Impl& s = *impl_;
  s.context.read_clock();
  SessionId id{};
  Session& session = s.peers.open_session(port, id);
  session.source = source;
  session.opened_realtime_ns = s.context.realtime_ns;
  s.context.stats.set(IngestMetric::SessionsOpen, s.peers.open_sessions());
  const RouterRules& rules = s.context.rules;
  if (!rules.allows(source)) {
    s.refuse(session, {}, ErrorCode::RouterRefused, "neither bmp.allow nor a [[router]] has its address");
  } else if (rules.needs_sys_name(source)) {
    session.unidentified = true;
    s.context.log.info("router {}: session from port {}; its Initiation will say who it is",
                       source.to_string(), port);
  } else {
    const RouterEntry* entry = rules.find(source);
    s.attach(session, entry == nullptr ? std::string_view() : entry->name);
  }
  return id;
}

void Shard::Impl::attach(Session& session, std::string_view name) {
  const std::string address = session.source.to_string();
  Router* const found = peers.router(session.source, name);
  if (found == nullptr) {
    context.stats.add(IngestMetric::OverLimit);
    context.log.error("{}: no row for router {}, port {}: {} routers are there; its messages are skipped",
                      static_cast<unsigned>(ErrorCode::SessionLimit), address, session.port,
                      context.stats.router_capacity());
    return;
  }
  Router& router = *found;
  if (router.max_sessions != 0 && router.sessions >= router.max_sessions) {
    refuse(session, name, ErrorCode::RouterSessionLimit,
           fmt::format("{} are open, max_sessions", router.sessions));
    return;
  }
  session.router = &router;
  ++router.sessions;
  router.port = session.port;
  router.state = shm::RouterState::Connected;
  router.connected_realtime_ns = context.realtime_ns;
  peers.touch(router);
  context.log.info("router {}{}{}: session from port {}, {} open", address, name.empty() ? "" : " ", name,
                   session.port, router.sessions);
  life_cycle.session_up(session);
}

void Shard::Impl::refuse(Session& session, std::string_view name, ErrorCode code, std::string_view detail) {
  session.must_close = true;
  to_close.push_back(session.id);
  limits.refused(session.source, session.port, name, code, detail);
}

bool Shard::Impl::identify(Session& session, wire::Bytes message) {
  session.unidentified = false;
  if (message.size() < wire::kBmpCommonHeaderBytes ||
      static_cast<std::uint8_t>(message[5]) != static_cast<std::uint8_t>(wire::BmpType::Initiation)) {
    refuse(session, {}, ErrorCode::RouterUnidentified,
           "[[router]] tells it by sysName, and its first message is no Initiation");
    return false;
  }
  std::string_view sys_name;
  wire::TlvReader tlvs(wire::information_tlvs(message));
  for (wire::Tlv tlv; tlvs.next(tlv);) {
    if (tlv.type == wire::kInitiationSysName) sys_name = text_of(tlv.value);
  }
  const RouterEntry* entry = context.rules.find(session.source, sys_name);
  if (entry == nullptr) {
    std::array<char, RouterRules::kMostNameBytes + 1> shown{};
    for (std::size_t i = 0; i < std::min(sys_name.size(), shown.size() - 1); ++i)
      shown[i] = sys_name[i] >= 0x20 && sys_name[i] < 0x7f ? sys_name[i] : '?';
    refuse(session, {}, ErrorCode::RouterRefused,
           fmt::format("no [[router]] of its address has the sys_name \"{}\"", shown.data()));
    return false;
  }
  attach(session, entry->name);
  return session.router != nullptr;
}

void Shard::close_session(SessionId id) {
  Impl& s = *impl_;
  s.ahead.forget();
  s.context.read_clock();
  Session& session = s.peers.session(id);
  if (!session.open) return;
  s.set_waiting(session, false, false);
  if (Router* router = session.router; router != nullptr) {
    for (Peer* peer : router->peers) {
      if (peer->up && peer->up_session == session.serial) s.set_up(*peer, false);
      for (const auto& view : peer->views) {
        if (!view) continue;
        std::erase(view->superseded, &session);
        if (view->owner != &session) continue;
        view->owner = nullptr;
        // They say only what changes, which nobody can tell from silence. A new dump within the grace time
        // changes nothing downstream.
        for (Session* other : view->superseded)
          s.ask_to_close(*other, "a newer one told its routes and is gone");
        if (view->state != shm::PeerState::Down) view->state = shm::PeerState::Stale;
        s.resync.lost(*view);
        s.peers.touch(*view);
      }
    }
    --router->sessions;
    if (router->sessions == 0) router->state = shm::RouterState::Lost;
    s.peers.touch(*router);
    s.life_cycle.session_down(session);
    s.context.log.info("router {}: session from port {} closed, {} open", router->address.to_string(),
                       session.port, router->sessions);
  }
  std::erase(s.to_close, id);
  s.peers.free_session(id);
  s.context.stats.add(IngestMetric::SessionsClosed);
  s.context.stats.set(IngestMetric::SessionsOpen, s.peers.open_sessions());
}

void Shard::session_error(SessionId id, ErrorCode code, std::string_view text) {
  Session& session = impl_->peers.session(id);
  if (session.router == nullptr) return;
  Router& router = *session.router;
  if (code != ErrorCode::SessionReset && code != ErrorCode::SessionNotKept) ++router.malformed;
  router.last_error = code;
  session.end_error = code;
  copy_text(router.last_error_text, text);
  impl_->peers.touch(router);
}

void Shard::set_throttled(SessionId id, bool throttled) {
  Session& session = impl_->peers.session(id);
  impl_->set_waiting(session, throttled, session.progress.active);
}

std::optional<SessionId> Shard::take_session_to_close() {
  if (impl_->to_close.empty()) return std::nullopt;
  const SessionId id = impl_->to_close.back();
  impl_->to_close.pop_back();
  return id;
}

void Shard::Impl::set_waiting(Session& session, bool throttled, bool in_progress) {
  const bool before = session.waiting();
  session.throttled = throttled;
  session.progress.active = in_progress;
  if (!in_progress) session.progress = Session::Progress{};
  const bool now = session.waiting();
  if (before == now) return;
  const auto waiting = context.stats.get(IngestMetric::SessionsThrottled);
  context.stats.set(IngestMetric::SessionsThrottled, now ? waiting + 1 : waiting - 1);
  if (!now) {
    session.resumed_ns = context.now_ns;
    resync.resumed();
  }
  if (session.router == nullptr) return;
  Router& router = *session.router;
  router.waiting += now ? 1 : -1;
  if (!now) router.resumed_ns = context.now_ns;
  peers.touch(router);
}

void Shard::look_ahead(SessionId id, std::span<const std::byte> message) {
  impl_->ahead.show(impl_->peers.session(id), message);
}

Shard::Applied Shard::apply(SessionId id, std::span<const std::byte> message) {
  Impl& s = *impl_;
  const KnownMessage* const known = s.ahead.take(message);
  if (!std::exchange(s.clock_is_fresh, true)) s.context.read_clock();
  Session& session = s.peers.session(id);
  if (session.must_close) return Applied::Done;
  if (session.unidentified && !s.identify(session, message)) return Applied::Done;
  if (session.router == nullptr) {
    s.context.stats.add(IngestMetric::OverLimit);
    return Applied::Done;
  }
  if (s.restoring) {
    s.ahead.forget();
    return Applied::NoRoom;
  }
  const bool again = session.progress.active;
  if (!again) {
    Router& router = *session.router;
    ++router.messages;
    router.bytes += message.size();
    ++session.messages;
    session.bytes += message.size();
    router.last_message_realtime_ns = s.context.realtime_ns;
    s.peers.touch(router);
  }
  // What is kept stands before what this message changes; with drop-newest that may go untold.
  const bool room = s.events.flush() || s.context.drop_newest;
  const Applied applied = room ? s.dispatch(session, message, known) : Applied::NoRoom;
  if (applied == Applied::NoRoom) {
    s.ahead.forget();
    if (!again) {
      s.context.stats.add(IngestMetric::RingFullEvents);
      s.set_waiting(session, session.throttled, true);
    }
  } else if (again) {
    s.set_waiting(session, session.throttled, false);
  } else {
    session.progress = Session::Progress{};
  }
  return applied;
}

void Shard::Impl::observe_lag(std::uint64_t router_time_ns) {
  if (router_time_ns == 0) return;  // it does not say
  if (router_time_ns > context.realtime_ns) {
    context.stats.add(IngestMetric::MessagesAhead);
    return;
  }
  constexpr std::uint64_t kMs = 1'000'000;
  context.stats.observe(IngestHistogram::BmpLag, (context.realtime_ns - router_time_ns) / kMs);
}

Shard::Applied Shard::Impl::dispatch(Session& session, wire::Bytes message, const KnownMessage* known) {
  if (known != nullptr) [[likely]] {
    if (!session.progress.active) {
      context.stats.add(IngestMetric::MessagesRouteMonitoring);
      observe_lag(known->header.timestamp_ns);
    }
    return route_monitoring(session, known->header, message, known->update, known);
  }
  if (message.size() < wire::kBmpCommonHeaderBytes) {
    malformed(session, nullptr, nullptr, ErrorCode::BmpTooShort, 0xff, message.size());
    return Applied::Done;
  }
  const auto type = static_cast<std::uint8_t>(message[5]);
  const auto counted = [&](IngestMetric metric) {
    if (!session.progress.active) context.stats.add(metric);
  };
  wire::PerPeerHeader header;
  const auto with_header = [&] {
    if (wire::parse_per_peer_header(message, header)) {
      if (!session.progress.active) observe_lag(header.timestamp_ns);
      return true;
    }
    malformed(session, nullptr, nullptr, ErrorCode::BmpMalformedPeerHeader, type, message.size());
    return false;
  };
  switch (type) {
    case static_cast<std::uint8_t>(wire::BmpType::RouteMonitoring):
      counted(IngestMetric::MessagesRouteMonitoring);
      if (with_header()) return route_monitoring(session, header, message);
      break;
    case static_cast<std::uint8_t>(wire::BmpType::StatisticsReport):
      counted(IngestMetric::MessagesStatistics);
      if (with_header()) return statistics(session, header, message);
      break;
    case static_cast<std::uint8_t>(wire::BmpType::PeerDown):
      counted(IngestMetric::MessagesPeerDown);
      if (with_header()) return peer_down(session, header, message);
      break;
    case static_cast<std::uint8_t>(wire::BmpType::PeerUp):
      counted(IngestMetric::MessagesPeerUp);
      if (with_header()) return peer_up(session, header, message);
      break;
    case static_cast<std::uint8_t>(wire::BmpType::Initiation):
      counted(IngestMetric::MessagesInitiation);
      return initiation(session, message);
    case static_cast<std::uint8_t>(wire::BmpType::Termination):
      counted(IngestMetric::MessagesTermination);
      return termination(session, message);
    case static_cast<std::uint8_t>(wire::BmpType::RouteMirroring):
      // What is mirrored was received, not accepted: no routes.
      counted(IngestMetric::MessagesRouteMirroring);
      (void)with_header();
      break;
    default:
      counted(IngestMetric::MessagesUnknown);
      fault(session, nullptr, ErrorCode::BmpUnknownType, type, 5, "skipped");
      break;
  }
  return Applied::Done;
}

Shard::Applied Shard::Impl::statistics(Session& session, const wire::PerPeerHeader& header,
                                       wire::Bytes message) {
  if (!life_cycle.room_for(message)) return Applied::NoRoom;
  life_cycle.statistics(session, header, message);
  return Applied::Done;
}

Shard::Applied Shard::Impl::termination(Session& session, wire::Bytes message) {
  if (!life_cycle.room_for(message)) return Applied::NoRoom;
  context.log.info("router {}: ends the session from port {}", session.router->address.to_string(),
                   session.port);
  life_cycle.termination(session, message);
  return Applied::Done;
}

Shard::Applied Shard::Impl::initiation(Session& session, wire::Bytes message) {
  if (!life_cycle.room_for(message)) return Applied::NoRoom;
  Router& router = *session.router;
  router.state = shm::RouterState::Initiated;
  wire::TlvReader tlvs(wire::information_tlvs(message));
  for (wire::Tlv tlv; tlvs.next(tlv);) {
    if (tlv.type == wire::kInitiationSysName) copy_text(router.sys_name, text_of(tlv.value));
    if (tlv.type == wire::kInitiationSysDescr) copy_text(router.sys_descr, text_of(tlv.value));
  }
  if (!tlvs.ok()) {
    malformed(session, nullptr, nullptr, ErrorCode::BmpMalformedTlv,
              static_cast<std::uint8_t>(wire::BmpType::Initiation), message.size());
  }
  peers.touch(router);
  life_cycle.initiation(session, message);
  return Applied::Done;
}

void Shard::Impl::fault(Session& session, const Peer* peer, ErrorCode code, std::uint8_t type,
                        std::size_t offset_bytes, std::string_view detail) {
  Router& router = *session.router;
  router.last_error = code;
  ++router.faults;
  char text[shm::kStatsTextBytes];
  char who[48];
  who[0] = 0;
  if (peer != nullptr) {
    *fmt::format_to_n(who, sizeof who - 1, " of peer {}", peer->key.address.to_string()).out = 0;
  }
  const auto end =
      fmt::format_to_n(text, sizeof text, "{} in {}{}, byte {}{}{}", to_string(code),
                       wire::bmp_type_name(type), who, offset_bytes, detail.empty() ? "" : ": ", detail);
  copy_text(router.last_error_text, {text, std::min(end.size, sizeof text)});
  peers.touch(router);
  if (std::has_single_bit(router.faults)) {
    context.log.warn("router {}: {} ({}); {} faults so far", router.address.to_string(),
                     router.last_error_text.data(), static_cast<unsigned>(code), router.faults);
  }
}

void Shard::Impl::malformed(Session& session, const Peer* peer, PeerView* view, ErrorCode code,
                            std::uint8_t type, std::size_t offset_bytes) {
  context.stats.add(IngestMetric::MessagesMalformed);
  ++session.router->malformed;
  if (view != nullptr) {
    ++view->malformed;
    peers.touch(*view);
  }
  fault(session, peer, code, type, offset_bytes, {});
}

void Shard::Impl::tell_dropped(Work& work, bool all_told) {
  context.stats.set(IngestMetric::RoutesUntold, context.untold.entries);
  if (!all_told) return;
  work.next_deadline_ns = sooner(work.next_deadline_ns, drop_report.run(reconcile.has_room()));
  if (!reconcile.run(kReconcileSteps)) {
    work.next_deadline_ns = sooner(work.next_deadline_ns, context.now_ns + kRetryNs);
  } else if (!reconcile.idle()) {
    work.more = true;
  }
  context.stats.set(IngestMetric::RoutesUntold, context.untold.entries);
}

void Shard::set_witness(ShardWitness* witness) {
  impl_->context.witness = witness;
}

void Shard::set_restoring(bool restoring) {
  if (impl_->context.witness != nullptr) impl_->context.witness->restoring(restoring);
  impl_->restoring = restoring;
  impl_->events.hold(restoring);
}

HotTasks& Shard::tasks() {
  return impl_->tasks;
}

void Shard::finish() {
  impl_->context.read_clock();
  impl_->tasks.finish(*impl_);
  impl_->events.finish();
  impl_->drop_report.finish();
}

Shard::Work Shard::do_work() {
  Impl& s = *impl_;
  ShardContext& context = s.context;
  context.read_clock();
  s.clock_is_fresh = false;
  s.ahead.forget();
  Work work;
  work.next_deadline_ns = s.resync.run();
  const bool all_told = s.events.flush();
  if (!all_told || !s.sweep.run(kSweepSteps)) {
    // Room comes from the reader: looking again at once would only burn the core.
    const std::uint64_t retry = context.now_ns + kRetryNs;
    work.next_deadline_ns = sooner(work.next_deadline_ns, retry);
  } else {
    work.more = !s.sweep.idle();
  }
  if (context.drop_newest) s.tell_dropped(work, all_told);
  if (all_told && !s.restoring && context.curate) {  // else there are no tables: a dump stays owed
    work.more = s.dump.run() == Dump::Progress::More || work.more;
    work.next_deadline_ns = sooner(work.next_deadline_ns, s.dump.next_deadline_ns());
  }
  switch (s.tasks.run(s)) {
    case HotTask::Progress::More: work.more = true; break;
    case HotTask::Progress::Wait:
      work.next_deadline_ns = sooner(work.next_deadline_ns, context.now_ns + kRetryNs);
      break;
    case HotTask::Progress::Done: break;
  }
  if (context.pool.has_discarded()) work.more = !context.pool.reclaim_some(kReclaimSegments) || work.more;

  s.limits.run([&s](Router& router) {
    s.peers.each_session(router, [&s](Session& session) {
      s.ask_to_close(session, "its router is below max_routes again and has to tell its tables anew");
    });
  });
  s.peers.write_rows();
  StatsWriter& stats = context.stats;
  stats.set(IngestMetric::Routes, context.routes);
  stats.set(IngestMetric::AttributeSets, context.attributes.size());
  stats.set(IngestMetric::RibBytes, context.pool.memory_bytes());
  stats.set(IngestMetric::RingUsedBytes, context.ring.used_bytes());
  return work;
}

}  // namespace arancini::ingestd
