#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "common/schema/batch_encoder.h"

// Random but well-formed encoder input, from a seed: what parse_update() could have found, in any
// combination.
namespace arancini::schema::test {

using Random = std::mt19937_64;

// Owns the bytes that `meta` and `attributes` point to; neither copied nor moved.
class RandomMessage {
 public:
  explicit RandomMessage(Random& random);
  RandomMessage(const RandomMessage&) = delete;
  RandomMessage& operator=(const RandomMessage&) = delete;

  [[nodiscard]] const BatchMeta& meta() const { return meta_; }
  [[nodiscard]] BatchAttributes attributes() const {
    return {meta_.announced ? &attributes_ : nullptr, next_hop_};
  }
  [[nodiscard]] const std::vector<Prefix>& routes() const { return routes_; }
  [[nodiscard]] Sequence first_sequence() const { return first_sequence_; }

 private:
  void make_attributes(Random& random);

  BatchMeta meta_;
  std::string name_;
  std::vector<std::string> tags_;
  std::vector<std::byte> field_;
  wire::Attributes attributes_;
  IpAddress next_hop_;
  std::vector<Prefix> routes_;
  Sequence first_sequence_{};
};

// A record as ring memory would hold it; the claim is dirty before, as ring memory is.
struct EncodedRecord {
  std::vector<std::uint64_t> memory;
  shm::RecordHeader header{};
  std::uint32_t claimed_bytes = 0;

  [[nodiscard]] std::span<const std::byte> payload() const {
    return std::as_bytes(std::span(memory)).subspan(sizeof(shm::RecordHeader), header.payload_bytes);
  }
};
EncodedRecord encode(const BatchMeta& meta, const BatchAttributes& attributes,
                     const std::vector<Prefix>& routes, Sequence first_sequence);
inline EncodedRecord encode(const RandomMessage& m) {
  return encode(m.meta(), m.attributes(), m.routes(), m.first_sequence());
}

}  // namespace arancini::schema::test
