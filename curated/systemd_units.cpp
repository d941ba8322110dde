#include "curated/systemd_units.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

#include "curated/process_name.h"

namespace arancini::curated {

namespace {

constexpr const char* kSystemd = "org.freedesktop.systemd1";
constexpr const char* kManagerPath = "/org/freedesktop/systemd1";
constexpr const char* kManager = "org.freedesktop.systemd1.Manager";
constexpr const char* kUnitPaths = "/org/freedesktop/systemd1/unit";
constexpr std::string_view kSuffix = ".service";
constexpr int kRounds = 16;  // of signals and the looks that they cause, in one do_work()

std::uint64_t to_ns(std::chrono::milliseconds t) {
  return static_cast<std::uint64_t>(t.count()) * 1'000'000U;
}

// "ingestd@0" for ingestd@0.service; empty for units that are not ours.
std::string name_of_unit(std::string_view unit) {
  if (!unit.ends_with(kSuffix)) return {};
  const std::string_view name = unit.substr(0, unit.size() - kSuffix.size());
  return shard_of(name) || name == "publishd" ? std::string(name) : std::string();
}

struct Message {
  ~Message() { sd_bus_message_unref(at); }
  sd_bus_message* at = nullptr;
};

struct Error {
  ~Error() { sd_bus_error_free(&of); }
  sd_bus_error of = SD_BUS_ERROR_NULL;
};

}  // namespace

// Of Unit and Service, those that we look at.
struct SystemdUnits::Properties {
  std::string active, sub, result;
  std::uint32_t pid = 0, automatic = 0;
  std::uint64_t started_us = 0, started_realtime_us = 0;
  std::int32_t code = 0, status = 0;

  // From one a{sv}; negative errno.
  int read(sd_bus_message* from) {
    int r = sd_bus_message_enter_container(from, 'a', "{sv}");
    while (r >= 0 && (r = sd_bus_message_enter_container(from, 'e', "sv")) > 0) {
      const char* key = nullptr;
      if ((r = sd_bus_message_read(from, "s", &key)) < 0 || (r = read_value(key, from)) < 0) return r;
      r = sd_bus_message_exit_container(from);
    }
    return r;
  }

 private:
  int read_value(std::string_view key, sd_bus_message* from) {
    const auto text = [&](std::string& to) {
      const char* value = nullptr;
      const int r = sd_bus_message_read(from, "v", "s", &value);
      if (r >= 0) to = value;
      return r;
    };
    if (key == "ActiveState") return text(active);
    if (key == "SubState") return text(sub);
    if (key == "Result") return text(result);
    if (key == "MainPID") return sd_bus_message_read(from, "v", "u", &pid);
    if (key == "NRestarts") return sd_bus_message_read(from, "v", "u", &automatic);
    if (key == "ExecMainStartTimestampMonotonic") return sd_bus_message_read(from, "v", "t", &started_us);
    if (key == "ExecMainStartTimestamp") return sd_bus_message_read(from, "v", "t", &started_realtime_us);
    if (key == "ExecMainCode") return sd_bus_message_read(from, "v", "i", &code);
    if (key == "ExecMainStatus") return sd_bus_message_read(from, "v", "i", &status);
    return sd_bus_message_skip(from, "v");
  }
};

// What sd-bus calls from sd_bus_process().
struct SystemdUnits::Signals {
  static int unit_changed(sd_bus_message* message, void* self, sd_bus_error*) {
    char* unit = nullptr;
    if (sd_bus_path_decode(sd_bus_message_get_path(message), kUnitPaths, &unit) > 0) {
      if (std::string name = name_of_unit(unit); !name.empty()) {
        static_cast<SystemdUnits*>(self)->changed_.insert(std::move(name));
      }
      std::free(unit);
    }
    return 0;
  }

  static int of_manager(sd_bus_message* message, void* self, sd_bus_error*) {
    const std::string_view member = sd_bus_message_get_member(message);
    const char* unit = "";
    const bool of_unit = member == "UnitNew" || member == "UnitRemoved";
    if (of_unit && sd_bus_message_read(message, "s", &unit) < 0) return 0;
    if (member == "Reloading" || (of_unit && !name_of_unit(unit).empty())) {
      static_cast<SystemdUnits*>(self)->all_changed_ = true;
    }
    return 0;
  }
};

bool SystemdUnits::responsible() {
  // sd_pid_get_unit() would say which unit, but looks at PID 1, which ProtectProc= hides.
  const char* started = std::getenv("SYSTEMD_EXEC_PID");
  return sd_booted() > 0 && started != nullptr && started == std::to_string(::getpid());
}

void SystemdUnits::CloseBus::operator()(sd_bus* bus) const {
  sd_bus_close_unref(bus);
}

SystemdUnits::SystemdUnits(Logger& log, const Clock& clock, Options options)
    : log_(log), clock_(clock), options_(options), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_) throw std::system_error(errno, std::generic_category(), "epoll_create1");
}

