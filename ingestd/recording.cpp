#include "ingestd/recording.h"

namespace arancini::ingestd {

Recording::Recording(const std::string& path, const Config& config, std::uint32_t shard,
                     const StatsWriter& stats, RingWriter& ring, const Clock& clock, Logger& log,
                     std::size_t queue_bytes)
    : clock_(clock), ring_(ring) {
  if (path.empty()) return;
  recording::Start start;
  start.version = ARANCINI_VERSION;
  start.shard = shard;
  start.routers = stats.router_capacity();
  start.peers = stats.peer_capacity();
  start.seed_a = seed_.a;
  start.seed_b = seed_.b;
  start.writer = ring.writer_id();
  start.ring_bytes = ring.capacity_bytes();
  start.tail = raw(ring.tail());
  start.head = raw(ring.known_head());
  start.next_sequence = raw(ring.next_sequence());
  start.next_event_sequence = ring.next_event_sequence();
  start.config = recordable_config(config);
  auto made = Recorder::create(path, start, clock, log, queue_bytes);
  if (!made) {
    log.error("{}; data flows without it", made.error());
    return;
  }
  recorder_ = std::move(made).value();
  ring.set_witness(recorder_.get());
  log.info("everything is recorded in {}", recorder_->path());
}

SessionSink& Recording::front(Shard& shard, SessionSink& sink) {
  if (recorder_ == nullptr) return sink;
  recorder_->end();
  shard.set_witness(recorder_.get());
  sink_ = std::make_unique<RecordingSink>(sink, ring_, *recorder_);
  return *sink_;
}

}  // namespace arancini::ingestd
