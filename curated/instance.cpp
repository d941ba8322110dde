#include "curated/instance.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/base/joined.h"
#include "common/base/mask_url.h"
#include "common/base/runtime_dir.h"
#include "common/base/socket_address.h"
#include "curated/process_name.h"

namespace arancini::curated {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMs = 1'000'000U;
constexpr std::uint32_t kMaxShards = 1024;
const std::string kNatsVariable = "ARANCINI_NATS=";  // that of --nats, common/base/config.h
// First those that write the rings, then the one that drains them, then the broker that it drains into.
constexpr std::uint32_t kStopIngestd = 0;
constexpr std::uint32_t kStopPublishd = 1;
constexpr std::uint32_t kStopNats = 2;

// In $ARANCINI_LIBEXEC, in the build tree's sibling folder, or beside this program.
std::string find_program(const std::string& name) {
  std::vector<fs::path> places;
  if (const char* folder = std::getenv("ARANCINI_LIBEXEC"); folder != nullptr && *folder != '\0') {
    places.emplace_back(fs::path(folder) / name);
  } else {
    std::error_code error;
    const fs::path here = fs::read_symlink("/proc/self/exe", error).parent_path();
    places.emplace_back(here.parent_path() / name / name);
    places.emplace_back(here / name);
  }
  for (const fs::path& place : places)
    if (fs::is_regular_file(place) && ::access(place.c_str(), X_OK) == 0) return place.string();
  throw StartError(EX_UNAVAILABLE,
                   fmt::format("the program {} is missing (looked for {}): build it, or set ARANCINI_LIBEXEC",
                               name, joined(places)));
}

// "cmdline" or "environ" of a process.
std::vector<std::string> words_of(int pid, const char* file) {
  std::ifstream in(fmt::format("/proc/{}/{}", pid, file), std::ios::binary);
  std::vector<std::string> out;
  std::string word;
  while (std::getline(in, word, '\0')) out.push_back(word);
  return out;
}

// As it would be started now?
bool runs_as(int pid, const ChildSpec& spec) {
  std::vector<std::string> words = words_of(pid, "cmdline");
  if (words.size() >= 2 && words[words.size() - 2] == kHandoverFlag) words.resize(words.size() - 2);
  if (words != spec.argv) return false;
  std::vector<std::string> ours = words_of(pid, "environ");
  std::erase_if(ours, [](const std::string& word) { return !word.starts_with(kNatsVariable); });
  return ours == spec.environment;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // best effort; children inherit it
}

}  // namespace

Instance::Instance(ConfigFlags flags, Config config, bool supervise)
    : flags_(std::move(flags)),
      loaded_(config),
      config_(std::move(config)),
      supervise_(supervise),
      log_("curated", parse_log_level(config_.log.level)) {
  // Without a broker nothing of it is looked at.
  if (config_.sink.kind == SinkKind::Journal) config_.nats.url = "none";
  if (config_.nats.url == "embedded" && !supervise_) {
    throw ConfigError("nats.url: 'embedded' works only with --supervise; name the URL of your NATS server");
  }
  ::umask(027);
  raise_descriptor_limit();
  lock_folders();

  sigset_t wanted;
  sigemptyset(&wanted);
  for (const int s : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&wanted, s);
  signals_ = Fd(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) throw StartError(EX_OSERR, fmt::format("signalfd: {}", std::strerror(errno)));

  if (supervise_) {
    prepare_children();
    manager_ = children_.get();
  } else if (SystemdUnits::responsible()) {
    units_ = std::make_unique<SystemdUnits>(log_, clock_, SystemdUnits::Options());
    manager_ = units_.get();
  }
  config_.nats.url = mask_url(config_.nats.url);
  fleet_ = std::make_unique<Fleet>(config_, clock_, manager_);
  auto exporter = Exporter::start(config_, *fleet_);
  if (!exporter) throw StartError(EX_UNAVAILABLE, exporter.error());
  exporter_ = std::move(exporter).value();
  config_.metrics.listen = exporter_->address();
  auto control = ControlServer::start(
      config_, *fleet_, log_,
      {.manager = manager_, .flags = flags_, .loaded = loaded_, .set_log_level = [this](LogLevel level) {
         log_.set_level(level);
       }});
  if (!control) throw StartError(EX_CANTCREAT, control.error());
  control_ = std::move(control).value();

  std::uint64_t watchdog_us = 0;
  if (::sd_watchdog_enabled(0, &watchdog_us) > 0) watchdog_every_ns_ = watchdog_us * 1000U / 3U;
}

