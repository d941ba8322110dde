#include "publishd/journal_instance.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "common/base/runtime_dir.h"
#include "publishd/ring_source.h"

namespace arancini::publishd {

namespace {

const Config& checked(const Config& config) {
  open_own_dir(config.paths.state_dir, "--state-dir");
  return config;
}

}  // namespace

JournalInstance::JournalInstance(Config config, ConfigFlags flags)
    : HotLoop(std::move(config), std::move(flags)),
      journal_(JournalOptions::from(checked(config_)), wake_, journal_log_),
      service_(config_, flags_, &journal_, nullptr, service_log_,
               [this](const Config& next) { reload(next); }),
      sink_(journal_, &log_),
      attacher_(config_.paths.runtime_dir, config_.shards.count, wake_, attacher_log_) {
  open_stats();
}

void JournalInstance::say_hello() {
  log_.info("publishd {} started: sink is the journal {}, no broker", ARANCINI_VERSION, journal_.directory());
}

std::string JournalInstance::left() const {
  const std::uint64_t open = sink_.metric(PublishMetric::QueuedUpdates);
  return open == 0 ? std::string() : fmt::format("{} updates that are not on the disk yet", open);
}

void JournalInstance::take_rings() {
  while (auto ring = attacher_.poll()) {
    const std::uint64_t created = ring->reader.file().header().identity.created_realtime_ns;
    sink_.add_ring(std::make_unique<RingSource>(std::move(ring->reader)), std::move(ring->name), created);
    ring_came();
  }
}

void JournalInstance::give_back() {
  while (auto gone = sink_.poll_detached())
    attacher_.give_back(gone->name,
                        gone->corrupt ? RingAttach::Reason::Corrupt : RingAttach::Reason::Replaced);
}

std::string JournalInstance::status() const {
  return fmt::format("journal {}, {} rings, {}", journal_.directory(), sink_.rings_connected(),
                     to_string(sink_.trouble()));
}

void JournalInstance::write_metrics(StatsWriter& stats) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(PublishMetric::Count); ++i) {
    const auto m = static_cast<PublishMetric>(i);
    if (m != PublishMetric::Trouble) stats.set(m, sink_.metric(m));
  }
  for (const PublishMetric m :
       {PublishMetric::JournalBytes, PublishMetric::JournalSpilledBytes, PublishMetric::JournalReplayedBytes,
        PublishMetric::JournalSegments, PublishMetric::JournalTrouble}) {
    stats.set(m, journal_.metric(m));
  }
  stats.set(PublishMetric::BytesSent, journal_.metric(PublishMetric::JournalSpilledBytes));
  stats.set(PublishMetric::Trouble, number(sink_.trouble()));
}

shm::ProcessState JournalInstance::state() const {
  if (sink_.trouble() != ErrorCode::None || journal_.trouble() != ErrorCode::None)
    return shm::ProcessState::Degraded;
  return journal_.ready() ? shm::ProcessState::Running : shm::ProcessState::Starting;
}

}  // namespace arancini::publishd
