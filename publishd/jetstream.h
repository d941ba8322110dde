#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/base/config.h"
#include "common/base/error.h"
#include "publishd/broker.h"
#include "publishd/wake.h"

namespace arancini {
class Logger;
}

namespace arancini::publishd {

// NATS JetStream. Connecting, checking the streams and reading the tail are done by a thread of its own, with
// back-off and for as long as it takes; send() and poll_ack() belong to the hot thread. The only part that
// knows nats.h.
class JetStream final : public Broker {
 public:
  struct Options {
    std::string url;
    std::string instance;
    std::string subject_prefix;
    std::string updates_stream;
    std::string events_stream;
    std::uint32_t replicas = 1;
    std::uint64_t max_bytes = 0;
    double max_age_s = 0;
    std::uint32_t max_in_flight = 256;
    static Options from(const Config& config);
  };
  // `wake` is bumped when a session, an ack or a loss is there. `log` is written to by the thread only.
  JetStream(Options options, Wake& wake, Logger& log);
  ~JetStream() override;

  void begin_session(const SessionRequest& request) override;
  std::optional<Session> poll_session() override;
  [[nodiscard]] bool session_alive() const override;
  [[nodiscard]] bool send(const Outgoing& message) override;
  [[nodiscard]] bool poll_ack(Ack& out) override;

  enum class State : std::uint32_t { Connecting, Unreachable, StreamUnusable, ReadingTail, Ready };
  [[nodiscard]] State state() const { return state_.load(std::memory_order_relaxed); }
  // Why there is no session, None when there is one or none was tried yet.
  [[nodiscard]] ErrorCode trouble() const { return trouble_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t reconnects() const { return reconnects_.load(std::memory_order_relaxed); }

 private:
  struct Link;
  class AckQueue;
  struct Problem;

  void run();
  bool try_session(const SessionRequest& request, Session& out, Problem& problem);
  bool connect(Problem& problem);
  void drop_link();
  bool check_streams(Problem& problem);
  void set_state(State state, const Problem& problem);

  Options options_;
  const std::string shown_url_;  // for people: without passwords
  Wake& wake_;
  Logger& log_;
  std::unique_ptr<AckQueue> acks_;

  // Owned by the thread, except between poll_session() and the next begin_session(), when the hot thread uses
  // it.
  std::unique_ptr<Link> link_;
  Link* session_link_ = nullptr;  // hot thread's
  std::uint64_t session_ = 0;     // hot thread's: part of the reply subjects, tells late acks
  std::size_t stream_max_message_bytes_ = 0;
  bool was_connected_ = false;
  std::string told_;  // last line that was logged, to say each thing once

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<SessionRequest> request_;  // under mutex_
  std::optional<Session> ready_;           // under mutex_
  std::atomic<bool> ready_flag_{false};    // release by the thread, acquire by the hot thread
  std::atomic<bool> stop_{false};
  std::atomic<State> state_{State::Connecting};
  std::atomic<ErrorCode> trouble_{ErrorCode::None};
  std::atomic<std::uint64_t> reconnects_{0};
  std::thread thread_;
};

std::string_view to_string(JetStream::State state);

}  // namespace arancini::publishd
