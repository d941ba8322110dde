#include "ingestd/restorer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "ingestd/router_event.h"
#include "shm-layout/record.h"

namespace arancini::ingestd {

namespace {

constexpr std::uint64_t kBatchWaitNs = 200'000;
constexpr std::uint64_t kFirstBackoffNs = 100'000'000;
constexpr std::uint64_t kPatienceNs = 1'500'000'000;  // before the log says that a restore waits
constexpr std::uint64_t kMaxBackoffNs = 2'000'000'000;

}  // namespace

Restorer::Restorer(const Options& options, Shard& shard, const RingWriter& ring,
                   snapshot::SnapshotStore* store, LogReader& log_reader, const Clock& clock)
    : options_(options),
      shard_(shard),
      ring_(ring),
      store_(store),
      reader_(log_reader),
      clock_(clock),
      ring_end_(ring.tail()),
      log_(options.log_name, options.log_level),
      feed_(*this, options.shard, options.shard_count),
      started_ns_(clock.boottime_ns()) {
  state_.text = "asks publishd for the log";
  shard_.set_restoring(true);
  task_.set_adoption(options.adoption);
  (void)shard_.tasks().post(task_);
  thread_ = std::thread([this] { run(); });
}

Restorer::~Restorer() {
  stop_.store(true, std::memory_order_release);
  task_.cancel();
  reader_.cancel();
  if (store_ != nullptr) store_->interrupt();
  {
    const std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  thread_.join();
}

RestoreState Restorer::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

void Restorer::say(bool waiting, std::string text) {
  {
    const std::lock_guard lock(mutex_);
    state_.waiting = waiting;
    state_.text = text;
  }
  task_.set_waiting(waiting);
  if (!waiting) {
    waits_since_ns_.reset();
    said_.clear();
    return;
  }
  // Everything starts at once: that publishd is a moment behind is worth no warning.
  const std::uint64_t now = clock_.boottime_ns();
  if (!waits_since_ns_) waits_since_ns_ = now;
  if (now - *waits_since_ns_ < kPatienceNs || said_ == text) return;
  log_.warn("restore waits: {} ({}); routers of the shard wait as well", text,
            number(ErrorCode::RestoreWaiting));
  said_ = std::move(text);
}

bool Restorer::pause(std::uint64_t ns) {
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, std::chrono::nanoseconds(ns),
                 [this] { return stop_.load(std::memory_order_acquire); });
  return !stopping();
}

void Restorer::run() noexcept {
  std::uint64_t backoff = kFirstBackoffNs;
  try {
    while (!stopping() && !attempt()) {
      if (std::exchange(replan_, false)) continue;
      if (!pause(backoff)) return;
      backoff = std::min(backoff * 2, kMaxBackoffNs);
    }
  } catch (const std::exception& e) {
    // Nothing is told from tables that are not restored.
    say(true, std::string("no way to restore: ") + e.what());
  }
}

bool Restorer::attempt() {
  if (!loaded_ && !read_to_ && (!find_snapshots() || !plan())) return false;
  if (!read_log()) return false;
  if (stopping()) return true;
  if (!read_ring(done_->ring_position)) return true;
  complete();
  return true;
}

bool Restorer::do_without(std::string trouble) {
  const std::uint64_t now = clock_.boottime_ns();
  if (!trouble_since_ns_) trouble_since_ns_ = now;
  if (now - *trouble_since_ns_ < options_.snapshot_patience_ns) {
    say(true, std::move(trouble));
    return false;
  }
  left_out_ = std::move(trouble);
  return true;
}

template <class Read>
Restorer::Look Restorer::look_at(const snapshot::SnapshotName& name, Read&& read) {
  using Kind = snapshot::ReadError::Kind;
  auto source = store_->open(name);
  const std::optional<snapshot::ReadError> error =
      source ? read(*source.value()) : snapshot::ReadError{Kind::Unreadable, 0, source.error()};
  if (!error) return Look::Good;
  if (error->kind == Kind::Corrupt || error->kind == Kind::OtherVersion) {
    refuse(name, *error);
    return Look::Useless;
  }
  return do_without(fmt::format("snapshot {}: {}", store_->describe(name), error->text)) ? Look::Useless
                                                                                         : Look::Wait;
}

bool Restorer::find_snapshots() {
  known_.clear();
  left_out_.clear();
  listed_ = true;
  if (store_ == nullptr) return true;
  auto names = store_->list();
  listed_ = names.ok();
  if (!names) return do_without("snapshots cannot be listed: " + names.error());
  for (const snapshot::SnapshotName& name : names.value()) {
    if (refused_.contains(name)) continue;
    if (stopping()) return false;
    const Look look = look_at(name, [&](snapshot::ByteSource& source) -> std::optional<snapshot::ReadError> {
      const auto header = snapshot::read_header(source);
      if (!header) return header.error();
      known_.push_back({name, header.value()});
      return std::nullopt;
    });
    if (look == Look::Wait) return false;
  }
  return true;
}

bool Restorer::plan() {
  const auto whole = [](snapshot::ByteSource& source) -> std::optional<snapshot::ReadError> {
    const auto checked = snapshot::check_snapshot(source);
    if (!checked) return checked.error();
    return std::nullopt;
  };
  for (;;) {
    plan_ = plan_restore({.shard = options_.shard,
                          .shard_count = options_.shard_count,
                          .writer = ring_.writer_id(),
                          .in_log = ring_.in_log(),
                          .log_identity = ring_.log_mark().identity,
                          .layout_began_ns = options_.layout_began_ns},
                         known_, identity_ != 0 ? identity_ : likely_log(ring_.log_mark().identity, known_));
    std::optional<snapshot::SnapshotName> useless;
    for (const KnownSnapshot& s : plan_.snapshots) {
      if (stopping()) return false;
      const Look look = look_at(s.name, whole);
      if (look == Look::Wait) return false;
      if (look == Look::Good) continue;
      useless = s.name;
      break;
    }
    if (!useless) break;
    std::erase_if(known_, [&](const KnownSnapshot& k) { return k.name == *useless; });
  }
  if (left_out_.empty()) trouble_since_ns_.reset();
  return true;
}

// Those that are of another log, or ahead of it.
void Restorer::refuse_others(std::uint64_t last_sequence) {
  for (const KnownSnapshot& k : known_) {
    const bool other = k.header.log_identity != identity_;
    if (!other && k.header.log_sequence <= last_sequence) continue;
    log_.warn("snapshot {} is not used ({}): {}; it is kept", store_->describe(k.name),
              number(ErrorCode::SnapshotRefused),
              other ? "it is of another log than the present one"
                    : fmt::format("it is ahead of the log, which ends at {}", last_sequence));
    refused_.insert(k.name);
  }
}

// Corrupt: set aside. Another version's may be what another version needs: it stays.
void Restorer::refuse(const snapshot::SnapshotName& name, const snapshot::ReadError& why) {
  refused_.insert(name);
  if (why.kind == snapshot::ReadError::Kind::OtherVersion) {
    log_.warn("snapshot {} is not used ({}): {}; it is kept", store_->describe(name),
              number(ErrorCode::SnapshotRefused), why.text);
    return;
  }
  const std::string failed = store_->set_aside(name);
  log_.error("snapshot {} is corrupt ({}): {}; it is kept as .corrupt and not used{}{}",
             store_->describe(name), number(ErrorCode::SnapshotCorrupt), why.text,
             failed.empty() ? "" : "; it could not be renamed: ", failed);
}

bool Restorer::load_snapshots(bool own_only) {
  if (loaded_) return true;
  loaded_ = true;
  loaded_text_.clear();
  const auto is_own = [this](const KnownSnapshot& s) {
    return s.header.shard == options_.shard && s.header.shard_count == options_.shard_count;
  };
  // A life with this number of shards was here before, and has said which routers moved.
  const bool settled = std::any_of(plan_.snapshots.begin(), plan_.snapshots.end(), is_own);
  for (std::size_t i = 0; i < plan_.snapshots.size(); ++i) {
    const KnownSnapshot& s = plan_.snapshots[i];
    if (own_only && !is_own(s)) continue;
    auto source = store_->open(s.name);
    std::string error;
    if (source) {
      const auto read = feed_.read(
          *source.value(), [&](const IpAddress& router) { return own_only || plan_.base_of(router) == i; },
          [&](const snapshot::RouterEntry& router, bool taken) {
            if (settled) return;
            if (taken) add_moved(schema::EventKind::Acquired, router, s.header);
            if (!taken && s.header.shard == options_.shard)
              add_moved(schema::EventKind::Released, router, s.header);
          });
      given_ = true;
      if (read.stopped) return false;
      if (!read.error) {
        loaded_text_ += (loaded_text_.empty() ? "" : ", ") + s.name.to_string();
        continue;
      }
      error = read.error->text;
    } else {
      error = source.error();
    }
    // It was there and whole a moment ago: removed because newer ones came, or the disk fails.
    log_.warn("snapshot {} cannot be read any more: {}; planning again", store_->describe(s.name), error);
    replan_ = true;
    return false;
  }
  return true;
}

void Restorer::add_moved(schema::EventKind kind, const snapshot::RouterEntry& router,
                         const snapshot::Header& from) {
  auto event = about_router<schema::EventFields>(router.address, router.name, kind);
  event.text = fmt::format("shard {} of {} had it", from.shard, from.shard_count);
  events_.push_back(std::move(event));
}

bool Restorer::read_log() {
  LogRequest request{.shard = options_.shard,
                     .shard_count = options_.shard_count,
                     .writer = ring_.writer_id(),
                     .log_sequence = plan_.log_sequence,
                     .log_identity = plan_.log_identity,
                     .ring_position = plan_.ring_position};
  if (read_to_) {
    request.log_sequence = *read_to_;
    request.log_identity = identity_;
    request.ring_position = RingPosition{};
  }
  done_.reset();
  const std::string error = reader_.read(request, *this);
  if (done_) return true;
  if (replan_ || needed_) {
    // What was given may be of what is not used any more.
    if (given_ && !feed_.clear()) return false;
    loaded_ = false;
    read_to_.reset();
    events_.clear();
    if (std::exchange(needed_, false))
      say(true, left_out_ + "; it is needed, the log does not have all that consumers were told");
    return false;
  }
  if (!error.empty() && !stopping()) say(true, "publishd does not serve the log: " + error);
  return stopping();
}

bool Restorer::begin(const LogBegin& begin) {
  if (!begin.local) {
    const auto usable = [&](const KnownSnapshot& k) {
      return k.header.log_identity == begin.log_identity && k.header.log_sequence <= begin.last_sequence;
    };
    const bool other = begin.other_log || identity_ != begin.log_identity;
    bool again = false;
    if (read_to_) {
      again = other;  // what was read is not what consumers have now
    } else if (!loaded_) {
      again = !plan_.snapshots.empty() && (begin.other_log || !std::ranges::all_of(plan_.snapshots, usable));
      // The newest snapshots may be of another log, and older ones of this.
      again = again || (plan_.snapshots.empty() && other && std::ranges::any_of(known_, usable));
    }
    identity_ = begin.log_identity;
    if (again) {
      refuse_others(begin.last_sequence);
      replan_ = true;
      return false;
    }
    if (!listed_ && !loaded_ && store_->list()) {  // it took long until publishd had the log
      replan_ = true;
      return false;
    }
    // The local way needs the own snapshot alone.
    loaded_ = loaded_ && !local_;
    if (begin.first_sequence > begin.from_sequence && begin.last_sequence >= begin.from_sequence) {
      if (!left_out_.empty()) {
        needed_ = true;
        return false;
      }
      incomplete_ = true;
      missing_from_ = begin.from_sequence;
      missing_to_ = begin.first_sequence - 1;
      incomplete_text_ =
          fmt::format("messages {} to {} are not in the log any more", missing_from_, missing_to_);
    }
  }
  if (!left_out_.empty() && !loaded_) {
    log_.error("{} ({}); the log has everything: it is read instead", left_out_,
               number(ErrorCode::SnapshotFailed));
  }
  say(false, begin.local
                 ? "reads what follows the snapshot in publishd's journal"
                 : fmt::format("reads the log from {} to {}", begin.from_sequence, begin.last_sequence));
  local_ = begin.local;
  return load_snapshots(begin.local);
}

template <class Where>
bool Restorer::take(schema::PayloadFormat format, std::span<const std::byte> payload, Where&& where) {
  std::optional<std::string> problem;
  const bool going = feed_.payload(format, payload, problem);
  if (problem) note_problem(where(), *problem);
  return going;
}

bool Restorer::message(std::uint64_t log_sequence, std::string_view format,
                       std::span<const std::byte> payload) {
  given_ = true;
  ++messages_;
  const auto where = [&] { return fmt::format("message {} of the log", log_sequence); };
  if (const auto known = schema::payload_format(format); !known) {
    note_problem(where(), fmt::format("format \"{}\" is not known", format));
  } else if (!take(*known, payload, where)) {
    return false;
  }
  read_to_ = log_sequence;
  return !stopping();
}

bool Restorer::record(std::span<const std::byte> header, std::span<const std::byte> payload) {
  shm::RecordHeader h{};
  if (header.size() != sizeof h) {
    note_problem("a record of the journal", "its header has another size");
    return true;
  }
  std::memcpy(&h, header.data(), sizeof h);
  if (h.kind != static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch)) return true;
  given_ = true;
  ++records_;
  return take(schema::PayloadFormat::BatchV2, payload,
              [&] { return fmt::format("the journal's record with sequence {}", h.first_sequence); }) &&
         !stopping();
}

