#include "ingestd/event_loop.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <map>
#include <utility>

namespace arancini::ingestd {

namespace {

static_assert(Framer::kAhead <= Shard::kLookAhead);

// What the limiter held back since the last line that got through.
std::string left_out(std::uint64_t lines) {
  return lines == 0 ? std::string() : fmt::format("; {} such lines left out", lines);
}

}  // namespace

EventLoop::EventLoop(const Options& options, SessionSink& sink, StatsWriter& stats, Logger& log,
                     const Clock& clock)
    : options_(options), sink_(sink), stats_(stats), log_(log), clock_(clock), now_ns_(clock.boottime_ns()) {}

EventLoop::~EventLoop() = default;

bool EventLoop::start(std::string& note) {
  IoOptions io;
  io.kind = options_.io;
  io.max_connections = options_.max_sessions;
  io.buffer_bytes = options_.buffer_bytes;
  io.buffer_count = options_.buffer_count;
  backend_ = make_io_backend(io, *this, note);
  if (backend_ == nullptr) return false;
  wake_fd_ = sink_.wake_fd();
  if (wake_fd_ >= 0 && !backend_->watch(wake_fd_)) {
    note = "cannot watch the wake-up descriptor";
    return false;
  }
  return true;
}

std::string EventLoop::start_handover(const Config& config, int listener_fd) {
  Handover::Options options;
  options.shard = options_.shard;
  auto handover = Handover::open(config, options, listener_fd, *this, clock_);
  if (!handover) return handover.error();
  handover_ = std::move(handover).value();
  if (!backend_->watch(handover_->fd())) return "cannot watch the handover socket";
  return {};
}

void EventLoop::add_listener(int fd) {
  listeners_.push_back(fd);
  if (!backend_->add_listener(fd)) log_.error("cannot watch listener {}: {}", fd, std::strerror(errno));
}

void EventLoop::watch_signals(int fd) {
  signal_fd_ = fd;
  if (!backend_->watch(fd)) log_.error("cannot watch signals: {}", std::strerror(errno));
}

// --- sessions come

void EventLoop::on_accept(Fd fd) noexcept {
  stats_.add(IngestMetric::SessionsAccepted);
  Remote remote;
  if (!remote_of(fd.get(), remote)) {  // reset before we looked at it
    stats_.add(IngestMetric::SessionsClosed);
    return;
  }
  const ShardId owner = owner_of(remote.address, options_.shard_count);
  if (raw(owner) != options_.shard && handover_) {
    handover_->pass(owner, std::move(fd), remote.address);
  } else {
    adopt(std::move(fd));
  }
}

void EventLoop::on_session_received(Fd session) noexcept {
  adopt(std::move(session));
}

void EventLoop::adopt(Fd fd) {
  if (stopping_) return;  // it connects again, to our successor
  Remote remote;
  if (!remote_of(fd.get(), remote)) {
    stats_.add(IngestMetric::SessionsClosed);
    return;
  }
  std::uint64_t suppressed = 0;
  if (sessions_.size() >= options_.max_sessions) {
    stats_.add(IngestMetric::SessionsRefused);
    if (error_lines_.allow(now_ns_, suppressed)) {
      log_.warn("router {} port {} refused: {} sessions are open, bmp.max_sessions ({}){}",
                remote.address.to_string(), remote.port, sessions_.size(), number(ErrorCode::SessionLimit),
                left_out(suppressed));
    }
    return;
  }
  prepare_session_socket(fd.get());
  Session* session = add_session(std::move(fd), remote);
  if (session == nullptr) {
    stats_.add(IngestMetric::SessionsRefused);
    return;
  }
  session->id = sink_.open_session(remote.address, remote.port);
  if (draining_) hold(*session);
}

EventLoop::Session* EventLoop::add_session(Fd socket, const Remote& remote) {
  const ConnectionId connection = backend_->add_connection(std::move(socket));
  if (connection == kNoConnection) return nullptr;
  auto session = std::make_unique<Session>(options_.max_message_bytes, remote);
  session->connection = connection;
  session->index = sessions_.size();
  if (by_connection_.size() <= raw(connection)) by_connection_.resize(raw(connection) + std::size_t{1});
  by_connection_[raw(connection)] = session.get();
  sessions_.push_back(std::move(session));
  return sessions_.back().get();
}

void EventLoop::inherit(RestartAdoption& adoption, std::vector<Fd> sockets) {
  inherited_.emplace(Inherited{adoption, std::move(sockets)});
}

void EventLoop::take_inherited() {
  if (!inherited_->adoption.decided) return;
  const RestartAdoption adoption = std::move(inherited_->adoption);  // may be large
  std::vector<Fd> sockets = std::move(inherited_->sockets);
  inherited_.reset();
  std::uint64_t kept = 0;
  std::uint64_t closed = adoption.state.sessions_closed;
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    const RestartSession& was = adoption.state.sessions[i];
    const RestartAdoption::Taken& taken = adoption.sessions[i];
    std::string_view why = taken.why;
    Session* session = nullptr;
    if (taken.id) {
      if (sessions_.size() < options_.max_sessions)
        session = add_session(std::move(sockets[i]), {was.source, was.port});
      if (session == nullptr) {
        why = "too many sessions are open, bmp.max_sessions";
        sink_.session_error(*taken.id, ErrorCode::SessionNotKept, why);
        sink_.close_session(*taken.id);
      }
    }
    if (session == nullptr) {
      ++closed;
      say_not_kept({was.source, was.port}, why);
      continue;
    }
    ++kept;
    session->id = *taken.id;
    if (draining_) hold(*session);
    session->framer.begin_at(was.stream_offset);
    after_feed(*session, session->framer.feed(was.pending, deliver_to(*session)));
  }
  const std::uint64_t pause = now_ns_ - std::min(now_ns_, adoption.state.last_read_ns);
  stats_.set(IngestMetric::RestartSessionsKept, kept);
  stats_.set(IngestMetric::RestartSessionsClosed, closed);
  stats_.set(IngestMetric::RestartPauseNs, pause);
  log_.info("restart: {} sessions go on, {} could not be kept; they were not read for {:.0f} ms", kept,
            closed, static_cast<double>(pause) * 1e-6);
}

