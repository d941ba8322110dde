#pragma once

#include <cstdint>
#include <optional>

#include "common/base/types.h"
#include "common/ring/ring_writer.h"
#include "common/schema/batch_encoder.h"

// One slice of routes into one ring record: room first, then the routes that survived, then the record, if
// any did.
namespace arancini::ingestd {

// Routes of one record, and of one step of a sweep, at most.
inline constexpr std::uint32_t kSliceRoutes = 512;

class SliceWriter {
 public:
  // `meta` and `attributes` are borrowed and may change until max_routes(), reserve() and the first add(),
  // whichever comes first.
  SliceWriter(RingWriter& ring, const schema::BatchMeta& meta, const schema::BatchAttributes& attributes)
      : ring_(ring), meta_(meta), attributes_(attributes) {}

  // The most routes of a record with these attributes that a ring of this size can always take in the end, at
  // most kSliceRoutes. 0: the attributes alone are too large.
  [[nodiscard]] std::uint32_t max_routes();

  // Makes sure that `routes` routes can be written. False: there is no room now, and nothing happened.
  [[nodiscard]] bool reserve(std::uint32_t routes) {
    routes_ = routes;
    claimed_ = ring_.claim(bytes_for(routes));
    return !claimed_.empty();
  }
  void add(const Prefix& route) {
    if (!encoder_)
      encoder_.emplace(claimed_, meta_, attributes_, ring_.next_sequence(), routes_, fixed_bytes_);
    encoder_->add(route);
  }
  // Appends what was added since reserve(); returns how many routes.
  std::uint32_t commit();

 private:
  // schema::max_record_bytes() grows by the same with every route.
  [[nodiscard]] std::uint32_t bytes_for(std::uint32_t routes) {
    if (fixed_bytes_ == 0) fixed_bytes_ = schema::max_record_bytes(meta_, attributes_, 0);
    return fixed_bytes_ + routes * schema::kRouteBytes;
  }

  RingWriter& ring_;
  const schema::BatchMeta& meta_;
  const schema::BatchAttributes& attributes_;
  std::span<std::byte> claimed_;
  std::uint32_t routes_ = 0;
  std::uint32_t fixed_bytes_ = 0;
  std::optional<schema::BatchEncoder> encoder_;
};

}  // namespace arancini::ingestd
