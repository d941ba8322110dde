#include "tools/aranctl_doctor.h"

#include <fmt/format.h>
#include <linux/io_uring.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/base/fd.h"
#include "common/metrics/stats_file.h"
#include "tools/curated_client.h"
#include "tools/doctor.h"
#include "tools/route_json.h"
#include "tools/text_table.h"

namespace arancini::tools {

namespace {

constexpr std::size_t kColumns = 80;

struct DoctorOptions {
  std::optional<std::string> config, nats;
  std::string root;  // of /proc and /sys; tests name another one
};

int io_uring_errno() {
  io_uring_params parameters{};
  const Fd fd(static_cast<int>(::syscall(__NR_io_uring_setup, 4, &parameters)));
  return fd ? 0 : errno;
}

std::optional<bool> clock_synchronised() {
  timex t{};
  const int state = ::adjtimex(&t);
  if (state < 0) return std::nullopt;
  return state != TIME_ERROR && (t.status & STA_UNSYNC) == 0;
}

struct Rings {
  std::uint32_t there = 0, on_hugepages = 0;
};
Rings rings_of(const Config& config) {
  Rings out;
  for (std::uint32_t shard = 0; shard < config.shards.count; ++shard) {
    struct statfs fs {};
    if (::statfs(config.ring_path(shard).c_str(), &fs) != 0) continue;
    ++out.there;
    if (fs.f_type == HUGETLBFS_MAGIC) ++out.on_hugepages;
  }
  return out;
}

std::vector<RunningProcess> processes_of(const Config& config) {
  std::vector<RunningProcess> out;
  const auto add = [&](const std::string& name, const std::string& path) {
    const auto page = StatsReader::open(path);
    if (page.ok() && page->writer_alive()) out.push_back({name, page->pid()});
  };
  for (std::uint32_t shard = 0; shard < config.shards.count; ++shard)
    add("ingestd@" + std::to_string(shard), config.ingestd_stats_path(shard));
  add("publishd", config.publishd_stats_path());
  return out;
}

// What the daemons would use: the file, and what this command was told. A mistake in the file is a finding.
Config configured(const DoctorOptions& options, const GlobalOptions& globals, Findings& out) {
  ConfigFlags flags;
  flags.config = options.config;
  flags.nats = options.nats;
  if (const char* const url = std::getenv("ARANCINI_NATS"); !flags.nats && url != nullptr && url[0] != '\0')
    flags.nats = url;
  if (globals.runtime_dir != GlobalOptions{}.runtime_dir) flags.runtime_dir = globals.runtime_dir;
  try {
    Config config = load_config(flags);
    check_config_file(config, out);
    return config;
  } catch (const ConfigError& e) {
    if (std::string_view(e.what()).find(std::strerror(EACCES)) != std::string_view::npos) {
      out.warning("configuration", e.what(), "what follows is checked against the defaults",
                  "run aranctl as root, or as the user of the daemons");
    } else {
      out.problem("configuration", e.what(),
                  "no daemon starts with it, and what follows is checked against the defaults",
                  "edit the file; check: curated --check-config");
    }
  }
  flags.config.reset();
  flags.default_file = ConfigFlags::DefaultFile::Never;
  return load_config(flags);
}

void check_certificates(const Config& config, Findings& out) {
  const std::int64_t now = std::time(nullptr);
  const std::pair<const char*, const std::string&> files[] = {{"nats.tls_ca", config.nats.tls_ca},
                                                              {"nats.tls_cert", config.nats.tls_cert},
                                                              {"control.tls_ca", config.control.tls_ca},
                                                              {"control.tls_cert", config.control.tls_cert}};
  for (const auto& [key, path] : files) {
    if (!path.empty()) check_certificate(key, path, now, out);
  }
}

void check_broker(const Config& config, bool url_is_known, Findings& out) {
  if (config.sink.kind == SinkKind::Journal) {
    out.ok("NATS", "not used (sink.kind = \"journal\")");
  } else if (!url_is_known) {
    out.ok("NATS", "embedded: curated runs one of its own, and it does not run now");
  } else {
    check_nats(probe_nats(NatsSettings::from(config), "aranctl doctor",
                          {config.nats.updates_stream, config.nats.events_stream}),
               config, out);
  }
}

Findings examine(const DoctorOptions& options, const GlobalOptions& globals) {
  Findings out;
  Config config = configured(options, globals, out);
  GlobalOptions where = globals;
  where.runtime_dir = config.paths.runtime_dir;
  control::v1::Status status;
  const bool curated = status_of_curated(where, status);
  if (curated) {
    out.ok("curated", fmt::format("runs, version {}", status.version()));
    config.paths.state_dir = status.state_dir();
    if (status.shards_size() > 0) config.shards.count = static_cast<std::uint32_t>(status.shards_size());
    // As it goes for the daemons, whatever flags they were given; not where it hides a login.
    const std::string& url = status.nats().url();
    if (!options.nats && !url.empty() && url.find('@') == std::string::npos) config.nats.url = url;
    if (status.sink().kind() == "journal") config.sink.kind = SinkKind::Journal;
  } else {
    out.ok("curated", fmt::format("does not run in {}, or does not answer this user", where.runtime_dir));
  }
  const HostFiles host(options.root);
  const Rings rings = rings_of(config);
  check_sysctls(host, config, out);
  check_limits(host, config, processes_of(config), out);
  check_hugepages(host, config, rings.on_hugepages, out);
  check_io_uring(host, config, io_uring_errno(), out);
  check_packet_spread(host, std::max(1U, std::thread::hardware_concurrency()), out);
  check_clock(host, clock_synchronised(), out);
  check_governor(host, out);
  check_runtime_dir(look_at(config.paths.runtime_dir), config, rings.there, out);
  check_state_dir(look_at(config.paths.state_dir), look_at(config.journal_dir()),
                  look_at(config.snapshot_dir()), config,
                  {bytes_below(config.journal_dir()), bytes_below(config.snapshot_dir())}, out);
  check_certificates(config, out);
  check_broker(config, config.nats.url != "embedded", out);
  return out;
}

const char* name_of(Level level) {
  switch (level) {
    case Level::Ok: return "ok";
    case Level::Warning: return "warning";
    case Level::Problem: return "problem";
  }
  return "";
}

// `label` before the first line, the others below it.
std::string labelled(const std::string& label, const std::string& text) {
  std::string out = wrapped(text, label.size(), kColumns);
  return out.empty() ? out : label + out.substr(label.size());
}

std::string findings_text(const Findings& findings) {
  std::string out;
  for (const Finding& f : findings.all()) {
    out += labelled(fmt::format("{:<8} ", name_of(f.level)), f.check + ": " + f.what);
    out += labelled("    why:  ", f.why) + labelled("    mend: ", f.mend);
  }
  return out + fmt::format("problems: {}, warnings: {}, well: {}\n", findings.count(Level::Problem),
                           findings.count(Level::Warning), findings.count(Level::Ok));
}

nlohmann::ordered_json findings_json(const Findings& findings) {
  nlohmann::ordered_json out = {{"problems", findings.count(Level::Problem)},
                                {"warnings", findings.count(Level::Warning)},
                                {"findings", nlohmann::ordered_json::array()}};
  for (const Finding& f : findings.all()) {
    nlohmann::ordered_json j = {{"level", name_of(f.level)}, {"check", f.check}, {"what", f.what}};
    if (f.level != Level::Ok) {
      j["why"] = f.why;
      j["mend"] = f.mend;
    }
    out["findings"].push_back(std::move(j));
  }
  return out;
}

}  // namespace

void add_doctor_command(CLI::App& app, const GlobalOptions& globals, int& exit_code) {
  CLI::App* const sub = app.add_subcommand(
      "doctor",
      "checks host, directories and NATS: what is wrong, why it matters, what mends it; exit 1 if there is a "
      "problem");
  const auto options = std::make_shared<DoctorOptions>();
  sub->add_option("--config", options->config,
                  "configuration of the daemons (default: /etc/arancini/arancini.toml)")
      ->type_name("FILE");
  sub->add_option("--nats", options->nats, "URL of NATS (default: that of the daemons)");
  sub->add_option("--host-root", options->root, "folder in which proc and sys are")
      ->type_name("DIR")
      ->group("");
  sub->callback([&globals, &exit_code, options] {
    const Findings findings = examine(*options, globals);
    fmt::print("{}", globals.json ? to_line(findings_json(findings)) + "\n" : findings_text(findings));
    exit_code = findings.count(Level::Problem) > 0 ? kExitFound : kExitOk;
  });
}

}  // namespace arancini::tools
