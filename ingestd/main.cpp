#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "common/base/runtime_dir.h"
#include "ingestd/control_service.h"
#include "ingestd/instance.h"
#include "ingestd/layout_file.h"
#include "ingestd/log_client.h"
#include "ingestd/replay.h"
#include "ingestd/restart_store.h"

namespace {

using namespace arancini;
using namespace arancini::ingestd;

constexpr std::uint32_t kRouterRows = 4096;
constexpr std::uint32_t kPeerRows = 16384;

// What keeps the daemon from starting, with the code for whoever starts it.
class StartError : public std::runtime_error {
 public:
  StartError(int code, const std::string& text) : std::runtime_error(text), code_(code) {}
  [[nodiscard]] int code() const { return code_; }

 private:
  int code_;
};

struct Arguments {
  ConfigFlags flags;
  std::optional<std::uint32_t> shard;
  int listen_fd = -1;
  int handover_fd = -1;
  bool restore = true;
  std::string record;  // file, empty: none
  std::string replay, out;
};

// Blocked before any thread is made, so that all of them inherit it and only the signalfd sees them.
Fd block_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int s : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, s);
  ::signal(SIGPIPE, SIG_IGN);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) throw StartError(EX_OSERR, "sigprocmask failed");
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) throw StartError(EX_OSERR, fmt::format("signalfd: {}", std::strerror(errno)));
  return fd;
}

// This thread onto the K-th core that it may use; CPUAffinity= in a templated unit cannot say that.
void pin_to_core(std::uint32_t shard, Logger& log) {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (::sched_getaffinity(0, sizeof usable, &usable) != 0) {
    log.warn("not pinned: {}", std::strerror(errno));
    return;
  }
  const auto count = static_cast<std::uint32_t>(CPU_COUNT(&usable));
  if (shard >= count) {
    log.warn("not pinned: shard {} of only {} usable cores; set shards.count, or shards.pin = false", shard,
             count);
    return;
  }
  std::uint32_t seen = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &usable) || seen++ != shard) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    if (::sched_setaffinity(0, sizeof one, &one) != 0) log.warn("not pinned: {}", std::strerror(errno));
    return;
  }
}

// A session is a descriptor; the default soft limit is 1024.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

RingFile open_ring(const Config& config, std::uint32_t shard, const Clock& clock) {
  const RingFile::CreateOptions options{.capacity_bytes = config.ring.size_bytes,
                                        .shard = shard,
                                        .hugepages = config.ring.hugepages,
                                        .created_realtime_ns = clock.realtime_ns()};
  auto ring = RingFile::create_or_attach(config.ring_path(shard), options);
  if (ring) return std::move(ring).value();
  switch (ring.error().kind) {
    case RingFileError::Kind::Locked: throw StartError(EX_TEMPFAIL, ring.error().text);
    case RingFileError::Kind::NoHugepages: throw StartError(EX_CONFIG, ring.error().text);
    case RingFileError::Kind::Missing:
    case RingFileError::Kind::Incompatible:
    case RingFileError::Kind::System: break;
  }
  throw StartError(EX_OSERR, ring.error().text);
}

// An operator's snapshot waits until what is in it is durable, which takes a broker.
constexpr std::uint64_t kSnapshotPatienceNs = 3600ULL * 1'000'000'000;
// Its tables are not what consumers were told, and a snapshot says that they are.
constexpr std::string_view kNoSnapshots = "none are taken: started with --no-restore";

