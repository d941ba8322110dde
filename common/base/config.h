#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/router_rules.h"

namespace CLI {
class App;
}

namespace arancini {

// What the operator got wrong, with file, line and key; `main` prints it and exits with EX_CONFIG (78).
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class IoBackendKind : std::uint8_t { Auto, Uring, Epoll };
enum class HugepageMode : std::uint8_t { Auto, Require, Never };
// What a full ring means for the routers: they wait, or what comes last is not told until there is room.
enum class WhenRingFull : std::uint8_t { Block, DropNewest };
enum class SinkKind : std::uint8_t { Nats, Journal };
enum class WhenJournalFull : std::uint8_t { Block, DiscardOld };
enum class SnapshotStoreKind : std::uint8_t { File, Kv, None };
enum class PublishFormat : std::uint8_t { UpdateV1, UpdateV1Concat, BatchV2 };
std::string_view to_string(PublishFormat format);  // the value of the header Arancini-Format

// "A:P" or "[v6]:P".
struct SocketAddress {
  std::string host;
  std::uint16_t port = 0;
  [[nodiscard]] std::string to_string() const;
};

// One TOML file, flags override it; every default below works (docs/configuration.md).
struct Config {
  struct Instance {
    std::string name = "arancini";  // header Arancini-Instance
  } instance;
  struct Paths {
    std::string runtime_dir = "/run/arancini";
    std::string state_dir = "/var/lib/arancini";
  } paths;
  struct Bmp {
    SocketAddress listen{"0.0.0.0", 4000};
    std::uint32_t backlog = 1024;
    std::uint32_t rcvbuf_bytes = 0;  // 0: the kernel's default
    std::uint32_t spin_us = 0;  // so long after the last data the hot thread looks for more before it sleeps
    std::uint32_t max_message_bytes = 256 * 1024;
    std::uint32_t max_sessions = 4096;  // per shard
    IoBackendKind io = IoBackendKind::Auto;
  } bmp;
  struct Shards {
    std::uint32_t count = 0;  // 0: one per core; resolved by load_config
    bool pin = true;          // shard K runs on the K-th core that the process may use
  } shards;
  struct Ring {
    std::uint64_t size_bytes = 64ULL * 1024 * 1024;  // power of two
    HugepageMode hugepages = HugepageMode::Auto;
    WhenRingFull when_full = WhenRingFull::Block;
  } ring;
  RouterRules routers;  // [[router]], and of [bmp]: allow, max_sessions_per_router, max_routes_per_router
  struct Curation {
    // False: what routers say is forwarded as it comes. There are no tables then, so no withdraws by the
    // collector, no snapshots, and the stream does not fold to the routers' tables.
    bool enabled = true;
    double session_grace_s = 300;   // a lost session's table is kept that long
    double resync_timeout_s = 300;  // re-sync ends after this without End-of-RIB
    double resync_settle_s = 5;     // and this long after End-of-RIB without news
  } curation;
  struct Dump {
    double interval_s = 0;  // all tables are published again that often, 0: only on demand
  } dump;
  struct Nats {
    std::string url = "nats://127.0.0.1:4222";  // "embedded": curated runs its own nats-server
    std::string subject_prefix = "arancini";
    std::string updates_stream = "ARANCINI_UPDATES";
    std::string events_stream = "ARANCINI_EVENTS";
    std::uint32_t replicas = 1;
    std::uint64_t max_bytes = 0;  // of the updates stream, 0: no limit
    double max_age_s = 0;         // 0: no limit
    double ack_timeout_s = 10;
    std::uint32_t max_in_flight = 256;  // messages
    // Who we are, one way at most; in a URL (nats://USER:PASSWORD@HOST) as well.
    std::string creds;  // file of a JWT and its seed
    std::string user, password, token;
    // TLS is used with tls:// and whenever one of these files is given.
    std::string tls_ca;             // PEM; empty: the system's
    std::string tls_cert, tls_key;  // PEM, both: mTLS
    std::string domain;             // JetStream domain, or
    std::string api_prefix;         // the prefix of its API, "$JS.API" when empty
  } nats;
  struct Publish {
    PublishFormat format = PublishFormat::UpdateV1Concat;
    std::uint32_t batch_bytes =
        64 * 1024;                     // a message is sent when this is reached, or when nothing more waits
    std::uint32_t batch_count = 1024;  // updates in one message at most
    double linger_s = 0.02;  // a message that is not full waits at most this for more, while updates flow
  } publish;
  struct Sink {
    SinkKind kind = SinkKind::Nats;
  } sink;
  struct Journal {
    bool enabled = true;  // for [sink] kind = "nats": spill when the broker does not take what comes
    std::uint64_t max_bytes = 4ULL << 30;  // of all rings
    std::uint64_t segment_bytes = 64ULL << 20;
    double spill_after_s = 0.25;  // without any progress, once a ring is half full
    WhenJournalFull when_full = WhenJournalFull::Block;
  } journal;
  struct Snapshot {
    SnapshotStoreKind store = SnapshotStoreKind::File;  // Kv: in NATS; None: no snapshots
    double interval_s = 60;                             // 0: on demand only
    std::string kv_bucket = "ARANCINI_SNAPSHOTS";       // one for each collector
  } snapshot;
  struct Metrics {
    SocketAddress listen{"127.0.0.1", 8080};
    std::uint32_t max_routers = 1000;  // that many routers have series of their own in /metrics
  } metrics;
  struct Control {
    std::optional<SocketAddress> listen;    // TCP with mTLS; absent: the unix socket only
    std::string tls_cert, tls_key, tls_ca;  // PEM: ours, and who signs those of callers
    // Names (SAN or CN) in certificates. Empty: every certificate that tls_ca signed.
    std::vector<std::string> allow_names;
    std::vector<std::string> read_only_names;  // these may call, but change nothing
  } control;
  struct Supervise {
    double backoff_max_s = 10;  // a child that keeps dying is started again after at most this
  } supervise;
  struct Log {
    std::string level = "info";
  } log;