void EventLoop::say_not_kept(const Remote& remote, std::string_view why) {
  std::uint64_t suppressed = 0;
  if (!error_lines_.allow(now_ns_, suppressed)) return;
  log_.warn("router {} port {}: {}: {} ({}); it will connect anew{}", remote.address.to_string(), remote.port,
            to_string(ErrorCode::SessionNotKept), why, number(ErrorCode::SessionNotKept),
            left_out(suppressed));
}

void EventLoop::on_accept_error(int error) noexcept {
  stats_.add(IngestMetric::AcceptErrors);
  std::uint64_t suppressed = 0;
  if (error_lines_.allow(now_ns_, suppressed)) {
    log_.error("a connection could not be accepted: {}{}", std::strerror(error), left_out(suppressed));
  }
}

void EventLoop::on_session_passed(const IpAddress& source, ShardId owner) noexcept {
  stats_.add(IngestMetric::SessionsHandedOver);
  log_.debug("router {} passed to shard {}", source.to_string(), raw(owner));
}

void EventLoop::on_handover_failed(const IpAddress& source, ShardId owner, const std::string& why) noexcept {
  stats_.add(IngestMetric::HandoversFailed);
  std::uint64_t suppressed = 0;
  if (handover_lines_.allow(now_ns_, suppressed)) {
    log_.warn("router {}: {}: shard {} did not take it: {} ({}); is ingestd@{} running?{}",
              source.to_string(), to_string(ErrorCode::HandoverFailed), raw(owner), why,
              number(ErrorCode::HandoverFailed), raw(owner), left_out(suppressed));
  }
}

// --- sessions speak

void EventLoop::on_data(ConnectionId id, std::span<const std::byte> bytes) noexcept {
  stats_.add(IngestMetric::BytesReceived, bytes.size());
  if (data_since_ns_ == 0) data_since_ns_ = clock_.boottime_ns();
  Session& session = session_of(id);
  after_feed(session, session.framer.feed(bytes, deliver_to(session), show_to(session)));
}

void EventLoop::after_feed(Session& session, Framer::Status status) {
  switch (status) {
    case Framer::Status::NeedMore: break;
    case Framer::Status::Blocked: throttle(session); break;
    case Framer::Status::Bad: finish(session); break;
  }
}

