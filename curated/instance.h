#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "curated/child_processes.h"
#include "curated/exporter.h"
#include "curated/fleet.h"
#include "curated/listeners.h"
#include "curated/nats_embedded.h"
#include "curated/service.h"
#include "curated/systemd_units.h"

namespace arancini::curated {

// Why curated cannot start: one line for the operator and the exit status (sysexits.h).
class StartError : public std::runtime_error {
 public:
  StartError(int status, const std::string& text) : std::runtime_error(text), exit_status(status) {}
  const int exit_status;
};

// Nearly everything that curated owns.
class Instance {
 public:
  // Signals that run() waits for are blocked by the caller before any thread starts. Throws ConfigError,
  // StartError.
  Instance(ConfigFlags flags, Config config, bool supervise);
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  // Until SIGTERM or SIGINT; then stops what it started and returns the exit status.
  int run();

 private:
  struct Stray {  // a daemon of a former supervisor
    int pid = 0;
    Fd pidfd;
    std::uint64_t started_realtime_ns = 0;
  };

  void lock_folders();
  void prepare_children();
  [[nodiscard]] std::vector<std::string> child_argv(const std::string& program) const;
  [[nodiscard]] ChildSpec publishd_spec(const std::string& program) const;
  [[nodiscard]] std::optional<Stray> find_stray(const std::string& stats_path) const;
  void stop_stray(const std::string& name, const Stray& stray);
  void start_publishd_when_nats_answers();
  void add_or_adopt(ChildSpec spec, std::optional<Stray> stray);
  void handle_signals();
  void reload();
  void announce_when_ready();
  void feed_watchdog();
  void tell_status();
  [[nodiscard]] int wait_ms() const;

  const ConfigFlags flags_;
  const Config loaded_;  // as the operator wrote it
  Config config_;        // as it is in force: ports and URL resolved
  const bool supervise_;
  SystemClock clock_;
  Logger log_;
  Fd lock_;
  Fd state_lock_;
  Fd signals_;
  std::optional<Listeners> listeners_;
  std::optional<EmbeddedNats> nats_;
  std::unique_ptr<ChildProcesses> children_;
  std::unique_ptr<SystemdUnits> units_;
  ProcessManager* manager_ = nullptr;       // one of these, or null: the daemons are somebody else's
  std::optional<ChildSpec> held_publishd_;  // until the embedded server answers
  std::uint64_t hold_until_ns_ = 0;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<Exporter> exporter_;
  std::unique_ptr<ControlServer> control_;
  std::atomic<bool> reloading_{false};
  std::thread reload_;
  bool ready_ = false;
  bool stopping_ = false;
  std::uint64_t waiting_since_ns_ = 0;
  std::uint64_t watchdog_every_ns_ = 0;
  std::uint64_t watchdog_due_ns_ = 0;
  std::string status_;  // as systemd knows it
  std::uint64_t status_due_ns_ = 0;
};

}  // namespace arancini::curated
