#include "curated/fleet.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "common/base/error.h"
#include "common/base/joined.h"
#include "common/ring/ring_file.h"
#include "curated/process_name.h"

namespace arancini::curated {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000U;
// A page without a heartbeat belongs to a process that still prepares (rings of many GiB are prefaulted).
constexpr std::uint64_t kPatienceAtStartNs = 60 * kSecond;

std::optional<std::uint32_t> shard_of_page(std::string_view file_name) {
  constexpr std::string_view kSuffix = ".stats";
  if (!file_name.ends_with(kSuffix)) return std::nullopt;
  const auto shard = shard_of(file_name.substr(0, file_name.size() - kSuffix.size()));
  return shard && *shard < 1024 ? shard : std::nullopt;
}

Verdict verdict_of(shm::ProcessState state) {
  switch (state) {
    case shm::ProcessState::Starting: return Verdict::Starting;
    case shm::ProcessState::Running: return Verdict::Running;
    case shm::ProcessState::Draining: return Verdict::Draining;
    case shm::ProcessState::Degraded: return Verdict::Degraded;
    case shm::ProcessState::Stopped: return Verdict::Stopped;
  }
  return Verdict::Degraded;  // a number from a newer version; the page is untrusted
}

std::uint64_t since(std::uint64_t now, std::uint64_t then) {
  return now > then ? now - then : 0;
}

const ManagedProcess* find(const std::vector<ManagedProcess>& all, const std::string& name) {
  const auto it =
      std::find_if(all.begin(), all.end(), [&](const ManagedProcess& p) { return p.name == name; });
  return it == all.end() ? nullptr : &*it;
}

}  // namespace

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::Starting: return "starting";
    case Verdict::Running: return "running";
    case Verdict::Draining: return "draining";
    case Verdict::Degraded: return "degraded";
    case Verdict::Dead: return "dead";
    case Verdict::Stuck: return "stuck";
    case Verdict::Stopped: return "stopped";
  }
  return "unknown";
}

bool answers(Verdict verdict) {
  switch (verdict) {
    case Verdict::Running:
    case Verdict::Degraded:
    case Verdict::Draining: return true;
    case Verdict::Starting:
    case Verdict::Dead:
    case Verdict::Stuck:
    case Verdict::Stopped: return false;
  }
  return false;
}

const ProcessView* FleetView::process(std::string_view name) const {
  const auto it = std::ranges::find(processes, name, &ProcessView::name);
  return it == processes.end() ? nullptr : &*it;
}

const ShardView* FleetView::shard(std::uint32_t number) const {
  const auto it = std::ranges::find(shards, number, &ShardView::shard);
  return it == shards.end() ? nullptr : &*it;
}

Fleet::Fleet(const Config& config, const Clock& clock, const ProcessManager* manager)
    : config_(config), clock_(clock), manager_(manager), started_realtime_ns_(clock.realtime_ns()) {
  set_live(config);
  for (std::uint32_t k = 0; k < config.shards.count; ++k) {
    ingestd_[k] = {ingestd_name(k), config.ingestd_stats_path(k), nullptr, {}};
  }
  publishd_ = {"publishd", config.publishd_stats_path(), nullptr, {}};
}

std::shared_ptr<const LiveConfig> Fleet::live() const {
  const std::lock_guard lock(live_mutex_);
  return live_;
}

void Fleet::set_live(const Config& config) {
  auto next = std::make_shared<const LiveConfig>(
      LiveConfig{config.routers, config.metrics.max_routers, config.curation.session_grace_s});
  const std::lock_guard lock(live_mutex_);
  live_ = std::move(next);
}

void Fleet::refresh(Page& page) const {
  if (page.reader != nullptr && !page.reader->replaced()) return;
  auto opened = StatsReader::open(page.path);
  if (opened) {
    page.reader = std::make_unique<StatsReader>(std::move(opened).value());
    page.error.clear();
  } else {
    page.reader.reset();
    page.error = opened.error();
  }
}

