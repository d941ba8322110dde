#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/result.h"
#include "common/base/types.h"

// Passes sessions that landed on the wrong shard, unread, to their owner (DESIGN 3, Ownership).
//
// Protocol: each ingestd listens on a SOCK_SEQPACKET unix socket at Config::handover_path(shard), mode 0600;
// only its own user and root are served. One request a connection:
//   "session" with the connected TCP socket (SCM_RIGHTS)  ->  "A": the receiver has it and owns it from now
//   on "listener?"                                           ->  "L" with the BMP listener, so that a new
//   supervisor can
//                                                             adopt a running ingestd without losing its
//                                                             backlog
// A connection that ends without an answer means that nothing was taken.
namespace arancini::ingestd {

class HandoverEvents {
 public:
  virtual ~HandoverEvents() = default;
  // Another shard says that this session is ours.
  virtual void on_session_received(Fd session) noexcept = 0;
  virtual void on_session_passed(const IpAddress& source, ShardId owner) noexcept = 0;
  // The owner did not take it in time; the session was closed. `why` is for the operator.
  virtual void on_handover_failed(const IpAddress& source, ShardId owner,
                                  const std::string& why) noexcept = 0;
};

class Handover {
 public:
  struct Options {
    std::uint32_t shard = 0;
    std::uint64_t hold_ns =
        5'000'000'000U;  // how long a session waits, unread, for its owner (it may be restarting)
    std::uint64_t retry_ns = 20'000'000U;
    std::size_t max_held = 1024;
    std::size_t max_requests = 256;  // incoming connections without a request yet
  };

  // Binds the socket of `options.shard`, in place of a former process's. `listener_fd` (borrowed, may be -1)
  // is what "listener?" gets. `config`, `events` and `clock` are borrowed.
  static Result<std::unique_ptr<Handover>, std::string> open(const Config& config, const Options& options,
                                                             int listener_fd, HandoverEvents& events,
                                                             const Clock& clock);
  ~Handover();
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;

  // To be watched; call on_readable() when it is.
  [[nodiscard]] int fd() const { return socket_.get(); }
  void on_readable();

  // Takes `session`; one of on_session_passed() and on_handover_failed() follows, at once or out of
  // do_work().
  void pass(ShardId owner, Fd session, const IpAddress& source);

  // Answers, retries and time-outs. Call when next_deadline_ns() is due.
  void do_work();
  [[nodiscard]] std::uint64_t next_deadline_ns() const;  // boot time, 0 if nothing waits
  [[nodiscard]] std::size_t held() const { return held_.size(); }

 private:
  struct Held {
    ShardId owner{};
    IpAddress source;
    Fd session;
    Fd channel;  // the request is out, its answer is awaited
    std::uint64_t give_up_ns = 0;
    std::string why;
  };
  struct Request {
    Fd channel;
    std::uint64_t give_up_ns = 0;
  };

  Handover(const Config& config, const Options& options, int listener_fd, HandoverEvents& events,
           const Clock& clock)
      : config_(config), options_(options), listener_fd_(listener_fd), events_(events), clock_(clock) {}
  std::string bind_socket();
  // True when the session is settled (passed), false when it has to wait.
  bool advance(Held& held);
  // True when the request is served or useless.
  bool serve(Request& request);

  const Config& config_;
  const Options options_;
  const int listener_fd_;
  HandoverEvents& events_;
  const Clock& clock_;
  Fd socket_;
  std::vector<Held> held_;
  std::vector<Request> requests_;
  std::uint64_t next_ns_ = 0;
};

}  // namespace arancini::ingestd