ControlService::Hooks control_hooks(Instance& instance) {
  ControlService::Hooks hooks;
  hooks.state = [&instance] {
    ShardState state;
    if (instance.restorer) {
      RestoreState of = instance.restorer->state();
      state.restoring = of.restoring;
      state.restore_text = std::move(of.text);
    }
    if (instance.snapshots) {
      const SnapshotState of = instance.snapshots->state();
      state.snapshot_realtime_ns = of.realtime_ns;
      state.snapshot_routes = of.routes;
      state.snapshot_bytes = of.bytes;
      state.snapshot_error = of.error;
    } else if (instance.config.snapshot.store != SnapshotStoreKind::None) {
      state.snapshot_error = kNoSnapshots;
    }
    return state;
  };
  hooks.reload = [&instance](const Config& next) {
    const LogLevel level = parse_log_level(next.log.level);
    instance.log.set_level(level);
    instance.snapshot_log.set_level(level);
    if (instance.snapshots) instance.snapshots->set_interval(next.snapshot.interval_s);
  };
  hooks.take_snapshot = [&instance]() -> Result<SnapshotTaken, std::string> {
    if (!instance.snapshots) {
      return Err{instance.config.snapshot.store == SnapshotStoreKind::None
                     ? std::string("no snapshots are taken (snapshot.store)")
                     : std::string(kNoSnapshots)};
    }
    const auto taken = instance.snapshots->take(kSnapshotPatienceNs);
    if (!taken) return Err{taken.error()};
    return SnapshotTaken{.name = taken->name,
                         .routes = taken->routes,
                         .bytes = taken->bytes,
                         .duration_ms = taken->duration_ns / 1'000'000,
                         .longest_pause_us = taken->longest_pause_ns / 1000};
  };
  return hooks;
}

// Since when the routers are divided as they are, for a restore without the broker; 0: not known.
// `snapshots`: null, or those of the restore. What a life does that does not say so must not be taken for
// another's.
std::uint64_t note_layout(const Config& config, snapshot::SnapshotStore* snapshots, const Clock& clock) {
  if (snapshots == nullptr || config.snapshot.store != SnapshotStoreKind::File) {
    const std::string error = forget_layout(config.paths.state_dir);
    if (!error.empty()) throw StartError(EX_CANTCREAT, error);
    return 0;
  }
  const auto layout = layout_began(config.paths.state_dir, config.shards.count, *snapshots, clock);
  if (!layout) throw StartError(EX_CANTCREAT, layout.error());
  return layout.value();
}

// The tables as consumers were told them; until that is done the shard takes no messages.
void start_restore(Instance& instance, const Config& config, std::uint32_t shard, const Clock& clock) {
  instance.restore_from = open_snapshot_store(config);
  const std::uint64_t layout_began_ns = note_layout(config, instance.restore_from.get(), clock);
  instance.log_reader = make_log_client(config.log_path());
  instance.restorer = std::make_unique<Restorer>(
      Restorer::Options{.shard = shard,
                        .shard_count = config.shards.count,
                        .layout_began_ns = layout_began_ns,
                        .adoption = instance.adoption.get(),
                        .log_name = fmt::format("ingestd@{}", shard),
                        .log_level = parse_log_level(config.log.level)},
      instance.shard, instance.ring, instance.restore_from.get(), *instance.log_reader, clock);
}

// The manager of this process keeps them (restart_store.h).
class ManagerKeeper final : public SessionKeeper {
 public:
  static constexpr std::uint64_t kPatienceNs = 2'000'000'000;

  explicit ManagerKeeper(const Instance& instance) : instance_(instance) {}
  bool ready() override { return has_manager(); }
  std::string keep(RestartState& state, std::span<const Fd> sockets) override {
    state.version = ARANCINI_VERSION;
    state.boot_id = boot_id();
    state.shard = instance_.shard_number;
    state.shard_count = instance_.config.shards.count;
    state.writer = instance_.ring.writer_id();
    state.ring_tail = raw(instance_.ring.tail());
    state.next_sequence = raw(instance_.ring.next_sequence());
    state.next_event_sequence = instance_.ring.next_event_sequence();
    const auto parcel = pack_restart(encode_restart(state), sockets);
    if (!parcel) return parcel.error();
    std::string error = store_restart(*parcel, kPatienceNs);
    if (!error.empty()) forget_restart();  // it may have been taken nevertheless, or be taken later
    return error;
  }

 private:
  const Instance& instance_;
};

