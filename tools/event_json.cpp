#include "tools/event_json.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "common/schema/event_decode.h"
#include "tools/route_json.h"

namespace arancini::tools {

namespace {

using nlohmann::ordered_json;
using schema::EventScope;

std::string hex(std::span<const std::byte> bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (const std::byte b : bytes) out += fmt::format("{:02x}", static_cast<unsigned>(b));
  return out;
}

std::string time_text(std::uint64_t ns) {
  const std::chrono::sys_time<std::chrono::nanoseconds> t{std::chrono::nanoseconds(ns)};
  const auto seconds = std::chrono::floor<std::chrono::seconds>(t);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(t - seconds).count();
  return fmt::format("{:%FT%T}.{:06}Z", seconds, micros);
}

}  // namespace

ordered_json event_json(const schema::EventFields& e, std::optional<std::uint32_t> shard) {
  ordered_json j;
  j["kind"] = to_string(e.kind);
  j["scope"] = to_string(e.scope);
  j["time_ns"] = e.time_ns;
  if (e.has_router) j["router"] = e.router_id.empty() ? e.router.to_string() : e.router_id;
  if (e.has_router) j["router_address"] = e.router.to_string();
  if (e.router_port != 0) j["router_port"] = e.router_port;
  if (e.scope >= EventScope::Peer) {
    j["peer"] = e.peer.to_string();
    j["peer_asn"] = e.peer_asn;
    j["peer_bgp_id"] = IpAddress::from_v4(e.peer_bgp_id).to_string();
    j["peer_type"] = e.peer_type;
    j["peer_distinguisher"] = distinguisher_text(e.peer_distinguisher);
  }
  if (e.scope >= EventScope::View) j["view"] = to_string(e.view);
  if (e.scope >= EventScope::Table) {
    j["afi"] = e.family.afi;
    j["safi"] = e.family.safi;
  }
  if (e.reason != Reason::None) j["reason"] = to_string(e.reason);
  if (e.reason_code != 0) j["reason_code"] = e.reason_code;
  if (e.error_code != 0) j["error_code"] = e.error_code;
  if (e.since_ns != 0) j["since_ns"] = e.since_ns;
  if (e.until_ns != 0) j["until_ns"] = e.until_ns;
  if (!e.counters.empty()) {
    ordered_json& counters = j["counters"] = ordered_json::object();
    for (const auto& c : e.counters) counters[c.name] = c.value;
  }
  if (!e.details.empty()) {
    ordered_json& details = j["details"] = ordered_json::object();
    for (const auto& d : e.details) details[d.name] = d.value;
  }
  if (!e.text.empty()) j["text"] = e.text;
  if (!e.raw.empty()) j["raw"] = hex(e.raw);
  j["writer"] = e.writer.to_hex();
  j["sequence"] = e.sequence;
  j["last_update_sequence"] = e.last_update_sequence;
  j["shard"] = shard ? ordered_json(*shard) : ordered_json(nullptr);
  return j;
}

std::string event_text(const ordered_json& j) {
  std::string out = time_text(j["time_ns"].get<std::uint64_t>()) + " " + j["kind"].get<std::string>();
  for (const char* key : {"router", "peer", "view"}) {
    if (j.contains(key)) out += fmt::format(" {} {}", key, j[key].get<std::string>());
  }
  if (j.contains("peer_asn")) out += " AS " + j["peer_asn"].dump();
  if (j.contains("reason")) out += " (" + j["reason"].get<std::string>() + ")";
  if (j.contains("text")) {
    out += ": " + j["text"].get<std::string>();
  } else if (j.contains("counters")) {
    out += ": " + to_line(j["counters"]);
  }
  return out + " event " + j["sequence"].dump();
}

std::optional<std::string> print_event(std::span<const std::byte> payload, std::optional<std::uint32_t> shard,
                                       bool json) {
  schema::EventFields event;
  if (auto error = schema::decode_event(payload, event)) return error;
  const ordered_json j = event_json(event, shard);
  const std::string line = (json ? to_line(j) : event_text(j)) + "\n";
  std::fwrite(line.data(), 1, line.size(), stdout);
  return std::nullopt;
}

}  // namespace arancini::tools