void EventLoop::throttle(Session& session) {
  if (session.throttled) return;
  session.throttled = true;
  throttled_.push_back(&session);
  backend_->pause(session.connection);
  sink_.set_throttled(session.id, true);
}

// `session` stays in throttled_: who calls takes it out.
void EventLoop::unthrottle(Session& session) {
  session.throttled = false;
  if (session.held) return;
  sink_.set_throttled(session.id, false);
  if (session.connection != kNoConnection && !stopping_) backend_->resume(session.connection);
}

void EventLoop::hold(Session& session) {
  session.held = true;
  if (session.throttled) return;
  if (session.connection != kNoConnection) backend_->pause(session.connection);
  sink_.set_throttled(session.id, true);
}

void EventLoop::release(Session& session) {
  session.held = false;
  if (!session.throttled) unthrottle(session);
}

void EventLoop::begin_or_end_drain() {
  if (drain_wanted_ == draining_) return;
  draining_ = drain_wanted_;
  log_.info("{}",
            draining_ ? "draining: nothing is accepted or read from routers" : "drain undone: reading again");
  stats_.set_state(draining_ ? shm::ProcessState::Draining : shm::ProcessState::Running);
  for (const int fd : listeners_) {
    if (draining_) {
      backend_->remove_listener(fd);
    } else if (!backend_->add_listener(fd)) {
      log_.error("cannot watch listener {}: {}", fd, std::strerror(errno));
    }
  }
  for (const auto& session : sessions_) draining_ ? hold(*session) : release(*session);
}

void EventLoop::retry_throttled() {
  if (throttled_.empty()) return;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < throttled_.size(); ++i) {
    Session& session = *throttled_[i];
    const Framer::Status status = session.framer.retry(deliver_to(session));
    switch (status) {
      case Framer::Status::Blocked: throttled_[kept++] = &session; break;
      case Framer::Status::NeedMore:
        unthrottle(session);
        if (session.connection == kNoConnection && !session.socket) finish(session);
        break;
      case Framer::Status::Bad:
        unthrottle(session);
        finish(session);
        break;
    }
  }
  throttled_.resize(kept);
}

// --- sessions go

void EventLoop::on_closed(ConnectionId id, int error) noexcept {
  Session& session = session_of(id);
  by_connection_[raw(id)] = nullptr;
  session.connection = kNoConnection;
  session.end_error = error;
  if (!session.throttled) finish(session);
}

void EventLoop::finish(Session& session) {
  const ErrorCode framing = session.framer.error();
  const bool truncated = framing == ErrorCode::None && session.framer.pending_bytes() > 0 && !stopping_;
  const std::string router = session.remote.address.to_string();
  std::uint64_t suppressed = 0;
  if (framing != ErrorCode::None || truncated) {
    stats_.add(IngestMetric::MessagesMalformed);  // the only one here: the shard never sees such a message
    const ErrorCode code = truncated ? ErrorCode::BmpTruncated : framing;
    char text[shm::kStatsTextBytes];
    const auto end = fmt::format_to_n(text, sizeof text, "{} at byte {} of the session from port {}",
                                      to_string(code), session.framer.offset(), session.remote.port);
    sink_.session_error(session.id, code, {text, std::min(end.size, sizeof text)});
    if (error_lines_.allow(now_ns_, suppressed)) {
      log_.warn("router {} port {}: {} at byte {} of its stream ({}); session closed{}", router,
                session.remote.port, to_string(code), session.framer.offset(), number(code),
                left_out(suppressed));
    }
  } else if (session.end_error != 0) {
    const char* why = std::strerror(session.end_error);
    sink_.session_error(session.id, ErrorCode::SessionReset, why);
    if (error_lines_.allow(now_ns_, suppressed)) {
      log_.warn("router {} port {}: {} after {} bytes ({}); session closed{}", router, session.remote.port,
                why, session.framer.offset(), number(ErrorCode::SessionReset), left_out(suppressed));
    }
  }
  remove(session);
}

void EventLoop::remove(Session& session) {
  if (session.connection != kNoConnection) {
    by_connection_[raw(session.connection)] = nullptr;
    backend_->close(session.connection);
  }
  sink_.close_session(session.id);
  const std::size_t index = session.index;
  sessions_[index] = std::move(sessions_.back());  // `session` is gone
  if (index + 1 < sessions_.size()) sessions_[index]->index = index;
  sessions_.pop_back();
}

