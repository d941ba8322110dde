#include "common/schema/batch_encoder.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/schema/batch_expander.h"
#include "common/schema/bytes.h"
#include "common/schema/layout.h"
#include "tests/common/schema/random_messages.h"
#include "tests/common/schema/reference_builder.h"

namespace arancini::schema {
namespace {

using test::EncodedRecord;
using test::Random;
using test::RandomMessage;

constexpr unsigned kMessages = 5000;

// Index of the first difference, or -1; keeps gtest from printing kilobytes.
std::ptrdiff_t first_difference(std::span<const std::byte> a, std::span<const std::byte> b) {
  const auto [x, y] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return x == a.end() && y == b.end() ? -1 : x - a.begin();
}

TEST(BatchEncoder, WritesWhatLibcapnpWouldWrite) {
  Random random(1);
  for (unsigned i = 0; i < kMessages; ++i) {
    const RandomMessage m(random);
    const EncodedRecord record = test::encode(m);
    const auto expected = test::reference_batch(m.meta(), m.attributes(), m.routes(), m.first_sequence());
    ASSERT_EQ(first_difference(record.payload(), expected), -1) << "message " << i;
  }
}

TEST(BatchExpander, WritesWhatLibcapnpWouldWrite) {
  Random random(2);
  for (unsigned i = 0; i < kMessages; ++i) {
    const RandomMessage m(random);
    const EncodedRecord record = test::encode(m);
    BatchExpander expander;
    ASSERT_TRUE(expander.open(record.header, record.payload())) << "message " << i;
    ASSERT_EQ(expander.count(), m.routes().size());
    ASSERT_EQ(expander.first_sequence(), m.first_sequence());
    ASSERT_EQ(expander.router_address(), m.meta().router_address);
    ASSERT_EQ(expander.peer_asn(), m.meta().peer_asn);
    ASSERT_EQ(expander.family(), m.meta().family);
    std::vector<std::byte> out(expander.update_bytes());
    const auto last = static_cast<std::uint32_t>(m.routes().size() - 1);
    for (const std::uint32_t r : {0U, last / 2, last}) {
      expander.write_update(r, out.data());
      const auto expected =
          test::reference_update(m.meta(), m.attributes(), m.routes()[r], m.first_sequence() + r);
      ASSERT_EQ(first_difference(out, expected), -1) << "message " << i << " route " << r;
    }
  }
}

TEST(BatchEncoder, HeaderNamesTheTemplateAndTheRoutes) {
  Random random(3);
  for (unsigned i = 0; i < 200; ++i) {
    const RandomMessage m(random);
    const EncodedRecord record = test::encode(m);
    const shm::RecordHeader& h = record.header;
    EXPECT_EQ(h.kind, static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch));
    EXPECT_EQ(h.format, shm::kRecordFormat);
    EXPECT_EQ((h.flags & shm::kRecordFlagWithdraw) == 0, m.meta().announced);
    EXPECT_EQ((h.flags & shm::kRecordFlagSynthetic) != 0, m.meta().synthetic);
    EXPECT_EQ(h.first_sequence, raw(m.first_sequence()));
    EXPECT_EQ(h.count, m.routes().size());
    EXPECT_EQ(h.received_realtime_ns, m.meta().received_realtime_ns);
    EXPECT_EQ(h.router_id, m.meta().router_id);
    EXPECT_EQ(h.subject_key, subject_key(m.meta().router_address, m.meta().peer_asn, m.meta().family));
    EXPECT_EQ(h.size_bytes, sizeof h + h.payload_bytes);
    EXPECT_EQ(h.size_bytes % shm::kRecordAlignBytes, 0U);
    EXPECT_EQ(std::memcmp(record.memory.data(), &h, sizeof h), 0);
    // Routes are last: a tag word and three words each.
    EXPECT_EQ(h.template_offset_bytes + h.template_bytes + 8 + std::size_t{24} * h.count, h.payload_bytes);
  }
}

TEST(BatchEncoder, MaxRecordBytesIsAnUpperBound) {
  Random random(4);
  std::uint64_t claimed = 0;
  std::uint64_t used = 0;
  for (unsigned i = 0; i < 20000; ++i) {
    const RandomMessage m(random);
    const EncodedRecord record = test::encode(m);
    ASSERT_LE(record.header.size_bytes, record.claimed_bytes) << "message " << i;
    claimed += record.claimed_bytes;
    used += record.header.size_bytes;
  }
  EXPECT_LT(claimed, used * 2) << "the bound wastes the ring";
}

wire::Bytes append(std::vector<std::byte>& to, std::initializer_list<unsigned> values) {
  for (const unsigned v : values) to.push_back(static_cast<std::byte>(v));
  return to;
}

// The shapes that grow most between wire and record, at the largest size that a BGP message can have.
TEST(BatchEncoder, MaxRecordBytesHoldsForTheWorstAttributes) {
  constexpr std::size_t kLargest = 65000;
  for (const bool as2 : {false, true}) {
    for (const unsigned type : {1U, 2U, 3U}) {
      std::vector<std::byte> path;
      while (path.size() < kLargest) {
        append(path, {type, 1, 0xfd, 0xe8});
        if (!as2) append(path, {0, 1});
      }
      append(path, {1, 1, 9, 9});  // a set, so that the segment list is written whatever `type` is
      if (!as2) append(path, {0, 1});
      wire::Attributes a;
      a.as2 = as2;
      a.as_path = path;
      const BatchMeta meta{.announced = true};
      const EncodedRecord record = test::encode(meta, {&a, {}}, {Prefix{}}, Sequence{1});
      EXPECT_LE(record.header.size_bytes, record.claimed_bytes);
      EXPECT_LE(record.claimed_bytes, shm::kRecordMaxBytes);
    }
  }
  const std::vector<std::byte> many(kLargest / 24 * 24, std::byte{1});
  for (const auto member : {&wire::Attributes::communities, &wire::Attributes::extended_communities,
                            &wire::Attributes::large_communities, &wire::Attributes::cluster_list}) {
    wire::Attributes a;
    a.*member = many;
    const BatchMeta meta{.announced = true};
    const EncodedRecord record = test::encode(meta, {&a, {}}, {Prefix{}}, Sequence{1});
    EXPECT_LE(record.header.size_bytes, record.claimed_bytes);
  }
}

TEST(BatchEncoder, NamesTheFamilyOfEverythingButIpv4Unicast) {
  BatchMeta meta{.family = kIpv6Unicast, .via_mp = false, .announced = false, .synthetic = true};
  const EncodedRecord record = test::encode(meta, {}, {Prefix{}}, Sequence{1});
  BatchExpander expander;
  ASSERT_TRUE(expander.open(record.header, record.payload()));
  EXPECT_EQ(expander.family(), kIpv6Unicast);
}

TEST(BatchEncoderDeath, RefusesMoreThanClaimed) {
  const BatchMeta meta;
  std::vector<std::uint64_t> memory(max_record_bytes(meta, {}, 2) / 8);
  const auto claimed = std::as_writable_bytes(std::span(memory));
  EXPECT_DEATH(BatchEncoder(claimed.first(claimed.size() - 8), meta, {}, Sequence{1}, 2), "claim smaller");
  EXPECT_DEATH(
      {
        BatchEncoder encoder(claimed, meta, {}, Sequence{1}, 1);
        encoder.add(Prefix{});
        encoder.add(Prefix{});
      },
      "more routes");
}

TEST(SubjectKey, TellsSubjectsApart) {
  const IpAddress router = IpAddress::from_v4(0xc0000201);
  const std::uint64_t key = subject_key(router, 65001, kIpv4Unicast);
  EXPECT_EQ(key, subject_key(router, 65001, kIpv4Unicast));
  EXPECT_NE(key, subject_key(IpAddress::from_v4(0xc0000202), 65001, kIpv4Unicast));
  EXPECT_NE(key, subject_key(router, 65002, kIpv4Unicast));
  EXPECT_NE(key, subject_key(router, 65001, kIpv6Unicast));
  EXPECT_NE(key, subject_key(router, 65001, kIpv4Multicast));
}

}  // namespace
}  // namespace arancini::schema
