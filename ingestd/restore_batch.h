#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/types.h"
#include "ingestd/attribute_store.h"

// What the cold side of a restore hands to the hot thread: what was told, in the order in which it was told.
namespace arancini::ingestd {

struct RestoredRouter {
  IpAddress address;
  std::string name;  // as configured when it was told; empty: none
  std::string sys_name, sys_descr;
};

// As it was told.
struct RestoredView {
  std::uint32_t router = 0;  // number of its RestoredRouter
  std::uint8_t peer_type = 0;
  std::uint64_t distinguisher = 0;
  IpAddress peer;
  View view = View::AdjInPre;
  std::uint32_t asn = 0;
  std::uint32_t bgp_id = 0;
  std::uint16_t router_port = 0;
  friend bool operator==(const RestoredView&, const RestoredView&) = default;
};

struct RestoredRoute {
  Prefix prefix;
  std::uint32_t attributes = 0;  // of a snapshot's route: number that the snapshot gave them
  std::uint8_t paths = 0;        // see snapshot::RouteEntry
};

// Steps in order; what a step needs lies in the vectors. Numbers of routers and views hold for the whole
// restore, those of attributes until ForgetAttributes.
struct RestoreBatch {
  enum class Kind : std::uint8_t {
    Router,            // routers[index] gets `number`
    View,              // views[index] gets `number`, or replaces what has it: a new identity
    Attributes,        // attributes[index] gets `number`
    ForgetAttributes,  // a snapshot's end
    SnapshotRoutes,    // routes [first, first + count) of view `number`, each with its own attributes
    Announce,          // they were announced with attributes[index]
    Withdraw,
    Clear,  // all that was restored so far was told in another log
  };
  struct Step {
    Kind kind{};
    Family family = kIpv4Unicast;
    std::uint32_t number = 0;
    std::uint32_t index = 0;
    std::uint32_t first = 0, count = 0;
  };
  // Bytes [first, …) of `bytes`, in the order of AttrKey.
  struct Attributes {
    std::size_t first = 0;
    std::uint32_t next_hop_bytes = 0, flags_bytes = 0, attributes_bytes = 0;
  };

  std::vector<Step> steps;
  std::vector<RestoredRouter> routers;
  std::vector<RestoredView> views;
  std::vector<Attributes> attributes;
  std::vector<RestoredRoute> routes;
  std::vector<std::byte> bytes;

  std::uint32_t add_attributes(const AttrKey& key) {
    attributes.push_back({bytes.size(), static_cast<std::uint32_t>(key.next_hop.size()),
                          static_cast<std::uint32_t>(key.flags.size()),
                          static_cast<std::uint32_t>(key.attributes.size())});
    for (const auto part : {key.next_hop, key.flags, key.attributes})
      bytes.insert(bytes.end(), part.begin(), part.end());
    return static_cast<std::uint32_t>(attributes.size() - 1);
  }
  [[nodiscard]] AttrKey key(std::uint32_t index) const {
    const Attributes& a = attributes[index];
    const std::span<const std::byte> all =
        std::span(bytes).subspan(a.first, std::size_t{a.next_hop_bytes} + a.flags_bytes + a.attributes_bytes);
    return {all.first(a.next_hop_bytes), all.subspan(a.next_hop_bytes, a.flags_bytes),
            all.subspan(std::size_t{a.next_hop_bytes} + a.flags_bytes)};
  }
  // Large enough to be worth a round of the hot thread, small enough to be there soon.
  [[nodiscard]] bool full() const {
    return routes.size() >= 8192 || bytes.size() >= (1U << 20) || steps.size() >= 4096;
  }
  [[nodiscard]] bool empty() const { return steps.empty(); }
  // Keeps the memory.
  void clear() {
    steps.clear();
    routers.clear();
    views.clear();
    attributes.clear();
    routes.clear();
    bytes.clear();
  }
};

}  // namespace arancini::ingestd
