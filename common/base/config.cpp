#include "common/base/config.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <toml++/toml.h>
#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <sstream>

#include "common/base/mask_url.h"
#include "common/base/types.h"

namespace arancini {

namespace {

constexpr const char* kDefaultFile = "/etc/arancini/arancini.toml";

// Walks one [table], hands each key to its setter and refuses those that nobody asked for.
class Section {
 public:
  Section(const toml::table& root, std::string name, const std::string& file)
      : table_(root[name].as_table()), name_(std::move(name)), file_(file) {
    if (const auto* node = root.get(name_); node != nullptr && table_ == nullptr) {
      fail(*node, "must be a table");
    }
  }
  // The one with this index of an array of tables, [[name]].
  Section(const toml::table& root, std::string name, const std::string& file, std::size_t index)
      : table_((*root[name].as_array())[index].as_table()), name_(std::move(name)), file_(file) {}

  void text(const char* key, std::string& out) {
    if (const auto* n = take(key)) {
      const auto v = n->value_exact<std::string>();
      if (!v) fail(*n, fmt::format("{}.{} must be a string", name_, key));
      out = *v;
    }
  }
  template <class T>
  void number(const char* key, T& out, std::uint64_t low, std::uint64_t high) {
    if (const auto* n = take(key)) {
      const auto v = n->value_exact<std::int64_t>();
      if (!v || *v < 0 || static_cast<std::uint64_t>(*v) < low || static_cast<std::uint64_t>(*v) > high) {
        fail(*n, fmt::format("{}.{} must be a whole number from {} to {}", name_, key, low, high));
      }
      out = static_cast<T>(*v);
    }
  }
  void seconds(const char* key, double& out, double low, double high) {
    if (const auto* n = take(key)) {
      const auto v = n->value<double>();
      if (!v || !(*v >= low && *v <= high)) {
        fail(*n, fmt::format("{}.{} must be seconds from {} to {}", name_, key, low, high));
      }
      out = *v;
    }
  }
  void texts(const char* key, std::vector<std::string>& out) {
    if (const auto* n = take(key)) {
      const auto* array = n->as_array();
      if (array == nullptr || !array->is_homogeneous<std::string>()) {
        if (array == nullptr || !array->empty())
          fail(*n, fmt::format("{}.{} must be a list of strings", name_, key));
      }
      for (const auto& one : *array) out.push_back(*one.value_exact<std::string>());
    }
  }
  template <class T>
  void number(const char* key, std::optional<T>& out, std::uint64_t low, std::uint64_t high) {
    if (table_ != nullptr && table_->get(key) != nullptr) number(key, out.emplace(), low, high);
    taken_.emplace_back(key);
  }
  void flag(const char* key, bool& out) {
    if (const auto* n = take(key)) {
      const auto v = n->value_exact<bool>();
      if (!v) fail(*n, fmt::format("{}.{} must be true or false", name_, key));
      out = *v;
    }
  }
  template <class E>
  void choice(const char* key, E& out, std::initializer_list<std::pair<std::string_view, E>> values) {
    if (const auto* n = take(key)) {
      const auto v = n->value_exact<std::string>();
      std::string known;
      for (const auto& [word, value] : values) {
        if (v && *v == word) {
          out = value;
          return;
        }
        known += known.empty() ? "" : ", ";
        known += word;
      }
      fail(*n, fmt::format("{}.{} must be one of: {}", name_, key, known));
    }
  }
  void address(const char* key, SocketAddress& out) {
    if (const auto* n = take(key)) {
      const auto v = n->value_exact<std::string>();
      if (!v) fail(*n, fmt::format("{}.{} must be \"ADDRESS:PORT\"", name_, key));
      out = parse_socket_address(*v, fmt::format("{}:{}: {}.{}", file_, n->source().begin.line, name_, key));
    }
  }
  // For what only holds between keys, or for a value in itself: fails with the line of `key` if it is in the
  // file.
  void require(bool good, const char* key, const std::string& what) const {
    if (good) return;
    const auto* n = table_ == nullptr ? nullptr : table_->get(key);
    if (n != nullptr) fail(*n, fmt::format("{}.{} {}", name_, key, what));
    throw ConfigError(fmt::format("{}: {}.{} {}", file_, name_, key, what));
  }
  // Call last: anything not taken is a mistake of the operator's.
  void finish() const {
    if (table_ == nullptr) return;
    for (const auto& [key, node] : *table_) {
      if (std::find(taken_.begin(), taken_.end(), key.str()) == taken_.end()) {
        fail(node, fmt::format("unknown key {}.{}", name_, std::string(key.str())));
      }
    }
  }

