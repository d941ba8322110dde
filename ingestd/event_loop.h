#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/metrics/stats_file.h"
#include "ingestd/drain_task.h"
#include "ingestd/handover.h"
#include "ingestd/io_backend.h"
#include "ingestd/listener.h"
#include "ingestd/log_limiter.h"
#include "ingestd/restart_adopt.h"
#include "ingestd/restart_export.h"
#include "ingestd/session.h"
#include "ingestd/shard.h"

namespace arancini::ingestd {

// What the loop does with sessions and their messages; in the daemon that is the shard (shard_sink.h).
class SessionSink {
 public:
  virtual ~SessionSink() = default;
  virtual SessionId open_session(const IpAddress& source, std::uint16_t port) = 0;
  virtual Shard::Applied apply(SessionId session, std::span<const std::byte> message) = 0;
  // Shard::look_ahead().
  virtual void look_ahead(SessionId, std::span<const std::byte>) {}
  virtual void session_error(SessionId session, ErrorCode code, std::string_view text) = 0;
  virtual void close_session(SessionId session) = 0;
  virtual void set_throttled(SessionId session, bool throttled) = 0;
  // A session to be closed, which close_session() then follows; each once.
  virtual std::optional<SessionId> take_session_to_close() = 0;
  virtual Shard::Work do_work() = 0;
  virtual void publish() = 0;
  // A descriptor that is readable when do_work() has something to do; -1: none.
  [[nodiscard]] virtual int wake_fd() { return -1; }
  virtual void clear_wake() {}
  // The last call before the last publish().
  virtual void finish() {}
  // What can go on in the next process; nothing is changed.
  virtual RestartExport export_sessions() { return {}; }
  // About every 400 ms: heartbeats, gauges, watchdog.
  virtual void heartbeat(std::uint64_t boottime_ns) = 0;
};

// Who keeps sessions, and what the shard knows of them, for the next process.
class SessionKeeper {
 public:
  virtual ~SessionKeeper() = default;
  // There is somebody who may.
  virtual bool ready() = 0;
  // Empty: they are kept, else why not. `sockets` are borrowed, in the order of `state.sessions`. `state`
  // lacks what is of the process and the ring; everything is published.
  virtual std::string keep(RestartState& state, std::span<const Fd> sockets) = 0;
};

// The hot thread of ingestd: sockets -> whole messages -> sink, one publish a round.
//
// A session whose message finds no room in the ring is paused; what it had in flight is kept and tried again
// every millisecond. TCP then slows its router down, the others go on.
class EventLoop final : public Drainable, private IoHandler, private HandoverEvents {
 public:
  struct Options {
    std::uint32_t shard = 0;
    std::uint32_t shard_count = 1;
    std::uint32_t max_sessions = 4096;
    std::uint32_t max_message_bytes = 256 * 1024;
    IoBackendKind io = IoBackendKind::Auto;
    std::uint32_t buffer_bytes = 64 * 1024;
    std::uint32_t buffer_count = 64;
    // So long after the last data the loop looks for more without sleeping; 0: not at all.
    std::uint64_t spin_ns = 0;
  };
  static constexpr std::uint64_t kHeartbeatNs = 400'000'000;
  static constexpr std::uint64_t kThrottleRetryNs = 1'000'000;
  static constexpr std::uint64_t kDrainNs = 2'000'000'000;

  // How long the end of sweeps is waited for when sessions are to be kept over a restart.
  static constexpr std::uint64_t kRestNs = 250'000'000;
  // A session with more bytes that are not applied is not kept.
  static constexpr std::size_t kMostPendingBytes = 16U << 20;

  // All borrowed; they outlive the loop.
  EventLoop(const Options& options, SessionSink& sink, StatsWriter& stats, Logger& log, const Clock& clock);
  ~EventLoop() override;
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Makes the backend; false with the reason in `note`. On success `note` is empty or a warning.
  bool start(std::string& note);
  // For the shards of `config`; the error is one line. `listener_fd` as in Handover::open().
  std::string start_handover(const Config& config, int listener_fd);
  void add_listener(int fd);  // borrowed
  // A signalfd: SIGTERM and SIGINT request a stop.
  void watch_signals(int fd);  // borrowed

  // At the end of run() sessions are given to the keeper, if it is ready, instead of being closed. Borrowed.
  void set_keeper(SessionKeeper* keeper) { keeper_ = keeper; }
  // What the process before has kept, `sockets` in the order of its sessions; these go on once the shard has
  // decided; then nothing is left in it. `adoption` is borrowed.
  void inherit(RestartAdoption& adoption, std::vector<Fd> sockets);

