#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/schema/batch_expander.h"

// From a ring record to a Batch of the payload format batch-v2, in Cap'n Proto's canonical form: byte for
// byte what libcapnp's canonicalize() makes of it (a test proves it over random messages).
namespace arancini::schema {

class BatchWriter {
 public:
  // The framed Batch with routes [first, first + count) of a record that is open. Without its source, it may
  // only follow one that has the same. Valid until the next call.
  std::span<const std::byte> write(const BatchExpander& record, std::uint32_t first, std::uint32_t count,
                                   bool with_source);

  // Whether `batch`, one or more that write() made, begins with one that has the record's source.
  [[nodiscard]] bool same_source(const BatchExpander& record, std::span<const std::byte> batch);

 private:
  std::vector<std::uint64_t> words_;
};

}  // namespace arancini::schema