Instance::~Instance() {
  if (reload_.joinable()) reload_.join();
}

void Instance::lock_folders() {
  const auto lock = [](const std::string& path, const char* flag, const char* name) {
    auto locked = lock_pid_file(open_own_dir(path, flag), path, name);
    if (locked) return std::move(locked).value();
    const LockFileError& e = locked.error();
    if (!e.held) throw StartError(EX_NOPERM, e.text);
    throw StartError(EX_UNAVAILABLE,
                     fmt::format("another curated (pid {}) serves {}: stop it, or choose another {}",
                                 e.pid > 0 ? std::to_string(e.pid) : "unknown", path, flag));
  };
  lock_ = lock(config_.paths.runtime_dir, "--runtime-dir", "curated.lock");
  // Two supervisors with one state directory would share, and stop, one nats-server.
  if (supervise_) state_lock_ = lock(config_.paths.state_dir, "--state-dir", "lock");
}

std::vector<std::string> Instance::child_argv(const std::string& program) const {
  std::vector<std::string> argv{program};
  const auto pass = [&](const char* flag, const std::string& value) {
    argv.emplace_back(flag);
    argv.push_back(value);
  };
  if (!config_.file.empty()) pass("--config", config_.file);
  pass("--runtime-dir", config_.paths.runtime_dir);
  pass("--state-dir", config_.paths.state_dir);
  pass("--bmp-listen", config_.bmp.listen.to_string());
  pass("--shards", std::to_string(config_.shards.count));
  if (flags_.io) pass("--io", *flags_.io);
  if (flags_.format) pass("--format", *flags_.format);
  if (flags_.sink) pass("--sink", *flags_.sink);
  if (flags_.log_level) pass("--log-level", *flags_.log_level);
  return argv;
}

ChildSpec Instance::publishd_spec(const std::string& program) const {
  ChildSpec spec{"publishd", child_argv(program), -1, kStopPublishd};
  // An URL may hold a password: it does not belong on a command line that everybody can read. What the file
  // says publishd reads itself.
  if (nats_ || (flags_.nats && config_.sink.kind == SinkKind::Nats))
    spec.environment.push_back(kNatsVariable + config_.nats.url);
  return spec;
}

std::optional<Instance::Stray> Instance::find_stray(const std::string& stats_path) const {
  auto page = StatsReader::open(stats_path);
  if (!page || !page->writer_alive()) return std::nullopt;
  Stray stray;
  stray.pid = static_cast<int>(page->pid());
  stray.started_realtime_ns = page->started_realtime_ns();
  stray.pidfd = open_pidfd(stray.pid);
  // Still locked after the pidfd was opened: the descriptor stands for the owner of the page, not for a
  // re-used pid.
  if (!stray.pidfd || !page->writer_alive()) return std::nullopt;
  return stray;
}

