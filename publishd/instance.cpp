#include "publishd/instance.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <random>
#include <utility>

#include "common/base/mask_url.h"
#include "common/nats/nats_settings.h"
#include "publishd/own_stats.h"
#include "publishd/spill_source.h"

namespace arancini::publishd {

namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kBeatNs = 100 * kMillisecond;      // counters, heartbeats
constexpr std::uint64_t kStatusNs = 1'000 * kMillisecond;  // systemd
constexpr std::uint64_t kSleepMostNs = 500 * kMillisecond;

DrainOptions drain_options(const Config& config) {
  DrainOptions o = DrainOptions::from(config);
  std::random_device random;
  o.id_nonce = (std::uint64_t{random()} << 32) | random();
  o.realtime_ns = [] { return SystemClock().realtime_ns(); };
  return o;
}

std::unique_ptr<Journal> make_journal(const Config& config, Wake& wake, Logger& log) {
  return config.journal.enabled ? std::make_unique<Journal>(JournalOptions::from(config), wake, log)
                                : nullptr;
}

}  // namespace

Instance::Instance(Config config, ConfigFlags flags)
    : config_(std::move(config)),
      flags_(std::move(flags)),
      log_("publishd", parse_log_level(config_.log.level)),
      jetstream_log_("publishd", parse_log_level(config_.log.level)),
      attacher_log_("publishd", parse_log_level(config_.log.level)),
      journal_log_("publishd", parse_log_level(config_.log.level)),
      service_log_("publishd", parse_log_level(config_.log.level)),
      jetstream_(JetStream::Options::from(config_), wake_, jetstream_log_),
      journal_(make_journal(config_, wake_, journal_log_)),
      drain_(drain_options(config_), jetstream_, &log_),
      service_(config_, flags_, journal_.get(), &drain_.log_end(), service_log_,
               [this](const Config& next) { reload(next); }),
      attacher_(config_.paths.runtime_dir, config_.shards.count, wake_, attacher_log_) {
  open_stats();
}

// While another publishd lives here, the page is its own.
void Instance::open_stats() {
  open_own_stats(config_, clock_, log_, stats_, other_pid_);
}

void Instance::reload(const Config& next) {
  for (Logger* log : {&log_, &jetstream_log_, &attacher_log_, &journal_log_, &service_log_})
    log->set_level(parse_log_level(next.log.level));
}

void Instance::run() {
  log_.info("publishd {} started: format {}, NATS {}", ARANCINI_VERSION, to_string(config_.publish.format),
            mask_url(config_.nats.url));
  if (const std::string exposed = exposed_nats_secrets(config_); !exposed.empty()) log_.warn("{}", exposed);
  beat(clock_.boottime_ns());
  sd_notify(0, "READY=1");
  while (!drain_.stopped()) {
    // Read before the work: what comes during it makes the sleep return at once.
    const std::uint32_t wake_seen = wake_.value();
    const std::uint64_t now = clock_.boottime_ns();
    if (stop_.load(std::memory_order_relaxed)) drain_.stop(now);
    while (auto ring = attacher_.poll()) parked_.push_back(std::move(*ring));
    take_rings();
    const std::size_t work = drain_.do_work(now);
    while (auto left = drain_.poll_detached()) {
      if (left_.erase(left->name) > 0) continue;
      attacher_.give_back(left->name, left->reason == Drain::Leave::Corrupt ? RingAttach::Reason::Corrupt
                                                                            : RingAttach::Reason::Replaced);
    }
    if (now >= next_beat_ns_) beat(now);
    if (work == 0) sleep(wake_seen);
  }
  beat(clock_.boottime_ns());
  if (stats_) stats_->set_state(shm::ProcessState::Stopped);
  sd_notify(0, "STOPPING=1");
  const std::uint64_t open = drain_.metric(PublishMetric::MessagesInFlight);
  if (open > 0) {
    log_.warn("stopped with {} messages without ack; the rings keep them for the next start", open);
  } else {
    log_.info("stopped");
  }
}

void Instance::take_rings() {
  if (journal_) {
    if (!journal_->ready() || !attacher_.looked()) return;
    if (!std::exchange(left_added_, true)) add_left();
  }
  std::erase_if(parked_, [&](Attacher::Ring& ring) {
    const WriterId writer = ring.reader.writer_id();
    // Told by a file that was not a ring at the start: what was left of it goes first, alone.
    if (std::any_of(left_.begin(), left_.end(), [&](const auto& l) { return l.second == writer; }))
      return false;
    if (const RingPosition end = ring.reader.journal_end();
        raw(end) != 0 && !(journal_ && journal_->holds(writer, end))) {
      // Its records before the head are somewhere else: publishing the rest would lose them without a word.
      if (missed_.insert(ring.name).second) {
        log_.error(
            "{} ({}): {}: records up to position {} went to the journal and are not there ({}); nothing of "
            "this ring is "
            "published until they are; to go on without them, stop its ingestd and delete the ring",
            arancini::to_string(ErrorCode::JournalFailed), number(ErrorCode::JournalFailed), ring.name,
            raw(end),
            journal_ ? "is " + journal_->directory() + " the directory that it was?"
                     : std::string("journal.enabled is false"));
      }
      return false;
    }
    missed_.erase(ring.name);
    const std::uint64_t created = ring.reader.file().header().identity.created_realtime_ns;
    std::unique_ptr<RecordSource> source = std::make_unique<RingSource>(std::move(ring.reader));
    if (journal_) {
      const ShardId shard = source->shard();
      auto store = journal_->open(writer, shard, created);
      source = std::make_unique<SpillSource>(std::move(source), std::move(store), writer, shard);
    }
    drain_.add_ring(std::move(source), std::move(ring.name));
    next_beat_ns_ = 0;
    return true;
  });
}

