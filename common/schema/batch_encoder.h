#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "common/base/types.h"
#include "common/wire/bgp_update.h"
#include "shm-layout/record.h"

// Writes UpdateBatch messages word by word into ring memory, byte for byte what libcapnp would write (a test
// proves it over random messages). No allocation, no libcapnp on this path.
namespace arancini::schema {

class BatchSource;

// What all routes of a batch have in common, beside the path attributes.
struct BatchMeta {
  std::uint64_t received_realtime_ns = 0;
  std::uint64_t bmp_timestamp_ns = 0;
  IpAddress router_address{};
  std::uint16_t router_port = 0;
  std::string_view router_name{};       // configured; empty: none
  std::span<const std::string> tags{};  // configured for the router; none is empty
  IpAddress peer_address{};
  std::uint32_t peer_bgp_id = 0;
  std::uint32_t peer_asn = 0;
  std::uint8_t peer_type = 0;
  std::uint64_t peer_distinguisher = 0;
  arancini::View view = arancini::View::AdjInPre;
  Family family = kIpv4Unicast;
  bool via_mp = false;  // came in MP_REACH/MP_UNREACH: the mp* fields are set
  bool announced = false;
  bool synthetic = false;
  arancini::Reason reason = arancini::Reason::None;
  WriterId writer{};
  std::uint32_t router_id = 0;  // row in the stats page, for the record header
  // Made of the above, where that is so: saves work. May be nullptr.
  const BatchSource* source = nullptr;
};

// What all batches of one table of one router begin with, so that a record is a copy of it with the rest put
// over it: router, peer, view and writer.
class BatchSource {
 public:
  BatchSource() = default;
  // Of a meta with a name that is too long nothing is kept: made_of() stays false.
  explicit BatchSource(const BatchMeta& meta);
  // Nothing of it has changed. Router, peer, view and writer must be the ones it was made for: only what can
  // change with them is compared.
  [[nodiscard]] bool made_of(const BatchMeta& meta) const {
    return words_ != 0 && asn_ == meta.peer_asn && bgp_id_ == meta.peer_bgp_id;
  }

 private:
  friend class BatchEncoder;
  static constexpr std::uint32_t kMostWords = 40 + 9;  // with a name of 64 bytes and its end

  std::uint32_t words_ = 0;  // of the template, 0: not made
  std::uint32_t asn_ = 0, bgp_id_ = 0;
  std::array<std::uint64_t, kMostWords> template_;
};

// The attributes of an announcement; nullptr for withdrawals.
struct BatchAttributes {
  const wire::Attributes* attributes = nullptr;
  IpAddress next_hop{};  // of MP_REACH or NEXT_HOP; zeros when none
};

// What each route adds to a record: kRecordRouteDataWords.
inline constexpr std::uint32_t kRouteBytes = 24;

// Upper bound of the record (RecordHeader included) for that many routes. Claim this much, append what
// finish() says. That for no routes and kRouteBytes for each are the same.
std::uint32_t max_record_bytes(const BatchMeta& meta, const BatchAttributes& attributes,
                               std::uint32_t routes);

// One batch: construct on claimed bytes, add() routes, finish(). At most `max_routes` routes.
class BatchEncoder {
 public:
  BatchEncoder(std::span<std::byte> claimed, const BatchMeta& meta, const BatchAttributes& attributes,
               Sequence first_sequence, std::uint32_t max_routes)
      : BatchEncoder(claimed, meta, attributes, first_sequence, max_routes,
                     max_record_bytes(meta, attributes, 0)) {}
  // `fixed_bytes` is max_record_bytes() for no routes.
  BatchEncoder(std::span<std::byte> claimed, const BatchMeta& meta, const BatchAttributes& attributes,
               Sequence first_sequence, std::uint32_t max_routes, std::uint32_t fixed_bytes);
  void add(const Prefix& route) {
    if (count_ == max_routes_) too_many();
    std::byte* const out = routes_ + std::size_t{count_} * kRouteBytes;
    std::memcpy(out, &route.high, 8);
    std::memcpy(out + 8, &route.low, 8);
    const std::uint64_t rest = route.path_id | (std::uint64_t{route.length} << 32);
    std::memcpy(out + 16, &rest, 8);
    ++count_;
  }
  [[nodiscard]] std::uint32_t count() const { return count_; }
  // The header to append: RingWriter::append() puts it in front of the payload, which is complete in the
  // claimed memory. Call once, with count() > 0.
  [[nodiscard]] const shm::RecordHeader& finish();

 private:
  [[noreturn]] static void too_many();

  std::byte* payload_;
  std::byte* routes_ = nullptr;
  shm::RecordHeader header_{};
  std::uint32_t count_ = 0;
  std::uint32_t max_routes_;
};

// Hash of (router, peer AS, family) for RecordHeader::subject_key.
std::uint64_t subject_key(const IpAddress& router, std::uint32_t peer_asn, Family family);

}  // namespace arancini::schema
