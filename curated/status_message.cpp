#include "curated/status_message.h"

#include <string>

#include "common/base/error.h"
#include "curated/process_name.h"

namespace arancini::curated {

namespace {

namespace pb = control::v1;

void set_answer(const ShardAnswer& answer, pb::ShardStatus& to) {
  to.set_restoring(answer.restoring);
  to.set_restore_text(answer.restore_text);
  to.set_snapshot_ns(answer.snapshot_realtime_ns);
  to.set_snapshot_routes(answer.snapshot_routes);
  to.set_snapshot_bytes(answer.snapshot_bytes);
  to.set_snapshot_error(answer.snapshot_error);
  to.set_control_error(answer.problem);
}

}  // namespace

control::v1::Status status_message(const Config& config, Fleet& fleet, const ShardsClient& shards) {
  pb::Status out;
  const FleetView view = fleet.view();
  out.set_instance(config.instance.name);
  out.set_version(ARANCINI_VERSION);
  out.set_bmp_listen(config.bmp.listen.to_string());
  out.set_metrics_listen(config.metrics.listen.to_string());
  out.set_runtime_dir(config.paths.runtime_dir);
  out.set_state_dir(config.paths.state_dir);
  if (!config.curation.enabled)
    out.set_notice("curation.enabled = false: the stream does not fold to the routers' tables");
  auto* nats = out.mutable_nats();
  nats->set_state(view.nats_state);
  if (config.sink.kind == SinkKind::Nats) {
    nats->set_url(config.nats.url);
    nats->set_stream(config.nats.updates_stream);
  }
  nats->set_last_sequence(view.value(PublishMetric::StreamLastSequence));
  nats->set_in_flight(view.value(PublishMetric::MessagesInFlight));
  const auto trouble = view.value(PublishMetric::JournalTrouble);
  auto* sink = out.mutable_sink();
  sink->set_kind(config.sink.kind == SinkKind::Journal ? "journal" : "nats");
  sink->set_journal(config.journal_dir());
  sink->set_journal_bytes(view.value(PublishMetric::JournalBytes));
  sink->set_journal_segments(view.value(PublishMetric::JournalSegments));
  sink->set_journal_trouble(static_cast<std::uint32_t>(trouble));
  if (trouble != 0)
    sink->set_journal_trouble_text(std::string(arancini::to_string(static_cast<ErrorCode>(trouble))));
  for (const ProcessView& p : view.processes) {
    auto* to = out.add_processes();
    to->set_name(p.name);
    to->set_pid(p.pid);
    to->set_state(std::string(to_string(p.verdict)));
    to->set_uptime_s(p.uptime_s);
    to->set_version(p.version);
    to->set_restarts(p.restarts);
    to->set_detail(p.detail);
    if (is_daemon(p.name) && !p.version.empty() && p.version != ARANCINI_VERSION)
      out.add_version_differs(p.name);
    if (p.name == "curated") out.set_uptime_s(p.uptime_s);
  }
  const std::vector<ShardAnswer> answers = shards.states();
  for (const ShardView& s : view.shards) {
    auto* to = out.add_shards();
    if (s.shard < answers.size()) set_answer(answers[s.shard], *to);
    to->set_shard(s.shard);
    to->set_sessions(s.value(IngestMetric::SessionsOpen));
    to->set_routes(s.value(IngestMetric::Routes));
    to->set_updates(s.value(IngestMetric::UpdatesAnnounced) + s.value(IngestMetric::UpdatesWithdrawn));
    to->set_suppressed(s.value(IngestMetric::UpdatesSuppressedDuplicate) +
                       s.value(IngestMetric::UpdatesSuppressedUnknown));
    to->set_malformed(s.value(IngestMetric::MessagesMalformed));
    to->set_ring_used_bytes(s.value(IngestMetric::RingUsedBytes));
    to->set_ring_capacity_bytes(s.value(IngestMetric::RingCapacityBytes));
    to->set_ring_state(s.ring_state);
    const ProcessView* process = view.process(ingestd_name(s.shard));
    to->set_draining(process != nullptr && process->verdict == Verdict::Draining);
  }
  return out;
}

std::string status_signature(const control::v1::Status& status) {
  std::string out = status.nats().state() + std::to_string(status.sink().journal_trouble());
  for (const auto& p : status.processes()) {
    out += '\n' + p.name() + ' ' + std::to_string(p.pid()) + ' ' + p.state() + ' ' + p.version() + ' ' +
           p.detail();
  }
  for (const auto& k : status.shards()) {
    out += '\n' + std::to_string(k.sessions()) + ' ' + k.ring_state() + (k.restoring() ? " restoring" : "") +
           (k.draining() ? " draining" : "") + ' ' + k.control_error();
  }
  return out;
}

}  // namespace arancini::curated