 private:
  const toml::node* take(const char* key) {
    taken_.emplace_back(key);
    return table_ == nullptr ? nullptr : table_->get(key);
  }
  [[noreturn]] void fail(const toml::node& node, const std::string& what) const {
    throw ConfigError(fmt::format("{}:{}: {}", file_, node.source().begin.line, what));
  }

  const toml::table* table_;
  std::string name_;
  const std::string& file_;
  std::vector<std::string> taken_;
};

AddressRange parse_range(const Section& s, const char* key, const std::string& text) {
  const auto range = AddressRange::parse(text);
  s.require(range.has_value(), key,
            fmt::format("must be an address, or a prefix without bits behind its length, not \"{}\"", text));
  return *range;
}

// Which routers an entry is about has to be clear whoever connects.
void check_entry(const Section& s, const RouterEntry& entry, const std::vector<RouterEntry>& before) {
  constexpr const char* kNameRule = "must be at most 64 letters, digits, '_', '.' or '-'";
  s.require(entry.name.empty() || good_router_name(entry.name), "name", kNameRule);
  s.require(!IpAddress::parse(entry.name), "name", "must not be an address");
  s.require(entry.name.empty() || entry.address.is_host(), "name",
            "needs a single address: a prefix is about several routers");
  s.require(entry.sys_name.size() <= RouterRules::kMostNameBytes, "sys_name", "must be at most 64 bytes");
  s.require(entry.sys_name.empty() || !entry.name.empty(), "sys_name",
            "needs router.name: routers behind one address are told apart by it downstream");
  s.require(entry.tags.size() <= RouterRules::kMostTags, "tags", "must be at most 16");
  for (const std::string& tag : entry.tags) {
    s.require(!tag.empty() && tag.size() <= RouterRules::kMostNameBytes, "tags",
              "must be of 1 to 64 bytes each");
  }
  for (const RouterEntry& other : before) {
    s.require(entry.name.empty() || other.name != entry.name, "name",
              fmt::format("\"{}\" is there already", entry.name));
    s.require(
        !(other.address == entry.address && other.sys_name == entry.sys_name), "address",
        fmt::format("{} has an entry already; another one needs a sys_name", entry.address.to_string()));
  }
}

const std::initializer_list<std::pair<std::string_view, IoBackendKind>> kIoWords = {
    {"auto", IoBackendKind::Auto}, {"uring", IoBackendKind::Uring}, {"epoll", IoBackendKind::Epoll}};
const std::initializer_list<std::pair<std::string_view, SinkKind>> kSinkWords = {
    {"nats", SinkKind::Nats}, {"journal", SinkKind::Journal}};
const std::initializer_list<std::pair<std::string_view, PublishFormat>> kFormatWords = {
    {"update-v1", PublishFormat::UpdateV1},
    {"update-v1-concat", PublishFormat::UpdateV1Concat},
    {"batch-v2", PublishFormat::BatchV2}};

template <class E>
E word_to(std::initializer_list<std::pair<std::string_view, E>> words, const std::string& word,
          const char* flag) {
  for (const auto& [w, v] : words) {
    if (w == word) return v;
  }
  throw ConfigError(fmt::format("{}: '{}' is not known", flag, word));
}

std::uint32_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<std::uint32_t>(std::max(1, CPU_COUNT(&set)));
}

// "embedded", or one or more of nats://HOST[:PORT], tls://HOST[:PORT], separated by commas.
bool good_nats_url(std::string_view urls) {
  if (urls == "embedded") return true;
  while (true) {
    const auto comma = urls.find(',');
    std::string_view one = urls.substr(0, comma);
    if (!one.starts_with("nats://") && !one.starts_with("tls://")) return false;
    one.remove_prefix(one.find("://") + 3);
    if (const auto at = one.rfind('@'); at != std::string_view::npos) one.remove_prefix(at + 1);
    if (one.empty() || one.front() == ':' || one.find_first_of("/ ") != std::string_view::npos) return false;
    if (comma == std::string_view::npos) return true;
    urls.remove_prefix(comma + 1);
  }
}
constexpr const char* kNatsUrlRule =
    "must be \"embedded\" or nats://HOST:PORT (tls://…; several with commas)";

int ways_to_log_in(const Config::Nats& n) {
  return (n.creds.empty() ? 0 : 1) + (n.user.empty() ? 0 : 1) + (n.token.empty() ? 0 : 1);
}
constexpr const char* kOneWayRule =
    "is one way to log in too many: set one of nats.creds, nats.user and nats.token";

// A user may stand in the URL as well: nats://USER@HOST.
bool password_has_user(const Config::Nats& n) {
  return n.password.empty() || !n.user.empty() || n.url.find('@') != std::string::npos;
}
constexpr const char* kPasswordRule = "needs nats.user";

// What NATS allows as the name of a stream.
bool good_stream_name(std::string_view name) {
  return !name.empty() && name.find_first_of(". *>/\\\t\r\n") == std::string_view::npos;
}

// What NATS allows as the name of a key-value bucket.
bool good_bucket_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char ch) {
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '-' ||
           ch == '_';
  });
}

