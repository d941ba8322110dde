#include "common/base/config_changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace arancini {

std::vector<std::string> changed_keys(const Config& before, const Config& after) {
  std::vector<std::string> out;
  const auto look = [&](const char* key, const auto& was, const auto& is) {
    if (was != is) out.emplace_back(key);
  };
  const Config& a = before;
  const Config& b = after;
  look("instance.name", a.instance.name, b.instance.name);
  look("paths.runtime_dir", a.paths.runtime_dir, b.paths.runtime_dir);
  look("paths.state_dir", a.paths.state_dir, b.paths.state_dir);
  look("bmp.listen", a.bmp.listen.to_string(), b.bmp.listen.to_string());
  look("bmp.backlog", a.bmp.backlog, b.bmp.backlog);
  look("bmp.rcvbuf_bytes", a.bmp.rcvbuf_bytes, b.bmp.rcvbuf_bytes);
  look("bmp.spin_us", a.bmp.spin_us, b.bmp.spin_us);
  look("bmp.max_message_bytes", a.bmp.max_message_bytes, b.bmp.max_message_bytes);
  look("bmp.max_sessions", a.bmp.max_sessions, b.bmp.max_sessions);
  look("bmp.allow", a.routers.allow, b.routers.allow);
  look("bmp.max_sessions_per_router", a.routers.max_sessions, b.routers.max_sessions);
  look("bmp.max_routes_per_router", a.routers.max_routes, b.routers.max_routes);
  look("bmp.io", a.bmp.io, b.bmp.io);
  look("shards.count", a.shards.count, b.shards.count);
  look("shards.pin", a.shards.pin, b.shards.pin);
  look("ring.size_bytes", a.ring.size_bytes, b.ring.size_bytes);
  look("ring.hugepages", a.ring.hugepages, b.ring.hugepages);
  look("ring.when_full", a.ring.when_full, b.ring.when_full);
  look("curation.enabled", a.curation.enabled, b.curation.enabled);
  look("curation.session_grace_s", a.curation.session_grace_s, b.curation.session_grace_s);
  look("curation.resync_timeout_s", a.curation.resync_timeout_s, b.curation.resync_timeout_s);
  look("curation.resync_settle_s", a.curation.resync_settle_s, b.curation.resync_settle_s);
  look("dump.interval_s", a.dump.interval_s, b.dump.interval_s);
  look("nats.url", a.nats.url, b.nats.url);
  look("nats.subject_prefix", a.nats.subject_prefix, b.nats.subject_prefix);
  look("nats.updates_stream", a.nats.updates_stream, b.nats.updates_stream);
  look("nats.events_stream", a.nats.events_stream, b.nats.events_stream);
  look("nats.replicas", a.nats.replicas, b.nats.replicas);
  look("nats.max_bytes", a.nats.max_bytes, b.nats.max_bytes);
  look("nats.max_age_s", a.nats.max_age_s, b.nats.max_age_s);
  look("nats.ack_timeout_s", a.nats.ack_timeout_s, b.nats.ack_timeout_s);
  look("nats.max_in_flight", a.nats.max_in_flight, b.nats.max_in_flight);
  look("nats.creds", a.nats.creds, b.nats.creds);
  look("nats.user", a.nats.user, b.nats.user);
  look("nats.password", a.nats.password, b.nats.password);
  look("nats.token", a.nats.token, b.nats.token);
  look("nats.tls_ca", a.nats.tls_ca, b.nats.tls_ca);
  look("nats.tls_cert", a.nats.tls_cert, b.nats.tls_cert);
  look("nats.tls_key", a.nats.tls_key, b.nats.tls_key);
  look("nats.domain", a.nats.domain, b.nats.domain);
  look("nats.api_prefix", a.nats.api_prefix, b.nats.api_prefix);
  look("publish.format", a.publish.format, b.publish.format);
  look("publish.batch_bytes", a.publish.batch_bytes, b.publish.batch_bytes);
  look("publish.batch_count", a.publish.batch_count, b.publish.batch_count);
  look("publish.linger_s", a.publish.linger_s, b.publish.linger_s);
  look("sink.kind", a.sink.kind, b.sink.kind);
  look("journal.enabled", a.journal.enabled, b.journal.enabled);
  look("journal.max_bytes", a.journal.max_bytes, b.journal.max_bytes);
  look("journal.segment_bytes", a.journal.segment_bytes, b.journal.segment_bytes);
  look("journal.spill_after_s", a.journal.spill_after_s, b.journal.spill_after_s);
  look("journal.when_full", a.journal.when_full, b.journal.when_full);
  look("snapshot.store", a.snapshot.store, b.snapshot.store);
  look("snapshot.interval_s", a.snapshot.interval_s, b.snapshot.interval_s);
  look("snapshot.kv_bucket", a.snapshot.kv_bucket, b.snapshot.kv_bucket);
  look("metrics.listen", a.metrics.listen.to_string(), b.metrics.listen.to_string());
  look("metrics.max_routers", a.metrics.max_routers, b.metrics.max_routers);
  const auto address_text = [](const std::optional<SocketAddress>& x) {
    return x ? x->to_string() : std::string();
  };
  look("control.listen", address_text(a.control.listen), address_text(b.control.listen));
  look("control.tls_cert", a.control.tls_cert, b.control.tls_cert);
  look("control.tls_key", a.control.tls_key, b.control.tls_key);
  look("control.tls_ca", a.control.tls_ca, b.control.tls_ca);
  look("control.allow_names", a.control.allow_names, b.control.allow_names);
  look("control.read_only_names", a.control.read_only_names, b.control.read_only_names);
  look("supervise.backoff_max_s", a.supervise.backoff_max_s, b.supervise.backoff_max_s);
  look("log.level", a.log.level, b.log.level);
  const auto each = [&](const char* key, auto member) {
    const auto& was = a.routers.entries;
    const auto& is = b.routers.entries;
    const bool same =
        std::ranges::equal(was, is, [&](const auto& x, const auto& y) { return x.*member == y.*member; });
    if (!same) out.emplace_back(key);
  };
  each("router.address", &RouterEntry::address);
  each("router.name", &RouterEntry::name);
  each("router.sys_name", &RouterEntry::sys_name);
  each("router.tags", &RouterEntry::tags);
  each("router.max_sessions", &RouterEntry::max_sessions);
  each("router.max_routes", &RouterEntry::max_routes);
  return out;
}

