#include "publishd/hot_loop.h"

#include <systemd/sd-daemon.h>

#include <algorithm>
#include <utility>

#include "publishd/own_stats.h"

namespace arancini::publishd {

namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kBeatNs = 100 * kMillisecond;      // counters, heartbeats
constexpr std::uint64_t kStatusNs = 1'000 * kMillisecond;  // systemd
constexpr std::uint64_t kSleepMostNs = 500 * kMillisecond;

}  // namespace

HotLoop::HotLoop(Config config, ConfigFlags flags)
    : config_(std::move(config)),
      flags_(std::move(flags)),
      log_("publishd", parse_log_level(config_.log.level)),
      attacher_log_("publishd", parse_log_level(config_.log.level)),
      journal_log_("publishd", parse_log_level(config_.log.level)),
      service_log_("publishd", parse_log_level(config_.log.level)) {}

// While another publishd lives here, the page is its own.
void HotLoop::open_stats() {
  open_own_stats(config_, clock_, log_, stats_, other_pid_);
}

void HotLoop::reload(const Config& next) {
  for (Logger* log : {&log_, &attacher_log_, &journal_log_, &service_log_})
    log->set_level(parse_log_level(next.log.level));
}

void HotLoop::run() {
  say_hello();
  beat(clock_.boottime_ns());
  sd_notify(0, "READY=1");
  while (!core().stopped()) {
    // Read before the work: what comes during it makes the sleep return at once.
    const std::uint32_t wake_seen = wake_.value();
    const std::uint64_t now = clock_.boottime_ns();
    if (stop_.load(std::memory_order_relaxed)) core().stop(now);
    take_rings();
    const std::size_t work = core().do_work(now);
    give_back();
    if (now >= next_beat_ns_) beat(now);
    if (work == 0) sleep(wake_seen);
  }
  beat(clock_.boottime_ns());
  if (stats_) stats_->set_state(shm::ProcessState::Stopped);
  sd_notify(0, "STOPPING=1");
  if (const std::string text = left(); text.empty()) {
    log_.info("stopped");
  } else {
    log_.warn("stopped with {}; the rings keep them for the next start", text);
  }
}

void HotLoop::sleep(std::uint32_t wake_seen) {
  waits_.clear();
  waits_.push_back({wake_.word(), wake_seen});
  wake_.set_sleeping(true);
  if (core().arm(waits_) && wake_.value() == wake_seen && !core().stopped())
    futex_wait_any(waits_, std::min(core().idle_ns(), kSleepMostNs));
  core().disarm();
  wake_.set_sleeping(false);
}

void HotLoop::beat(std::uint64_t now) {
  next_beat_ns_ = now + kBeatNs;
  if (now >= next_status_ns_ && !stats_) open_stats();
  if (stats_) {
    write_metrics(*stats_);
    for (const PublishHistogram h : {PublishHistogram::RingToAck, PublishHistogram::AckLatency})
      stats_->set_histogram(h, core().histogram(h));
    stats_->set(PublishMetric::RingsConnected, core().rings_connected());
    stats_->set_state(stop_.load(std::memory_order_relaxed) ? shm::ProcessState::Draining : state());
    stats_->heartbeat(now);
    listen();
  }
  core().heartbeat(now);

  if (now < next_status_ns_) return;
  next_status_ns_ = now + kStatusNs;
  const std::string text = status();
  if (text != status_) sd_notifyf(0, "STATUS=%s", text.c_str());
  status_ = text;
  sd_notify(0, "WATCHDOG=1");
}

}  // namespace arancini::publishd
