#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "common/schema/update_decode.h"
#include "tools/route_json.h"

namespace arancini::tools {

// The routers' tables, from updates in stream order: an announcement sets its route, a withdrawal removes it.
// Attributes that routes share are kept once, so that a table of millions fits.
class RouteFold {
 public:
  void apply(const schema::DecodedUpdate& update);
  [[nodiscard]] std::size_t size() const { return routes_.size(); }
  // Every route in the order of RouteKey.
  void for_each(const std::function<void(const schema::DecodedUpdate&)>& each) const;

 private:
  using Shared = std::shared_ptr<const schema::DecodedUpdate>;
  // The part of the key that many routes share, and the part that tells them apart within it.
  using TableKey = std::tuple<std::string, IpAddress, std::uint64_t, std::uint8_t, View, Family>;
  struct Slot {
    std::uint32_t table = 0;
    std::uint32_t path_id = 0;
    IpAddress prefix;
    std::uint8_t prefix_length = 0;
    friend bool operator==(const Slot&, const Slot&) = default;
  };
  struct SlotHash {
    std::size_t operator()(const Slot& s) const noexcept;
  };

  std::uint32_t table_of(const schema::DecodedUpdate& update);
  Shared intern(const schema::DecodedUpdate& update);

  std::map<TableKey, std::uint32_t> tables_;
  schema::DecodedUpdate recent_update_;  // whose table is recent_table_
  std::uint32_t recent_table_ = 0;
  std::unordered_map<std::string, Shared> attributes_;
  std::string recent_attributes_;
  Shared recent_;
  std::unordered_map<Slot, Shared, SlotHash> routes_;
};

}  // namespace arancini::tools
