#include "ingestd/drop_report.h"

#include <algorithm>
#include <utility>

#include "common/metrics/metric_list.h"
#include "ingestd/deadline.h"
#include "ingestd/event_writer.h"
#include "ingestd/router_event.h"

namespace arancini::ingestd {

void DropReport::note(Router& router, std::uint64_t announcements, std::uint64_t withdraws) {
  context_.stats.add(IngestMetric::AnnouncementsDropped, announcements);
  context_.stats.add(IngestMetric::WithdrawsDropped, withdraws);
  router.announcements_dropped += announcements;
  router.withdraws_dropped += withdraws;
  peers_.touch(router);

  DropEpisode& episode = router.drops;
  if (!episode.active) {
    episode = DropEpisode{.active = true, .since_realtime_ns = context_.realtime_ns};
    routers_.push_back(&router);
    std::uint64_t left_out = 0;
    if (lines_.allow(context_.now_ns, left_out)) {
      context_.log.warn(
          "router {}: the ring is full: changes are not told now (ring.when_full, drop-newest){}",
          router.address.to_string(),
          left_out == 0 ? std::string() : fmt::format("; {} such lines left out", left_out));
    }
  }
  if (!episode.has_news()) {
    episode.new_since_realtime_ns = context_.realtime_ns;
    episode.new_since_ns = context_.now_ns;
  }
  episode.last_realtime_ns = context_.realtime_ns;
  episode.last_ns = context_.now_ns;
  episode.announcements += announcements;
  episode.withdraws += withdraws;
  episode.new_announcements += announcements;
  episode.new_withdraws += withdraws;
}

bool DropReport::write_dropped(Router& router) {
  DropEpisode& episode = router.drops;
  auto event = about_router<schema::EventFields>(router, schema::EventKind::Dropped);
  event.since_ns = episode.new_since_realtime_ns;
  event.until_ns = episode.last_realtime_ns;
  event.counters = {{"announcements", episode.new_announcements},
                    {"withdraws", episode.new_withdraws},
                    {"routes_untold", router.untold.entries}};
  event.text = fmt::format("ring full: {} announcements and {} withdraws were not told when they came",
                           episode.new_announcements, episode.new_withdraws);
  if (!write_event(context_, router.row, event)) return false;
  episode.new_announcements = episode.new_withdraws = 0;
  episode.last_event_ns = context_.now_ns;
  return true;
}

bool DropReport::write_reconciled(Router& router) {
  DropEpisode& episode = router.drops;
  auto event = about_router<schema::EventFields>(router, schema::EventKind::Reconciled);
  event.since_ns = episode.since_realtime_ns;
  event.until_ns = context_.realtime_ns;
  event.counters = {{"announcements", episode.announcements}, {"withdraws", episode.withdraws}};
  event.text = fmt::format("told again: {} announcements and {} withdraws had been dropped",
                           episode.announcements, episode.withdraws);
  if (!write_event(context_, router.row, event)) return false;
  std::uint64_t left_out = 0;
  if (lines_.allow(context_.now_ns, left_out)) {
    context_.log.info("router {}: {} announcements and {} withdraws were dropped; all is told again{}",
                      router.address.to_string(), episode.announcements, episode.withdraws,
                      left_out == 0 ? std::string() : fmt::format("; {} such lines left out", left_out));
  }
  episode = DropEpisode{};
  return true;
}

std::uint64_t DropReport::run(bool room_ahead) {
  constexpr std::uint64_t kRetryNs = 1'000'000;  // as sweeps that wait for room
  const std::uint64_t now = context_.now_ns;
  std::uint64_t next = 0;
  const auto again_at = [&next](std::uint64_t at) { next = sooner(next, at); };
  std::erase_if(routers_, [&](Router* router) {
    DropEpisode& episode = router->drops;
    if (episode.has_news()) {
      const std::uint64_t due =
          std::max(room_ahead ? 0 : episode.new_since_ns + kIntervalNs,
                   episode.last_event_ns == 0 ? 0 : episode.last_event_ns + kIntervalNs);
      if (now < due) {
        again_at(due);
        return false;
      }
      if (!write_dropped(*router)) {
        again_at(now + kRetryNs);
        return false;
      }
    }
    if (router->untold.entries > 0) return false;  // the reconciler is at work
    const std::uint64_t due = episode.last_ns + kIntervalNs;
    if (now < due) {
      again_at(due);
      return false;
    }
    if (!write_reconciled(*router)) {
      again_at(now + kRetryNs);
      return false;
    }
    return true;
  });
  return next;
}

void DropReport::finish() {
  for (Router* router : routers_) {
    const DropEpisode& episode = router->drops;
    if (router->untold.entries > 0) {
      context_.log.warn("router {}: {} routes are not told as they are: the router has to tell them again",
                        router->address.to_string(), router->untold.entries);
    }
    if (episode.has_news() && !write_dropped(*router)) {
      context_.log.warn("router {}: {} announcements and {} withdraws were dropped; no room for the event",
                        router->address.to_string(), episode.new_announcements, episode.new_withdraws);
    }
  }
}

}  // namespace arancini::ingestd