bool good_subject_prefix(std::string_view prefix) {
  if (prefix.empty() || prefix.front() == '.' || prefix.back() == '.' ||
      prefix.find("..") != std::string_view::npos) {
    return false;
  }
  return std::none_of(prefix.begin(), prefix.end(),
                      [](char ch) { return ch <= ' ' || ch == '*' || ch == '>' || ch == 0x7f; });
}

constexpr std::size_t kMostControlNames = 256;

bool good_cert_name(std::string_view name) {
  return !name.empty() && name.size() <= 253 &&
         std::ranges::all_of(name, [](char c) { return c >= 0x20 && c < 0x7f; });
}

bool good_log_level(std::string_view level) {
  return level == "debug" || level == "info" || level == "warn" || level == "error";
}
constexpr const char* kLogLevelRule = "must be one of: debug, info, warn, error";

}  // namespace

std::string_view to_string(PublishFormat format) {
  switch (format) {
    case PublishFormat::UpdateV1: return "update-v1";
    case PublishFormat::UpdateV1Concat: return "update-v1-concat";
    case PublishFormat::BatchV2: return "batch-v2";
  }
  return "unknown";
}

std::string SocketAddress::to_string() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

SocketAddress parse_socket_address(std::string_view text, const std::string& what) {
  const auto bad = [&]() -> SocketAddress {
    throw ConfigError(fmt::format("{}: '{}' is not ADDRESS:PORT (IPv6 in brackets)", what, text));
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon + 1 == text.size()) return bad();
  std::string host(text.substr(0, colon));
  unsigned port = 0;
  for (const char c : text.substr(colon + 1)) {
    if (c < '0' || c > '9') return bad();
    port = port * 10 + static_cast<unsigned>(c - '0');
    if (port > 65535) return bad();
  }
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return bad();
  }
  if (host.empty() || host == "*") host = "0.0.0.0";
  if (host == "localhost") host = "127.0.0.1";
  if (!IpAddress::parse(host)) return bad();
  return {host, static_cast<std::uint16_t>(port)};
}