namespace {

struct Use {
  std::string_view key;  // or a table: "nats."
  Effect ingestd, publishd, curated;
};
constexpr Effect kNone = Effect::None;
constexpr Effect kLive = Effect::Live;
constexpr Effect kStart = Effect::Start;
// The first that fits counts.
constexpr Use kUses[] = {
    {"log.level", kLive, kLive, kLive},
    {"router.", kLive, kNone, kLive},
    {"bmp.allow", kLive, kNone, kLive},
    {"bmp.max_sessions_per_router", kLive, kNone, kLive},
    {"bmp.max_routes_per_router", kLive, kNone, kLive},
    {"bmp.listen", kStart, kNone, kStart},
    {"bmp.backlog", kStart, kNone, kStart},
    {"bmp.rcvbuf_bytes", kStart, kNone, kStart},
    {"bmp.", kStart, kNone, kNone},
    {"curation.enabled", kStart, kNone, kStart},
    {"curation.session_grace_s", kLive, kNone, kLive},
    {"curation.", kLive, kNone, kNone},
    {"dump.", kLive, kNone, kNone},
    {"snapshot.interval_s", kLive, kNone, kNone},
    {"snapshot.store", kStart, kNone, kStart},
    {"snapshot.kv_bucket", kStart, kStart, kNone},
    {"metrics.max_routers", kNone, kNone, kLive},
    {"metrics.", kNone, kNone, kStart},
    {"control.", kNone, kNone, kStart},
    {"supervise.", kNone, kNone, kStart},
    {"instance.", kNone, kStart, kStart},
    {"paths.", kStart, kStart, kStart},
    {"shards.count", kStart, kStart, kStart},
    {"shards.pin", kStart, kNone, kNone},
    {"ring.", kStart, kNone, kNone},
    {"nats.url", kNone, kStart, kStart},
    {"nats.updates_stream", kNone, kStart, kStart},
    {"nats.", kNone, kStart, kNone},
    {"publish.", kNone, kStart, kNone},
    {"sink.kind", kNone, kStart, kStart},
    {"journal.", kNone, kStart, kNone},
};

}  // namespace

Effect effect_of(std::string_view key, Daemon daemon) {
  const auto use = std::ranges::find_if(
      kUses, [&](const Use& u) { return u.key.back() == '.' ? key.starts_with(u.key) : key == u.key; });
  if (use == std::end(kUses)) return Effect::Start;
  switch (daemon) {
    case Daemon::Ingestd: return use->ingestd;
    case Daemon::Publishd: return use->publishd;
    case Daemon::Curated: return use->curated;
  }
  return Effect::Start;
}

ConfigPlan plan_change(const Config& now, const Config& next, Daemon daemon) {
  ConfigPlan plan;
  for (std::string& key : changed_keys(now, next)) {
    switch (effect_of(key, daemon)) {
      case Effect::None: break;
      case Effect::Live: plan.live.push_back(std::move(key)); break;
      case Effect::Start: plan.start.push_back(std::move(key)); break;
    }
  }
  return plan;
}

Config with_live_keys(Config now, const Config& next) {
  const bool curate = now.curation.enabled;
  now.log = next.log;
  now.routers = next.routers;
  now.curation = next.curation;
  now.curation.enabled = curate;
  now.dump = next.dump;
  now.snapshot.interval_s = next.snapshot.interval_s;
  now.metrics.max_routers = next.metrics.max_routers;
  return now;
}

std::string text_hash(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return fmt::format("{:016x}", hash);
}

}  // namespace arancini
