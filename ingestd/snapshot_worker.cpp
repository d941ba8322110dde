#include "ingestd/snapshot_worker.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>
#include <vector>

#include "common/metrics/metric_list.h"
#include "common/snapshot/snapshot_reader.h"

namespace arancini::ingestd {

namespace {

constexpr std::size_t kGenerations = 2;
// Looks at the ring's head while it waits for the log.
constexpr int kDurablePollMs = 5;
constexpr int kPostRetryMs = 1000;
constexpr std::uint64_t kSayWaitingNs = 10'000'000'000;
// While the tables are being restored, or nobody was able to take the task.
constexpr std::uint64_t kSoonNs = 1'000'000'000;

bool wait_readable(int a, int b, int timeout_ms) {
  pollfd fds[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
  return ::poll(fds, 2, timeout_ms) > 0;
}

std::uint64_t to_ns(double seconds) {
  return static_cast<std::uint64_t>(seconds * 1e9);
}

}  // namespace

SnapshotWorker::SnapshotWorker(const Options& options, std::unique_ptr<snapshot::SnapshotStore> store,
                               HotTasks& tasks, const RingWriter& ring, StatsWriter& stats, Logger& log,
                               const Clock& clock)
    : options_(options),
      store_(std::move(store)),
      tasks_(tasks),
      ring_(ring),
      stats_(stats),
      log_(log),
      clock_(clock),
      task_(tasks, stats.router_capacity()),
      stop_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      interval_ns_(to_ns(options.interval_s)) {
  if (!stop_fd_) throw std::system_error(errno, std::generic_category(), "eventfd");
}

SnapshotWorker::~SnapshotWorker() {
  stop();
}

void SnapshotWorker::start() {
  // Shards of one machine take turns.
  due_ns_ = clock_.boottime_ns() + interval_ns_ * (options_.shard + 1) / std::max(options_.shard_count, 1U);
  thread_ = std::thread([this] { run(); });
}

void SnapshotWorker::set_interval(double interval_s) {
  const std::lock_guard lock(mutex_);
  interval_ns_ = to_ns(interval_s);
  due_ns_ = clock_.boottime_ns() + interval_ns_;
  changed_.notify_all();
}

void SnapshotWorker::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(stop_fd_.get(), &one, sizeof one);
  store_->interrupt();
  thread_.join();
}

bool SnapshotWorker::stopping() const {
  const std::lock_guard lock(mutex_);
  return stop_;
}

SnapshotState SnapshotWorker::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

Result<SnapshotState, std::string> SnapshotWorker::take(std::uint64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  const std::uint64_t mine = ++wanted_;
  changed_.notify_all();
  const bool in_time = changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                                         [&] { return stop_ || answered_ >= mine; });
  if (answered_ >= mine && answered_well_) return state_;
  if (stop_) return Err{std::string("ingestd stops")};
  if (!in_time) {
    return Err{state_.waiting.empty() ? std::string("it takes longer than the caller waits")
                                      : fmt::format("it waits: {}", state_.waiting)};
  }
  return Err{answer_};
}

bool SnapshotWorker::wait_for_work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (stop_) return false;
    if (wanted_ > answered_) return true;
    if (interval_ns_ == 0) {
      changed_.wait(lock);
      continue;
    }
    const std::uint64_t now = clock_.boottime_ns();
    if (now >= due_ns_) return true;
    changed_.wait_for(lock, std::chrono::nanoseconds(due_ns_ - now));
  }
}

void SnapshotWorker::run() {
  while (wait_for_work()) {
    std::uint64_t wanted = 0;
    {
      const std::lock_guard lock(mutex_);
      wanted = wanted_;
    }
    failure_.clear();
    const std::uint64_t began_ns = clock_.boottime_ns();
    const Taken taken = take_one();
    publish(taken);
    const std::lock_guard lock(mutex_);
    while (interval_ns_ > 0 && due_ns_ <= began_ns) due_ns_ += interval_ns_;
    if (taken == Taken::Restoring) due_ns_ = std::min(due_ns_, clock_.boottime_ns() + kSoonNs);
    answered_ = wanted;
    answered_well_ = taken == Taken::InForce || taken == Taken::Unchanged;
    answer_ = taken == Taken::Restoring ? "the tables are being restored" : failure_;
    changed_.notify_all();
  }
}

SnapshotWorker::Taken SnapshotWorker::fail(std::string text) {
  failure_ = std::move(text);
  return Taken::Failed;
}