void Instance::stop_stray(const std::string& name, const Stray& stray) {
  log_.info("stopping {} (pid {}) of a former supervisor: it cannot be taken over with these settings", name,
            stray.pid);
  pollfd wait{stray.pidfd.get(), POLLIN, 0};
  for (const int signal : {SIGTERM, SIGKILL}) {
    ::syscall(SYS_pidfd_send_signal, stray.pidfd.get(), signal, nullptr, 0);
    if (::poll(&wait, 1, 10'000) > 0) return;
  }
  throw StartError(EX_UNAVAILABLE,
                   fmt::format("{} (pid {}) of a former supervisor cannot be stopped", name, stray.pid));
}

void Instance::add_or_adopt(ChildSpec spec, std::optional<Stray> stray) {
  if (stray && !runs_as(stray->pid, spec)) {
    stop_stray(spec.name, *stray);
    stray.reset();
  }
  if (stray) {
    children_->adopt(std::move(spec), stray->pid, std::move(stray->pidfd), stray->started_realtime_ns);
  } else if (nats_ && spec.stop_group == kStopPublishd) {
    held_publishd_ = std::move(spec);
  } else {
    children_->add(std::move(spec));
  }
}

// Started sooner it would find nobody there, and say so as an error. A server that does not come is its
// story to tell.
void Instance::start_publishd_when_nats_answers() {
  if (!held_publishd_ || stopping_) return;
  const std::uint64_t now = clock_.boottime_ns();
  if (hold_until_ns_ == 0) hold_until_ns_ = now + 10'000 * kMs;
  if (!nats_answers(nats_->port) && now < hold_until_ns_) return;
  children_->add(std::move(*held_publishd_));
  held_publishd_.reset();
  children_->do_work();
}

void Instance::prepare_children() {
  const std::string ingestd = find_program("ingestd");
  const std::string publishd = find_program("publishd");
  ChildProcesses::Options options;
  options.backoff_max =
      std::chrono::milliseconds(static_cast<std::int64_t>(config_.supervise.backoff_max_s * 1000));
  options.backoff_min = std::min(options.backoff_min, options.backoff_max);
  options.notify_path = config_.paths.runtime_dir + "/curated.notify";
  options.seed = clock_.realtime_ns() ^ static_cast<std::uint64_t>(::getpid());
  children_ = std::make_unique<ChildProcesses>(log_, clock_, options);

  if (config_.nats.url == "embedded") {
    auto nats = prepare_embedded_nats(config_.paths.state_dir);
    if (!nats) throw StartError(EX_UNAVAILABLE, nats.error());
    nats_ = std::move(nats).value();
    if (!nats_->note.empty()) log_.warn("{}", nats_->note);
    config_.nats.url = nats_->url;
  }

  // Listeners that running ingestds of a former supervisor hold keep their queues of waiting connections.
  std::vector<std::optional<Stray>> strays(config_.shards.count);
  std::vector<Fd> inherited(config_.shards.count);
  for (std::uint32_t k = 0; k < kMaxShards; ++k) {
    auto stray = find_stray(config_.ingestd_stats_path(k));
    if (!stray) continue;
    Fd listener = k < config_.shards.count ? fetch_listener(config_.handover_path(k), 1000) : Fd();
    const auto address = listener ? bound_address(listener.get()) : std::nullopt;
    const SocketAddress& wanted = config_.bmp.listen;
    const bool fits =
        address && address->host == wanted.host && (wanted.port == 0 || address->port == wanted.port) &&
        std::all_of(inherited.begin(), inherited.end(),
                    [&](const Fd& fd) { return !fd || bound_address(fd.get())->port == address->port; });
    if (fits) {
      inherited[k] = std::move(listener);
      strays[k] = std::move(stray);
    } else {
      listener.reset();
      stop_stray(ingestd_name(k), *stray);
    }
  }
  auto listeners = open_listeners(config_.bmp, std::move(inherited));
  if (!listeners) throw StartError(EX_UNAVAILABLE, listeners.error());
  listeners_ = std::move(listeners).value();
  config_.bmp.listen = listeners_->address;
  log_.info("BMP listeners: {} on {}", listeners_->fds.size(), listeners_->address.to_string());
  if (!listeners_->steering_error.empty()) {
    log_.warn("the kernel does not choose listeners by owner ({}): sessions are passed on to their owner",
              listeners_->steering_error);
  }

  if (nats_) {
    ChildSpec spec = nats_->child;
    spec.stop_group = kStopNats;
    log_.info("embedded NATS: {}, log {}", nats_->url, nats_->log_file);
    Fd pidfd = nats_->pid ? open_pidfd(*nats_->pid) : Fd();
    if (pidfd) {
      children_->adopt(std::move(spec), *nats_->pid, std::move(pidfd),
                       process_started_realtime_ns(*nats_->pid, clock_));
    } else {
      children_->add(std::move(spec));
    }
  }
  add_or_adopt(publishd_spec(publishd), find_stray(config_.publishd_stats_path()));
  for (std::uint32_t k = 0; k < config_.shards.count; ++k) {
    ChildSpec spec{ingestd_name(k), child_argv(ingestd), listeners_->fds[k].get(), kStopIngestd};
    spec.hands_over = true;
    spec.argv.insert(spec.argv.begin() + 1, {"--shard", std::to_string(k), "--listen-fd", "3"});
    add_or_adopt(std::move(spec), std::move(strays[k]));
  }
}

// Daemons are asked, which takes its time.
void Instance::reload() {
  if (reloading_.exchange(true)) {
    log_.warn("a reload is under way: SIGHUP is ignored");
    return;
  }
  if (reload_.joinable()) reload_.join();
  reload_ = std::thread([this] {
    control_->reload("signal=SIGHUP");
    reloading_ = false;
  });
}

void Instance::handle_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo == SIGHUP) {
      reload();
      continue;
    }
    log_.info("{}", stopping_ ? "asked to stop again: what is left is killed" : "stopping");
    stopping_ = true;
    ::sd_notify(0, "STOPPING=1");
    if (manager_ != nullptr) manager_->stop();
  }
}