void Fleet::refresh_all() {
  for (auto& [shard, page] : ingestd_) refresh(page);
  refresh(publishd_);
  // Under systemd the number of shards is the operator's choice of units; under an earlier configuration
  // there may have been more. Those that live are shown; pages that the dead left behind are not.
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(config_.paths.runtime_dir, error)) {
    const auto shard = shard_of_page(entry.path().filename().string());
    if (!shard || ingestd_.contains(*shard)) continue;
    Page page{ingestd_name(*shard), entry.path().string(), nullptr, {}};
    refresh(page);
    if (page.reader != nullptr && page.reader->writer_alive()) ingestd_[*shard] = std::move(page);
  }
}

ProcessView Fleet::judge(const Page& page, const ManagedProcess* managed) const {
  ProcessView view;
  view.name = page.name;
  const StatsReader* reader = page.reader.get();
  const bool alive = reader != nullptr && reader->writer_alive();
  if (managed != nullptr) {
    view.restarts = managed->restarts;
    view.detail = managed->detail;
    view.pid = managed->pid;
  } else if (reader != nullptr) {
    view.pid = alive ? static_cast<int>(reader->pid()) : 0;
  }

  // The page of the process that runs now, or of its predecessor?
  const bool page_is_current = reader != nullptr && (managed == nullptr || managed->pid == 0 ||
                                                     static_cast<int>(reader->pid()) == managed->pid);
  if (managed != nullptr && managed->phase == ProcessPhase::Waiting && !alive) {
    view.verdict = Verdict::Dead;
  } else if (managed != nullptr && managed->phase == ProcessPhase::Stopped && !alive) {
    view.verdict = Verdict::Stopped;
  } else if (!page_is_current) {
    view.verdict = managed != nullptr ? Verdict::Starting : Verdict::Stopped;
    if (managed == nullptr) view.detail = page.error;
  } else if (!alive) {
    view.verdict = reader->state() == shm::ProcessState::Stopped ? Verdict::Stopped : Verdict::Dead;
  } else {
    const std::uint64_t now = clock_.boottime_ns();
    const std::uint64_t beat = reader->heartbeat_boottime_ns();
    const std::uint64_t running_ns = since(clock_.realtime_ns(), reader->started_realtime_ns());
    view.verdict = verdict_of(reader->state());
    if (beat == 0 ? running_ns > kPatienceAtStartNs : since(now, beat) > kStuckAfterNs) {
      view.verdict = Verdict::Stuck;
      view.detail = beat == 0
                        ? fmt::format("not ready {} s after its start", running_ns / kSecond)
                        : fmt::format("no sign of life for {:.1f} s",
                                      static_cast<double>(since(now, beat)) / static_cast<double>(kSecond));
    }
    view.uptime_s = running_ns / kSecond;
  }
  if (page_is_current) view.version = reader->version();
  return view;
}

std::string Fleet::ring_state(std::uint32_t shard) const {
  const std::string path = config_.ring_path(shard);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return "waiting";
  const int reader = RingFile::lock_holder(path, RingSide::Reader);
  // Not to be told for a moment while a reader attaches, for longer where the file may not be read.
  if (reader < 0)
    return ::access(path.c_str(), R_OK) == 0 ? "waiting" : "unknown: " + path + " cannot be read";
  return reader > 0 ? "connected" : "disconnected: no publishd reads this ring";
}

