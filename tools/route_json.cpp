#include "tools/route_json.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>

namespace arancini::tools {

namespace {

using nlohmann::ordered_json;
using schema::DecodedUpdate;

// Path attribute types (IANA); the bits of attributes_present.
enum Attribute : unsigned {
  kOrigin = 1,
  kAsPath = 2,
  kNextHop = 3,
  kMed = 4,
  kLocalPref = 5,
  kAtomicAggregate = 6,
  kAggregator = 7,
  kCommunities = 8,
  kOriginatorId = 9,
  kClusterList = 10,
  kMpReach = 14,
  kExtendedCommunities = 16,
  kLargeCommunities = 32,
  kOnlyToCustomer = 35,
};

bool has(const DecodedUpdate& u, Attribute a) {
  return ((u.attributes_present >> a) & 1U) != 0;
}

// By family, not by the bytes: an IPv6 prefix may lie in the IPv4-mapped range.
std::string address_text(const IpAddress& a, std::uint16_t afi) {
  if (afi != 2) return a.to_string();
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(AF_INET6, a.bytes.data(), text, sizeof text);
  return text;
}

std::string hex_text(const std::vector<std::uint8_t>& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string s;
  s.reserve(bytes.size() * 2);
  for (const std::uint8_t b : bytes) {
    s += kDigits[b >> 4];
    s += kDigits[b & 15];
  }
  return s;
}

std::string bgp_id_text(std::uint32_t id) {
  return IpAddress::from_v4(id).to_string();
}

ordered_json as_path_json(const DecodedUpdate& u) {
  if (u.as_segments.empty()) return u.as_path;
  ordered_json out = ordered_json::array();
  for (const auto& segment : u.as_segments) {
    switch (segment.type) {
      case 1: out.push_back(segment.members); break;
      case 3: out.push_back({{"confed_sequence", segment.members}}); break;
      case 4: out.push_back({{"confed_set", segment.members}}); break;
      default:
        for (const std::uint32_t asn : segment.members) out.push_back(asn);
    }
  }
  return out;
}

void add_route_attributes(ordered_json& j, const DecodedUpdate& u) {
  // Producers that write no attributesPresent still have their non-empty values shown.
  if (!u.origin.empty()) j["origin"] = u.origin;
  if (has(u, kAsPath) || !u.as_path.empty()) j["as_path"] = as_path_json(u);
  if (has(u, kNextHop) || has(u, kMpReach) || !u.next_hop.is_zero()) j["next_hop"] = u.next_hop.to_string();
  if (has(u, kMed) || u.med != 0) j["med"] = u.med;
  if (has(u, kLocalPref) || u.local_pref != 0) j["local_pref"] = u.local_pref;
  if (has(u, kCommunities) || !u.communities.empty()) {
    ordered_json& list = j["communities"] = ordered_json::array();
    for (const auto& c : u.communities) list.push_back(fmt::format("{}:{}", c.asn, c.value));
  }
  if (has(u, kLargeCommunities) || !u.large_communities.empty()) {
    ordered_json& list = j["large_communities"] = ordered_json::array();
    for (const auto& c : u.large_communities)
      list.push_back(fmt::format("{}:{}:{}", c.global, c.data1, c.data2));
  }
  if (has(u, kExtendedCommunities) || !u.ext_communities.empty()) {
    ordered_json& list = j["ext_communities"] = ordered_json::array();
    for (const auto& c : u.ext_communities) list.push_back(hex_text(c));
  }
}

void add_other_attributes(ordered_json& j, const DecodedUpdate& u) {
  if (u.atomic_aggregate) j["atomic_aggregate"] = true;
  if (has(u, kAggregator) || u.aggregator_asn != 0) {
    j["aggregator"] = fmt::format("{}:{}", u.aggregator_asn, bgp_id_text(u.aggregator_bgp_id));
  }
  if (has(u, kOriginatorId) || u.originator_id != 0) j["originator_id"] = bgp_id_text(u.originator_id);
  if (has(u, kClusterList) || !u.cluster_list.empty()) {
    ordered_json& list = j["cluster_list"] = ordered_json::array();
    for (const std::uint32_t id : u.cluster_list) list.push_back(bgp_id_text(id));
  }
  if (has(u, kOnlyToCustomer) || u.only_to_customer != 0) j["only_to_customer"] = u.only_to_customer;
  if (!u.raw_attributes.empty()) j["other_attributes"] = hex_text(u.raw_attributes);
}

}  // namespace

RouteKey route_key(const DecodedUpdate& u) {
  return {.router = u.router_id.empty() ? u.router.to_string() : u.router.to_string() + ' ' + u.router_id,
          .peer = u.peer,
          .peer_distinguisher = u.peer_distinguisher,
          .peer_type = u.peer_type,
          .view = u.view,
          .family = u.family,
          .prefix = u.prefix_address,
          .prefix_length = u.prefix_length,
          .path_id = u.path_id};
}

std::string prefix_text(const DecodedUpdate& u) {
  return fmt::format("{}/{}", address_text(u.prefix_address, u.family.afi), u.prefix_length);
}

ordered_json route_json(const DecodedUpdate& u) {
  ordered_json j;
  j["router"] = u.router_id.empty() ? u.router.to_string() : u.router_id;
  j["peer"] = u.peer.to_string();
  j["peer_asn"] = u.peer_asn;
  j["peer_distinguisher"] = distinguisher_text(u.peer_distinguisher);
  j["view"] = to_string(u.view);
  j["afi"] = u.family.afi;
  j["safi"] = u.family.safi;
  j["prefix"] = prefix_text(u);
  j["path_id"] = u.path_id;
  add_route_attributes(j, u);
  return j;
}

ordered_json update_json(const DecodedUpdate& u, std::optional<std::uint32_t> shard) {
  ordered_json j = route_json(u);
  add_other_attributes(j, u);
  j["announced"] = u.announced;
  j["synthetic"] = u.synthetic;
  j["reason"] = to_string(u.reason);
  j["sequence"] = u.sequence;
  j["shard"] = shard ? ordered_json(*shard) : ordered_json(nullptr);
  j["writer"] = u.writer.to_hex();
  j["time_received_ns"] = u.time_received_ns;
  j["time_bmp_ns"] = u.time_bmp_ns;
  j["router_address"] = u.router.to_string();
  if (!u.tags.empty()) j["tags"] = u.tags;
  j["router_port"] = u.router_port;
  j["peer_type"] = u.peer_type;
  j["peer_bgp_id"] = bgp_id_text(u.peer_bgp_id);
  return j;
}

std::vector<std::string> fold_lines(std::vector<DecodedUpdate>& routes) {
  std::sort(routes.begin(), routes.end(),
            [](const DecodedUpdate& a, const DecodedUpdate& b) { return route_key(a) < route_key(b); });
  std::vector<std::string> lines;
  lines.reserve(routes.size());
  for (const DecodedUpdate& route : routes) lines.push_back(to_line(route_json(route)));
  return lines;
}

std::string to_line(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace arancini::tools
