// Directories, room, permissions, certificates.
#include <fmt/format.h>
#include <linux/magic.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>

#include "tools/doctor.h"
#include "tools/text_table.h"

namespace arancini::tools {

namespace {

constexpr std::int64_t kDay = 86'400;
constexpr std::int64_t kSoonDays = 30;
constexpr std::uint64_t kMiB = 1024ULL * 1024;

std::string bytes_text(std::uint64_t n) {
  return n >= 1024 * kMiB ? fmt::format("{:.1f} GiB", static_cast<double>(n) / (1024.0 * 1024 * 1024))
                          : fmt::format("{} MiB", n / kMiB);
}

std::string day_text(std::int64_t seconds) {
  const std::time_t t = seconds;
  std::tm tm{};
  ::gmtime_r(&t, &tm);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d", &tm);
  return text;
}

}  // namespace

Place look_at(const std::string& path) {
  Place out;
  out.path = path;
  std::error_code error;
  std::filesystem::path there = std::filesystem::absolute(path, error);
  out.exists = std::filesystem::is_directory(there, error);
  while (!std::filesystem::is_directory(there, error) && there.has_relative_path())
    there = there.parent_path();
  out.nearest = there.string();
  struct statfs fs {};
  struct statvfs vfs {};
  struct stat st {};
  if (::statfs(there.c_str(), &fs) == 0)
    out.in_memory = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC;
  if (::statvfs(there.c_str(), &vfs) == 0) {
    out.read_only = (vfs.f_flag & ST_RDONLY) != 0;
    out.free_bytes = static_cast<std::uint64_t>(vfs.f_bavail) * vfs.f_frsize;
  }
  if (::stat(there.c_str(), &st) == 0) out.device = st.st_dev;
  if (out.exists && (st.st_mode & S_IWOTH) != 0)
    out.open_to_others =
        fmt::format("all users may write there (mode {:04o})", static_cast<unsigned>(st.st_mode & 07777U));
  return out;
}

std::uint64_t bytes_below(const std::string& path) {
  std::uint64_t out = 0;
  std::error_code error;
  using std::filesystem::directory_options;
  for (std::filesystem::recursive_directory_iterator
           it(path, directory_options::skip_permission_denied, error),
       end;
       !error && it != end; it.increment(error)) {
    std::error_code gone;
    if (it->is_regular_file(gone)) {
      const auto size = it->file_size(gone);
      if (!gone) out += size;
    }
  }
  return out;
}

void check_runtime_dir(const Place& place, const Config& config, std::uint32_t rings_there, Findings& out) {
  constexpr const char* kCheck = "runtime directory";
  if (!place.open_to_others.empty()) {
    out.problem(kCheck, fmt::format("{}: {}", place.path, place.open_to_others),
                "others could put files in the place of rings and sockets: the daemons refuse to start",
                fmt::format("chmod 0750 {}", place.path));
  }
  if (!place.in_memory) {
    out.warning(kCheck, fmt::format("{} is not on tmpfs", place.path),
                "each update is written to a disk on its way through the rings",
                "set paths.runtime_dir to a directory below /run or /dev/shm");
  }
  const std::uint32_t missing = config.shards.count > rings_there ? config.shards.count - rings_there : 0;
  const std::uint64_t needed = missing * (config.ring.size_bytes + kMiB);
  if (place.read_only) {
    out.problem(kCheck, fmt::format("{} is mounted read-only", place.nearest), "the rings cannot be made",
                fmt::format("mount -o remount,rw {}", place.nearest));
  } else if (place.free_bytes < needed) {
    out.problem(kCheck,
                fmt::format("{} are free at {}, {} rings need {}", bytes_text(place.free_bytes),
                            place.nearest, missing, bytes_text(needed)),
                "a shard without a ring does not start",
                place.in_memory
                    ? fmt::format("mount -o remount,size={}M on the file system of {}; or a smaller "
                                  "ring.size_bytes",
                                  (needed + needed / 4) / kMiB, place.nearest)
                    : "make room, or set a smaller ring.size_bytes");
  } else if (place.open_to_others.empty() && place.in_memory) {
    out.ok(kCheck, fmt::format("{}: tmpfs, {} free{}", place.path, bytes_text(place.free_bytes),
                               place.exists ? "" : ", is made at the start"));
  }
}

void check_state_dir(const Place& state, const Place& journal, const Place& snapshots, const Config& config,
                     const StateUse& use, Findings& out) {
  constexpr const char* kCheck = "state directory";
  if (!state.open_to_others.empty()) {
    out.problem(kCheck, fmt::format("{}: {}", state.path, state.open_to_others),
                "others could replace the journal and the snapshots",
                fmt::format("chmod 0750 {}", state.path));
  }
  const bool has_journal = config.sink.kind == SinkKind::Journal || config.journal.enabled;
  const bool has_snapshots = config.snapshot.store == SnapshotStoreKind::File && config.curation.enabled;
  struct Need {
    const Place* place;
    std::uint64_t bytes;
    std::uint64_t least;  // without which it does not work at all
    std::string text;
  };
  std::vector<Need> needs;
  if (has_journal) {
    const std::uint64_t most = config.journal.max_bytes;
    const std::uint64_t further = most > use.journal_bytes ? most - use.journal_bytes : 0;
    needs.push_back({&journal, further, 2 * config.journal.segment_bytes,
                     most == 0 ? "journal without a limit" : "journal.max_bytes " + bytes_text(most)});
  }
  // A new generation is written beside those that are there.
  if (has_snapshots) needs.push_back({&snapshots, use.snapshot_bytes, 0, "the next snapshots"});
  if (needs.size() == 2 && needs[0].place->device == needs[1].place->device) {
    needs[0].bytes += needs[1].bytes;
    needs[0].text += " and " + needs[1].text;
    needs.pop_back();
  }
  bool well = state.open_to_others.empty();
  for (const Need& n : needs) {
    const Place& p = *n.place;
    if (p.read_only) {
      out.problem(kCheck, fmt::format("{} is mounted read-only", p.nearest),
                  "neither journal nor snapshots can be written: updates wait while NATS is away, and a "
                  "restart has to "
                  "ask every router again",
                  fmt::format("mount -o remount,rw {}; dmesg says why", p.nearest));
    } else if (p.in_memory) {
      out.warning(kCheck, fmt::format("{} is in memory", p.path), "what must survive a reboot does not",
                  "set paths.state_dir to a directory on a disk");
    } else if (p.free_bytes < n.least) {
      out.problem(kCheck, fmt::format("{} are free at {}", bytes_text(p.free_bytes), p.nearest),
                  "the journal cannot take anything while NATS is away: the routers wait",
                  fmt::format("make room, or set paths.state_dir to a larger disk ({} is wanted)",
                              bytes_text(n.bytes)));
    } else if (p.free_bytes < n.bytes) {
      out.warning(kCheck,
                  fmt::format("{} are free at {}, {} may need {}", bytes_text(p.free_bytes), p.nearest,
                              n.text, bytes_text(n.bytes)),
                  "the disk is full before the limit is reached; then the routers wait",
                  fmt::format("make room, or set journal.max_bytes = {}", p.free_bytes / 2 / kMiB * kMiB));
    } else {
      continue;
    }
    well = false;
  }
  if (well) {
    out.ok(kCheck, fmt::format("{}: {} free{}", state.path, bytes_text(state.free_bytes),
                               state.exists ? "" : ", is made at the start"));
  }
}

void check_config_file(const Config& config, Findings& out) {
  constexpr const char* kCheck = "configuration";
  if (config.file.empty()) {
    out.ok(kCheck, "no file: all defaults");
    return;
  }
  const std::string exposed = exposed_nats_secrets(config);
  if (exposed.empty()) {
    out.ok(kCheck, config.file);
  } else {
    const auto colon = exposed.rfind(": ");
    const auto in = exposed.rfind(" in ", colon);
    std::string files = in == std::string::npos ? config.file : exposed.substr(in + 4, colon - in - 4);
    std::erase(files, ',');
    out.problem(kCheck, exposed.substr(0, colon), "whoever logs in here can publish and delete in NATS",
                "chmod o-r " + files);
  }
}

std::optional<std::int64_t> certificate_end(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), &std::fclose);
  if (!file) return std::nullopt;
  std::optional<std::int64_t> first;
  while (X509* const raw = PEM_read_X509(file.get(), nullptr, nullptr, nullptr)) {
    const std::unique_ptr<X509, void (*)(X509*)> certificate(raw, &X509_free);
    std::tm tm{};
    if (ASN1_TIME_to_tm(X509_get0_notAfter(raw), &tm) != 1) continue;
    const std::int64_t end = ::timegm(&tm);
    first = std::min(first.value_or(end), end);
  }
  ERR_clear_error();
  return first;
}

void check_certificate(const std::string& key, const std::string& path, std::int64_t now_s, Findings& out) {
  const auto end = certificate_end(path);
  constexpr const char* kWhy = "connections that need it fail from that day on";
  if (!end) {
    out.problem(
        key, fmt::format("{} holds no certificate that can be read", path), "connections with TLS fail",
        fmt::format("openssl x509 -noout -in {} says what is wrong; then ls -l: may this user read it?",
                    path));
  } else if (*end <= now_s) {
    out.problem(key, fmt::format("{} expired on {}", path, day_text(*end)), "connections that need it fail",
                fmt::format("put a new certificate there; check: openssl x509 -noout -dates -in {}", path));
  } else if (*end - now_s < kSoonDays * kDay) {
    out.warning(key, fmt::format("{} expires on {}, in {} days", path, day_text(*end), (*end - now_s) / kDay),
                kWhy,
                fmt::format("put a new certificate there; check: openssl x509 -noout -dates -in {}", path));
  } else {
    out.ok(key, fmt::format("{}, until {}", path, day_text(*end)));
  }
}

}  // namespace arancini::tools
