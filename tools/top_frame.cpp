#include "tools/top_frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "tools/text_table.h"

namespace arancini::tools {

namespace {

namespace pb = control::v1;
using nlohmann::ordered_json;

constexpr std::uint64_t kSecond = 1'000'000'000U;

double rate(std::uint64_t before, std::uint64_t now, double seconds) {
  return now > before && seconds > 0 ? static_cast<double>(now - before) / seconds : 0;
}

std::string shown(double per_second) {
  if (per_second > 0 && per_second < 9.95) return fmt::format("{:.1f}", per_second);
  constexpr double kMost = 9e18;  // of what std::llround() takes
  return short_number(static_cast<std::uint64_t>(std::llround(std::min(per_second, kMost))));
}

using RouterKey = std::tuple<std::string, std::string, std::uint32_t>;
RouterKey key_of(const pb::Router& r) {
  return {r.address(), r.name(), r.shard()};
}

double weight(const TopRouter& r, TopSort sort) {
  switch (sort) {
    case TopSort::Updates: return r.rates.updates;
    case TopSort::Bytes: return r.rates.bytes;
    case TopSort::Routes: return static_cast<double>(r.router.routes());
    case TopSort::Malformed: return r.rates.malformed;
    case TopSort::Lag: return static_cast<double>(r.silent_ns);
  }
  return 0;
}

double rounded(double per_second) {
  return std::round(per_second * 10) / 10;
}

void add_rates(ordered_json& out, const TopRates& rates) {
  out["updates_per_s"] = rounded(rates.updates);
  out["suppressed_per_s"] = rounded(rates.suppressed);
  out["malformed_per_s"] = rounded(rates.malformed);
}

}  // namespace

TopFrame top_frame(const TopSample& before, const TopSample& now, TopSort sort) {
  TopFrame out;
  out.interval_s = static_cast<double>(now.monotonic_ns - before.monotonic_ns) / 1e9;
  out.realtime_ns = now.realtime_ns;
  out.status = now.status;
  std::map<std::uint32_t, const pb::ShardStatus*> shards;
  for (const auto& k : before.status.shards()) shards[k.shard()] = &k;
  for (const auto& k : now.status.shards()) {
    TopShard shard{k, {}};
    if (const auto b = shards.find(k.shard()); b != shards.end()) {
      shard.rates.updates = rate(b->second->updates(), k.updates(), out.interval_s);
      shard.rates.suppressed = rate(b->second->suppressed(), k.suppressed(), out.interval_s);
      shard.rates.malformed = rate(b->second->malformed(), k.malformed(), out.interval_s);
    }
    out.shards.push_back(std::move(shard));
  }
  std::map<RouterKey, const pb::Router*> routers;
  for (const auto& r : before.routers.routers()) routers[key_of(r)] = &r;
  for (const auto& r : now.routers.routers()) {
    TopRouter router{r, {}, UINT64_MAX};
    if (r.last_message_ns() != 0)
      router.silent_ns = now.realtime_ns > r.last_message_ns() ? now.realtime_ns - r.last_message_ns() : 0;
    if (const auto b = routers.find(key_of(r)); b != routers.end()) {
      router.rates.updates = rate(b->second->updates(), r.updates(), out.interval_s);
      router.rates.messages = rate(b->second->messages(), r.messages(), out.interval_s);
      router.rates.bytes = rate(b->second->bytes(), r.bytes(), out.interval_s);
      router.rates.suppressed = rate(b->second->suppressed(), r.suppressed(), out.interval_s);
      router.rates.malformed = rate(b->second->malformed(), r.malformed(), out.interval_s);
    }
    out.routers.push_back(std::move(router));
  }
  // Equal ones keep their places from frame to frame.
  std::sort(out.routers.begin(), out.routers.end(), [sort](const TopRouter& a, const TopRouter& b) {
    const double wa = weight(a, sort);
    const double wb = weight(b, sort);
    return wa != wb ? wa > wb : key_of(a.router) < key_of(b.router);
  });
  return out;
}

std::string top_text(const TopFrame& frame, std::size_t rows) {
  double updates = 0;
  std::uint64_t routes = 0;
  for (const TopShard& k : frame.shards) {
    updates += k.rates.updates;
    routes += k.shard.routes();
  }
  std::uint64_t peers = 0;
  for (const TopRouter& r : frame.routers) peers += r.router.peers_up();
  const bool broker = frame.status.sink().kind() != "journal";
  std::string out =
      fit(fmt::format("{}, up {}{}{}", frame.status.instance(), short_duration(frame.status.uptime_s()),
                      broker ? ", NATS " + frame.status.nats().state() : ", sink: journal",
                      broker && frame.status.nats().in_flight() > 0
                          ? fmt::format(", {} in flight", frame.status.nats().in_flight())
                          : ""),
          80) +
      "\n";
  out += fit(fmt::format("{} routers, {} peers up, {} routes, {} updates/s", frame.routers.size(), peers,
                         short_number(routes), shown(updates)),
             80) +
         "\n\n";
  TextTable shards({{"SHARD", 5, true},
                    {"SESSIONS", 8, true},
                    {"ROUTES", 7, true},
                    {"UPD/S", 6, true},
                    {"SUPPR/S", 7, true},
                    {"MALF/S", 6, true},
                    {"RING", 5, true},
                    {"READER", 22}});
  for (const TopShard& k : frame.shards) {
    const auto capacity = k.shard.ring_capacity_bytes();
    shards.add({std::to_string(k.shard.shard()), short_number(k.shard.sessions()),
                short_number(k.shard.routes()), shown(k.rates.updates), shown(k.rates.suppressed),
                shown(k.rates.malformed),
                capacity == 0 ? "-" : fmt::format("{}%", k.shard.ring_used_bytes() * 100 / capacity),
                k.shard.restoring() ? "restoring" : k.shard.ring_state()});
  }
  out += shards.text() + "\n";
  TextTable routers({{"ROUTER", 21},
                     {"STATE", 10},
                     {"PEERS", 5, true},
                     {"ROUTES", 6, true},
                     {"UPD/S", 6, true},
                     {"BYTE/S", 6, true},
                     {"MALF/S", 6, true},
                     {"SILENT", 6, true}});
  const std::size_t shown_rows = std::min(rows, frame.routers.size());
  for (std::size_t i = 0; i < shown_rows; ++i) {
    const TopRouter& r = frame.routers[i];
    routers.add({r.router.name().empty() ? r.router.address() : r.router.address() + " " + r.router.name(),
                 r.router.condition().empty() ? r.router.state() : r.router.condition(),
                 std::to_string(r.router.peers_up()), short_number(r.router.routes()), shown(r.rates.updates),
                 shown(r.rates.bytes), shown(r.rates.malformed),
                 r.silent_ns == UINT64_MAX ? "never" : short_duration(r.silent_ns / kSecond)});
  }
  out += routers.text();
  if (shown_rows < frame.routers.size())
    out += fmt::format("and {} more\n", frame.routers.size() - shown_rows);
  return out;
}

ordered_json top_json(const TopFrame& frame, std::size_t rows) {
  ordered_json out = {{"time_ns", frame.realtime_ns},
                      {"interval_s", frame.interval_s},
                      {"instance", frame.status.instance()},
                      {"nats", frame.status.nats().state()}};
  ordered_json& shards = out["shards"] = ordered_json::array();
  for (const TopShard& k : frame.shards) {
    ordered_json j = {{"shard", k.shard.shard()},
                      {"sessions", k.shard.sessions()},
                      {"routes", k.shard.routes()},
                      {"ring_used_bytes", k.shard.ring_used_bytes()},
                      {"ring_capacity_bytes", k.shard.ring_capacity_bytes()}};
    add_rates(j, k.rates);
    shards.push_back(std::move(j));
  }
  ordered_json& routers = out["routers"] = ordered_json::array();
  const std::size_t shown_rows = std::min(rows, frame.routers.size());
  for (std::size_t i = 0; i < shown_rows; ++i) {
    const TopRouter& r = frame.routers[i];
    ordered_json j = {{"address", r.router.address()},     {"name", r.router.name()},
                      {"shard", r.router.shard()},         {"state", r.router.state()},
                      {"throttled", r.router.throttled()}, {"peers_up", r.router.peers_up()},
                      {"routes", r.router.routes()}};
    add_rates(j, r.rates);
    j["messages_per_s"] = rounded(r.rates.messages);
    j["bytes_per_s"] = rounded(r.rates.bytes);
    j["silent_s"] = r.silent_ns == UINT64_MAX ? ordered_json(nullptr) : ordered_json(r.silent_ns / kSecond);
    routers.push_back(std::move(j));
  }
  out["routers_not_shown"] = frame.routers.size() - shown_rows;
  return out;
}

}  // namespace arancini::tools
