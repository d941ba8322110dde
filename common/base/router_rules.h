#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/types.h"

// What the operator says about routers: `[[router]]`, `bmp.allow` and the limits of each
// (docs/configuration.md).
namespace arancini {

// A range of addresses; IPv4 is mapped into IPv6, so the length counts from the first of 128 bits.
struct AddressRange {
  IpAddress address;
  std::uint8_t length = 128;

  // "10.0.0.0/8", "2001:db8::/32" or an address; nullopt for anything else, and for one with bits behind its
  // length.
  static std::optional<AddressRange> parse(std::string_view text);
  [[nodiscard]] bool contains(const IpAddress& a) const;
  [[nodiscard]] bool is_host() const { return length == 128; }
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const AddressRange&, const AddressRange&) = default;
};

// One [[router]].
struct RouterEntry {
  std::string name;      // what it is called downstream; empty: its address
  AddressRange address;  // where it connects from
  std::string sys_name;  // only the router that says so in its Initiation; empty: any
  std::vector<std::string> tags;
  std::optional<std::uint32_t> max_sessions;  // 0: no limit; absent: that of all routers
  std::optional<std::uint64_t> max_routes;
};

struct RouterRules {
  static constexpr std::size_t kMostTags = 16;
  static constexpr std::size_t kMostNameBytes = 64;  // of a name, a sys_name, a tag

  std::vector<AddressRange> allow;  // empty: everybody
  std::uint32_t max_sessions = 0;   // of each router; 0: no limit
  std::uint64_t max_routes = 0;
  std::vector<RouterEntry> entries;

  // An entry or `allow` takes the address in.
  [[nodiscard]] bool allows(const IpAddress& address) const;
  // Which router this is depends on what its Initiation says.
  [[nodiscard]] bool needs_sys_name(const IpAddress& address) const;
  // The entry of the longest range with the address; among those of one range the one that names `sys_name`,
  // else the one that names none. Null: there is none.
  [[nodiscard]] const RouterEntry* find(const IpAddress& address, std::string_view sys_name = {}) const;
  // What a router is called downstream, empty: its address. None: it is kept out, because nothing allows its
  // address or because routers of it are told apart and no entry has this `sys_name`.
  [[nodiscard]] std::optional<std::string_view> name_of(const IpAddress& address,
                                                        std::string_view sys_name) const;
  // The entry of that name; of the empty one, the one that find() gives and that has no name.
  [[nodiscard]] const RouterEntry* named(const IpAddress& address, std::string_view name) const;

  [[nodiscard]] std::uint32_t sessions_of(const RouterEntry* entry) const {
    return entry != nullptr && entry->max_sessions ? *entry->max_sessions : max_sessions;
  }
  [[nodiscard]] std::uint64_t routes_of(const RouterEntry* entry) const {
    return entry != nullptr && entry->max_routes ? *entry->max_routes : max_routes;
  }
};

// Letters, digits, '_', '.' and '-': what names and tags are made of.
bool good_router_name(std::string_view text);

}  // namespace arancini
