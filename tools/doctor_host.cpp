// Kernel, limits, memory, network cards, clock.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <set>
#include <sstream>

#include "common/base/joined.h"
#include "tools/doctor.h"

namespace arancini::tools {

namespace {

constexpr std::uint64_t kMiB = 1024ULL * 1024;
constexpr std::uint64_t kDescriptorsBeside = 256;  // of a shard: rings, logs, timers, misplaced sessions
constexpr std::uint64_t kPublishdDescriptors = 1024;
constexpr std::uint64_t kRingHeader = 2 * kMiB;  // and what a ring is rounded up to

std::optional<std::uint64_t> to_number(std::string_view text) {
  std::uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return n;
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

// The profile of the installation (systemd-units/sysctl.d).
struct Sysctl {
  const char* name;
  std::uint64_t value;
  bool at_most;    // less is better
  std::size_t of;  // which number of the line
  const char* why;
};
constexpr Sysctl kSysctls[] = {
    {"fs.file-max", 2'097'152, false, 0,
     "all processes together may open no more files and sockets: routers are refused when it is reached"},
    {"net.core.rmem_max", 33'554'432, false, 0,
     "a larger bmp.rcvbuf_bytes is cut to it: table dumps over long paths come slowly"},
    {"net.core.wmem_max", 33'554'432, false, 0, "what is sent to NATS over long paths waits"},
    {"net.ipv4.tcp_rmem", 33'554'432, false, 2,
     "a session's receive buffer grows to its third number: table dumps over long paths come slowly"},
    {"net.ipv4.tcp_wmem", 33'554'432, false, 2, "what is sent to NATS over long paths waits"},
    {"net.ipv4.tcp_fin_timeout", 15, true, 0,
     "closed sessions keep their memory for that many seconds: it adds up when routers flap"},
    {"net.core.netdev_max_backlog", 10'000, false, 0,
     "packets beyond it are dropped when all routers send at once"},
};

void check_sysctl(const HostFiles& host, const Sysctl& s, Findings& out) {
  std::string path = std::string("/proc/sys/") + s.name;
  std::replace(path.begin() + std::strlen("/proc/sys/"), path.end(), '.', '/');
  const auto text = host.text(path);
  const auto words = words_of(text.value_or(""));
  const auto value = s.of < words.size() ? to_number(words[s.of]) : std::nullopt;
  if (!value) {
    out.ok(s.name, "not to be seen from here (a container?)");
    return;
  }
  if (s.at_most ? *value <= s.value : *value >= s.value) {
    out.ok(s.name, joined(words, " "));
    return;
  }
  std::string wanted = std::to_string(s.value);
  if (words.size() > 1) {
    auto all = words;
    all[s.of] = wanted;
    wanted = "\"" + joined(all, " ") + "\"";
  }
  out.warning(s.name,
              fmt::format("is {}, should be {} {}", *value, s.at_most ? "at most" : "at least", s.value),
              s.why, fmt::format("sysctl -w {}={}", s.name, wanted));
}

struct Limit {
  std::string text;        // "unlimited", or a number
  std::uint64_t soft = 0;  // UINT64_MAX: unlimited
};
std::optional<Limit> limit_of(const HostFiles& host, const std::string& process, std::string_view name) {
  std::istringstream lines(host.text("/proc/" + process + "/limits").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name)) continue;
    const auto words = words_of(line.substr(name.size()));
    if (words.empty()) return std::nullopt;
    if (words[0] == "unlimited") return Limit{words[0], UINT64_MAX};
    if (const auto n = to_number(words[0])) return Limit{words[0], *n};
  }
  return std::nullopt;
}

void check_limits_of(const HostFiles& host, const std::string& who, const std::string& process,
                     std::uint64_t descriptors, const std::string& unit, Findings& out) {
  if (const auto files = limit_of(host, process, "Max open files")) {
    if (files->soft >= descriptors) {
      out.ok("descriptors", fmt::format("{}: {}", who, files->text));
    } else {
      out.problem("descriptors",
                  fmt::format("{} may open {} files, and needs {}", who, files->text, descriptors),
                  "every router is a socket: those beyond the limit are refused",
                  fmt::format("systemctl edit {}: [Service] LimitNOFILE=1048576; without systemd: "
                              "ulimit -n 1048576 before curated --supervise",
                              unit));
    }
  }
  if (const auto locked = limit_of(host, process, "Max locked memory")) {
    if (locked->soft >= 64 * kMiB) {
      out.ok("locked memory", fmt::format("{}: {}", who, locked->text));
    } else {
      out.warning("locked memory", fmt::format("{} may lock {} bytes", who, locked->text),
                  "io_uring's rings and buffers count as locked memory on some kernels; then epoll is used",
                  fmt::format("systemctl edit {}: [Service] LimitMEMLOCK=infinity; without systemd: "
                              "ulimit -l unlimited",
                              unit));
    }
  }
}

std::optional<std::uint64_t> meminfo(const std::string& text, std::string_view name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ':') continue;
    const auto words = words_of(line.substr(name.size() + 1));
    if (!words.empty()) return to_number(words[0]);
  }
  return std::nullopt;
}

