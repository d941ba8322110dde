#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/types.h"
#include "tools/bmp_build.h"

// BMP sessions of routers that never were: a table dump per peer with Internet-like prefix lengths and
// attribute sets shared as in real tables, End-of-RIB, then churn of single-prefix UPDATEs. The same options,
// the same bytes: bmpgen sends them, benchmarks keep them in memory.
namespace arancini::tools {

struct LoadOptions {
  std::uint32_t peers = 1;            // of a router
  std::uint32_t prefixes = 1000;      // of a peer; all peers tell the same ones
  std::uint32_t v6_percent = 10;      // of the prefixes
  std::uint32_t nlri_per_update = 8;  // an UPDATE of the dump has 1 to this many, of one family
  // UPDATEs of the dump with attributes that no earlier one of the router had: about two thirds in the dumps
  // of real routers.
  std::uint32_t new_attributes_percent = 65;
  std::uint64_t churn = 0;              // UPDATEs
  std::uint32_t withdraw_percent = 20;  // of the churn
  std::uint64_t seed = 1;
  std::uint32_t version = 0;  // another one: the same prefixes, other attributes
  bool terminate = false;     // ends with a Termination message
};

struct LoadTable {
  std::vector<Prefix> prefixes;
  std::vector<Family> families;
};
LoadTable make_load_table(const LoadOptions& options);

// What a peer told of each prefix of the table, in the end: kNothingTold, or the attribute set's id + 1.
using PeerTable = std::vector<std::uint32_t>;
inline constexpr std::uint32_t kNothingTold = 0;

struct LoadSession {
  std::string bytes;
  std::vector<PeerTable> tables;  // of each peer
  std::uint64_t messages = 0;
  std::uint64_t updates = 0;   // routes announced or withdrawn
  std::size_t dump_bytes = 0;  // until the churn
  std::uint64_t dump_updates = 0;
};
// `router`: its number; routers differ in peers and attributes.
LoadSession make_load_session(const LoadOptions& options, const LoadTable& table, std::uint32_t router);

PeerIdentity load_peer(std::uint32_t router, std::uint32_t peer);
// The attribute set `id` of `router` as a peer sends it.
PathAttributes load_attributes(const LoadOptions& options, std::uint32_t router, std::uint32_t id,
                               std::uint32_t peer_asn, Family family);

}  // namespace arancini::tools
