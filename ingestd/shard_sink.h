#pragma once

#include <systemd/sd-daemon.h>

#include "ingestd/event_loop.h"
#include "ingestd/hot_task.h"

namespace arancini::ingestd {

// The event loop's view of the shard, its ring and its stats page.
class ShardSink final : public SessionSink {
 public:
  // All borrowed.
  ShardSink(Shard& shard, RingWriter& ring, StatsWriter& stats, bool systemd_watchdog)
      : shard_(shard), ring_(ring), stats_(stats), systemd_watchdog_(systemd_watchdog) {}

  SessionId open_session(const IpAddress& source, std::uint16_t port) override {
    return shard_.open_session(source, port);
  }
  Shard::Applied apply(SessionId session, std::span<const std::byte> message) override {
    return shard_.apply(session, message);
  }
  void look_ahead(SessionId session, std::span<const std::byte> message) override {
    shard_.look_ahead(session, message);
  }
  void session_error(SessionId session, ErrorCode code, std::string_view text) override {
    shard_.session_error(session, code, text);
  }
  void close_session(SessionId session) override { shard_.close_session(session); }
  void set_throttled(SessionId session, bool throttled) override { shard_.set_throttled(session, throttled); }
  std::optional<SessionId> take_session_to_close() override { return shard_.take_session_to_close(); }
  Shard::Work do_work() override { return shard_.do_work(); }
  [[nodiscard]] int wake_fd() override { return shard_.tasks().wake_fd(); }
  void clear_wake() override { shard_.tasks().clear_wake(); }
  void finish() override { shard_.finish(); }
  RestartExport export_sessions() override { return export_restart(shard_.impl()); }
  void publish() override { shard_.publish(); }
  void heartbeat(std::uint64_t boottime_ns) override {
    ring_.heartbeat(boottime_ns);
    stats_.heartbeat(boottime_ns);
    if (systemd_watchdog_) ::sd_notify(0, "WATCHDOG=1");
  }

 private:
  Shard& shard_;
  RingWriter& ring_;
  StatsWriter& stats_;
  bool systemd_watchdog_;
};

}  // namespace arancini::ingestd
