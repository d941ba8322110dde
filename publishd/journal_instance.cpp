#include "publishd/journal_instance.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <algorithm>

#include "common/base/runtime_dir.h"
#include "publishd/own_stats.h"
#include "publishd/ring_source.h"

namespace arancini::publishd {

namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kBeatNs = 100 * kMillisecond;      // counters, heartbeats
constexpr std::uint64_t kStatusNs = 1'000 * kMillisecond;  // systemd
constexpr std::uint64_t kSleepMostNs = 500 * kMillisecond;

const Config& checked(const Config& config) {
  open_own_dir(config.paths.state_dir, "--state-dir");
  return config;
}

}  // namespace

JournalInstance::JournalInstance(Config config, ConfigFlags flags)
    : config_(std::move(config)),
      flags_(std::move(flags)),
      log_("publishd", parse_log_level(config_.log.level)),
      journal_log_("publishd", parse_log_level(config_.log.level)),
      attacher_log_("publishd", parse_log_level(config_.log.level)),
      service_log_("publishd", parse_log_level(config_.log.level)),
      journal_(JournalOptions::from(checked(config_)), wake_, journal_log_),
      service_(config_, flags_, &journal_, nullptr, service_log_,
               [this](const Config& next) { reload(next); }),
      sink_(journal_, &log_),
      attacher_(config_.paths.runtime_dir, config_.shards.count, wake_, attacher_log_) {
  open_own_stats(config_, clock_, log_, stats_, stats_told_);
}

void JournalInstance::reload(const Config& next) {
  for (Logger* log : {&log_, &journal_log_, &attacher_log_, &service_log_})
    log->set_level(parse_log_level(next.log.level));
}

void JournalInstance::run() {
  log_.info("publishd {} started: sink is the journal {}, no broker", ARANCINI_VERSION, journal_.directory());
  beat(clock_.boottime_ns());
  sd_notify(0, "READY=1");
  while (!sink_.stopped()) {
    // Read before the work: what comes during it makes the sleep return at once.
    const std::uint32_t wake_seen = wake_.value();
    const std::uint64_t now = clock_.boottime_ns();
    if (stop_.load(std::memory_order_relaxed)) sink_.stop(now);
    while (auto ring = attacher_.poll()) {
      const std::uint64_t created = ring->reader.file().header().identity.created_realtime_ns;
      sink_.add_ring(std::make_unique<RingSource>(std::move(ring->reader)), std::move(ring->name), created);
      next_beat_ns_ = 0;
    }
    const std::size_t work = sink_.do_work(now);
    while (auto left = sink_.poll_detached())
      attacher_.give_back(left->name,
                          left->corrupt ? RingAttach::Reason::Corrupt : RingAttach::Reason::Replaced);
    if (now >= next_beat_ns_) beat(now);
    if (work == 0) sleep(wake_seen);
  }
  beat(clock_.boottime_ns());
  if (stats_) stats_->set_state(shm::ProcessState::Stopped);
  sd_notify(0, "STOPPING=1");
  if (const std::uint64_t open = sink_.metric(PublishMetric::QueuedUpdates); open > 0) {
    log_.warn("stopped with {} updates that are not on the disk yet; the rings keep them for the next start",
              open);
  } else {
    log_.info("stopped");
  }
}

void JournalInstance::sleep(std::uint32_t wake_seen) {
  waits_.clear();
  waits_.push_back({wake_.word(), wake_seen});
  wake_.set_sleeping(true);
  if (sink_.arm(waits_) && wake_.value() == wake_seen && !sink_.stopped())
    futex_wait_any(waits_, std::min(sink_.idle_ns(), kSleepMostNs));
  sink_.disarm();
  wake_.set_sleeping(false);
}

void JournalInstance::beat(std::uint64_t now) {
  next_beat_ns_ = now + kBeatNs;
  if (now >= next_status_ns_ && !stats_) open_own_stats(config_, clock_, log_, stats_, stats_told_);
  if (stats_) {
    write_stats(now);
    service_.listen();
  }
  sink_.heartbeat(now);

  if (now < next_status_ns_) return;
  next_status_ns_ = now + kStatusNs;
  const std::string status = fmt::format("journal {}, {} rings, {}", journal_.directory(),
                                         sink_.rings_connected(), to_string(sink_.trouble()));
  if (status != status_) sd_notifyf(0, "STATUS=%s", status.c_str());
  status_ = status;
  sd_notify(0, "WATCHDOG=1");
}

void JournalInstance::write_stats(std::uint64_t now) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(PublishMetric::Count); ++i) {
    const auto m = static_cast<PublishMetric>(i);
    if (m != PublishMetric::Trouble) stats_->set(m, sink_.metric(m));
  }
  for (const PublishHistogram h : {PublishHistogram::RingToAck, PublishHistogram::AckLatency})
    stats_->set_histogram(h, sink_.histogram(h));
  for (const PublishMetric m :
       {PublishMetric::JournalBytes, PublishMetric::JournalSpilledBytes, PublishMetric::JournalReplayedBytes,
        PublishMetric::JournalSegments, PublishMetric::JournalTrouble}) {
    stats_->set(m, journal_.metric(m));
  }
  stats_->set(PublishMetric::BytesSent, journal_.metric(PublishMetric::JournalSpilledBytes));
  const ErrorCode trouble = sink_.trouble();
  stats_->set(PublishMetric::Trouble, number(trouble));
  stats_->set(PublishMetric::RingsConnected, sink_.rings_connected());
  stats_->set_state(stop_.load(std::memory_order_relaxed) ? shm::ProcessState::Draining
                    : trouble != ErrorCode::None || journal_.trouble() != ErrorCode::None
                        ? shm::ProcessState::Degraded
                    : journal_.ready() ? shm::ProcessState::Running
                                       : shm::ProcessState::Starting);
  stats_->heartbeat(now);
}

}  // namespace arancini::publishd