void SnapshotWorker::publish(Taken taken) {
  switch (taken) {
    case Taken::InForce:
      stats_.add(IngestMetric::SnapshotsTaken);
      stats_.set(IngestMetric::SnapshotRoutes, current_.routes);
      stats_.set(IngestMetric::SnapshotBytes, current_.bytes);
      stats_.set(IngestMetric::SnapshotDurationNs, current_.duration_ns);
      stats_.set(IngestMetric::SnapshotPauseNs, current_.longest_pause_ns);
      break;
    case Taken::Unchanged: break;
    case Taken::Restoring: break;  // nothing has failed: it comes when they are
    case Taken::Failed:
      stats_.add(IngestMetric::SnapshotsFailed);
      // The same trouble again is said by the counter.
      if (failure_ != failure_said_) {
        log_.error("{}: snapshot: {}; the one before stays", number(ErrorCode::SnapshotFailed), failure_);
        failure_said_ = failure_;
      }
      break;
    case Taken::Stopped: break;
  }
  if (taken == Taken::InForce || taken == Taken::Unchanged) {
    stats_.set(IngestMetric::SnapshotTimeNs, current_.realtime_ns);
    if (!std::exchange(failure_said_, {}).empty()) log_.info("snapshots work again");
  }
  if (taken != Taken::Restoring) current_.error = failure_;
  current_.waiting.clear();
  const std::lock_guard lock(mutex_);
  state_ = current_;
}

void SnapshotWorker::say_waiting(std::string text) {
  const std::lock_guard lock(mutex_);
  state_.waiting = std::move(text);
}

SnapshotWorker::Taken SnapshotWorker::take_one() {
  auto names = store_->list();
  if (!names) return fail(names.error());
  for (const snapshot::SnapshotName& name : *names) {
    if (name.shard == options_.shard && name.shard_count == options_.shard_count)
      number_ = std::max(number_, name.number);
  }
  const snapshot::SnapshotName name{options_.shard, options_.shard_count, number_ + 1};
  const bool last_is_there =
      std::any_of(names->begin(), names->end(),
                  [this](const snapshot::SnapshotName& n) { return n.to_string() == current_.name; });
  task_.prepare(name.shard, name.shard_count, name.number, last_is_there ? last_mark_ : std::nullopt);
  if (!tasks_.post(task_)) {
    // Nearly always because it ends: then stop() comes.
    if (wait_readable(stop_fd_.get(), -1, kPostRetryMs)) return Taken::Stopped;
    return fail("the data thread has too much other work");
  }
  const Taken taken = write(name);
  if (taken == Taken::InForce) retire();
  return taken;
}

SnapshotWorker::Taken SnapshotWorker::write(const snapshot::SnapshotName& name) {
  const std::uint64_t began_ns = clock_.boottime_ns();
  std::unique_ptr<snapshot::SnapshotSink> sink;
  std::optional<snapshot::SnapshotWriter> writer;
  const auto begin = [&] {
    auto made = store_->create(name);
    if (!made) {
      failure_ = made.error();
      return false;
    }
    sink = std::move(made).value();
    writer.emplace(*sink);
    writer->begin(task_.header());
    return true;
  };

  SnapshotTask::Outcome outcome = SnapshotTask::Outcome::Running;
  bool stopped = false;
  for (;;) {
    outcome = task_.outcome();  // before the parts: then none is overlooked
    for (std::span<std::byte> blocks = task_.take(); !blocks.empty(); blocks = task_.take()) {
      if (failure_.empty() && (writer || begin())) {
        writer->blocks(blocks);
        if (writer->failed()) failure_ = writer->finish({});
      }
      task_.give_back();
    }
    if (outcome != SnapshotTask::Outcome::Running) break;
    if (!failure_.empty()) task_.abandon();
    if (!stopped && stopping()) {
      stopped = true;
      task_.cancel();
      tasks_.wake();
    }
    wait_readable(task_.wake_fd(), stopped ? -1 : stop_fd_.get(), 100);
  }
  Taken taken = Taken::InForce;
  switch (outcome) {
    case SnapshotTask::Outcome::Running:
    case SnapshotTask::Outcome::Complete: break;
    case SnapshotTask::Outcome::Unchanged: taken = Taken::Unchanged; break;
    case SnapshotTask::Outcome::Restoring: taken = Taken::Restoring; break;
    case SnapshotTask::Outcome::TooLarge:
      failure_ = fmt::format("a route has more than {} bytes of attributes", SnapshotTask::kBufferBytes);
      break;
    case SnapshotTask::Outcome::Abandoned: taken = Taken::Stopped; break;
  }
  if (taken == Taken::Unchanged) current_.realtime_ns = clock_.realtime_ns();
  if (failure_.empty() && taken == Taken::InForce && (writer || begin()))
    failure_ = writer->finish(task_.end());
  if (failure_.empty() && taken == Taken::InForce && !wait_until_durable(task_.end().ring_position))
    taken = Taken::Stopped;
  if (failure_.empty() && taken == Taken::InForce) failure_ = sink->commit();
  wait_until_done();
  if (!failure_.empty()) return Taken::Failed;
  if (taken != Taken::InForce) return taken;

  number_ = name.number;
  last_mark_ = {task_.end().ring_position, task_.begin_mark().log};
  last_header_ = task_.header();
  current_.realtime_ns = task_.header().started_realtime_ns;
  current_.name = name.to_string();
  current_.routes = task_.end().routes;
  current_.bytes = writer->bytes_written();
  current_.duration_ns = clock_.boottime_ns() - began_ns;
  current_.longest_pause_ns = task_.longest_slice_ns();
  log_.debug("snapshot {}: {} routes, {} bytes, {} ms, longest pause {} us", store_->describe(name),
             current_.routes, current_.bytes, current_.duration_ns / 1'000'000,
             current_.longest_pause_ns / 1000);
  return Taken::InForce;
}

