#include "publishd/instance.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

#include "common/base/mask_url.h"
#include "common/nats/nats_settings.h"
#include "publishd/spill_source.h"

namespace arancini::publishd {

namespace {

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
    : HotLoop(std::move(config), std::move(flags)),
      jetstream_log_("publishd", parse_log_level(config_.log.level)),
      jetstream_(JetStream::Options::from(config_), wake_, jetstream_log_),
      journal_(make_journal(config_, wake_, journal_log_)),
      drain_(drain_options(config_), jetstream_, &log_),
      service_(config_, flags_, journal_.get(), &drain_.log_end(), service_log_,
               [this](const Config& next) { reload(next); }),
      attacher_(config_.paths.runtime_dir, config_.shards.count, wake_, attacher_log_) {
  open_stats();
}

void Instance::reload(const Config& next) {
  HotLoop::reload(next);
  jetstream_log_.set_level(parse_log_level(next.log.level));
}

void Instance::say_hello() {
  log_.info("publishd {} started: format {}, NATS {}", ARANCINI_VERSION, to_string(config_.publish.format),
            mask_url(config_.nats.url));
  if (const std::string exposed = exposed_nats_secrets(config_); !exposed.empty()) log_.warn("{}", exposed);
}

std::string Instance::left() const {
  const std::uint64_t open = drain_.metric(PublishMetric::MessagesInFlight);
  return open == 0 ? std::string() : fmt::format("{} messages without ack", open);
}

void Instance::take_rings() {
  while (auto ring = attacher_.poll()) parked_.push_back(std::move(*ring));
  give_parked();
}

void Instance::give_back() {
  while (auto gone = drain_.poll_detached()) {
    if (left_.erase(gone->name) > 0) continue;
    attacher_.give_back(gone->name, gone->reason == Drain::Leave::Corrupt ? RingAttach::Reason::Corrupt
                                                                          : RingAttach::Reason::Replaced);
  }
}

void Instance::give_parked() {
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
    ring_came();
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

std::string Instance::status() const {
  std::string out = fmt::format("{}, {} rings, NATS {}", to_string(drain_.phase()), drain_.rings_connected(),
                                to_string(jetstream_.state()));
  if (journal_) {
    if (const std::uint64_t bytes = journal_->metric(PublishMetric::JournalBytes); bytes > 0)
      out += fmt::format(", {} MiB in the journal", (bytes >> 20) + 1);
    if (const ErrorCode t = journal_->trouble(); t != ErrorCode::None)
      out += fmt::format(", {}", arancini::to_string(t));
  }
  return out;
}

void Instance::write_metrics(StatsWriter& stats) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(PublishMetric::Count); ++i) {
    const auto m = static_cast<PublishMetric>(i);
    if (m == PublishMetric::NatsConnected || m == PublishMetric::Trouble) continue;
    const bool journal = m >= PublishMetric::JournalBytes && m <= PublishMetric::JournalTrouble;
    stats.set(m, !journal ? drain_.metric(m) : journal_ ? journal_->metric(m) : 0);
  }
  const ErrorCode nats = jetstream_.trouble();
  stats.set(PublishMetric::Trouble, number(nats != ErrorCode::None ? nats : drain_.trouble()));
  stats.set(PublishMetric::NatsConnected, jetstream_.session_alive() ? 1 : 0);
  stats.set(PublishMetric::NatsReconnects, jetstream_.reconnects());
  if (!missed_.empty()) stats.set(PublishMetric::JournalTrouble, number(ErrorCode::JournalFailed));
}

shm::ProcessState Instance::state() const {
  const JetStream::State nats = jetstream_.state();
  const bool journal_fails = !missed_.empty() || (journal_ && journal_->trouble() != ErrorCode::None);
  if (journal_fails || nats == JetStream::State::Unreachable || nats == JetStream::State::StreamUnusable ||
      jetstream_.trouble() != ErrorCode::None || drain_.trouble() != ErrorCode::None)
    return shm::ProcessState::Degraded;
  return drain_.phase() == Drain::Phase::Publishing ? shm::ProcessState::Running
                                                    : shm::ProcessState::Starting;
}

}  // namespace arancini::publishd
