#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/types.h"

// BMP messages from values, for generators: the counterpart of common/wire. Appends to a byte string.
namespace arancini::tools {

struct PeerIdentity {
  std::uint8_t peer_type = 0;
  std::uint8_t flags = 0;  // RFC 7854 4.2, V is set by the address
  std::uint64_t distinguisher = 0;
  IpAddress address;
  std::uint32_t asn = 0;
  std::uint32_t bgp_id = 0;
};

// Path attributes of an announcement; zero or empty means absent, but for origin.
struct PathAttributes {
  std::uint8_t origin = 0;
  std::vector<std::uint32_t> as_path;
  IpAddress next_hop;
  std::uint32_t med = 0;
  std::uint32_t local_pref = 0;
  std::vector<std::uint32_t> communities;
};

void append_initiation(std::string& out, std::string_view sys_name, std::string_view sys_descr);
// OPENs of both sides with 4-byte AS and IPv4/IPv6 unicast.
void append_peer_up(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns,
                    std::uint32_t local_asn, std::uint32_t local_bgp_id);
void append_peer_down(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns,
                      std::uint8_t reason);
// Announces prefixes of one family: IPv4 in the classic fields, IPv6 in MP_REACH_NLRI.
void append_announce(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns, Family family,
                     const PathAttributes& attributes, const std::vector<Prefix>& prefixes);
void append_withdraw(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns, Family family,
                     const std::vector<Prefix>& prefixes);
void append_end_of_rib(std::string& out, const PeerIdentity& peer, std::uint64_t timestamp_ns, Family family);
void append_termination(std::string& out, std::uint16_t reason);

}  // namespace arancini::tools
