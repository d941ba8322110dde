#include "common/schema/update_decode.h"

#include <gtest/gtest.h>

#include "common/schema/batch_expander.h"
#include "common/schema/batch_writer.h"
#include "tests/common/schema/random_messages.h"

namespace arancini::schema {
namespace {

using test::EncodedRecord;
using test::Random;
using test::RandomMessage;

std::vector<std::byte> expand(const EncodedRecord& record) {
  BatchExpander expander;
  EXPECT_TRUE(expander.open(record.header, record.payload()));
  std::vector<std::byte> out(expander.update_bytes() * expander.count());
  for (std::uint32_t i = 0; i < expander.count(); ++i)
    expander.write_update(i, &out[i * expander.update_bytes()]);
  return out;
}

std::vector<std::byte> batch(const EncodedRecord& record, bool with_source) {
  BatchExpander expander;
  EXPECT_TRUE(expander.open(record.header, record.payload()));
  BatchWriter writer;
  const auto bytes = writer.write(expander, 0, expander.count(), with_source);
  return {bytes.begin(), bytes.end()};
}

void expect_matches(const RandomMessage& m, std::size_t i, const DecodedUpdate& u) {
  const BatchMeta& meta = m.meta();
  const Prefix& route = m.routes().at(i);
  EXPECT_EQ(u.sequence, raw(m.first_sequence()) + i);
  EXPECT_EQ(u.prefix_address, prefix_address(route));
  EXPECT_EQ(u.prefix_length, route.length);
  EXPECT_EQ(u.path_id, route.path_id);
  EXPECT_EQ(u.time_received_ns, meta.received_realtime_ns);
  EXPECT_EQ(u.time_bmp_ns, meta.bmp_timestamp_ns);
  EXPECT_EQ(u.router, meta.router_address);
  EXPECT_EQ(u.router_port, meta.router_port);
  EXPECT_EQ(u.router_id, meta.router_name);
  EXPECT_TRUE(std::equal(u.tags.begin(), u.tags.end(), meta.tags.begin(), meta.tags.end()));
  EXPECT_EQ(u.peer, meta.peer_address);
  EXPECT_EQ(u.peer_bgp_id, meta.peer_bgp_id);
  EXPECT_EQ(u.peer_asn, meta.peer_asn);
  EXPECT_EQ(u.peer_type, meta.peer_type);
  EXPECT_EQ(u.peer_distinguisher, meta.peer_distinguisher);
  EXPECT_EQ(u.view, meta.view);
  EXPECT_EQ(u.is_post_policy, meta.view == View::AdjInPost || meta.view == View::AdjOutPost);
  EXPECT_EQ(u.is_adj_rib_out, meta.view == View::AdjOutPre || meta.view == View::AdjOutPost);
  EXPECT_EQ(u.family, meta.family);
  EXPECT_EQ(u.announced, meta.announced);
  EXPECT_EQ(u.synthetic, meta.synthetic);
  EXPECT_EQ(u.reason, meta.reason);
  EXPECT_EQ(u.writer, meta.writer);
  const BatchAttributes attributes = m.attributes();
  EXPECT_EQ(u.next_hop, attributes.next_hop);
  EXPECT_EQ(u.attributes_present, attributes.attributes != nullptr ? attributes.attributes->present : 0U);
  if (attributes.attributes == nullptr) {
    EXPECT_TRUE(u.origin.empty() && u.as_path.empty() && u.communities.empty() && u.raw_attributes.empty());
    return;
  }
  const wire::Attributes& a = *attributes.attributes;
  EXPECT_EQ(u.communities.size(), a.communities.size() / 4);
  EXPECT_EQ(u.large_communities.size(), a.large_communities.size() / 12);
  EXPECT_EQ(u.cluster_list.size(), a.cluster_list.size() / 4);
  ASSERT_EQ(u.ext_communities.size(), a.extended_communities.size() / 8);
  for (std::size_t c = 0; c < u.ext_communities.size(); ++c) {
    EXPECT_EQ(std::memcmp(u.ext_communities[c].data(), a.extended_communities.data() + 8 * c, 8), 0);
  }
}

TEST(DecodePayload, ReadsBatchesAndTheirExpansionAlike) {
  Random random(8);
  for (unsigned i = 0; i < 1000; ++i) {
    const RandomMessage m(random);
    const EncodedRecord record = test::encode(m);
    std::size_t n = 0;
    EXPECT_EQ(decode_payload(PayloadFormat::BatchV2, record.payload(),
                             [&](const DecodedUpdate& u) { expect_matches(m, n++, u); }),
              std::nullopt);
    EXPECT_EQ(n, m.routes().size());
    n = 0;
    EXPECT_EQ(decode_payload(PayloadFormat::UpdateV1Concat, expand(record),
                             [&](const DecodedUpdate& u) { expect_matches(m, n++, u); }),
              std::nullopt);
    EXPECT_EQ(n, m.routes().size());
    n = 0;
    EXPECT_EQ(decode_payload(PayloadFormat::BatchV2, batch(record, true),
                             [&](const DecodedUpdate& u) { expect_matches(m, n++, u); }),
              std::nullopt);
    EXPECT_EQ(n, m.routes().size());
    ASSERT_FALSE(HasFailure()) << "message " << i;
  }
}

TEST(DecodePayload, KeepsTheSourceOfTheBatchBefore) {
  Random random(13);
  const RandomMessage m(random);
  const EncodedRecord record = test::encode(m);
  std::vector<std::byte> payload = batch(record, true);
  const std::vector<std::byte> next = batch(record, false);
  payload.insert(payload.end(), next.begin(), next.end());
  std::size_t n = 0;
  std::vector<std::size_t> ends;
  EXPECT_EQ(decode_payload(
                PayloadFormat::BatchV2, payload,
                [&](const DecodedUpdate& u) { expect_matches(m, n++ % m.routes().size(), u); },
                [&](const FramedMessage& f) {
                  EXPECT_STREQ(f.type, "Batch");
                  EXPECT_EQ(f.segments, 1U);
                  ends.push_back(f.offset_bytes + f.bytes);
                }),
            std::nullopt);
  EXPECT_EQ(n, 2 * m.routes().size());
  EXPECT_EQ(ends, (std::vector{payload.size() - next.size(), payload.size()}));
  EXPECT_EQ(decode_payload(PayloadFormat::BatchV2, next, [](const DecodedUpdate&) {}),
            "byte 0: the first batch has no source");
  EXPECT_EQ(guess_format(payload), PayloadFormat::BatchV2);
}

TEST(DecodePayload, SaysWhatIsWrongAndWhere) {
  Random random(9);
  std::vector<std::byte> concat;
  std::size_t first_bytes = 0;
  while (concat.empty() || concat.size() == first_bytes) {
    const RandomMessage m(random);
    if (m.routes().size() != 1) continue;
    const auto one = expand(test::encode(m));
    if (concat.empty()) first_bytes = one.size();
    concat.insert(concat.end(), one.begin(), one.end());
  }
  unsigned n = 0;
  const auto count = [&](const DecodedUpdate&) { ++n; };
  EXPECT_EQ(decode_payload(PayloadFormat::UpdateV1Concat, concat, count), std::nullopt);
  EXPECT_EQ(n, 2U);
  EXPECT_EQ(decode_payload(PayloadFormat::UpdateV1, concat, count),
            "byte " + std::to_string(first_bytes) + ": more than one message in update-v1");

  const std::span<const std::byte> cut = std::span(concat).first(concat.size() - 8);
  n = 0;
  const auto error = decode_payload(PayloadFormat::UpdateV1Concat, cut, count);
  ASSERT_TRUE(error.has_value());
  EXPECT_TRUE(error->starts_with("byte " + std::to_string(first_bytes) + ": ")) << *error;
  EXPECT_EQ(n, 1U);
  EXPECT_TRUE(decode_payload(PayloadFormat::UpdateV1, {}, count).has_value());
  EXPECT_TRUE(decode_payload(PayloadFormat::UpdateV1, std::span(concat).first(13), count).has_value());
}

TEST(DecodePayload, NoCorruptionEscapes) {
  Random random(10);
  for (unsigned i = 0; i < 200; ++i) {
    const RandomMessage m(random);
    if (m.routes().size() > 50) continue;
    const EncodedRecord record = test::encode(m);
    std::vector<std::byte> ring(record.payload().begin(), record.payload().end());
    std::vector<std::byte> published = batch(record, true);
    std::vector<std::byte> concat = expand(record);
    for (unsigned round = 0; round < 20; ++round) {
      for (std::vector<std::byte>* bytes : {&ring, &published, &concat}) {
        const std::uint64_t bit = random() % (bytes->size() * 8);
        (*bytes)[bit / 8] ^= std::byte{1} << (bit % 8);
        const auto format = bytes == &concat ? PayloadFormat::UpdateV1Concat : PayloadFormat::BatchV2;
        (void)decode_payload(format, *bytes, [](const DecodedUpdate&) {});
      }
    }
  }
}

TEST(PayloadFormatName, KnowsTheThree) {
  EXPECT_EQ(payload_format("update-v1"), PayloadFormat::UpdateV1);
  EXPECT_EQ(payload_format("update-v1-concat"), PayloadFormat::UpdateV1Concat);
  EXPECT_EQ(payload_format("batch-v2"), PayloadFormat::BatchV2);
  EXPECT_EQ(payload_format(""), std::nullopt);
}

}  // namespace
}  // namespace arancini::schema