FleetView Fleet::view() {
  const std::vector<ManagedProcess> managed =
      manager_ != nullptr ? manager_->processes() : std::vector<ManagedProcess>{};
  const std::lock_guard lock(mutex_);
  refresh_all();
  FleetView out;

  ProcessView self;
  self.name = "curated";
  self.pid = ::getpid();
  self.verdict = Verdict::Running;
  self.uptime_s = since(clock_.realtime_ns(), started_realtime_ns_) / kSecond;
  self.version = ARANCINI_VERSION;
  out.processes.push_back(std::move(self));

  // Managed processes without a page of ours (nats-server).
  for (const ManagedProcess& p : managed) {
    if (is_daemon(p.name)) continue;
    ProcessView view;
    view.name = p.name;
    view.pid = p.pid;
    view.restarts = p.restarts;
    view.detail = p.detail;
    switch (p.phase) {
      case ProcessPhase::Up:
        view.verdict = Verdict::Running;
        if (p.started_realtime_ns != 0)
          view.uptime_s = since(clock_.realtime_ns(), p.started_realtime_ns) / kSecond;
        break;
      case ProcessPhase::Waiting: view.verdict = Verdict::Dead; break;
      case ProcessPhase::Stopping: view.verdict = Verdict::Draining; break;
      case ProcessPhase::Stopped: view.verdict = Verdict::Stopped; break;
    }
    out.processes.push_back(std::move(view));
  }

  ProcessView publisher = judge(publishd_, find(managed, publishd_.name));
  const bool publisher_lives = publisher.verdict != Verdict::Dead && publisher.verdict != Verdict::Stopped &&
                               publisher.verdict != Verdict::Stuck;
  if (publishd_.reader != nullptr) {
    for (std::size_t i = 0; i < shm::kStatsValues; ++i) {
      out.publish.push_back(publishd_.reader->value(i));
    }
  }
  out.nats_state = "unknown";
  if (publisher_lives && !out.publish.empty()) {
    const auto trouble = static_cast<ErrorCode>(out.value(PublishMetric::Trouble));
    const bool connected = out.value(PublishMetric::NatsConnected) != 0;
    const auto nats_state = [&]() -> const char* {
      if (config_.sink.kind == SinkKind::Journal) return "not used";
      if (trouble == ErrorCode::NatsUnauthorized) return "not authorized";
      if (trouble == ErrorCode::StreamFull) return "stream full";
      if (connected) return "connected";
      if (trouble == ErrorCode::StreamUnusable) return "stream unusable";
      return trouble == ErrorCode::NatsTls ? "TLS failed" : "disconnected";
    };
    out.nats_state = nats_state();
    // More to the point than how its predecessor ended.
    if (publisher.verdict == Verdict::Degraded && trouble != ErrorCode::None) {
      publisher.detail = to_string(trouble);
    }
  }
  out.processes.push_back(publisher);

  for (const auto& [shard, page] : ingestd_) {
    out.processes.push_back(judge(page, find(managed, page.name)));
    ShardView view;
    view.shard = shard;
    view.ring_state = ring_state(shard);
    if (page.reader != nullptr) {
      for (std::size_t i = 0; i < shm::kStatsValues; ++i) {
        view.values.push_back(page.reader->value(i));
      }
    }
    out.shards.push_back(std::move(view));
  }
  return out;
}

std::vector<RouterView> Fleet::routers() {
  const std::lock_guard lock(mutex_);
  refresh_all();
  std::vector<RouterView> out;
  for (const auto& [shard, page] : ingestd_) {
    if (page.reader == nullptr) continue;
    for (StatsReader::Router& row : page.reader->routers()) out.push_back({shard, std::move(row)});
  }
  return out;
}

std::vector<PeerView> Fleet::peers() {
  const std::lock_guard lock(mutex_);
  refresh_all();
  std::vector<PeerView> out;
  for (const auto& [shard, page] : ingestd_) {
    if (page.reader == nullptr) continue;
    std::map<std::uint32_t, StatsReader::Router> routers;
    for (StatsReader::Router& row : page.reader->routers()) routers.emplace(row.index, std::move(row));
    for (StatsReader::Peer& row : page.reader->peers()) {
      const auto router = routers.find(row.router);
      if (router == routers.end()) continue;  // its router's row went away between the two looks
      out.push_back({shard, router->second.address, router->second.name, std::move(row)});
    }
  }
  return out;
}

std::string not_running(const FleetView& view) {
  std::vector<std::string> missing;
  for (const ProcessView& p : view.processes) {
    if (p.verdict == Verdict::Running || p.verdict == Verdict::Degraded) continue;
    missing.push_back(fmt::format("{} {}", p.name, to_string(p.verdict)));
  }
  return joined(missing);
}

}  // namespace arancini::curated