// Why what the process before has left is about something else than what is there now; empty: it is not.
std::string restart_mismatch(const RestartState& state, std::size_t sockets, const Instance& instance) {
  if (state.sessions.size() != sockets)
    return fmt::format("{} sockets for {} sessions", sockets, state.sessions.size());
  if (state.boot_id != boot_id()) return "it is of another boot";
  if (state.shard != instance.shard_number || state.shard_count != instance.config.shards.count)
    return fmt::format("it is of shard {} of {}", state.shard, state.shard_count);
  if (state.writer != instance.ring.writer_id()) return "it is of another ring";
  if (state.ring_tail != raw(instance.ring.tail()) ||
      state.next_sequence != raw(instance.ring.next_sequence()) ||
      state.next_event_sequence != instance.ring.next_event_sequence()) {
    return "the ring was written to since";
  }
  return {};
}

// Sessions of the process before, if it has left any.
void take_restart(Instance& instance, bool restore) {
  Fd parcel = std::move(instance.listeners.restart);
  if (!parcel) return;
  forget_restart();
  std::string why;
  std::size_t sessions = 0;
  if (auto opened = unpack_restart(parcel); !opened) {
    why = opened.error();
  } else if (auto state = decode_restart(opened->state); !state) {
    sessions = opened->sockets.size();
    why = state.error();
  } else {
    sessions = opened->sockets.size();
    why = restore ? restart_mismatch(*state, sessions, instance) : "the tables are not restored";
    if (why.empty()) {
      instance.adoption = std::make_unique<RestartAdoption>();
      instance.adoption->state = std::move(*state);
      instance.adoption->bytes = std::move(opened->state);
      instance.loop.inherit(*instance.adoption, std::move(opened->sockets));
      return;
    }
  }
  instance.stats.set(IngestMetric::RestartSessionsClosed, sessions);
  instance.log.warn(
      "restart: what the process before has left cannot be used ({}): {}; {} sessions are closed, "
      "their routers connect anew",
      number(ErrorCode::SessionNotKept), why, sessions);
}

