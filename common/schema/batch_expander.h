#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/types.h"
#include "shm-layout/record.h"

// From a ring record to what is published. Contents are untrusted: open() checks every bound that write()
// relies on.
namespace arancini::schema {

class BatchExpander {
 public:
  // `payload` of a record with its header. False if it is not exactly the layout of layout.h with `count`
  // routes. Everything below is valid only while `payload` is.
  [[nodiscard]] bool open(const shm::RecordHeader& untrusted, std::span<const std::byte> payload);

  [[nodiscard]] std::uint32_t count() const { return count_; }
  [[nodiscard]] Sequence first_sequence() const { return first_sequence_; }

  // What the subject is made of.
  [[nodiscard]] const IpAddress& router_address() const { return router_address_; }
  [[nodiscard]] std::uint32_t peer_asn() const { return peer_asn_; }
  [[nodiscard]] Family family() const { return family_; }

  // Size of one framed Update (the same for each route of the batch), a multiple of 8.
  [[nodiscard]] std::size_t update_bytes() const { return update_bytes_; }
  // Writes route `i` as one framed Update (stream framing, one segment): the template copied and patched,
  // without the zeros at the end of its data and of its pointers, as Cap'n Proto permits.
  void write_update(std::uint32_t i, std::byte* out);

  // For BatchWriter: what open() has checked.
  [[nodiscard]] std::span<const std::byte> update_template() const { return template_; }
  [[nodiscard]] std::span<const std::byte> routes() const { return routes_; }

 private:
  void make_prototype();

  std::span<const std::byte> template_;
  std::span<const std::byte> routes_;
  std::size_t update_bytes_ = 0;
  std::uint32_t data_words_ = 0;  // of a published Update
  std::uint32_t pointers_ = 0;
  std::vector<std::uint64_t> prototype_;  // a published Update, to be patched
  bool has_prototype_ = false;            // of the record that is open
  std::uint32_t count_ = 0;
  Sequence first_sequence_{};
  IpAddress router_address_;
  std::uint32_t peer_asn_ = 0;
  Family family_;
};

}  // namespace arancini::schema