  // Takes over a connected session of a router that is ours.
  void adopt(Fd session);

  // One round; waits for events until the next thing to do.
  void run_once();
  // Until a stop is requested and what was received is applied (at most kDrainNs).
  void run();
  void request_stop() { stop_requested_ = true; }

  void drain(bool on) noexcept override { drain_wanted_ = on; }
  [[nodiscard]] bool draining() const noexcept override { return draining_; }
  [[nodiscard]] std::uint32_t blocked_sessions() const noexcept override {
    return static_cast<std::uint32_t>(throttled_.size());
  }

  [[nodiscard]] IoBackend& backend() { return *backend_; }
  [[nodiscard]] std::size_t open_sessions() const { return sessions_.size(); }

 private:
  struct Session {
    Session(std::uint32_t max_message_bytes, const Remote& where)
        : framer(max_message_bytes), remote(where) {}
    Framer framer;
    Remote remote;
    ConnectionId connection =
        kNoConnection;  // kNoConnection: the peer is gone, what it sent is not applied yet
    SessionId id{};
    Fd socket;              // taken out of the backend, to be kept
    int end_error = 0;      // errno of the end
    std::size_t index = 0;  // in sessions_
    bool throttled = false;
    bool held = false;  // not read while the shard drains
  };

  void on_accept(Fd fd) noexcept override;
  void on_data(ConnectionId id, std::span<const std::byte> bytes) noexcept override;
  void on_closed(ConnectionId id, int error) noexcept override;
  void on_readable(int fd) noexcept override;
  void on_accept_error(int error) noexcept override;
  void on_session_received(Fd session) noexcept override;
  void on_session_passed(const IpAddress& source, ShardId owner) noexcept override;
  void on_handover_failed(const IpAddress& source, ShardId owner, const std::string& why) noexcept override;

  [[nodiscard]] auto deliver_to(const Session& session) {
    return [this, id = session.id](std::span<const std::byte> message) {
      return sink_.apply(id, message) == Shard::Applied::Done;
    };
  }
  [[nodiscard]] auto show_to(const Session& session) {
    return [this, id = session.id](std::span<const std::byte> message) { sink_.look_ahead(id, message); };
  }
  void after_feed(Session& session, Framer::Status status);
  void throttle(Session& session);
  void unthrottle(Session& session);
  void hold(Session& session);
  void release(Session& session);
  void begin_or_end_drain();
  void retry_throttled();
  void close_unwanted();
  // Ends a session whose bytes are all applied, or whose framing is lost.
  void finish(Session& session);
  void remove(Session& session);
  // Null: no place for it in the backend.
  Session* add_session(Fd socket, const Remote& remote);
  void take_inherited();
  void say_not_kept(const Remote& remote, std::string_view why);
  void begin_stop();
  void stop_reading();
  // False: sessions are still there and are to be closed.
  bool hand_on();
  void take_out_sockets();
  void come_to_rest();
  void close_all();
  void housekeeping(std::uint64_t now_ns);
  [[nodiscard]] std::uint64_t wait_ns() const;
  [[nodiscard]] Session& session_of(ConnectionId id) { return *by_connection_[raw(id)]; }

  const Options options_;
  SessionSink& sink_;
  StatsWriter& stats_;
  Logger& log_;
  const Clock& clock_;
  std::unique_ptr<IoBackend> backend_;
  std::unique_ptr<Handover> handover_;
  std::vector<int> listeners_;
  int signal_fd_ = -1;
  int wake_fd_ = -1;
  SessionKeeper* keeper_ = nullptr;
  struct Inherited {
    RestartAdoption& adoption;
    std::vector<Fd> sockets;
  };
  std::optional<Inherited> inherited_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<Session*> by_connection_;
  std::vector<Session*> throttled_;  // in the order in which they were refused
  Shard::Work work_;
  std::uint64_t now_ns_ = 0;         // boot time at the start of the round
  std::uint64_t data_since_ns_ = 0;  // when the first data of this round came, 0: none did
  std::uint64_t spin_until_ns_ = 0;
  std::uint64_t next_heartbeat_ns_ = 0;
  std::uint64_t stop_by_ns_ = 0;
  std::size_t trim_next_ = 0;
  bool drain_wanted_ = false;
  bool draining_ = false;
  bool stop_requested_ = false;
  bool stopping_ = false;
  LogLimiter error_lines_;
  LogLimiter handover_lines_;
};

}  // namespace arancini::ingestd
