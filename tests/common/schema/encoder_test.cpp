#include "common/schema/batch_encoder.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/schema/batch_expander.h"
#include "common/schema/batch_writer.h"
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

// In another order of objects, and nothing else.
TEST(BatchExpander, WritesWhatLibcapnpWouldWriteWithoutTrailingZeros) {
  std::size_t saved = 0;
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
      ASSERT_EQ(first_difference(test::canonical_update(out), test::canonical_update(expected)), -1)
          << "message " << i << " route " << r;
      ASSERT_LE(out.size(), expected.size());
      saved += expected.size() - out.size();
    }
  }
  EXPECT_GT(saved, kMessages * 3 * 16);
}

TEST(BatchWriter, WritesWhatLibcapnpMakesCanonical) {
  Random random(11);
  BatchWriter writer;
  for (unsigned i = 0; i < kMessages; ++i) {
    const RandomMessage m(random);
    const EncodedRecord record = test::encode(m);
    BatchExpander expander;
    ASSERT_TRUE(expander.open(record.header, record.payload())) << "message " << i;
    const auto first = static_cast<std::uint32_t>(random() % 2 == 0 ? 0 : random() % m.routes().size());
    const auto count = static_cast<std::uint32_t>(1 + random() % (m.routes().size() - first));
    for (const bool with_source : {true, false}) {
      const auto expected =
          test::reference_message(m.meta(), m.attributes(), std::span(m.routes()).subspan(first, count),
                                  m.first_sequence() + first, with_source);
      ASSERT_EQ(first_difference(writer.write(expander, first, count, with_source), expected), -1)
          << "message " << i << (with_source ? " with" : " without") << " source";
    }
  }
}

TEST(BatchWriter, TellsSourcesApart) {
  Random random(12);
  BatchWriter writer;
  BatchWriter other;
  std::vector<std::byte> before;
  for (unsigned i = 0; i < 300; ++i) {
    const RandomMessage m(random);
    const EncodedRecord record = test::encode(m);
    BatchExpander expander;
    ASSERT_TRUE(expander.open(record.header, record.payload()));
    const auto with = writer.write(expander, 0, 1, true);
    EXPECT_TRUE(other.same_source(expander, with));
    EXPECT_FALSE(other.same_source(expander, before));
    EXPECT_FALSE(other.same_source(expander, with.first(120))) << "ends within the source";
    before.assign(with.begin(), with.end());
    const auto without = writer.write(expander, 0, 1, false);
    EXPECT_FALSE(other.same_source(expander, without));
    // Every field counts; what changes from UPDATE to UPDATE does not.
    BatchMeta meta = m.meta();
    const auto same = [&](const BatchMeta& changed) {
      const EncodedRecord r = test::encode(changed, m.attributes(), m.routes(), Sequence{9});
      BatchExpander e;
      EXPECT_TRUE(e.open(r.header, r.payload()));
      return other.same_source(e, before);
    };
    meta.received_realtime_ns ^= 1;
    meta.bmp_timestamp_ns ^= 1;
    meta.synthetic = !meta.synthetic;
    EXPECT_TRUE(same(meta));
    const BatchMeta base = m.meta();
    const auto changed = [&](auto change) {
      BatchMeta c = base;
      change(c);
      return !same(c);
    };
    EXPECT_TRUE(changed([](BatchMeta& c) { c.router_address.bytes[15] ^= 1; }));
    EXPECT_TRUE(changed([](BatchMeta& c) { c.router_port ^= 1; }));
    EXPECT_TRUE(changed([](BatchMeta& c) { c.router_name = c.router_name.empty() ? "x" : ""; }));
    EXPECT_TRUE(changed([](BatchMeta& c) { c.peer_address.bytes[0] ^= 1; }));
    EXPECT_TRUE(changed([](BatchMeta& c) { c.peer_bgp_id ^= 1; }));
    EXPECT_TRUE(changed([](BatchMeta& c) { c.peer_asn ^= 1; }));
    EXPECT_TRUE(changed([](BatchMeta& c) { c.peer_type ^= 1; }));
    EXPECT_TRUE(changed([](BatchMeta& c) { c.peer_distinguisher ^= 1; }));
    EXPECT_TRUE(
        changed([](BatchMeta& c) { c.view = c.view == View::LocRib ? View::AdjInPre : View::LocRib; }));
    EXPECT_TRUE(changed([](BatchMeta& c) { c.family.safi ^= 3; }));
    EXPECT_TRUE(changed([](BatchMeta& c) { c.writer.bytes[7] ^= 1; }));
    ASSERT_FALSE(HasFailure()) << "message " << i;
  }
}

// The common case, spelt out: what it costs on the wire.
TEST(BatchWriter, IsSmall) {
  std::vector<std::byte> all;
  wire::Attributes a;
  a.present = 1U << 1 | 1U << 2 | 1U << 3 | 1U << 8;
  const std::vector<std::byte> origin(1);
  a.origin = origin;
  std::vector<std::byte> path(2 + 4 * 4, std::byte{1});
  path[0] = std::byte{2};
  path[1] = std::byte{4};
  a.as_path = path;
  const std::vector<std::byte> communities(8, std::byte{1});
  a.communities = communities;
  BatchMeta meta{.received_realtime_ns = 1, .bmp_timestamp_ns = 1, .peer_asn = 65001, .announced = true};
  const Prefix p{.high = 0, .low = kV4MappedLow | 0x0a000000, .path_id = 0, .length = 24};
  const EncodedRecord record =
      test::encode(meta, {&a, IpAddress::from_v4(0x0a000001)}, {p, p, p}, Sequence{1});
  BatchExpander expander;
  ASSERT_TRUE(expander.open(record.header, record.payload()));
  BatchWriter writer;
  // Framing and root 16, Batch 56, PathAttributes 40, path 16, next hop 8, communities 8, routes 8 + 3 * 8.
  EXPECT_EQ(writer.write(expander, 0, 3, false).size(), 176U);
  EXPECT_EQ(writer.write(expander, 0, 3, true).size(), 176U + 24 + 24 + 48);
  EXPECT_EQ(expander.update_bytes(), 328U);
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
