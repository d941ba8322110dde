#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/base/config.h"
#include "common/base/error.h"
#include "common/nats/nats_connector.h"
#include "common/nats/stream_rules.h"
#include "publishd/broker.h"
#include "publishd/event_sender.h"
#include "publishd/wake.h"

namespace arancini {
class Logger;
}

namespace arancini::publishd {

// NATS JetStream. Connecting, checking the streams and reading the tail are done by a thread of its own, with
// back-off and for as long as it takes. send() and poll_ack() belong to the hot thread and never wait for the
// server: a second thread writes to the connection. The only part that knows nats.h.
class JetStream final : public Broker {
 public:
  struct Options {
    NatsSettings nats;
    std::string instance;
    std::string subject_prefix;
    std::string updates_stream;
    std::string events_stream;
    StreamWishes updates, events;
    std::uint32_t max_in_flight = 256;
    static Options from(const Config& config);
  };
  // `wake` is bumped when a session, an ack or a loss is there. `log` is written to by the thread only.
  JetStream(Options options, Wake& wake, Logger& log);
  ~JetStream() override;

  void begin_session(const SessionRequest& request) override;
  std::optional<Session> poll_session() override;
  [[nodiscard]] bool session_alive() const override;
  [[nodiscard]] bool session_leaving() const override;
  [[nodiscard]] bool send(const Outgoing& message) override;
  [[nodiscard]] bool poll_ack(Ack& out) override;
  [[nodiscard]] bool send_event(const OutgoingEvent& event) override;
  [[nodiscard]] std::optional<std::uint64_t> poll_event() override;

  enum class State : std::uint32_t { Connecting, Unreachable, StreamUnusable, ReadingTail, Ready };
  [[nodiscard]] State state() const { return state_.load(std::memory_order_relaxed); }
  // Why there is no session, or why messages are refused; None once there is one and acks come.
  [[nodiscard]] ErrorCode trouble() const {
    const ErrorCode t = trouble_.load(std::memory_order_relaxed);
    return t != ErrorCode::None ? t : refused_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t reconnects() const { return reconnects_.load(std::memory_order_relaxed); }

 private:
  struct Link;
  class AckQueue;
  class SendQueue;
  class Events;

  void run();
  // Stores waiting events until a session is asked for; false: stop. `lock` holds mutex_.
  bool wait_for_request(std::unique_lock<std::mutex>& lock);
  // Nullopt: there is a session in `out`.
  std::optional<NatsFailure> try_session(const SessionRequest& request, Session& out);
  std::optional<NatsFailure> connect();
  void drop_link();
  std::optional<NatsFailure> check_streams();
  std::optional<NatsFailure> check_stream(const std::string& name, const StreamWishes& wishes);
  NatsFailure api_failure(const std::string& doing, int status, std::uint32_t err_code);
  void set_state(State state, const NatsFailure& failure);
  // From any thread: the server refuses what was sent; told once by the thread.
  void refused(NatsFailure failure);
  void tell_refused();
  // Why an event cannot be stored; nullopt: it is.
  void tell_event(const std::optional<NatsFailure>& failure);

  Options options_;
  NatsConnector connector_;  // the thread's
  Wake& wake_;
  Logger& log_;
  std::unique_ptr<AckQueue> acks_;

  // Owned by the thread, except between poll_session() and the next begin_session(), when the hot thread uses
  // it.
  std::unique_ptr<Link> link_;
  Link* session_link_ = nullptr;  // hot thread's
  std::uint64_t session_ = 0;     // hot thread's: part of the reply subjects, tells late acks
  std::size_t stream_max_message_bytes_ = 0;
  bool stream_replicated_ = false;
  bool was_connected_ = false;
  std::chrono::steady_clock::time_point behind_since_{};  // the stream's end is below what was acked
  // By name, streams that were there once; since when one is not any more (epoch of the clock: it is).
  std::map<std::string, std::chrono::steady_clock::time_point> seen_;
  std::set<std::string> told_;             // lines that were logged, to say each thing once
  ErrorCode told_code_ = ErrorCode::None;  // of these
  std::string told_refused_;
  std::string told_event_;
  std::chrono::steady_clock::time_point tell_again_{};
  std::string told_server_;
  std::set<std::string> told_warnings_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<SessionRequest> request_;   // under mutex_
  std::optional<Session> ready_;            // under mutex_
  std::optional<NatsFailure> refused_why_;  // under mutex_
  std::deque<OutgoingEvent> events_;        // under mutex_: of the present session
  std::vector<std::uint64_t> events_done_;  // under mutex_: their tokens
  std::atomic<bool> events_flag_{false};    // events_done_ is not empty
  EventSender event_sender_;                // the thread's
  std::atomic<bool> ready_flag_{false};     // release by the thread, acquire by the hot thread
  std::atomic<bool> stop_{false};
  std::atomic<State> state_{State::Connecting};
  std::atomic<ErrorCode> trouble_{ErrorCode::None};
  std::atomic<ErrorCode> refused_{ErrorCode::None};
  std::atomic<std::uint64_t> reconnects_{0};
  std::thread thread_;
};

std::string_view to_string(JetStream::State state);

}  // namespace arancini::publishd