SystemdUnits::~SystemdUnits() = default;

SystemdUnits::Bus SystemdUnits::open(std::chrono::milliseconds timeout, int& error) {
  sd_bus* raw = nullptr;
  error = -sd_bus_open_system(&raw);
  Bus bus(raw);
  if (error > 0) return nullptr;
  sd_bus_set_method_call_timeout(bus.get(), to_ns(timeout) / 1000);
  return bus;
}

void SystemdUnits::connect() {
  int error = 0;
  bus_ = open(options_.ask_timeout, error);
  if (!bus_) return disconnect("the system bus", error);
  const std::string units = fmt::format(
      "type='signal',sender='{}',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
      "path_namespace='{}'",
      kSystemd, kUnitPaths);
  const std::string manager =
      fmt::format("type='signal',sender='{}',interface='{}',path='{}'", kSystemd, kManager, kManagerPath);
  int r = sd_bus_add_match(bus_.get(), nullptr, units.c_str(), &Signals::unit_changed, this);
  if (r >= 0) r = sd_bus_add_match(bus_.get(), nullptr, manager.c_str(), &Signals::of_manager, this);
  // Without a subscriber systemd sends no signals.
  if (r >= 0) {
    r = sd_bus_call_method(bus_.get(), kSystemd, kManagerPath, kManager, "Subscribe", nullptr, nullptr, "");
  }
  epoll_event event{};
  event.events = EPOLLIN;
  if (r >= 0 && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, sd_bus_get_fd(bus_.get()), &event) != 0) r = -errno;
  if (r < 0) return disconnect("systemd on the system bus", -r);
  if (told_lost_) log_.info("systemd answers on the system bus again");
  told_lost_ = false;
  all_changed_ = true;
}

void SystemdUnits::disconnect(const char* what, int error) {
  std::string trouble = fmt::format("{}: {}", what, std::strerror(error));
  if (!std::exchange(told_lost_, true)) {
    log_.warn("{}: units are not watched and cannot be restarted from here; data flows on", trouble);
  }
  bus_.reset();
  changed_.clear();
  due_ns_ = clock_.boottime_ns() + to_ns(options_.connect_again);
  const std::lock_guard lock(mutex_);
  trouble_ = std::move(trouble);
  units_.clear();
}

int SystemdUnits::look_at_all() {
  Error error;
  Message reply;
  int r = sd_bus_call_method(bus_.get(), kSystemd, kManagerPath, kManager, "ListUnitsByPatterns", &error.of,
                             &reply.at, "asas", 0, 2, "ingestd@*.service", "publishd.service");
  if (r < 0) return r;
  std::set<std::string> there;
  if ((r = sd_bus_message_enter_container(reply.at, 'a', "(ssssssouso)")) < 0) return r;
  const char* unit = nullptr;
  const char* load = nullptr;
  while ((r = sd_bus_message_read(reply.at, "(ssssssouso)", &unit, nullptr, &load, nullptr, nullptr, nullptr,
                                  nullptr, nullptr, nullptr, nullptr)) > 0) {
    if (std::string name = name_of_unit(unit); !name.empty() && std::string_view(load) == "loaded") {
      there.insert(std::move(name));
    }
  }
  if (r < 0) return r;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(units_, [&](const auto& u) { return !there.contains(u.first); });
    for (const std::string& name : there) units_[name].process.name = name;
    trouble_.clear();
  }
  changed_ = std::move(there);
  return 0;
}

int SystemdUnits::look_at(const std::string& name) {
  char* path = nullptr;
  int r = sd_bus_path_encode(kUnitPaths, (name + std::string(kSuffix)).c_str(), &path);
  if (r < 0) return r;
  Error error;
  Message reply;
  r = sd_bus_call_method(bus_.get(), kSystemd, path, "org.freedesktop.DBus.Properties", "GetAll", &error.of,
                         &reply.at, "s", "");
  std::free(path);
  if (r == -ETIMEDOUT || r == -ENOTCONN || r == -ECONNRESET) return r;
  Properties now;
  if (r < 0 || now.read(reply.at) < 0) return 0;  // it went away meanwhile: a signal says so
  const std::lock_guard lock(mutex_);
  if (const auto unit = units_.find(name); unit != units_.end()) note(unit->second, now);
  return 0;
}

