#include "ingestd/rib_sweep.h"

#include "common/metrics/metric_list.h"
#include "ingestd/batch_meta.h"
#include "ingestd/event_encode.h"

namespace arancini::ingestd {

void RibSweep::request(RibTable& table, Reason reason) {
  const Generations& generations = table.generations;
  if (generations.old_routes() == 0) return;
  SweepState& sweep = table.sweep;
  const SweepJob job{true, generations.current(), reason};
  if (!sweep.running.active) {
    sweep.running = job;
    sweep.cursor = WalkCursor{};
    running_.push_back(&table);
    context_.stats.set(IngestMetric::SweepsRunning, running_.size());
  } else if (sweep.running.moment != job.moment) {
    sweep.waiting = job;
  }  // else the running one withdraws exactly the same routes
}

void RibSweep::request_all(RibTable& table, Reason reason) {
  if (!table.generations.bump(table.routes.size())) {
    context_.log.error(
        "peer {}: too many re-syncs while a sweep waits for room in the ring; a withdrawal is delayed",
        table.view.peer.key.address.to_string());
  }
  table.resync.active = false;
  request(table, reason);
}

bool RibSweep::run(std::size_t steps) {
  while (steps > 0 && !running_.empty()) {
    --steps;
    if (next_ >= running_.size()) next_ = 0;
    switch (step(*running_[next_])) {
      case Step::More: ++next_; break;
      case Step::Done:
        running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(next_));
        context_.stats.set(IngestMetric::SweepsRunning, running_.size());
        break;
      case Step::NoRoom: return false;
    }
  }
  return true;
}

RibSweep::Step RibSweep::step(RibTable& table) {
  PeerView& view = table.view;
  Router& router = *view.peer.router;
  SweepState& sweep = table.sweep;
  Generations& generations = table.generations;

  if (generations.old_routes() > 0) {
    schema::BatchMeta meta = batch_meta(context_, view);
    meta.router_port = view.router_port;
    meta.family = table.family;
    meta.via_mp = table.family != kIpv4Unicast;
    meta.synthetic = true;
    meta.reason = sweep.running.reason;
    const schema::BatchAttributes attributes;
    SliceWriter writer(context_.ring, meta, attributes);
    const std::uint32_t limit = writer.max_routes();
    if (!writer.reserve(limit)) return Step::NoRoom;
    table.routes.walk(sweep.cursor, limit, [&](const Prefix& prefix, RouteState& route) {
      if (!generations.older(route.generation, sweep.running.moment)) return WalkAction::Keep;
      writer.add(prefix);
      generations.erased(route.generation);
      context_.attributes.unref(route.attr);
      return WalkAction::Erase;
    });
    const std::uint32_t withdrawn = writer.commit();
    if (withdrawn > 0) {
      context_.stats.add(IngestMetric::UpdatesWithdrawn, withdrawn);
      context_.stats.add(IngestMetric::UpdatesSynthetic, withdrawn);
      context_.stats.add(IngestMetric::RingRecords);
      context_.routes -= withdrawn;
      router.routes -= withdrawn;
      router.published += withdrawn;
      view.routes -= withdrawn;
      view.published += withdrawn;
      view.synthetic += withdrawn;
      peers_.touch(view);
    }
    if (!sweep.cursor.done && generations.old_routes() > 0) return Step::More;
  }

  generations.swept(sweep.running.moment);
  sweep.running = sweep.waiting;
  sweep.waiting = SweepJob{};
  sweep.cursor = WalkCursor{};
  if (sweep.running.active && generations.old_routes() > 0) return Step::More;
  sweep.running = SweepJob{};
  return Step::Done;
}

}  // namespace arancini::ingestd
