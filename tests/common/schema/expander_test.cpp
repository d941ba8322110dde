#include "common/schema/batch_expander.h"

#include <gtest/gtest.h>

#include <memory>

#include "common/schema/batch_writer.h"
#include "common/schema/update_decode.h"
#include "tests/common/schema/random_messages.h"

namespace arancini::schema {
namespace {

using test::EncodedRecord;
using test::Random;
using test::RandomMessage;

// Exactly as large as the payload, so that AddressSanitizer sees the first byte read behind it.
struct HeapPayload {
  explicit HeapPayload(std::span<const std::byte> from)
      : size(from.size()), bytes(new std::byte[from.size()]) {
    std::copy(from.begin(), from.end(), bytes.get());
  }
  [[nodiscard]] std::span<const std::byte> span() const { return {bytes.get(), size}; }
  std::size_t size;
  std::unique_ptr<std::byte[]> bytes;
};

// What open() accepts must expand within bounds into something that libcapnp reads.
void expand_all(BatchExpander& expander, unsigned& readable) {
  std::vector<std::byte> out(expander.update_bytes());
  for (std::uint32_t i = 0; i < expander.count(); ++i) {
    expander.write_update(i, out.data());
    if (!decode_payload(PayloadFormat::UpdateV1, out, [](const DecodedUpdate&) {})) ++readable;
  }
  BatchWriter writer;
  const auto batch = writer.write(expander, 0, expander.count(), true);
  if (!decode_payload(PayloadFormat::BatchV2, batch, [](const DecodedUpdate&) {})) ++readable;
  EXPECT_TRUE(writer.same_source(expander, std::vector<std::byte>(batch.begin(), batch.end())));
}

TEST(BatchExpander, BitFlipsNeverReadOutOfBounds) {
  Random random(5);
  unsigned accepted = 0;
  unsigned rejected = 0;
  unsigned readable = 0;
  for (unsigned i = 0; i < 300; ++i) {
    const RandomMessage m(random);
    if (m.routes().size() > 50) continue;
    const EncodedRecord record = test::encode(m);
    for (unsigned round = 0; round < 60; ++round) {
      const HeapPayload payload(record.payload());
      shm::RecordHeader header = record.header;
      for (std::uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
        // Half of them into header, pointers and tags, where they hurt.
        const std::uint64_t bit =
            random() % (random() % 2 == 0 ? payload.size * 8 : std::min<std::size_t>(2400, payload.size * 8));
        if (random() % 8 == 0) {
          auto* raw_header = reinterpret_cast<std::byte*>(&header);
          raw_header[random() % sizeof header] ^= std::byte{1} << (random() % 8);
        } else {
          payload.bytes[bit / 8] ^= std::byte{1} << (bit % 8);
        }
      }
      BatchExpander expander;
      if (!expander.open(header, payload.span())) {
        ++rejected;
        continue;
      }
      ++accepted;
      unsigned n = 0;
      expand_all(expander, n);
      if (n > 0) ++readable;
    }
  }
  EXPECT_GT(accepted, 1000U);  // flips in values, not in structure
  EXPECT_GT(rejected, 1000U);
  EXPECT_GT(readable, accepted * 9 / 10);  // the others: unknown view, prefix length out of range
}

TEST(BatchExpander, EveryTruncationIsRefused) {
  Random random(6);
  for (unsigned i = 0; i < 30; ++i) {
    const RandomMessage m(random);
    const EncodedRecord record = test::encode(m);
    for (std::size_t size = 0; size < record.payload().size(); size += 1 + random() % 64) {
      const HeapPayload payload(record.payload().first(size));
      BatchExpander expander;
      EXPECT_FALSE(expander.open(record.header, payload.span()));
      shm::RecordHeader header = record.header;
      header.payload_bytes = static_cast<std::uint32_t>(size);
      EXPECT_FALSE(expander.open(header, payload.span()));
      // A template that claims the routes, or the other way round.
      header = record.header;
      header.template_bytes = static_cast<std::uint32_t>(size / 8 * 8);
      if (header.template_bytes == record.header.template_bytes) continue;
      EXPECT_FALSE(expander.open(header, record.payload()));
    }
  }
}

TEST(BatchExpander, RefusesOtherKindsFormatsAndCounts) {
  Random random(7);
  const RandomMessage m(random);
  const EncodedRecord record = test::encode(m);
  const auto refused = [&](auto change) {
    shm::RecordHeader header = record.header;
    change(header);
    BatchExpander expander;
    return !expander.open(header, record.payload());
  };
  EXPECT_FALSE(refused([](shm::RecordHeader&) {}));
  EXPECT_TRUE(
      refused([](shm::RecordHeader& h) { h.kind = static_cast<std::uint8_t>(shm::RecordKind::Barrier); }));
  EXPECT_TRUE(refused([](shm::RecordHeader& h) { ++h.format; }));
  EXPECT_TRUE(refused([](shm::RecordHeader& h) { ++h.count; }));
  EXPECT_TRUE(refused([](shm::RecordHeader& h) { h.count = 0; }));
  EXPECT_TRUE(refused([](shm::RecordHeader& h) { ++h.first_sequence; }));
  EXPECT_TRUE(refused([](shm::RecordHeader& h) { h.template_offset_bytes += 8; }));
}

}  // namespace
}  // namespace arancini::schema
