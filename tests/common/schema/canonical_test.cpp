#include "common/schema/canonical.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <vector>

#include "common/schema/batch_expander.h"
#include "common/schema/batch_writer.h"
#include "common/wire/bmp.h"
#include "tests/common/schema/random_messages.h"

namespace arancini::schema {
namespace {

using Bytes = std::vector<std::byte>;
using test::EncodedRecord;
using test::Random;

void put(Bytes& to, std::uint64_t value, unsigned bytes) {
  while (bytes-- > 0) to.push_back(static_cast<std::byte>(value >> (8 * bytes)));
}
Bytes random_bytes(Random& r, std::size_t n) {
  Bytes out(n);
  for (auto& b : out) b = static_cast<std::byte>(r());
  return out;
}

Bytes random_path(Random& r, bool wide) {
  Bytes out;
  for (std::uint64_t n = r() % 10 == 0 ? 0 : r() % 4 == 0 ? r() % 5 : 1; n > 0; --n) {
    put(out, r() % 4 != 0 ? 2 : 1 + r() % 4, 1);
    const std::uint64_t count = r() % 30 == 0 ? 255 : 1 + r() % 6;
    put(out, count, 1);
    for (std::uint64_t i = 0; i < count; ++i) put(out, r() % 3 == 0 ? 23456 : r() % 70000, wide ? 4 : 2);
  }
  return out;
}

// An UPDATE with routes of one family as a router may send it; the attributes in any order, some repeated.
Bytes random_update(Random& r, bool as2) {
  std::vector<Bytes> attributes;
  const auto add = [&](std::uint64_t percent, unsigned flags, unsigned type, const Bytes& value) {
    if (r() % 100 >= percent) return;
    const bool extended = value.size() > 255 || r() % 5 == 0;
    Bytes a;
    put(a, flags | (extended ? 0x10U : 0U) | (r() % 8 == 0 ? 0x20U : 0U), 1);
    put(a, type, 1);
    put(a, value.size(), extended ? 2 : 1);
    a.insert(a.end(), value.begin(), value.end());
    attributes.push_back(std::move(a));
  };
  const bool mp = r() % 2 == 0;
  Bytes origin;
  put(origin, r() % 3, 1);
  add(100, 0x40, 1, origin);
  add(95, 0x40, 2, random_path(r, !as2));
  add(mp ? 30 : 100, 0x40, 3, random_bytes(r, 4));
  add(50, 0x80, 4, random_bytes(r, 4));
  add(50, 0x40, 5, random_bytes(r, 4));
  add(10, 0x40, 6, random_bytes(r, r() % 4 == 0 ? 1 : 0));
  Bytes aggregator = random_bytes(r, as2 ? 6 : 8);
  if (as2 && r() % 2 == 0) {
    aggregator[0] = std::byte{0x5b};  // AS_TRANS
    aggregator[1] = std::byte{0xa0};
  }
  add(25, 0xc0, 7, aggregator);
  add(40, 0xc0, 8, random_bytes(r, 4 * (1 + r() % 90)));
  add(15, 0x80, 9, random_bytes(r, 4));
  add(15, 0x80, 10, random_bytes(r, 4 * (1 + r() % 5)));
  add(30, 0xc0, 16, random_bytes(r, 8 * (1 + r() % 40)));
  add(as2 ? 60 : 10, 0xc0, 17, random_path(r, true));
  add(as2 ? 30 : 10, 0xc0, 18, random_bytes(r, 8));
  add(30, 0xc0, 32, random_bytes(r, 12 * (1 + r() % 5)));
  add(10, 0xc0, 35, random_bytes(r, 4));
  for (const unsigned type : {26U, 29U, 40U, 63U, 128U, 200U, 255U})
    add(8, 0xc0, type, random_bytes(r, r() % 300));
  const Family family{static_cast<std::uint16_t>(1 + r() % 2), static_cast<std::uint8_t>(1 + r() % 2)};
  if (mp) {
    constexpr std::size_t kHops[] = {0, 4, 16, 32, 24, 48};
    Bytes value;
    put(value, family.afi, 2);
    put(value, family.safi, 1);
    const Bytes hop = random_bytes(r, kHops[r() % std::size(kHops)]);
    put(value, hop.size(), 1);
    value.insert(value.end(), hop.begin(), hop.end());
    put(value, 0, 1);
    put(value, 0x080a, 2);  // 10.0.0.0/8, or 0a00::/8
    add(100, 0x80, 14, value);
  }
  if (r() % 8 == 0) {
    Bytes value;
    put(value, 2, 2);
    put(value, 1, 1);
    put(value, 0x0820, 2);
    add(100, 0x80, 15, value);
  }
  std::shuffle(attributes.begin(), attributes.end(), r);
  if (r() % 10 == 0) attributes.push_back(attributes[r() % attributes.size()]);

  Bytes all;
  for (const Bytes& a : attributes) all.insert(all.end(), a.begin(), a.end());
  Bytes message(16, std::byte{0xff});
  put(message, 0, 2);
  put(message, 2, 1);
  put(message, 0, 2);
  put(message, all.size(), 2);
  message.insert(message.end(), all.begin(), all.end());
  if (!mp || r() % 6 == 0) put(message, 0x080b, 2);
  message[16] = static_cast<std::byte>(message.size() >> 8);
  message[17] = static_cast<std::byte>(message.size());
  return message;
}

struct Told {
  BatchMeta meta;
  BatchAttributes batch;
};

EncodedRecord record_of(const Told& told) {
  const Prefix prefix{0, kV4MappedLow | 0x0a000000U, 0, 8};
  return test::encode(told.meta, told.batch, {prefix}, Sequence{1});
}

// What consumers read of the record, in each format.
std::vector<DecodedUpdate> read_back(const EncodedRecord& record) {
  std::vector<DecodedUpdate> out;
  const auto keep = [&out](const DecodedUpdate& u) { out.push_back(u); };
  EXPECT_EQ(decode_payload(PayloadFormat::BatchV2, record.payload(), keep), std::nullopt);
  BatchExpander expander;
  EXPECT_TRUE(expander.open(record.header, record.payload()));
  std::vector<std::byte> update(expander.update_bytes());
  expander.write_update(0, update.data());
  EXPECT_EQ(decode_payload(PayloadFormat::UpdateV1, update, keep), std::nullopt);
  BatchWriter writer;
  EXPECT_EQ(decode_payload(PayloadFormat::BatchV2, writer.write(expander, 0, 1, true), keep), std::nullopt);
  EXPECT_EQ(out.size(), 3U);
  return out;
}

bool same(const CanonicalAttributes& a, const CanonicalAttributes& b) {
  return std::ranges::equal(a.next_hop(), b.next_hop()) && std::ranges::equal(a.attributes(), b.attributes());
}

// One announced field of an UPDATE: raw -> record -> decoded -> canonical is raw -> canonical, and canonical
// -> record is what was told.
void check(const wire::Attributes& attributes, Family family, bool via_mp, wire::Bytes mp_next_hop) {
  Told told;
  told.meta.announced = true;
  told.meta.family = family;
  told.meta.via_mp = via_mp;
  told.batch.attributes = &attributes;
  told.batch.next_hop = wire::next_hop_address(mp_next_hop.empty() ? attributes.next_hop : mp_next_hop);
  const auto raw = std::make_unique<CanonicalAttributes>();
  ASSERT_TRUE(raw->set(attributes, told.batch.next_hop, via_mp));
  const EncodedRecord record = record_of(told);
  for (const DecodedUpdate& u : read_back(record)) {
    const auto decoded = std::make_unique<CanonicalAttributes>();
    ASSERT_TRUE(decoded->set(u));
    ASSERT_TRUE(same(*raw, *decoded));
  }

  wire::Attributes again = wire::parse_attributes(raw->attributes(), false);
  Told retold = told;
  retold.batch.attributes = &again;
  retold.batch.next_hop = wire::next_hop_address(raw->next_hop().empty() ? again.next_hop : raw->next_hop());
  // Whether MP_REACH and MP_UNREACH stood in the message is nothing about the route.
  constexpr std::uint64_t kMp = 1ULL << 14 | 1ULL << 15;
  wire::Attributes original = attributes;
  original.present &= ~kMp;
  told.batch.attributes = &original;
  const EncodedRecord expected = record_of(told);
  const EncodedRecord got = record_of(retold);
  ASSERT_TRUE(std::ranges::equal(expected.payload(), got.payload()));
  const auto twice = std::make_unique<CanonicalAttributes>();
  ASSERT_TRUE(twice->set(again, retold.batch.next_hop, via_mp));
  ASSERT_TRUE(same(*raw, *twice));
}

unsigned check_message(wire::Bytes message, bool as2) {
  const wire::Update update = wire::parse_update(message, as2);
  if (update.disposition != wire::Update::Disposition::Good &&
      update.disposition != wire::Update::Disposition::AttributeDiscard)
    return 0;
  unsigned checked = 0;
  if (!update.announced.empty()) {
    check(update.attributes, kIpv4Unicast, false, {});
    ++checked;
  }
  if (!update.mp_reach.nlri.empty() && is_plain_prefix_family(update.mp_reach.family)) {
    check(update.attributes, update.mp_reach.family, true, update.mp_reach.next_hop);
    ++checked;
  }
  return checked;
}

TEST(CanonicalAttributes, AreTheSameFromTheRouterAndFromTheLog) {
  unsigned checked = 0;
  for (unsigned seed = 0; seed < 20000 && !::testing::Test::HasFatalFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const bool as2 = random() % 3 == 0;
    checked += check_message(random_update(random, as2), as2);
  }
  EXPECT_GT(checked, 15000U);
}

TEST(CanonicalAttributes, AreTheSameForWhatRealRoutersSent) {
  unsigned checked = 0;
  for (const auto& entry : std::filesystem::directory_iterator(CAPTURES_DIR)) {
    if (entry.path().extension() != ".bmp") continue;
    SCOPED_TRACE(entry.path().filename().string());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    wire::Bytes rest = std::as_bytes(std::span(text));
    for (;;) {
      const wire::Frame frame = wire::next_frame(rest, 1U << 20);
      if (frame.status != wire::Frame::Status::Ready) break;
      const wire::Bytes message = rest.first(frame.size_bytes);
      rest = rest.subspan(frame.size_bytes);
      wire::PerPeerHeader header;
      ErrorCode error = ErrorCode::None;
      if (frame.type != 0 || !wire::parse_per_peer_header(message, header)) continue;
      const wire::Bytes pdu = wire::route_monitoring_pdu(message, error);
      if (!pdu.empty()) checked += check_message(pdu, header.as2_format());
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  EXPECT_GT(checked, 1000U);
}

TEST(CanonicalAttributes, DifferWhereConsumersSeeADifference) {
  Random random(7);
  DecodedUpdate u;
  u.announced = true;
  u.attributes_present = 0x2fe;  // types 1 to 7 and 9
  u.origin = "IGP";
  u.as_path = {1, 2};
  u.next_hop = IpAddress::from_v4(0x0a000001);
  const auto form = [](const DecodedUpdate& of) {
    CanonicalAttributes c;
    EXPECT_TRUE(c.set(of));
    Bytes out(c.next_hop().begin(), c.next_hop().end());
    out.insert(out.end(), c.attributes().begin(), c.attributes().end());
    return out;
  };
  std::vector<Bytes> forms{form(u)};
  const auto with = [&](auto&& change) {
    DecodedUpdate other = u;
    change(other);
    forms.push_back(form(other));
  };
  with([](DecodedUpdate& o) { o.origin = "EGP"; });
  with([](DecodedUpdate& o) { o.as_path = {2, 1}; });
  with([](DecodedUpdate& o) { o.as_segments = {{1, {1, 2}}}; });
  with([](DecodedUpdate& o) { o.next_hop = IpAddress::from_v4(0x0a000002); });
  with([](DecodedUpdate& o) { o.multiprotocol = true; });
  with([](DecodedUpdate& o) { o.med = 1; });
  with([](DecodedUpdate& o) { o.local_pref = 1; });
  with([](DecodedUpdate& o) { o.attributes_present &= ~std::uint64_t{1 << 6}; });
  with([](DecodedUpdate& o) { o.aggregator_asn = 1; });
  with([](DecodedUpdate& o) { o.aggregator_bgp_id = 1; });
  with([](DecodedUpdate& o) { o.originator_id = 1; });
  with([](DecodedUpdate& o) { o.raw_attributes = {0xc0, 26, 0}; });
  for (std::size_t i = 0; i < forms.size(); ++i) {
    for (std::size_t k = 0; k < i; ++k) EXPECT_NE(forms[i], forms[k]) << i << " and " << k;
  }
}

TEST(CanonicalAttributes, APathTooLongForBgpIsEqualToNothing) {
  DecodedUpdate u;
  u.announced = true;
  u.attributes_present = 1U << 2;
  u.as_path.assign(17000, 65000);
  CanonicalAttributes c;
  EXPECT_FALSE(c.set(u));
  const wire::Attributes cut = wire::parse_attributes(c.attributes(), false);
  EXPECT_GT(cut.as_path.size(), 65000U);
  EXPECT_TRUE(wire::as_path_parses(cut.as_path, 4));
}

}  // namespace
}  // namespace arancini::schema