// Refused, or only a new session can make its tables whole. The sink has said why.
void EventLoop::close_unwanted() {
  while (const auto id = sink_.take_session_to_close()) {
    const auto it =
        std::find_if(sessions_.begin(), sessions_.end(), [&](const auto& s) { return s->id == *id; });
    if (it == sessions_.end()) continue;
    Session& session = **it;
    log_.debug("router {} port {}: session closed", session.remote.address.to_string(), session.remote.port);
    std::erase(throttled_, &session);
    remove(session);
  }
}

// --- the loop

void EventLoop::on_readable(int fd) noexcept {
  if (handover_ && fd == handover_->fd()) {
    handover_->on_readable();
    return;
  }
  if (fd == wake_fd_) {
    sink_.clear_wake();
    return;
  }
  if (fd != signal_fd_) return;
  signalfd_siginfo info{};
  while (::read(fd, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const auto signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGTERM || signal == SIGINT) stop_requested_ = true;
  }
}

void EventLoop::run_once() {
  backend_->run_once(now_ns_ < spin_until_ns_ ? 0 : wait_ns());
  now_ns_ = clock_.boottime_ns();
  retry_throttled();
  work_ = sink_.do_work();
  if (inherited_) take_inherited();
  begin_or_end_drain();
  close_unwanted();
  sink_.publish();
  if (const std::uint64_t since = std::exchange(data_since_ns_, 0); since != 0) {
    const std::uint64_t done_ns = clock_.boottime_ns();
    stats_.observe(IngestHistogram::ReceiveToRing, done_ns - since);
    if (options_.spin_ns != 0) spin_until_ns_ = done_ns + options_.spin_ns;
  }
  if (handover_) handover_->do_work();
  stats_.add(IngestMetric::LoopIterations);
  if (now_ns_ >= next_heartbeat_ns_) housekeeping(now_ns_);
}

std::uint64_t EventLoop::wait_ns() const {
  if (work_.more) return 0;
  const std::uint64_t now = clock_.boottime_ns();
  std::uint64_t until = next_heartbeat_ns_;
  if (work_.next_deadline_ns != 0) until = std::min(until, work_.next_deadline_ns);
  if (handover_) {
    if (const std::uint64_t next = handover_->next_deadline_ns(); next != 0) until = std::min(until, next);
  }
  const std::uint64_t wait = until > now ? until - now : 0;
  return throttled_.empty() ? wait : std::min(wait, kThrottleRetryNs);
}

void EventLoop::housekeeping(std::uint64_t now_ns) {
  next_heartbeat_ns_ = now_ns + kHeartbeatNs;
  sink_.heartbeat(now_ns);
  stats_.set(IngestMetric::IoSyscalls, backend_->syscalls());
  // Memory of former bursts goes back bit by bit.
  for (std::size_t i = 0; i < std::min<std::size_t>(sessions_.size(), 64); ++i) {
    trim_next_ = trim_next_ + 1 < sessions_.size() ? trim_next_ + 1 : 0;
    sessions_[trim_next_]->framer.trim();
  }
}

void EventLoop::begin_stop() {
  stopping_ = true;
  for (const int fd : listeners_) backend_->remove_listener(fd);
}

void EventLoop::stop_reading() {
  stop_by_ns_ = clock_.boottime_ns() + kDrainNs;
  // What a router sends from now on stays in its socket; it will send everything again in its next session.
  for (const auto& session : sessions_) {
    if (session->connection != kNoConnection && !session->throttled) backend_->pause(session->connection);
  }
  // Late data is what the backend had received before it was told to pause.
  int quiet_rounds = 0;
  while ((quiet_rounds < 2 || !throttled_.empty()) && clock_.boottime_ns() < stop_by_ns_) {
    const std::uint64_t received = stats_.get(IngestMetric::BytesReceived);
    backend_->run_once(throttled_.empty() ? 0 : kThrottleRetryNs);
    quiet_rounds = stats_.get(IngestMetric::BytesReceived) == received ? quiet_rounds + 1 : 0;
    now_ns_ = clock_.boottime_ns();
    retry_throttled();
    sink_.publish();
    if (now_ns_ >= next_heartbeat_ns_) housekeeping(now_ns_);
  }
}