Config parse_config(std::string_view text, const std::string& name) {
  toml::table root;
  try {
    root = toml::parse(text, name);
  } catch (const toml::parse_error& e) {
    throw ConfigError(fmt::format("{}:{}: {}", name, e.source().begin.line, e.description()));
  }
  constexpr std::uint64_t k32 = std::numeric_limits<std::uint32_t>::max();
  Config c;
  c.file = name;
  {
    Section s(root, "instance", name);
    s.text("name", c.instance.name);
    s.require(!c.instance.name.empty(), "name", "must not be empty");
    s.finish();
  }
  {
    Section s(root, "paths", name);
    s.text("runtime_dir", c.paths.runtime_dir);
    s.text("state_dir", c.paths.state_dir);
    s.finish();
  }
  {
    Section s(root, "bmp", name);
    s.address("listen", c.bmp.listen);
    s.number("backlog", c.bmp.backlog, 1, 65535);
    s.number("rcvbuf_bytes", c.bmp.rcvbuf_bytes, 0, 1ULL << 30);
    s.number("spin_us", c.bmp.spin_us, 0, 60'000'000);
    s.number("max_message_bytes", c.bmp.max_message_bytes, 4096, 1024 * 1024);
    s.number("max_sessions", c.bmp.max_sessions, 1, 1000000);
    s.choice("io", c.bmp.io, kIoWords);
    std::vector<std::string> allow;
    s.texts("allow", allow);
    for (const std::string& range : allow) c.routers.allow.push_back(parse_range(s, "allow", range));
    s.number("max_sessions_per_router", c.routers.max_sessions, 0, 1000000);
    s.number("max_routes_per_router", c.routers.max_routes, 0, 1ULL << 40);
    s.finish();
  }
  if (const auto* node = root.get("router"); node != nullptr && !node->is_array_of_tables()) {
    throw ConfigError(
        fmt::format("{}:{}: router must be an array of tables: [[router]]", name, node->source().begin.line));
  }
  const std::size_t entries = root.get("router") == nullptr ? 0 : root.get("router")->as_array()->size();
  for (std::size_t i = 0; i < entries; ++i) {
    Section s(root, "router", name, i);
    RouterEntry entry;
    s.text("name", entry.name);
    std::string address;
    s.text("address", address);
    entry.address = parse_range(s, "address", address);
    s.text("sys_name", entry.sys_name);
    s.texts("tags", entry.tags);
    s.number("max_sessions", entry.max_sessions, 0, 1000000);
    s.number("max_routes", entry.max_routes, 0, 1ULL << 40);
    check_entry(s, entry, c.routers.entries);
    s.finish();
    c.routers.entries.push_back(std::move(entry));
  }
  {
    Section s(root, "shards", name);
    s.number("count", c.shards.count, 0, 1024);
    s.flag("pin", c.shards.pin);
    s.finish();
  }
  {
    Section s(root, "ring", name);
    // A ring must hold several records of the largest size, or one message could never be reserved.
    s.number("size_bytes", c.ring.size_bytes, 16ULL << 20, 1ULL << 40);
    s.require(std::has_single_bit(c.ring.size_bytes), "size_bytes",
              fmt::format("must be a power of two, not {}", c.ring.size_bytes));
    s.choice(
        "hugepages", c.ring.hugepages,
        {{"auto", HugepageMode::Auto}, {"require", HugepageMode::Require}, {"never", HugepageMode::Never}});
    s.choice("when_full", c.ring.when_full,
             {{"block", WhenRingFull::Block}, {"drop-newest", WhenRingFull::DropNewest}});
    s.finish();
  }
  {
    Section s(root, "curation", name);
    s.flag("enabled", c.curation.enabled);
    s.require(c.curation.enabled || c.ring.when_full == WhenRingFull::Block, "enabled",
              "must be true with ring.when_full = \"drop-newest\": what is dropped is remembered in tables");
    s.seconds("session_grace_s", c.curation.session_grace_s, 0, 86400);
    s.seconds("resync_timeout_s", c.curation.resync_timeout_s, 0.1, 86400);
    s.seconds("resync_settle_s", c.curation.resync_settle_s, 0, 3600);
    s.finish();
  }
  {
    Section s(root, "dump", name);
    s.seconds("interval_s", c.dump.interval_s, 0, 365.0 * 86400);
    s.require(c.curation.enabled || c.dump.interval_s == 0, "interval_s",
              "must be 0 with curation.enabled = false: there are no tables to publish; "
              "remove it, or enable curation");
    s.finish();
  }
  {
    Section s(root, "nats", name);
    s.text("url", c.nats.url);
    s.require(good_nats_url(c.nats.url), "url", kNatsUrlRule);
    s.text("subject_prefix", c.nats.subject_prefix);
    s.require(good_subject_prefix(c.nats.subject_prefix), "subject_prefix",
              "must be tokens with dots between, without spaces, '*' and '>'");
    s.text("updates_stream", c.nats.updates_stream);
    s.require(good_stream_name(c.nats.updates_stream), "updates_stream",
              "must not hold dots, spaces, '*', '>' or '/'");
    s.text("events_stream", c.nats.events_stream);
    s.require(good_stream_name(c.nats.events_stream), "events_stream",
              "must not hold dots, spaces, '*', '>' or '/'");
    s.require(c.nats.events_stream != c.nats.updates_stream, "events_stream",
              "must not be the updates stream");
    s.number("replicas", c.nats.replicas, 1, 5);
    s.number("max_bytes", c.nats.max_bytes, 0, 1ULL << 60);
    s.seconds("max_age_s", c.nats.max_age_s, 0, 1e9);
    s.seconds("ack_timeout_s", c.nats.ack_timeout_s, 0.1, 600);
    s.number("max_in_flight", c.nats.max_in_flight, 1, 65536);
    s.text("creds", c.nats.creds);
    s.text("user", c.nats.user);
    s.text("password", c.nats.password);
    s.text("token", c.nats.token);
    s.require(password_has_user(c.nats), "password", kPasswordRule);
    s.require(ways_to_log_in(c.nats) <= 1, c.nats.token.empty() ? "creds" : "token", kOneWayRule);
    s.text("tls_ca", c.nats.tls_ca);
    s.text("tls_cert", c.nats.tls_cert);
    s.text("tls_key", c.nats.tls_key);
    s.require(c.nats.tls_cert.empty() == c.nats.tls_key.empty(),
              c.nats.tls_cert.empty() ? "tls_key" : "tls_cert",
              "needs the other one: nats.tls_cert and nats.tls_key belong together");
    s.text("domain", c.nats.domain);
    s.require(c.nats.domain.empty() || good_stream_name(c.nats.domain), "domain", "must be one token");
    s.text("api_prefix", c.nats.api_prefix);
    s.require(c.nats.api_prefix.empty() || good_subject_prefix(c.nats.api_prefix), "api_prefix",
              "must be tokens with dots between, without spaces, '*' and '>'");
    s.require(c.nats.domain.empty() || c.nats.api_prefix.empty(), "api_prefix",
              "cannot be set beside nats.domain");
    s.finish();
    c.file_holds_secrets =
        !c.nats.password.empty() || !c.nats.token.empty() || mask_url(c.nats.url) != c.nats.url;
  }
  {
    Section s(root, "publish", name);
    s.choice("format", c.publish.format, kFormatWords);
    s.number("batch_bytes", c.publish.batch_bytes, 1024, 8 * 1024 * 1024);
    s.number("batch_count", c.publish.batch_count, 1, k32);
    s.seconds("linger_s", c.publish.linger_s, 0, 10);
    s.finish();
  }
  {
    Section s(root, "sink", name);
    s.choice("kind", c.sink.kind, kSinkWords);
    s.finish();
  }
  {
    Section s(root, "journal", name);
    s.flag("enabled", c.journal.enabled);
    s.require(c.journal.enabled || c.sink.kind == SinkKind::Nats, "enabled",
              "must be true with sink.kind = \"journal\"");
    s.number("segment_bytes", c.journal.segment_bytes, 8ULL << 20, 1ULL << 32);
    s.number("max_bytes", c.journal.max_bytes, 0, 1ULL << 60);
    s.require(c.journal.max_bytes == 0 || c.journal.max_bytes >= 2 * c.journal.segment_bytes, "max_bytes",
              "must be 0 (no limit) or at least twice journal.segment_bytes");
    s.seconds("spill_after_s", c.journal.spill_after_s, 0.01, 600);
    s.choice("when_full", c.journal.when_full,
             {{"block", WhenJournalFull::Block}, {"discard-old", WhenJournalFull::DiscardOld}});
    s.require(
        c.journal.when_full == WhenJournalFull::Block || c.sink.kind == SinkKind::Journal, "when_full",
        "can be \"discard-old\" only with sink.kind = \"journal\": what is spilled is not published yet");
    s.finish();
  }
  {
    Section s(root, "snapshot", name);
    s.choice("store", c.snapshot.store,
             {{"file", SnapshotStoreKind::File},
              {"kv", SnapshotStoreKind::Kv},
              {"none", SnapshotStoreKind::None}});
    s.seconds("interval_s", c.snapshot.interval_s, 0, 86400);
    s.text("kv_bucket", c.snapshot.kv_bucket);
    s.require(good_bucket_name(c.snapshot.kv_bucket), "kv_bucket",
              "must be made of letters, digits, '-' and '_'");
    s.finish();
  }
  {
    Section s(root, "metrics", name);
    s.address("listen", c.metrics.listen);
    s.number("max_routers", c.metrics.max_routers, 0, 100000);
    s.finish();
  }
  {
    Section s(root, "control", name);
    std::string listen;
    s.text("listen", listen);
    if (!listen.empty()) s.address("listen", c.control.listen.emplace());
    s.text("tls_cert", c.control.tls_cert);
    s.text("tls_key", c.control.tls_key);
    s.text("tls_ca", c.control.tls_ca);
    const bool tls = !c.control.tls_cert.empty() && !c.control.tls_key.empty() && !c.control.tls_ca.empty();
    s.require(listen.empty() || tls, "listen",
              "needs control.tls_cert, control.tls_key and control.tls_ca: there is no TCP without mTLS");
    s.texts("allow_names", c.control.allow_names);
    s.texts("read_only_names", c.control.read_only_names);
    for (const auto* names : {&c.control.allow_names, &c.control.read_only_names}) {
      const bool good = names->size() <= kMostControlNames &&
                        std::ranges::all_of(*names, [](const std::string& n) { return good_cert_name(n); });
      s.require(good, names == &c.control.allow_names ? "allow_names" : "read_only_names",
                fmt::format("must be at most {} names of certificates, of 1 to 253 printable characters",
                            kMostControlNames));
    }
    s.finish();
  }
  {
    Section s(root, "supervise", name);
    s.seconds("backoff_max_s", c.supervise.backoff_max_s, 0.1, 3600);
    s.finish();
  }
  {
    Section s(root, "log", name);
    s.text("level", c.log.level);
    s.require(good_log_level(c.log.level), "level", kLogLevelRule);
    s.finish();
  }
  // There are no tables to be kept.
  if (!c.curation.enabled) c.snapshot.store = SnapshotStoreKind::None;
  for (const auto& [key, node] : root) {
    static constexpr std::string_view kKnown[] = {
        "instance", "paths",   "bmp",      "shards",  "ring",    "curation",  "dump", "nats",  "publish",
        "sink",     "journal", "snapshot", "metrics", "control", "supervise", "log",  "router"};
    if (std::find(std::begin(kKnown), std::end(kKnown), key.str()) == std::end(kKnown)) {
      throw ConfigError(
          fmt::format("{}:{}: unknown table [{}]", name, node.source().begin.line, std::string(key.str())));
    }
  }
  return c;
}

