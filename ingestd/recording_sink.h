#pragma once

#include "ingestd/event_loop.h"
#include "ingestd/recorder.h"

namespace arancini::ingestd {

// Hands everything on, and tells the recorder what that was.
class RecordingSink final : public SessionSink {
 public:
  // All borrowed.
  RecordingSink(SessionSink& next, const RingWriter& ring, Recorder& recorder)
      : next_(next), ring_(ring), recorder_(recorder) {}

  SessionId open_session(const IpAddress& source, std::uint16_t port) override;
  Shard::Applied apply(SessionId session, std::span<const std::byte> message) override;
  void look_ahead(SessionId session, std::span<const std::byte> message) override {
    next_.look_ahead(session, message);
  }
  void session_error(SessionId session, ErrorCode code, std::string_view text) override;
  void close_session(SessionId session) override;
  void set_throttled(SessionId session, bool throttled) override;
  std::optional<SessionId> take_session_to_close() override;
  Shard::Work do_work() override;
  void publish() override;
  [[nodiscard]] int wake_fd() override { return next_.wake_fd(); }
  void clear_wake() override { next_.clear_wake(); }
  void finish() override;
  RestartExport export_sessions() override { return next_.export_sessions(); }
  void heartbeat(std::uint64_t boottime_ns) override { next_.heartbeat(boottime_ns); }

 private:
  SessionSink& next_;
  const RingWriter& ring_;
  Recorder& recorder_;
  RingPosition published_ = ring_.tail();
};

}  // namespace arancini::ingestd