void EventLoop::take_out_sockets() {
  for (std::size_t i = 0; i < sessions_.size();) {
    Session& session = *sessions_[i];
    const ConnectionId connection = session.connection;
    if (connection == kNoConnection) {
      ++i;
      continue;
    }
    Fd socket = backend_->detach(connection);
    if (!socket) continue;  // it ended with what was received: `session` may be gone
    by_connection_[raw(connection)] = nullptr;
    session.connection = kNoConnection;
    session.socket = std::move(socket);
    ++i;
  }
}

// Sweeps end, and the last messages of routers that are gone find room, or the time is over. What else waits
// for room goes along as it is.
void EventLoop::come_to_rest() {
  const std::uint64_t until = clock_.boottime_ns() + kRestNs;
  for (bool rest = false; !rest;) {
    now_ns_ = clock_.boottime_ns();
    retry_throttled();
    work_ = sink_.do_work();
    close_unwanted();
    sink_.publish();
    if (now_ns_ >= next_heartbeat_ns_) housekeeping(now_ns_);
    const bool gone = std::ranges::any_of(throttled_, [](const Session* s) { return !s->socket; });
    rest = (!gone && stats_.get(IngestMetric::SweepsRunning) == 0 &&
            stats_.get(IngestMetric::RoutesUntold) == 0) ||
           now_ns_ >= until;
    if (!rest) backend_->run_once(work_.more ? 0 : kThrottleRetryNs);
  }
}

bool EventLoop::hand_on() {
  if (inherited_) {  // not decided: it goes on as it came, the ring is as it was
    RestartState& state = inherited_->adoption.state;
    close_all();
    const std::string error = keeper_->keep(state, inherited_->sockets);
    log_.info("restart: {} sessions of the process before {}", inherited_->sockets.size(),
              error.empty() ? "wait for the next one" : "are closed: " + error);
    return true;
  }
  const std::uint64_t last_read_ns = clock_.boottime_ns();
  take_out_sockets();
  come_to_rest();
  const auto close = [this](Session& session, std::string_view why) {
    sink_.session_error(session.id, ErrorCode::SessionNotKept, why);
    say_not_kept(session.remote, why);
    std::erase(throttled_, &session);
    remove(session);
  };
  std::uint32_t closed = 0;
  for (std::size_t i = sessions_.size(); i-- > 0;) {
    Session& session = *sessions_[i];
    if (session.socket && session.framer.pending_bytes() <= kMostPendingBytes) continue;
    ++closed;
    close(session, session.socket ? "too much of it waits for room in the ring" : "the router has closed it");
  }
  RestartExport out = sink_.export_sessions();
  std::map<SessionId, Session*> by_id;
  for (const auto& session : sessions_) by_id[session->id] = session.get();
  for (const RestartExport::Closed& c : out.closed) close(*by_id.at(c.session), c.why);
  out.state.sessions_closed = closed + static_cast<std::uint32_t>(out.closed.size());
  out.state.last_read_ns = last_read_ns;
  std::vector<Fd> sockets;
  for (std::size_t i = 0; i < out.sessions.size(); ++i) {
    Session& session = *by_id.at(out.sessions[i]);
    const std::span<const std::byte> pending = session.framer.pending();
    out.state.sessions[i].stream_offset = session.framer.offset();
    out.state.sessions[i].pending.assign(pending.begin(), pending.end());
    sockets.push_back(std::move(session.socket));
  }
  sink_.finish();
  sink_.publish();
  if (const std::string error = keeper_->keep(out.state, sockets); !error.empty()) {
    log_.info("sessions are not kept for another process: {}", error);
    return false;
  }
  log_.info("restart: {} sessions are kept for the next process, {} are closed", sockets.size(),
            out.state.sessions_closed);
  return true;
}

void EventLoop::close_all() {
  if (!throttled_.empty()) {
    log_.warn("{} sessions ended with messages that found no room in the ring; their routers send them again",
              throttled_.size());
    throttled_.clear();
  }
  while (!sessions_.empty()) finish(*sessions_.back());
  sink_.finish();
  sink_.publish();
}

void EventLoop::run() {
  while (!stop_requested_) run_once();
  begin_stop();
  const bool keep = keeper_ != nullptr && keeper_->ready();
  if (keep && hand_on()) return;
  if (!keep) stop_reading();
  close_all();
}

}  // namespace arancini::ingestd
