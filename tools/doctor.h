#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/config.h"
#include "common/nats/nats_probe.h"

// What `aranctl doctor` looks at. The checks are told what is there, by values and by files below a root, so
// that a test can make up a host.
namespace arancini::tools {

enum class Level : std::uint8_t { Ok, Warning, Problem };

struct Finding {
  Level level = Level::Ok;
  std::string check;  // "net.core.rmem_max", "hugepages"
  std::string what;   // is so
  std::string why;    // it matters; of Ok empty
  std::string mend;   // a command, or what to change; of Ok empty
};

class Findings {
 public:
  void ok(std::string check, std::string what);
  void warning(std::string check, std::string what, std::string why, std::string mend);
  void problem(std::string check, std::string what, std::string why, std::string mend);
  [[nodiscard]] const std::vector<Finding>& all() const { return all_; }
  [[nodiscard]] std::size_t count(Level level) const;

 private:
  std::vector<Finding> all_;
};

// /proc and /sys, below a root.
class HostFiles {
 public:
  explicit HostFiles(std::string root = {}) : root_(std::move(root)) {}
  // Contents without blanks at the end; nullopt if it cannot be read.
  [[nodiscard]] std::optional<std::string> text(std::string_view path) const;
  [[nodiscard]] std::optional<std::uint64_t> number(std::string_view path) const;
  // Names in a directory, sorted; none if it cannot be read.
  [[nodiscard]] std::vector<std::string> names(std::string_view path) const;

 private:
  std::string root_;
};

struct RunningProcess {
  std::string name;  // "ingestd@0", "publishd"
  std::uint32_t pid = 0;
};

void check_sysctls(const HostFiles& host, const Config& config, Findings& out);
// Limits of the processes that run, else of this one: of whoever starts them.
void check_limits(const HostFiles& host, const Config& config, const std::vector<RunningProcess>& running,
                  Findings& out);
// `there`: rings that are on huge pages already.
void check_hugepages(const HostFiles& host, const Config& config, std::uint32_t there, Findings& out);
// `probe_errno`: of io_uring_setup(2) in this process; 0: it works.
void check_io_uring(const HostFiles& host, const Config& config, int probe_errno, Findings& out);
// Whether packets of the interfaces with a default route are spread over the cores.
void check_packet_spread(const HostFiles& host, unsigned cores, Findings& out);
// `synchronised`: by adjtimex(2); nullopt: it cannot be asked.
void check_clock(const HostFiles& host, std::optional<bool> synchronised, Findings& out);
void check_governor(const HostFiles& host, Findings& out);

// A directory, or the nearest one above it that exists.
struct Place {
  std::string path;
  bool exists = false;
  bool in_memory = false;  // tmpfs, ramfs
  bool read_only = false;
  std::uint64_t free_bytes = 0;
  std::uint64_t device = 0;    // names the file system
  std::string nearest;         // the directory that was looked at
  std::string open_to_others;  // how others could put names into it; empty: they cannot
};
Place look_at(const std::string& path);
// Bytes of all files below a directory.
std::uint64_t bytes_below(const std::string& path);

// `rings_there`: those that need no further room.
void check_runtime_dir(const Place& place, const Config& config, std::uint32_t rings_there, Findings& out);
struct StateUse {
  std::uint64_t journal_bytes = 0, snapshot_bytes = 0;
};
void check_state_dir(const Place& state, const Place& journal, const Place& snapshots, const Config& config,
                     const StateUse& use, Findings& out);
// Whether the file can be read, and by whom.
void check_config_file(const Config& config, Findings& out);

// The first end of a PEM file's certificates, in seconds since 1970; nullopt: there is none.
std::optional<std::int64_t> certificate_end(const std::string& path);
void check_certificate(const std::string& key, const std::string& path, std::int64_t now_s, Findings& out);

void check_nats(const NatsProbe& probe, const Config& config, Findings& out);

}  // namespace arancini::tools