void SystemdUnits::note(Unit& unit, const Properties& now) {
  ManagedProcess& p = unit.process;
  if (unit.started_us == 0) {
    p.restarts = now.automatic;
  } else if (now.started_us != unit.started_us) {
    p.restarts += now.automatic > unit.automatic ? now.automatic - unit.automatic : 1;
  }
  unit.started_us = now.started_us;
  unit.automatic = now.automatic;
  p.pid = static_cast<int>(now.pid);
  p.started_realtime_ns = now.pid != 0 ? now.started_realtime_us * 1000U : 0;

  if (now.active == "deactivating") {
    p.phase = ProcessPhase::Stopping;
  } else if (now.pid != 0) {
    p.phase = ProcessPhase::Up;
  } else if (now.active == "activating" || now.active == "active") {
    p.phase = ProcessPhase::Waiting;
  } else {
    p.phase = ProcessPhase::Stopped;
  }
  if (now.pid != 0 || now.started_us == 0) return;
  // Why it ended, which its successor's start makes systemd forget.
  if (now.code == CLD_EXITED) {
    p.detail = fmt::format("exited with status {}", now.status);
  } else if (now.code == CLD_KILLED || now.code == CLD_DUMPED) {
    p.detail = fmt::format("killed by signal {} ({})", now.status, ::strsignal(now.status));
  }
  if (now.result == "watchdog" || now.result == "timeout" || now.result == "start-limit-hit" ||
      now.result == "oom-kill" || now.result == "resources") {
    p.detail += fmt::format(" ({})", now.result);
  }
  if (now.active == "failed") {
    p.detail += fmt::format("; not started again: see systemctl status {}{}", p.name, kSuffix);
  }
}

void SystemdUnits::do_work() {
  const std::uint64_t now = clock_.boottime_ns();
  if (!bus_) {
    if (now < due_ns_) return;
    connect();
    if (!bus_) return;
  }
  if (now >= all_due_ns_) all_changed_ = true;
  // A question also reads signals in, which poll() does not see any more: until neither is left.
  bool more = true;
  for (int round = 0; round < kRounds && more; ++round) {
    int r = 0;
    while ((r = sd_bus_process(bus_.get(), nullptr)) > 0) continue;
    if (r < 0) return disconnect("systemd on the system bus", -r);
    more = all_changed_ || !changed_.empty();
    if (std::exchange(all_changed_, false)) {
      if ((r = look_at_all()) < 0) return disconnect("the list of units", -r);
      all_due_ns_ = now + to_ns(options_.look_again);
    }
    for (const std::string& name : std::exchange(changed_, {})) {
      if ((r = look_at(name)) < 0) return disconnect("the state of a unit", -r);
    }
  }
  due_ns_ = more ? now : all_due_ns_;
}

Result<std::monostate, std::string> SystemdUnits::restart(const std::string& name) {
  {
    const std::lock_guard lock(mutex_);
    if (!trouble_.empty()) return Err{fmt::format("{} is not restarted: {}", name, trouble_)};
    if (!units_.contains(name)) return Err{fmt::format("there is no process {}: see aranctl status", name)};
  }
  int failed = 0;
  const Bus bus = open(options_.restart_timeout, failed);
  if (!bus) return Err{fmt::format("{} is not restarted: the system bus: {}", name, std::strerror(failed))};
  const std::string unit = name + std::string(kSuffix);
  Error error;
  const int r = sd_bus_call_method(bus.get(), kSystemd, kManagerPath, kManager, "RestartUnit", &error.of,
                                   nullptr, "ss", unit.c_str(), "replace");
  if (r >= 0) return std::monostate{};
  const char* why = error.of.message != nullptr ? error.of.message : std::strerror(-r);
  const bool refused =
      sd_bus_error_has_name(&error.of, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED) > 0 ||
      sd_bus_error_has_name(&error.of, SD_BUS_ERROR_ACCESS_DENIED) > 0;
  return Err{
      fmt::format("{} is not restarted: systemd: {}{}", name, why,
                  refused ? fmt::format("; install polkitd and arancini's rule for it (docs/install.md), or "
                                        "run: systemctl restart {}",
                                        unit)
                          : "")};
}

std::vector<ManagedProcess> SystemdUnits::processes() const {
  const std::lock_guard lock(mutex_);
  std::vector<ManagedProcess> out;
  out.reserve(units_.size());
  for (const auto& [name, unit] : units_) out.push_back(unit.process);
  return out;
}

}  // namespace arancini::curated
