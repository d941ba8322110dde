#pragma once

// `arancini::View` and `arancini::Reason` are spelt out: the generated classes bring a View and a Reason of
// their own.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/types.h"

// A published payload back into plain values, with libcapnp's checked readers; for tools and tests.
namespace arancini::schema {

struct DecodedUpdate {
  std::uint64_t time_received_ns = 0, time_bmp_ns = 0;
  IpAddress router, peer;
  std::uint16_t router_port = 0;
  std::uint32_t peer_bgp_id = 0, peer_asn = 0;
  std::uint8_t peer_type = 0;
  std::uint64_t peer_distinguisher = 0;
  arancini::View view = arancini::View::AdjInPre;
  Family family;
  bool multiprotocol = false;  // MP_REACH_NLRI or MP_UNREACH_NLRI, not the classic fields
  IpAddress prefix_address;
  std::uint8_t prefix_length = 0;
  std::uint32_t path_id = 0;
  bool announced = false, synthetic = false, is_post_policy = false, is_adj_rib_out = false;
  arancini::Reason reason = arancini::Reason::None;
  std::uint64_t sequence = 0;
  WriterId writer;
  std::string router_id;
  std::vector<std::string> tags;

  std::uint64_t attributes_present = 0;
  std::string origin;
  struct Segment {
    std::uint8_t type = 2;
    std::vector<std::uint32_t> members;
  };
  std::vector<std::uint32_t> as_path;
  std::vector<Segment> as_segments;
  IpAddress next_hop;
  std::uint32_t med = 0, local_pref = 0, only_to_customer = 0, aggregator_asn = 0, aggregator_bgp_id = 0,
                originator_id = 0;
  bool atomic_aggregate = false;
  struct Community {
    std::uint32_t asn;
    std::uint16_t value;
  };
  std::vector<Community> communities;
  struct LargeCommunity {
    std::uint32_t global, data1, data2;
  };
  std::vector<LargeCommunity> large_communities;
  std::vector<std::vector<std::uint8_t>> ext_communities;  // 8 bytes each
  std::vector<std::uint32_t> cluster_list;
  std::vector<std::uint8_t> raw_attributes;
};

enum class PayloadFormat : std::uint8_t { UpdateV1, UpdateV1Concat, BatchV2 };
std::optional<PayloadFormat> payload_format(std::string_view header_value);  // Arancini-Format

// Tells batches from Updates by the size of the root struct, for payloads without the header (files);
// nullopt when it is neither. Updates are always taken for UpdateV1Concat, which a single one also is.
std::optional<PayloadFormat> guess_format(std::span<const std::byte> payload);

// One of the framed Cap'n Proto messages of a payload.
struct FramedMessage {
  const char* type;  // its root
  std::size_t offset_bytes;
  std::size_t bytes;
  std::uint32_t segments;
};

// Calls `each` for every update of a message, in order, and `message` behind the updates of each framed
// message. BatchV2 also reads the records of rings and journals (record.capnp). Nullopt when all was read,
// else what is wrong and at which byte.
std::optional<std::string> decode_payload(PayloadFormat format, std::span<const std::byte> payload,
                                          const std::function<void(const DecodedUpdate&)>& each,
                                          const std::function<void(const FramedMessage&)>& message = {});

}  // namespace arancini::schema