// Interfaces that a default route leads through.
std::set<std::string> outward_interfaces(const HostFiles& host) {
  std::set<std::string> out;
  std::istringstream v4(host.text("/proc/net/route").value_or(""));
  for (std::string line; std::getline(v4, line);) {
    const auto words = words_of(line);
    if (words.size() > 7 && words[1] == "00000000" && words[7] == "00000000") out.insert(words[0]);
  }
  std::istringstream v6(host.text("/proc/net/ipv6_route").value_or(""));
  for (std::string line; std::getline(v6, line);) {
    const auto words = words_of(line);
    if (words.size() > 9 && words[0] == std::string(32, '0') && words[1] == "00" && words[9] != "lo")
      out.insert(words[9]);
  }
  return out;
}

// Interrupts of one card, by core.
std::vector<std::uint64_t> interrupts_of(const HostFiles& host, const std::string& interface) {
  std::set<std::string> numbers;
  // Of a virtio device they are its parent's.
  for (const char* where : {"/device/msi_irqs", "/device/../msi_irqs"}) {
    for (const std::string& n : host.names("/sys/class/net/" + interface + where)) numbers.insert(n);
  }
  std::vector<std::uint64_t> out;
  std::istringstream lines(host.text("/proc/interrupts").value_or(""));
  std::string line;
  std::getline(lines, line);
  out.resize(words_of(line).size());
  while (std::getline(lines, line)) {
    auto words = words_of(line);
    if (words.empty() || !words[0].ends_with(':')) continue;
    words[0].pop_back();
    if (!numbers.contains(words[0]) && !words.back().starts_with(interface)) continue;
    for (std::size_t i = 0; i < out.size() && i + 1 < words.size(); ++i)
      out[i] += to_number(words[i + 1]).value_or(0);
  }
  return out;
}

bool is_zero_mask(const std::string& mask) {
  return mask.find_first_not_of("0,") == std::string::npos;
}

}  // namespace

void Findings::ok(std::string check, std::string what) {
  all_.push_back({Level::Ok, std::move(check), std::move(what), {}, {}});
}
void Findings::warning(std::string check, std::string what, std::string why, std::string mend) {
  all_.push_back({Level::Warning, std::move(check), std::move(what), std::move(why), std::move(mend)});
}
void Findings::problem(std::string check, std::string what, std::string why, std::string mend) {
  all_.push_back({Level::Problem, std::move(check), std::move(what), std::move(why), std::move(mend)});
}
std::size_t Findings::count(Level level) const {
  return static_cast<std::size_t>(
      std::count_if(all_.begin(), all_.end(), [level](const Finding& f) { return f.level == level; }));
}

std::optional<std::string> HostFiles::text(std::string_view path) const {
  std::ifstream file(root_ + std::string(path));
  if (!file) return std::nullopt;
  std::string all(std::istreambuf_iterator<char>(file), {});
  all.erase(all.find_last_not_of(" \t\n") + 1);
  return all;
}

std::optional<std::uint64_t> HostFiles::number(std::string_view path) const {
  const auto all = text(path);
  return all ? to_number(*all) : std::nullopt;
}