bool Restorer::waiting(std::string_view text) {
  say(true, std::string(text));
  return !stopping();
}

bool Restorer::done(const LogDone& done) {
  done_ = done;
  return true;
}

void Restorer::note_problem(std::string_view where, const std::string& what) {
  incomplete_ = true;
  if (incomplete_text_.empty()) incomplete_text_ = fmt::format("{}: {}", where, what);
  if (problems_++ < 10)
    log_.error("{} cannot be understood ({}): {}", where, number(ErrorCode::LogIncomplete), what);
}

bool Restorer::read_ring(RingPosition from) {
  if (raw(from) > raw(ring_end_)) {
    note_problem("publishd", fmt::format("it names ring position {}, behind the ring's end {}", raw(from),
                                         raw(ring_end_)));
    return !stopping();
  }
  bool going = true;
  // Nothing is appended while the shard is restoring.
  const bool valid = ring_.scan(
      from, [&](const shm::RecordHeader& header, std::span<const std::byte> payload, RingPosition at) {
        if (header.kind != static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch)) return true;
        ++records_;
        going = take(schema::PayloadFormat::BatchV2, payload,
                     [&] { return fmt::format("the ring's record at {}", raw(at)); });
        return going;
      });
  if (going && !valid) note_problem("the own ring", fmt::format("no valid records from {} on", raw(from)));
  return going && feed_.flush();
}