  std::string file;  // the TOML file that was read, empty if none
  std::string text;  // what was in it
  bool file_holds_secrets = false;

  [[nodiscard]] std::string ring_path(std::uint32_t shard) const;           // <runtime>/ring-<K>
  [[nodiscard]] std::string ingestd_stats_path(std::uint32_t shard) const;  // <runtime>/ingestd@<K>.stats
  [[nodiscard]] std::string handover_path(std::uint32_t shard) const;       // <runtime>/ingestd@<K>.handover
  [[nodiscard]] std::string ingestd_control_path(std::uint32_t shard) const;  // <runtime>/ingestd@<K>.sock
  [[nodiscard]] std::string log_path() const;                                 // <runtime>/publishd.sock
  [[nodiscard]] std::string snapshot_dir() const;                             // <state>/snapshots
  [[nodiscard]] std::string publishd_stats_path() const;                      // <runtime>/publishd.stats
  [[nodiscard]] std::string journal_dir() const;                              // <state>/journal
  [[nodiscard]] std::string control_path() const;                             // <runtime>/curated.sock
};

// Flags of DESIGN 7 that all daemons share. Absent ones leave what the file says.
struct ConfigFlags {
  std::optional<std::string> config, runtime_dir, state_dir, bmp_listen, metrics_listen, nats, io, log_level,
      format, sink;
  std::optional<std::uint32_t> shards;
  bool check_config = false;
  // Of /etc/arancini/arancini.toml, when no file is named.
  enum class DefaultFile : std::uint8_t { IfThere, IfReadable, Never } default_file = DefaultFile::IfThere;
  void add_to(CLI::App& app);
};

// File (flags.config, or /etc/arancini/arancini.toml when it exists), then flags, then checks.
// Throws ConfigError that names file, line and key. Unknown keys are errors.
Config load_config(const ConfigFlags& flags);
// The same with a file that was read already: `text` of `file`, then flags, then checks.
Config load_config(const ConfigFlags& flags, const std::string& file, std::string text);

// The same without a file system: `text` is TOML, `name` stands for the file in errors.
Config parse_config(std::string_view text, const std::string& name);

// What was configured, as TOML that parse_config() takes, for a recording that may go elsewhere: without
// [nats], which holds secrets, [paths], and flags other than the number of shards.
std::string recordable_config(const Config& config);

// "A:P", "[v6]:P", "*:P"; throws ConfigError.
SocketAddress parse_socket_address(std::string_view text, const std::string& what);

}  // namespace arancini