std::vector<std::string> HostFiles::names(std::string_view path) const {
  std::vector<std::string> out;
  std::error_code error;
  for (std::filesystem::directory_iterator it(root_ + std::string(path), error), end; !error && it != end;
       it.increment(error)) {
    out.push_back(it->path().filename().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

void check_sysctls(const HostFiles& host, const Config& config, Findings& out) {
  for (const Sysctl& s : kSysctls) check_sysctl(host, s, out);
  const std::uint64_t backlog = config.bmp.backlog;
  check_sysctl(host,
               {"net.core.somaxconn", backlog, false, 0,
                "bmp.backlog is cut to it: when all routers return at once, some are refused and wait"},
               out);
  check_sysctl(host,
               {"net.ipv4.tcp_max_syn_backlog", backlog, false, 0,
                "half-open connections beyond it are dropped when all routers return at once"},
               out);
}

void check_limits(const HostFiles& host, const Config& config, const std::vector<RunningProcess>& running,
                  Findings& out) {
  const std::uint64_t of_shard = config.bmp.max_sessions + kDescriptorsBeside;
  for (const RunningProcess& p : running) {
    const bool publishd = p.name == "publishd";
    check_limits_of(host, p.name, std::to_string(p.pid), publishd ? kPublishdDescriptors : of_shard,
                    publishd ? "publishd.service" : "ingestd@.service", out);
  }
  if (running.empty())
    check_limits_of(host, "who starts the daemons from this shell", "self", of_shard, "ingestd@.service",
                    out);
}

void check_hugepages(const HostFiles& host, const Config& config, std::uint32_t there, Findings& out) {
  constexpr const char* kCheck = "hugepages";
  if (config.ring.hugepages == HugepageMode::Never) {
    out.ok(kCheck, "not wanted (ring.hugepages = \"never\")");
    return;
  }
  const std::string text = host.text("/proc/meminfo").value_or("");
  const std::uint64_t page = meminfo(text, "Hugepagesize").value_or(0) * 1024;
  const std::uint64_t free = meminfo(text, "HugePages_Free").value_or(0);
  const std::uint64_t reserved = meminfo(text, "HugePages_Rsvd").value_or(0);
  const std::uint64_t total = meminfo(text, "HugePages_Total").value_or(0);
  const std::uint32_t missing = config.shards.count > there ? config.shards.count - there : 0;
  if (missing == 0) {
    out.ok(kCheck, fmt::format("all {} rings are on huge pages", config.shards.count));
    return;
  }
  if (page == 0) {
    out.warning(kCheck, "this kernel has no huge pages", "the rings are on normal pages: start takes longer",
                "set ring.hugepages = \"never\"");
    return;
  }
  const std::uint64_t each = (config.ring.size_bytes + kRingHeader + page - 1) / page;
  const std::uint64_t needed = each * missing;
  const std::uint64_t usable = free > reserved ? free - reserved : 0;
  const bool mounted = host.text("/proc/self/mounts").value_or("").find(" hugetlbfs ") != std::string::npos;
  if (usable >= needed && !mounted) {
    out.warning(
        kCheck, "no hugetlbfs is mounted", "huge pages are reserved, and nobody can use them",
        "mkdir -p /dev/hugepages; mount -t hugetlbfs -o uid=arancini,mode=0750 hugetlbfs /dev/hugepages");
    return;
  }
  if (usable >= needed) {
    out.ok(kCheck,
           fmt::format("{} of {} KiB are free, {} rings need {}", usable, page / 1024, missing, needed));
    return;
  }
  const std::string what =
      fmt::format("{} of {} KiB are free, {} rings need {}", usable, page / 1024, missing, needed);
  const std::string mend = fmt::format("sysctl -w vm.nr_hugepages={}", total + needed - usable);
  if (config.ring.hugepages == HugepageMode::Require) {
    out.problem(kCheck, what, "ring.hugepages is \"require\": a shard does not start without them", mend);
  } else {
    out.warning(kCheck, what,
                "rings are made on normal pages: a start takes longer, and page faults cost time", mend);
  }
}

void check_io_uring(const HostFiles& host, const Config& config, int probe_errno, Findings& out) {
  constexpr const char* kCheck = "io_uring";
  if (config.bmp.io == IoBackendKind::Epoll) {
    out.ok(kCheck, "not wanted (bmp.io = \"epoll\")");
    return;
  }
  const std::uint64_t disabled = host.number("/proc/sys/kernel/io_uring_disabled").value_or(0);
  if (probe_errno == 0 && disabled < 2) {
    out.ok(kCheck, disabled == 1 ? "permitted to this user (kernel.io_uring_disabled is 1)" : "permitted");
    return;
  }
  std::string what = fmt::format("not permitted here ({})", std::strerror(probe_errno));
  std::string mend =
      "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile of the container";
  if (disabled != 0) {
    what = fmt::format("kernel.io_uring_disabled is {}", disabled);
    mend = "sysctl -w kernel.io_uring_disabled=0";
  }
  if (config.bmp.io == IoBackendKind::Uring) {
    out.problem(kCheck, what, "bmp.io is \"uring\": ingestd does not start without it",
                mend + "; or set bmp.io = \"auto\"");
  } else {
    out.warning(kCheck, what, "epoll is used instead: more system calls, up to a third less throughput",
                mend);
  }
}

void check_packet_spread(const HostFiles& host, unsigned cores, Findings& out) {
  constexpr const char* kCheck = "packet spread";
  constexpr std::uint64_t kEnoughToSay = 10'000;
  if (cores < 2) {
    out.ok(kCheck, "there is one core");
    return;
  }
  const auto interfaces = outward_interfaces(host);
  if (interfaces.empty()) out.ok(kCheck, "no interface has a default route");
  for (const std::string& name : interfaces) {
    std::size_t queues = 0;
    bool steered = false;
    const std::string folder = "/sys/class/net/" + name + "/queues/";
    for (const std::string& queue : host.names(folder)) {
      if (!queue.starts_with("rx-")) continue;
      ++queues;
      const auto mask = host.text(fmt::format("{}{}/rps_cpus", folder, queue));
      steered = steered || (mask && !is_zero_mask(*mask));
    }
    const auto by_core = interrupts_of(host, name);
    const std::uint64_t all = std::accumulate(by_core.begin(), by_core.end(), std::uint64_t{0});
    const auto most = std::max_element(by_core.begin(), by_core.end());
    const bool on_one = all >= kEnoughToSay && *most >= all / 10 * 9;
    const std::string mask =
        fmt::format("{:x}", cores >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << cores) - 1);
    const std::string rps =
        fmt::format("for q in /sys/class/net/{}/queues/rx-*; do echo {} > $q/rps_cpus; done", name, mask);
    constexpr const char* kWhy =
        "the kernel's work for all routers is done on one core, which a shard shares: it is the first to be "
        "full";
    if (steered) {
      out.ok(kCheck, fmt::format("{}: spread by rps_cpus, {} receive queue(s)", name, queues));
    } else if (on_one) {
      out.warning(kCheck,
                  fmt::format("{}: {}% of the interrupts are on core {}", name, *most * 100 / all,
                              most - by_core.begin()),
                  kWhy,
                  queues > 1 ? fmt::format("systemctl enable --now irqbalance; or ethtool -L {} combined {}",
                                           name, cores)
                             : rps);
    } else if (queues == 1) {
      out.warning(kCheck, fmt::format("{} has one receive queue", name), kWhy, rps);
    } else {
      out.ok(kCheck, fmt::format("{}: {} receive queues", name, queues));
    }
  }
}

void check_clock(const HostFiles& host, std::optional<bool> synchronised, Findings& out) {
  if (!synchronised) {
    out.ok("clock", "whether it is synchronised cannot be asked here");
  } else if (*synchronised) {
    out.ok("clock", "synchronised");
  } else {
    out.warning("clock", "is not synchronised",
                "receive times of updates are wrong, lag cannot be measured, certificates may seem expired",
                "apt-get install chrony; or timedatectl set-ntp true");
  }
  const std::string folder = "/sys/devices/system/clocksource/clocksource0/";
  const auto source = host.text(folder + "current_clocksource");
  if (!source) return;
  const std::set<std::string> slow = {"hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"};
  if (!slow.contains(*source)) {
    out.ok("clocksource", *source);
    return;
  }
  const auto words = words_of(host.text(folder + "available_clocksource").value_or(""));
  const auto fast =
      std::find_if(words.begin(), words.end(), [&](const std::string& w) { return !slow.contains(w); });
  out.warning("clocksource", *source + " is in use", "each look at the clock is a slow access to a device",
              fast != words.end() ? fmt::format("echo {} > {}current_clocksource", *fast, folder)
                                  : "see dmesg for why tsc is not trusted; a BIOS update may help");
}

void check_governor(const HostFiles& host, Findings& out) {
  constexpr const char* kCheck = "cpu governor";
  std::set<std::string> governors;
  for (const std::string& cpu : host.names("/sys/devices/system/cpu")) {
    if (const auto g = host.text("/sys/devices/system/cpu/" + cpu + "/cpufreq/scaling_governor"))
      governors.insert(*g);
  }
  if (governors.empty()) {
    out.ok(kCheck, "the frequency is not to be chosen here (a virtual machine?)");
  } else if (governors == std::set<std::string>{"performance"}) {
    out.ok(kCheck, "performance");
  } else {
    governors.erase("performance");
    out.warning(kCheck, joined(governors), "cores that were idle are slow at the beginning of a burst",
                "cpupower frequency-set -g performance");
  }
}

}  // namespace arancini::tools
