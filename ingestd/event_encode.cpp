#include "ingestd/event_encode.h"

#include <algorithm>

#include "shm-layout/record.h"

namespace arancini::ingestd {

std::uint32_t SliceWriter::max_routes() {
  // A record of half the ring fits in the end wherever the tail is: what is skipped at the end of the buffer
  // is smaller.
  const std::uint64_t limit = std::min<std::uint64_t>(shm::kRecordMaxBytes, ring_.capacity_bytes() / 2);
  for (std::uint32_t routes = kSliceRoutes; routes > 0; routes /= 2) {
    if (bytes_for(routes) <= limit) return routes;
  }
  return 0;
}

std::uint32_t SliceWriter::commit() {
  if (!encoder_) {
    ring_.abandon();
    return 0;
  }
  const std::uint32_t count = encoder_->count();
  ring_.append(encoder_->finish());
  encoder_.reset();
  return count;
}

}  // namespace arancini::ingestd