void Instance::announce_when_ready() {
  if (ready_ || stopping_) return;
  if (!supervise_) {
    ready_ = true;
    log_.info("serving {} and http://{}/metrics", config_.control_path(), config_.metrics.listen.to_string());
    ::sd_notify(0, "READY=1");
    return;
  }
  std::string missing = not_running(fleet_->view());
  if (missing.empty() && nats_ && !nats_answers(nats_->port)) missing = "nats-server does not answer";
  const std::uint64_t now = clock_.boottime_ns();
  if (!missing.empty()) {
    if (waiting_since_ns_ == 0) waiting_since_ns_ = now;
    if (now - waiting_since_ns_ > 10'000 * kMs) {
      waiting_since_ns_ = now;
      log_.warn("not ready yet: {}", missing);
    }
    return;
  }
  ready_ = true;
  const std::string line = fmt::format(
      "arancini ready: bmp={} nats={} metrics={} runtime={}{}\n", config_.bmp.listen.to_string(),
      config_.nats.url, config_.metrics.listen.to_string(), config_.paths.runtime_dir,
      config_.sink.kind == SinkKind::Journal ? " journal=" + config_.journal_dir() : std::string());
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
  ::sd_notify(0, "READY=1");
}

void Instance::feed_watchdog() {
  const std::uint64_t now = clock_.boottime_ns();
  if (watchdog_every_ns_ == 0 || now < watchdog_due_ns_) return;
  watchdog_due_ns_ = now + watchdog_every_ns_;
  ::sd_notify(0, "WATCHDOG=1");
}

// One line for `systemctl status`.
void Instance::tell_status() {
  const std::uint64_t now = clock_.boottime_ns();
  if (!ready_ || stopping_ || now < status_due_ns_) return;
  status_due_ns_ = now + 1000 * kMs;
  const FleetView view = fleet_->view();
  const std::string missing = not_running(view);
  std::string status =
      missing.empty() ? fmt::format("{} shards and publishd run", view.shards.size()) : missing;
  status += fmt::format(", NATS {}", view.nats_state);
  if (status != status_) ::sd_notifyf(0, "STATUS=%s", status.c_str());
  status_ = std::move(status);
}

int Instance::wait_ms() const {
  const std::uint64_t now = clock_.boottime_ns();
  std::uint64_t until = now + (ready_ ? 1000 : 20) * kMs;
  if (manager_ != nullptr) {
    if (const std::uint64_t due = manager_->deadline_ns(); due != 0) until = std::min(until, due);
  }
  if (watchdog_every_ns_ != 0) until = std::min(until, watchdog_due_ns_);
  return until <= now ? 0 : static_cast<int>((until - now + kMs - 1) / kMs);
}

int Instance::run() {
  if (manager_ != nullptr) manager_->do_work();
  while (!(stopping_ && (manager_ == nullptr || manager_->stopped()))) {
    start_publishd_when_nats_answers();
    announce_when_ready();
    feed_watchdog();
    tell_status();
    pollfd wait[] = {{signals_.get(), POLLIN, 0},
                     {control_->poll_fd(), POLLIN, 0},
                     {manager_ != nullptr ? manager_->poll_fd() : -1, POLLIN, 0}};
    ::poll(wait, std::size(wait), wait_ms());
    if ((wait[0].revents & POLLIN) != 0) handle_signals();
    if ((wait[1].revents & POLLIN) != 0) control_->accept_callers();
    if (manager_ != nullptr) manager_->do_work();
  }
  log_.info("stopped");
  return EX_OK;
}

}  // namespace arancini::curated
