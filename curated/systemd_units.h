#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "curated/process_manager.h"

struct sd_bus;

namespace arancini::curated {

// ingestd@K.service and publishd.service as systemd has them, over the system bus: asked once, then told by
// signals. They belong to systemd: stop() ends the watching and no unit. Without the bus there are no
// processes to tell of, and it is tried again.
class SystemdUnits final : public ProcessManager {
 public:
  struct Options {
    std::chrono::milliseconds ask_timeout{2'000};  // one question of do_work()
    std::chrono::milliseconds restart_timeout{
        10'000};                                   // until systemd took the order (polkit is asked meanwhile)
    std::chrono::milliseconds look_again{30'000};  // everything anew, whatever signals said
    std::chrono::milliseconds connect_again{1'000};
  };

  // True where systemd is PID 1 and this process is the main one of a service.
  static bool responsible();

  // Borrows `log` and `clock`. Throws std::system_error.
  SystemdUnits(Logger& log, const Clock& clock, Options options);
  ~SystemdUnits() override;
  SystemdUnits(const SystemdUnits&) = delete;
  SystemdUnits& operator=(const SystemdUnits&) = delete;

  [[nodiscard]] std::vector<ManagedProcess> processes() const override;
  [[nodiscard]] int poll_fd() const override { return epoll_.get(); }
  [[nodiscard]] std::uint64_t deadline_ns() const override { return due_ns_; }
  void do_work() override;
  // Waits for systemd's answer, on a connection of its own.
  Result<std::monostate, std::string> restart(const std::string& name) override;
  void stop() override { stopped_ = true; }
  [[nodiscard]] bool stopped() const override { return stopped_; }

 private:
  struct CloseBus {
    void operator()(sd_bus* bus) const;
  };
  using Bus = std::unique_ptr<sd_bus, CloseBus>;
  struct Unit {
    ManagedProcess process;
    std::uint64_t started_us = 0;  // monotonic, of its newest process; 0 if it never had one
    std::uint32_t automatic = 0;   // systemd's count, which a planned restart sets back to 0
  };
  struct Properties;
  struct Signals;

  static Bus open(std::chrono::milliseconds timeout, int& error);
  void connect();
  void disconnect(const char* what, int error);
  int look_at_all();
  int look_at(const std::string& name);
  void note(Unit& unit, const Properties& now);

  Logger& log_;
  const Clock& clock_;
  const Options options_;
  Fd epoll_;
  Bus bus_;
  bool told_lost_ = false;         // that there is no bus
  bool all_changed_ = true;        // units came, went, or were read again
  std::set<std::string> changed_;  // by name
  std::uint64_t due_ns_ = 1;       // boot time: of the next look at all, or of the next connection
  std::uint64_t all_due_ns_ = 0;
  bool stopped_ = false;
  mutable std::mutex mutex_;  // units_, trouble_: the loop changes them, API threads read them
  std::map<std::string, Unit> units_;
  std::string trouble_;  // why there are none
};

}  // namespace arancini::curated