void ConfigFlags::add_to(CLI::App& app) {
  app.add_option("--config", config,
                 "configuration file (TOML), default /etc/arancini/arancini.toml if it exists");
  app.add_option("--runtime-dir", runtime_dir, "rings, stats pages and sockets live here");
  app.add_option("--state-dir", state_dir, "what must survive a reboot lives here");
  app.add_option("--bmp-listen", bmp_listen, "ADDRESS:PORT for BMP sessions");
  app.add_option("--metrics-listen", metrics_listen, "ADDRESS:PORT for /metrics and /healthz");
  // The environment for those who must not show a password on the command line.
  app.add_option("--nats", nats, "URL of NATS, or 'embedded'")->envname("ARANCINI_NATS");
  app.add_option("--shards", shards, "number of ingestd shards, 0 for one per core");
  app.add_option("--io", io, "auto, uring or epoll");
  app.add_option("--format", format, "update-v1, update-v1-concat or batch-v2");
  app.add_option("--sink", sink, "nats or journal (files under the state directory, no broker)");
  app.add_option("--log-level", log_level, "debug, info, warn or error");
  app.add_flag("--check-config", check_config, "check the configuration and exit");
}

std::string recordable_config(const Config& config) {
  toml::table root = toml::parse(config.text);
  root.erase("nats");
  root.erase("paths");
  root.erase("control");
  if (auto* shards = root["shards"].as_table(); shards != nullptr) {
    shards->insert_or_assign("count", config.shards.count);
  } else if (config.shards.count != 0) {
    root.insert("shards", toml::table{{"count", config.shards.count}});
  }
  std::ostringstream out;
  out << root << '\n';
  return out.str();
}