bool SnapshotWorker::wait_until_durable(RingPosition end) {
  const std::uint64_t began_ns = clock_.boottime_ns();
  bool said = false;
  while (ring_.durable() < end) {
    if (stopping()) return false;
    if (!said && clock_.boottime_ns() - began_ns > kSayWaitingNs) {
      said = true;
      say_waiting("publishd has not made durable yet what the snapshot may say");
      log_.warn("snapshot waits: publishd has not made durable yet what it may say; see publishd's state");
    }
    wait_readable(stop_fd_.get(), -1, kDurablePollMs);
  }
  say_waiting({});
  return true;
}

void SnapshotWorker::wait_until_done() {
  // The hot thread gives references back; its slices end by themselves, or with HotTasks::finish().
  while (!tasks_.done(task_)) {
    if (stopping()) task_.cancel();
    ::poll(nullptr, 0, 1);
  }
}

std::optional<snapshot::Header> SnapshotWorker::header_of(const snapshot::SnapshotName& name) {
  auto source = store_->open(name);
  if (!source) return std::nullopt;
  const auto header = snapshot::read_header(**source);
  if (header) return *header;
  if (header.error().kind == snapshot::ReadError::Kind::Corrupt) {
    const std::string error = store_->set_aside(name);
    log_.error("{}: snapshot {}: {}; {}", number(ErrorCode::SnapshotCorrupt), store_->describe(name),
               header.error().text, error.empty() ? "set aside" : error);
  }
  return std::nullopt;
}

void SnapshotWorker::retire() {
  auto names = store_->list();
  if (!names) return;
  std::sort(names->begin(), names->end());
  const auto is_own = [this](const snapshot::SnapshotName& n) {
    return n.shard == options_.shard && n.shard_count == options_.shard_count;
  };
  auto left = static_cast<std::size_t>(std::count_if(names->begin(), names->end(), is_own));
  for (const snapshot::SnapshotName& name : *names) {
    if (!is_own(name) || left <= kGenerations) continue;
    --left;
    if (const std::string error = store_->remove(name); !error.empty()) log_.warn("snapshot: {}", error);
  }
  retire_other_layouts(*names);
}

void SnapshotWorker::retire_other_layouts(const std::vector<snapshot::SnapshotName>& names) {
  const auto is_other = [this](const snapshot::SnapshotName& n) {
    return n.shard_count != options_.shard_count;
  };
  if (std::none_of(names.begin(), names.end(), is_other)) return;
  // The newest of each shard of today; only all of them together cover every router.
  std::vector<snapshot::Header> today;
  for (std::uint32_t shard = 0; shard < options_.shard_count; ++shard) {
    std::optional<snapshot::Header> newest;
    if (shard == options_.shard) newest = last_header_;
    for (const snapshot::SnapshotName& name : names) {
      if (name.shard != shard || name.shard_count != options_.shard_count || shard == options_.shard)
        continue;
      if (const auto header = header_of(name); header && (!newest || newest->number < header->number))
        newest = header;
    }
    if (!newest) return;
    today.push_back(*newest);
  }
  for (const snapshot::SnapshotName& name : names) {
    if (!is_other(name)) continue;
    const auto header = header_of(name);
    if (!header) continue;
    const bool covered = std::all_of(today.begin(), today.end(), [&](const snapshot::Header& t) {
      if (t.log_identity == header->log_identity) return t.log_sequence >= header->log_sequence;
      return t.started_realtime_ns >= header->started_realtime_ns;
    });
    if (!covered) continue;
    if (const std::string error = store_->remove(name); !error.empty()) {
      log_.warn("snapshot: {}", error);
    } else {
      log_.info("snapshot {} of {} shards is covered by newer ones: removed", store_->describe(name),
                name.shard_count);
    }
  }
}

}  // namespace arancini::ingestd