void run(const Arguments& arguments, const Config& config, Fd signals) {
  const std::uint32_t shard = *arguments.shard;
  const bool restore = arguments.restore && config.curation.enabled;  // else there are no tables
  check_runtime_dir(config.paths.runtime_dir);
  // Before anything of a running ingestd's is replaced.
  if (const int pid = RingFile::lock_holder(config.ring_path(shard), RingSide::Writer); pid > 0) {
    throw StartError(EX_TEMPFAIL, fmt::format("{} is in use by process {}: shard {} runs already",
                                              config.ring_path(shard), pid, shard));
  }
  raise_descriptor_limit();
  const SystemClock clock;
  auto stats =
      StatsWriter::create(config.ingestd_stats_path(shard), {.kind = shm::ProcessKind::Ingestd,
                                                             .shard = shard,
                                                             .routers = kRouterRows,
                                                             .peers = kPeerRows,
                                                             .now_realtime_ns = clock.realtime_ns()});
  if (!stats) throw StartError(EX_CANTCREAT, stats.error());
  RingFile ring = open_ring(config, shard, clock);
  auto listeners = open_listeners(config, arguments.listen_fd, arguments.handover_fd);
  if (!listeners) throw StartError(EX_OSERR, listeners.error());

  Logger log(fmt::format("ingestd@{}", shard), parse_log_level(config.log.level));
  if (!ring.hugepage_note().empty()) {
    ring.created() ? log.warn("{}", ring.hugepage_note()) : log.info("{}", ring.hugepage_note());
  }
  std::uint64_t watchdog_us = 0;
  const bool watchdog = ::sd_watchdog_enabled(0, &watchdog_us) > 0;
  Instance instance(config, shard, clock, log, std::move(signals), std::move(stats).value(), std::move(ring),
                    std::move(listeners).value(), watchdog, restore, arguments.record);
  instance.ring.set_layout(config.shards.count);
  EventLoop& loop = instance.loop;
  std::string note;
  if (!loop.start(note)) throw StartError(EX_UNAVAILABLE, note);
  if (!note.empty()) log.warn("{}", note);
  if (!instance.listeners.note.empty()) log.warn("{}", instance.listeners.note);
  const int listener = instance.listeners.fds.front().get();
  if (const std::string error = loop.start_handover(config, listener); !error.empty()) {
    throw StartError(EX_CANTCREAT, error);
  }
  loop.watch_signals(instance.signals.get());
  for (const Fd& fd : instance.listeners.fds) loop.add_listener(fd.get());

  ManagerKeeper keeper(instance);
  take_restart(instance, restore);
  if (restore) loop.set_keeper(&keeper);
  if (instance.snapshots) instance.snapshots->start();
  if (restore) {
    start_restore(instance, config, shard, clock);
  } else {
    (void)note_layout(config, nullptr, clock);
    if (config.curation.enabled) {
      log.warn(
          "--no-restore: routes that consumers were told, and that are gone, stay told; no snapshots are "
          "taken "
          "until a start with a restore");
    }
  }
  auto control = ControlService::start({.path = config.ingestd_control_path(shard),
                                        .writer = instance.ring.writer_id(),
                                        .log_name = fmt::format("ingestd@{}", shard),
                                        .flags = arguments.flags,
                                        .config = config},
                                       instance.shard.tasks(), loop, clock, control_hooks(instance));
  if (!control) throw StartError(EX_CANTCREAT, control.error());

  // Last: threads inherit the cores of the one that makes them, and only the hot one belongs here.
  if (config.shards.pin) pin_to_core(shard, log);

  instance.stats.set_state(shm::ProcessState::Running);
  log.info("shard {} of {} listens on {} with {}, version " ARANCINI_VERSION, shard, config.shards.count,
           local_address(listener), loop.backend().name());
  ::sd_notifyf(0, "READY=1\nSTATUS=Shard %u of %u, %s", shard, config.shards.count, loop.backend().name());
  loop.run();
  ::sd_notify(0, "STOPPING=1");
  if (instance.snapshots) instance.snapshots->stop();
  instance.stats.set_state(shm::ProcessState::Stopped);
  log.info("stopped");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("ingestd: takes BMP sessions in, curates them, writes the updates of one shard to its ring");
  Arguments arguments;
  arguments.flags.add_to(app);
  app.add_option("--shard", arguments.shard, "number of the shard, from 0; required");
  app.add_option("--listen-fd", arguments.listen_fd, "inherited descriptor of a listening TCP socket")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--handover-fd", arguments.handover_fd,
                 "inherited descriptor with the sessions of the process before")
      ->check(CLI::NonNegativeNumber);
  app.add_flag(
      "!--no-restore", arguments.restore,
      "start with empty tables, without publishd, and take no snapshots: what was withdrawn meanwhile "
      "is never withdrawn downstream");
  app.add_option(
      "--record", arguments.record,
      "write everything that the shard is given to this file (or FILE.1, .2, … where it is there)");
  auto* replay =
      app.add_option("--replay", arguments.replay,
                     "no daemon: run a shard on a recording, check that it writes the same records");
  app.add_option("--out", arguments.out, "file for the replay's ring records")->needs(replay);
  replay->needs("--out");
  app.set_version_flag("--version", "ingestd " ARANCINI_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : EX_USAGE;
  }
  if (!arguments.replay.empty()) {
    return replay_to_file(arguments.replay, arguments.out,
                          parse_log_level(arguments.flags.log_level.value_or("error")));
  }
  const std::string name = arguments.shard ? fmt::format("ingestd@{}", *arguments.shard) : "ingestd";
  try {
    const Config config = load_config(arguments.flags);
    if (arguments.shard && *arguments.shard >= config.shards.count) {
      throw ConfigError(fmt::format("--shard {}: there are only {} shards (shards.count)", *arguments.shard,
                                    config.shards.count));
    }
    if (arguments.flags.check_config) {
      fmt::print("{}: configuration is valid\n", config.file.empty() ? "defaults and flags" : config.file);
      return 0;
    }
    if (!arguments.shard) {
      fmt::print(stderr, "{}: --shard is required\n", name);
      return EX_USAGE;
    }
    run(arguments, config, block_signals());
    return 0;
  } catch (const ConfigError& e) {
    fmt::print(stderr, "{}: {}\n", name, e.what());
    return EX_CONFIG;
  } catch (const StartError& e) {
    fmt::print(stderr, "{}: {}\n", name, e.what());
    return e.code();
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}: {}\n", name, e.what());
    return EX_SOFTWARE;
  }
}
