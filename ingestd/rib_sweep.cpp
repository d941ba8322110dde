#include "ingestd/rib_sweep.h"

#include <utility>

#include "common/metrics/metric_list.h"
#include "ingestd/batch_meta.h"
#include "ingestd/event_encode.h"

namespace arancini::ingestd {

void RibSweep::request(RibTable& table, Reason reason, SyncCause cause) {
  const Generations& generations = table.generations;
  const std::uint64_t since = std::exchange(table.resync.since_realtime_ns, 0);
  if (generations.old_routes() == 0 && since == 0) return;
  SweepState& sweep = table.sweep;
  const SweepJob job{true, generations.current(), reason, cause, since};
  if (!sweep.running.active) {
    sweep.running = job;
    sweep.cursor = WalkCursor{};
    sweep.withdrawn = 0;
    running_.push_back(&table);
    context_.stats.set(IngestMetric::SweepsRunning, running_.size());
  } else if (sweep.running.moment != job.moment || sweep.running.since_realtime_ns != 0) {
    sweep.waiting = job;
  } else {
    sweep.running.since_realtime_ns = since;  // it withdraws exactly the same routes
  }
}

void RibSweep::request_all(RibTable& table, Reason reason, SyncCause cause) {
  if (!table.generations.bump(table.routes.size())) {
    context_.log.error(
        "peer {}: too many re-syncs while a sweep waits for room in the ring; a withdrawal is delayed",
        table.view.peer.key.address.to_string());
  }
  table.resync.active = false;
  request(table, reason, cause);
}

void RibSweep::ended(RibTable& table) {
  std::erase(running_, &table);
  context_.stats.set(IngestMetric::SweepsRunning, running_.size());
}

bool RibSweep::run(std::size_t steps) {
  std::size_t refused = 0;
  bool done_something = running_.empty();
  while (steps > 0 && !running_.empty() && refused < running_.size()) {
    --steps;
    if (next_ >= running_.size()) next_ = 0;
    switch (step(*running_[next_])) {
      case Step::More:
        done_something = true;
        ++next_;
        break;
      case Step::Done:
        done_something = true;
        ended(*running_[next_]);
        break;
      case Step::NoRoom:
        if (!context_.drop_newest) return false;
        // Another one may need no room.
        ++refused;
        ++next_;
        break;
    }
  }
  return done_something;
}

void RibSweep::run_view(PeerView& view) {
  view.each_table([this](RibTable& table) {
    if (table.sweep.running.active && step(table) == Step::Done) ended(table);
  });
}

bool RibSweep::withdraw_slice(RibTable& table) {
  PeerView& view = table.view;
  Router& router = *view.peer.router;
  SweepState& sweep = table.sweep;
  Generations& generations = table.generations;

  schema::BatchMeta meta = batch_meta(context_, view);
  meta.router_port = view.router_port;
  meta.family = table.family;
  meta.via_mp = table.family != kIpv4Unicast;
  meta.synthetic = true;
  meta.reason = sweep.running.reason;
  const schema::BatchAttributes attributes;
  SliceWriter writer(context_.ring, meta, attributes);
  const std::uint32_t limit = writer.max_routes();
  // With drop-newest a sweep waits for room like any other, but not where messages wait for it, nor where
  // nothing of the view may be told yet.
  const bool tellable = !context_.drop_newest || Untold::same_identity(view);
  const bool told = tellable && writer.reserve(limit);
  if (!told && tellable && !(context_.drop_newest && view.identity_changes)) return false;

  const bool plain = told && !table.has_untold;
  const WalkCursor before = sweep.cursor;
  std::uint32_t erased = 0;
  std::uint32_t dropped = 0;
  bool no_memory = false;
  table.routes.walk(sweep.cursor, limit, [&](const Prefix& prefix, RouteState& route) {
    if (no_memory || !generations.older(route.generation, sweep.running.moment)) return WalkAction::Keep;
    if (plain) {
      writer.add(prefix);
    } else {
      switch (untold_.withdraw(table, prefix, route, told, sweep.running.reason)) {
        case Untold::Outcome::Tell: writer.add(prefix); break;
        case Untold::Outcome::Suppress: break;
        case Untold::Outcome::Dropped: ++dropped; break;
        case Untold::Outcome::NoMemory: no_memory = true; return WalkAction::Keep;
      }
    }
    generations.erased(route.generation);
    context_.attributes.unref(route.attr);
    ++erased;
    return WalkAction::Erase;
  });
  const std::uint32_t withdrawn = told ? writer.commit() : 0;
  if (withdrawn > 0) {
    context_.stats.add(IngestMetric::UpdatesWithdrawn, withdrawn);
    context_.stats.add(IngestMetric::UpdatesSynthetic, withdrawn);
    context_.stats.add(IngestMetric::RingRecords);
    sweep.withdrawn += withdrawn;
    router.published += withdrawn;
    view.published += withdrawn;
    view.synthetic += withdrawn;
  }
  if (erased > 0) {
    context_.routes -= erased;
    router.routes -= erased;
    view.routes -= erased;
    // What a peer that went down had told is the router's own word, as a withdraw.
    if (router.limit.over && sweep.running.cause != SyncCause::PeerDown)
      router.limit.freed_ns = context_.now_ns;
    peers_.touch(view);
  }
  if (dropped > 0) drop_report_.note(router, 0, dropped);
  if (no_memory) sweep.cursor = before;  // they are looked at again
  return !no_memory;
}

RibSweep::Step RibSweep::step(RibTable& table) {
  SweepState& sweep = table.sweep;
  Generations& generations = table.generations;
  if (generations.old_routes() > 0) {
    if (!withdraw_slice(table)) return Step::NoRoom;
    if (!sweep.cursor.done && generations.old_routes() > 0) return Step::More;
  }

  if (!life_cycle_.room_for_small(1)) return Step::NoRoom;
  life_cycle_.sync_end(table, sweep.running, sweep.withdrawn);
  generations.swept(sweep.running.moment);
  sweep.running = sweep.waiting;
  sweep.waiting = SweepJob{};
  sweep.cursor = WalkCursor{};
  sweep.withdrawn = 0;
  return sweep.running.active ? Step::More : Step::Done;
}

}  // namespace arancini::ingestd
