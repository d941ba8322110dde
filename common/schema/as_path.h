#pragma once

#include <cstddef>
#include <cstdint>

#include "common/wire/bgp_update.h"

// The AS path of an announcement: AS_PATH as it stands, or put together with AS4_PATH (RFC 6793 4.2.3).
namespace arancini::schema {

enum class SegmentType : std::uint8_t { Set = 1, Sequence = 2, ConfedSequence = 3, ConfedSet = 4 };

// Members are in network order, 4 bytes each when `wide`, else 2.
struct PathSegment {
  std::uint8_t type = 0;
  std::uint8_t count = 0;
  bool wide = true;
  const std::byte* members = nullptr;

  [[nodiscard]] std::uint32_t member(std::uint32_t i) const;
};

// Walks the segments, without empty ones; a segment that overruns its attribute ends the walk.
class AsPathWalk {
 public:
  explicit AsPathWalk(const wire::Attributes& attributes);
  bool next(PathSegment& out);

 private:
  bool next_of_as4_path(PathSegment& out);

  wire::Bytes path_;
  wire::Bytes as4_path_;
  bool wide_;
  bool merge_ = false;
  std::uint32_t leading_ = 0;  // ASes of AS_PATH that stand before AS4_PATH; only when merge_
};

struct Aggregator {
  std::uint32_t asn = 0;
  std::uint32_t bgp_id = 0;
};
// AGGREGATOR, or AS4_AGGREGATOR where that replaces it (RFC 6793 4.2.3); zeros when absent.
Aggregator aggregator_of(const wire::Attributes& attributes);

}  // namespace arancini::schema