Config load_config(const ConfigFlags& flags) {
  std::string file = flags.config.value_or("");
  const int mode = flags.default_file == ConfigFlags::DefaultFile::IfReadable ? R_OK : F_OK;
  const bool use_default = flags.default_file != ConfigFlags::DefaultFile::Never;
  if (file.empty() && use_default && ::access(kDefaultFile, mode) == 0) file = kDefaultFile;
  std::string text;
  if (!file.empty()) {
    std::FILE* f = std::fopen(file.c_str(), "re");
    if (f == nullptr) throw ConfigError(fmt::format("{}: cannot be opened: {}", file, std::strerror(errno)));
    char buffer[4096];
    std::size_t n = 0;
    while ((n = std::fread(buffer, 1, sizeof buffer, f)) > 0 && text.size() < (1U << 20))
      text.append(buffer, n);
    const int error = std::ferror(f) != 0 ? errno : 0;
    std::fclose(f);
    if (error != 0) throw ConfigError(fmt::format("{}: cannot be read: {}", file, std::strerror(error)));
  }
  return load_config(flags, file, std::move(text));
}

Config load_config(const ConfigFlags& flags, const std::string& file, std::string text) {
  Config c;
  if (!file.empty()) {
    c = parse_config(text, file);
    c.text = std::move(text);
  }
  if (flags.runtime_dir) c.paths.runtime_dir = *flags.runtime_dir;
  if (flags.state_dir) c.paths.state_dir = *flags.state_dir;
  if (flags.bmp_listen) c.bmp.listen = parse_socket_address(*flags.bmp_listen, "--bmp-listen");
  if (flags.metrics_listen)
    c.metrics.listen = parse_socket_address(*flags.metrics_listen, "--metrics-listen");
  if (flags.nats) {
    if (!good_nats_url(*flags.nats)) throw ConfigError(fmt::format("--nats {}", kNatsUrlRule));
    c.nats.url = *flags.nats;
  }
  // Flags are for everybody to see; these are not.
  const auto from_environment = [](const char* name, std::string& out) {
    const char* value = std::getenv(name);
    const bool set = value != nullptr && value[0] != '\0';
    if (set) out = value;
    return set;
  };
  if (from_environment("ARANCINI_NATS_PASSWORD", c.nats.password) && !password_has_user(c.nats))
    throw ConfigError(fmt::format("ARANCINI_NATS_PASSWORD {}, or a URL nats://USER@HOST", kPasswordRule));
  if (from_environment("ARANCINI_NATS_TOKEN", c.nats.token) && ways_to_log_in(c.nats) > 1)
    throw ConfigError(fmt::format("ARANCINI_NATS_TOKEN {}", kOneWayRule));
  if (flags.shards) c.shards.count = *flags.shards;
  if (flags.io) c.bmp.io = word_to(kIoWords, *flags.io, "--io");
  if (flags.format) c.publish.format = word_to(kFormatWords, *flags.format, "--format");
  if (flags.sink) c.sink.kind = word_to(kSinkWords, *flags.sink, "--sink");
  if (c.sink.kind == SinkKind::Journal && !c.journal.enabled)
    throw ConfigError("--sink journal: journal.enabled must be true");
  if (flags.log_level) {
    if (!good_log_level(*flags.log_level)) throw ConfigError(fmt::format("--log-level {}", kLogLevelRule));
    c.log.level = *flags.log_level;
  }
  if (c.shards.count > 1024) throw ConfigError("--shards: at most 1024");
  if (c.shards.count == 0) c.shards.count = usable_cores();
  return c;
}

std::string Config::ring_path(std::uint32_t shard) const {
  return fmt::format("{}/ring-{}", paths.runtime_dir, shard);
}
std::string Config::ingestd_stats_path(std::uint32_t shard) const {
  return fmt::format("{}/ingestd@{}.stats", paths.runtime_dir, shard);
}
std::string Config::ingestd_control_path(std::uint32_t shard) const {
  return fmt::format("{}/ingestd@{}.sock", paths.runtime_dir, shard);
}
std::string Config::log_path() const {
  return paths.runtime_dir + "/publishd.sock";
}
std::string Config::snapshot_dir() const {
  return paths.state_dir + "/snapshots";
}
std::string Config::handover_path(std::uint32_t shard) const {
  return fmt::format("{}/ingestd@{}.handover", paths.runtime_dir, shard);
}
std::string Config::publishd_stats_path() const {
  return paths.runtime_dir + "/publishd.stats";
}
std::string Config::journal_dir() const {
  return paths.state_dir + "/journal";
}
std::string Config::control_path() const {
  return paths.runtime_dir + "/curated.sock";
}

}  // namespace arancini
