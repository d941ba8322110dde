#pragma once

#include <compare>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/base/types.h"
#include "common/schema/update_decode.h"

// Routes and updates as the JSON of the command contract: fold, lookup, bmpgen --truth, tail, decode.
namespace arancini::tools {

// What makes a route in a folded table one route. Its order is the order of fold's output.
struct RouteKey {
  std::string router;  // configured name, else the address
  IpAddress peer;
  std::uint64_t peer_distinguisher = 0;
  std::uint8_t peer_type = 0;
  View view = View::AdjInPre;
  Family family;
  IpAddress prefix;
  std::uint8_t prefix_length = 0;
  std::uint32_t path_id = 0;
  friend auto operator<=>(const RouteKey&, const RouteKey&) = default;
};
RouteKey route_key(const schema::DecodedUpdate& update);

// "192.0.2.0/24", "2001:db8::/32".
std::string prefix_text(const schema::DecodedUpdate& update);

// A route of a table, exactly the keys of the contract; absent attributes are absent keys. AS_SET members are
// an array within as_path, confederation segments an object {"confed_sequence": […]} or {"confed_set": […]}.
nlohmann::ordered_json route_json(const schema::DecodedUpdate& route);

// An update: the route, announced, synthetic, reason, sequence, shard (null when not known), times, and the
// attributes and metadata that the table's form leaves out.
nlohmann::ordered_json update_json(const schema::DecodedUpdate& update, std::optional<std::uint32_t> shard);

// A table as fold prints it: sorted by RouteKey, one JSON text per route.
std::vector<std::string> fold_lines(std::vector<schema::DecodedUpdate>& routes);

// One line without its end; text that is not UTF-8 is replaced, not refused.
std::string to_line(const nlohmann::ordered_json& json);

}  // namespace arancini::tools
