#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/schema/batch_encoder.h"

// The same messages through libcapnp's builders, straight from the documents: the reference for the
// hand-written words. Objects are allocated in the order of common/schema/layout.h.
namespace arancini::schema::test {

// Framed UpdateBatch.
std::vector<std::byte> reference_batch(const BatchMeta& meta, const BatchAttributes& attributes,
                                       const std::vector<Prefix>& routes, Sequence first_sequence);
// Framed Update of one route.
std::vector<std::byte> reference_update(const BatchMeta& meta, const BatchAttributes& attributes,
                                        const Prefix& route, Sequence sequence);
// The same Update in canonical form; empty if it is not one framed Update.
std::vector<std::byte> canonical_update(std::span<const std::byte> framed);
// Framed Batch of batch.capnp, as canonicalize() gives it.
std::vector<std::byte> reference_message(const BatchMeta& meta, const BatchAttributes& attributes,
                                         std::span<const Prefix> routes, Sequence first_sequence,
                                         bool with_source);

}  // namespace arancini::schema::test
