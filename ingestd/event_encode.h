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
  // `meta` and `attributes` are borrowed and may change until the first add().
  SliceWriter(RingWriter& ring, const schema::BatchMeta& meta, const schema::BatchAttributes& attributes)
      : ring_(ring), meta_(meta), attributes_(attributes) {}

  // The most routes of a record with these attributes that a ring of this size can always take in the end, at
  // most kSliceRoutes. 0: the attributes alone are too large.
  [[nodiscard]] std::uint32_t max_routes() const;

  // Makes sure that `routes` routes can be written. False: there is no room now, and nothing happened.
  [[nodiscard]] bool reserve(std::uint32_t routes);
  void add(const Prefix& route) {
    if (!encoder_) encoder_.emplace(claimed_, meta_, attributes_, ring_.next_sequence(), routes_);
    encoder_->add(route);
  }
  // Appends what was added since reserve(); returns how many routes.
  std::uint32_t commit();

 private:
  RingWriter& ring_;
  const schema::BatchMeta& meta_;
  const schema::BatchAttributes& attributes_;
  std::span<std::byte> claimed_;
  std::uint32_t routes_ = 0;
  std::optional<schema::BatchEncoder> encoder_;
};

}  // namespace arancini::ingestd