// Published before any ring: the routers have told everything that came later to other rings.
void Instance::add_left() {
  for (const Journal::Orphan& o : journal_->orphans(attacher_.writers_at_start())) {
    std::string name = fmt::format("{}/{}", journal_->directory(), o.writer.to_hex());
    log_.info("{}: {} bytes of a ring that is gone are published first", name, raw(o.end) - raw(o.begin));
    auto store = journal_->open(o.writer, o.shard, o.created_realtime_ns);
    drain_.add_ring(std::make_unique<SpillSource>(nullptr, std::move(store), o.writer, o.shard), name, true);
    left_.emplace(std::move(name), o.writer);
  }
}

void Instance::sleep(std::uint32_t wake_seen) {
  waits_.clear();
  waits_.push_back({wake_.word(), wake_seen});
  wake_.set_sleeping(true);
  if (drain_.arm(waits_) && wake_.value() == wake_seen && !drain_.stopped()) {
    futex_wait_any(waits_, std::min(drain_.idle_ns(), kSleepMostNs));
  }
  drain_.disarm();
  wake_.set_sleeping(false);
}

void Instance::beat(std::uint64_t now) {
  next_beat_ns_ = now + kBeatNs;
  if (now >= next_status_ns_ && !stats_) open_stats();
  if (stats_) {
    write_stats(now);
    service_.listen();
  }
  drain_.heartbeat(now);

  if (now < next_status_ns_) return;
  next_status_ns_ = now + kStatusNs;
  std::string status = fmt::format("{}, {} rings, NATS {}", to_string(drain_.phase()),
                                   drain_.rings_connected(), to_string(jetstream_.state()));
  if (journal_) {
    if (const std::uint64_t bytes = journal_->metric(PublishMetric::JournalBytes); bytes > 0)
      status += fmt::format(", {} MiB in the journal", (bytes >> 20) + 1);
    if (const ErrorCode t = journal_->trouble(); t != ErrorCode::None)
      status += fmt::format(", {}", arancini::to_string(t));
  }
  if (status != status_) sd_notifyf(0, "STATUS=%s", status.c_str());
  status_ = status;
  sd_notify(0, "WATCHDOG=1");
}

void Instance::write_stats(std::uint64_t now) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(PublishMetric::Count); ++i) {
    const auto m = static_cast<PublishMetric>(i);
    if (m == PublishMetric::NatsConnected || m == PublishMetric::Trouble) continue;
    const bool journal = m >= PublishMetric::JournalBytes && m <= PublishMetric::JournalTrouble;
    stats_->set(m, !journal ? drain_.metric(m) : journal_ ? journal_->metric(m) : 0);
  }
  for (const PublishHistogram h : {PublishHistogram::RingToAck, PublishHistogram::AckLatency})
    stats_->set_histogram(h, drain_.histogram(h));
  const bool publishing = drain_.phase() == Drain::Phase::Publishing;
  ErrorCode trouble = drain_.trouble();
  if (jetstream_.trouble() != ErrorCode::None) trouble = jetstream_.trouble();
  stats_->set(PublishMetric::Trouble, number(trouble));
  stats_->set(PublishMetric::NatsConnected, jetstream_.session_alive() ? 1 : 0);
  stats_->set(PublishMetric::NatsReconnects, jetstream_.reconnects());
  stats_->set(PublishMetric::RingsConnected, drain_.rings_connected());
  const JetStream::State nats = jetstream_.state();
  const bool journal_fails = !missed_.empty() || (journal_ && journal_->trouble() != ErrorCode::None);
  if (!missed_.empty()) stats_->set(PublishMetric::JournalTrouble, number(ErrorCode::JournalFailed));
  const bool degraded = journal_fails || nats == JetStream::State::Unreachable ||
                        nats == JetStream::State::StreamUnusable || jetstream_.trouble() != ErrorCode::None ||
                        drain_.trouble() != ErrorCode::None;
  stats_->set_state(stop_.load(std::memory_order_relaxed) ? shm::ProcessState::Draining
                    : degraded                            ? shm::ProcessState::Degraded
                    : publishing                          ? shm::ProcessState::Running
                                                          : shm::ProcessState::Starting);
  stats_->heartbeat(now);
}

}  // namespace arancini::publishd