void Restorer::complete() {
  std::vector<schema::EventFields> events = std::move(events_);
  if (incomplete_) {
    schema::EventFields event;
    event.kind = schema::EventKind::RetentionGap;
    event.scope = schema::EventScope::Collector;
    event.error_code = number(ErrorCode::LogIncomplete);
    event.text = incomplete_text_;
    if (missing_to_ != 0)
      event.details = {{"first_missing", std::to_string(missing_from_)},
                       {"last_missing", std::to_string(missing_to_)}};
    events.push_back(std::move(event));
  }
  task_.end(std::move(events), !incomplete_);
  shard_.tasks().wake();
  while (!task_.finished()) {
    if (task_.no_memory()) say(true, "no memory for the routes that were told");
    if (!pause(1'000'000)) return;
  }
  const double ms = static_cast<double>(clock_.boottime_ns() - started_ns_) * 1e-6;
  const std::string text =
      fmt::format("restored {} routes of {} routers in {:.0f} ms: {}, {} messages of the log, {} records",
                  task_.routes(), task_.routers(), ms,
                  loaded_text_.empty() ? "no snapshot" : "snapshot " + loaded_text_, messages_, records_);
  while (!shard_.tasks().done(task_)) {
    if (!pause(1'000'000)) return;
  }
  log_.info("{}", text);
  if (incomplete_) {
    log_.error(
        "what was restored is not all that consumers were told ({}): {}; when the routers have told their "
        "tables again, these are dumped: consumers that want to be sure start there",
        number(ErrorCode::LogIncomplete), incomplete_text_);
  }
  if (task_.unplaced() > 0) {
    log_.error("{} routes that consumers were told are not restored: no rows for their peers",
               task_.unplaced());
  }
  const std::lock_guard lock(mutex_);
  state_ = {.restoring = false, .waiting = false, .incomplete = incomplete_, .text = text};
}

RestoreBatch* Restorer::batch() {
  for (;;) {
    if (stopping()) return nullptr;
    if (RestoreBatch* free = task_.free_batch()) return free;
    if (task_.no_memory()) say(true, "no memory for the routes that were told");
    if (!pause(kBatchWaitNs)) return nullptr;
  }
}

void Restorer::give() {
  task_.give();
  shard_.tasks().wake();
}

}  // namespace arancini::ingestd
