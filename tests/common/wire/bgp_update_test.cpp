#include "common/wire/bgp_update.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/common/wire/message_builder.h"

namespace arancini::wire {
namespace {

using namespace test;
using enum Update::Disposition;

std::vector<std::string> texts(Bytes nlri, Family f, bool path_ids) {
  std::vector<std::string> out;
  PrefixReader reader(nlri, f, path_ids);
  for (Prefix p; reader.next(p);) {
    out.push_back(fmt::format("{}/{}", prefix_address(p).to_string(), p.length));
    if (path_ids) out.back() += fmt::format("#{}", p.path_id);
  }
  if (!reader.ok()) out.push_back(fmt::format("bad@{}", reader.offset()));
  return out;
}
using Texts = std::vector<std::string>;

TEST(ParseUpdate, ClassicIpv4) {
  const Buffer m =
      update(prefixes({"198.51.100.0/24"}), basic_attributes(), prefixes({"203.0.113.0/25", "10.0.0.0/8"}));
  const Update u = parse_update(m, false);
  EXPECT_EQ(u.disposition, Good);
  EXPECT_EQ(u.error, ErrorCode::None);
  EXPECT_FALSE(u.end_of_rib);
  EXPECT_EQ(texts(u.withdrawn, kIpv4Unicast, false), (Texts{"198.51.100.0/24"}));
  EXPECT_EQ(texts(u.announced, kIpv4Unicast, false), (Texts{"203.0.113.0/25", "10.0.0.0/8"}));
  EXPECT_TRUE(u.attributes.has(AttrType::Origin));
  EXPECT_TRUE(u.attributes.has(AttrType::AsPath));
  EXPECT_TRUE(u.attributes.has(AttrType::NextHop));
  EXPECT_FALSE(u.attributes.has(AttrType::Med));
  EXPECT_FALSE(u.attributes.has_other);
  EXPECT_EQ(next_hop_address(u.attributes.next_hop).to_string(), "192.0.2.1");
}

TEST(ParseUpdate, MultiprotocolIpv6WithTrailingBytesOfTheCaller) {
  Buffer m =
      update({},
             basic_attributes()
                 .add(mp_reach(kIpv6Unicast, Buffer().address("2001:db8::1"), prefixes({"2001:db8:1::/48"})))
                 .add(mp_unreach(kIpv6Multicast, prefixes({"2001:db8:2::/47"}))),
             {});
  m.add(tlv(5, Buffer().u32(7)));
  const Update u = parse_update(m, false);
  EXPECT_EQ(u.disposition, Good);
  ASSERT_TRUE(u.has_mp_reach);
  ASSERT_TRUE(u.has_mp_unreach);
  EXPECT_EQ(u.mp_reach.family, kIpv6Unicast);
  EXPECT_EQ(u.mp_unreach.family, kIpv6Multicast);
  EXPECT_EQ(texts(u.mp_reach.nlri, kIpv6Unicast, false), (Texts{"2001:db8:1::/48"}));
  EXPECT_EQ(texts(u.mp_unreach.nlri, kIpv6Multicast, false), (Texts{"2001:db8:2::/47"}));
  EXPECT_EQ(next_hop_address(u.mp_reach.next_hop).to_string(), "2001:db8::1");
}

TEST(ParseUpdate, EndOfRib) {
  Update u = parse_update(update({}, {}, {}), true);
  EXPECT_TRUE(u.end_of_rib);
  EXPECT_EQ(u.end_of_rib_family, kIpv4Unicast);
  u = parse_update(update({}, mp_unreach(kIpv6Unicast, {}), {}), false);
  EXPECT_TRUE(u.end_of_rib);
  EXPECT_EQ(u.end_of_rib_family, kIpv6Unicast);
  EXPECT_FALSE(parse_update(update({}, mp_unreach(kIpv6Unicast, prefixes({"::/0"})), {}), false).end_of_rib);
  EXPECT_FALSE(
      parse_update(update({}, basic_attributes().add(mp_unreach(kIpv6Unicast, {})), {}), false).end_of_rib);
  EXPECT_FALSE(parse_update(update({}, mp_unreach(kIpv6Unicast, {}).add(attribute(0xc0, 99, {})), {}), false)
                   .end_of_rib);
  EXPECT_FALSE(
      parse_update(update({}, mp_unreach(kIpv6Unicast, {}), prefixes({"10.0.0.0/8"})), false).end_of_rib);
  EXPECT_FALSE(parse_update(update({}, basic_attributes(), {}), false).end_of_rib);
}

// RFC 7606 7 and the RFCs of the newer attributes, one row per way to be wrong.
TEST(ParseUpdate, MalformedAttributesPerRfc7606) {
  const struct {
    const char* what;
    unsigned type;
    Buffer value;
    Update::Disposition expected;
  } cases[] = {
      {"origin 2", 1, {2}, Good},
      {"origin 3", 1, {3}, TreatAsWithdraw},
      {"origin 9", 1, {9}, TreatAsWithdraw},
      {"origin empty", 1, {}, TreatAsWithdraw},
      {"origin long", 1, {0, 0}, TreatAsWithdraw},
      {"path empty", 2, {}, Good},
      {"path overrun", 2, {2, 3, 0, 0, 0, 1}, TreatAsWithdraw},
      {"path empty segment", 2, {2, 0}, TreatAsWithdraw},
      {"path segment type", 2, {7, 1, 0, 0, 0, 1}, TreatAsWithdraw},
      {"path odd tail", 2, {2, 1, 0, 0, 0, 1, 9}, TreatAsWithdraw},
      {"path set and confed", 2, {3, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 2, 4, 1, 0, 0, 0, 3}, Good},
      {"next hop short", 3, {1, 2, 3}, TreatAsWithdraw},
      {"med", 4, {0, 0, 0, 1}, Good},
      {"med short", 4, {0, 0, 1}, TreatAsWithdraw},
      {"local pref long", 5, {0, 0, 0, 0, 1}, TreatAsWithdraw},
      {"atomic", 6, {}, Good},
      {"atomic not empty", 6, {1}, AttributeDiscard},
      {"aggregator 6", 7, {0, 1, 1, 2, 3, 4}, Good},
      {"aggregator 8", 7, {0, 0, 0, 1, 1, 2, 3, 4}, Good},
      {"aggregator 7", 7, {0, 0, 0, 1, 1, 2, 3}, AttributeDiscard},
      {"communities", 8, {0, 1, 0, 2, 0, 3, 0, 4}, Good},
      {"communities 5", 8, {0, 1, 0, 2, 0}, TreatAsWithdraw},
      {"communities empty", 8, {}, TreatAsWithdraw},
      {"originator short", 9, {1}, TreatAsWithdraw},
      {"cluster list", 10, {1, 1, 1, 1}, Good},
      {"cluster list 6", 10, {1, 1, 1, 1, 2, 2}, TreatAsWithdraw},
      {"cluster list empty", 10, {}, TreatAsWithdraw},
      {"extended communities 9", 16, {0, 2, 0, 0, 0, 0, 0, 1, 2}, TreatAsWithdraw},
      {"as4 path bad", 17, {2, 9, 0, 0, 0, 1}, AttributeDiscard},
      {"as4 aggregator 6", 18, {0, 1, 1, 2, 3, 4}, AttributeDiscard},
      {"large communities", 32, Buffer().fill(0, 24), Good},
      {"large communities 13", 32, Buffer().fill(0, 13), TreatAsWithdraw},
      {"large communities empty", 32, {}, TreatAsWithdraw},
      {"otc", 35, {0, 0, 0, 1}, Good},
      {"otc short", 35, {0, 0, 1}, TreatAsWithdraw},
  };
  for (const auto& c : cases) {
    // The attribute under test in its place among the three mandatory ones.
    Buffer attributes;
    for (unsigned t = 1; t <= 3; ++t)
      if (t != c.type) {
        if (t == 1) attributes.add(attribute(0x40, 1, {0}));
        if (t == 2) attributes.add(attribute(0x40, 2, as_sequence4({65001})));
        if (t == 3) attributes.add(attribute(0x40, 3, {192, 0, 2, 1}));
      }
    const std::size_t at = 19 + 2 + 2 + attributes.size();
    attributes.add(attribute(attribute_flags(c.type), c.type, c.value));
    const Buffer m = update({}, attributes, prefixes({"10.0.0.0/8"}));
    const Update u = parse_update(m, false);
    EXPECT_EQ(u.disposition, c.expected) << c.what;
    EXPECT_EQ(u.attributes.has(static_cast<AttrType>(c.type)), c.expected == Good) << c.what;
    EXPECT_EQ(u.error, c.expected == Good              ? ErrorCode::None
                       : c.expected == TreatAsWithdraw ? ErrorCode::BgpAttributeMalformed
                                                       : ErrorCode::BgpAttributeDiscarded)
        << c.what;
    EXPECT_EQ(u.error_offset, c.expected == Good ? 0 : at) << c.what;
    EXPECT_EQ(texts(u.announced, kIpv4Unicast, false), (Texts{"10.0.0.0/8"})) << c.what;
  }
}

TEST(ParseUpdate, AttributeFlagsPerRfc7606) {
  for (unsigned type : {4, 6, 7, 8, 9, 10, 14, 16, 17, 18, 32, 35, 99}) {
    const Buffer value = type == 6    ? Buffer{}
                         : type == 14 ? Buffer().u16(2).u8(1).u8(0).u8(0)
                         : type == 17 ? as_sequence4({1})
                                      : Buffer().fill(0, type == 32                ? 12
                                                         : type >= 16 || type == 7 ? 8
                                                                                   : 4);
    for (unsigned wrong : {0x80, 0x40, 0xc0}) {
      const auto parsed = [&](unsigned flags) {
        const Buffer otc{0, 0, 0, 1};
        return parse_update(
            update({}, basic_attributes().add(attribute(flags, type, type == 35 ? otc : value)),
                   prefixes({"10.0.0.0/8"})),
            false);
      };
      const unsigned right = attribute_flags(type);
      EXPECT_EQ(parsed(right).disposition, Good) << type;
      EXPECT_EQ(parsed(right | 0x20).disposition, Good) << type;  // Partial is not judged
      EXPECT_EQ(parsed(right | 0x0f).disposition, Good) << type;  // nor are the unused bits
      const auto expected = type == 99 ? Good : type == 17 || type == 18 ? AttributeDiscard : TreatAsWithdraw;
      EXPECT_EQ(parsed(right ^ wrong).disposition, expected) << type << " " << wrong;
    }
  }
}

TEST(ParseUpdate, MissingMandatoryAttributes) {
  const Buffer origin = attribute(0x40, 1, {0});
  const Buffer next_hop = attribute(0x40, 3, {192, 0, 2, 1});
  const Buffer reach = mp_reach(kIpv6Unicast, Buffer().address("2001:db8::1"), prefixes({"2001:db8::/32"}));
  const Buffer nlri = prefixes({"10.0.0.0/8"});
  const struct {
    Buffer attributes, nlri;
    Update::Disposition expected;
  } cases[] = {
      {Buffer(origin).add(next_hop), nlri, Good},  // no AS_PATH: GoBGP's local routes
      {next_hop, nlri, TreatAsWithdraw},
      {origin, nlri, TreatAsWithdraw},
      {Buffer(origin).add(reach), {}, Good},
      {Buffer(origin).add(reach), nlri, TreatAsWithdraw},
      {reach, {}, TreatAsWithdraw},
      {mp_unreach(kIpv6Unicast, prefixes({"2001:db8::/32"})), {}, Good},
      {{}, nlri, TreatAsWithdraw},
  };
  int n = 0;
  for (const auto& c : cases)
    EXPECT_EQ(parse_update(update({}, c.attributes, c.nlri), false).disposition, c.expected) << n++;
}

TEST(ParseUpdate, AsWidthIsDecidedByWhatParses) {
  const struct {
    Buffer path;
    bool flag, as2, mismatch;
  } cases[] = {
      {as_sequence4({65001, 65002}), false, false, false},
      {as_sequence4({65001, 65002}), true, false, true},
      {as_sequence2({65001, 65002}), true, true, false},
      {as_sequence2({65001, 65002}), false, true, true},
      {as_sequence2({65001}), false, true, true},
      {Buffer{}, true, true, false},
      {Buffer{}, false, false, false},
  };
  for (const auto& c : cases) {
    const Update u = parse_update(update({}, attribute(0x40, 2, c.path), {}), c.flag);
    EXPECT_EQ(u.disposition, Good);
    EXPECT_EQ(u.attributes.as2, c.as2);
    EXPECT_EQ(u.as_width_mismatch, c.mismatch);
  }
}

TEST(ParseUpdate, DuplicateAttributes) {
  const Buffer two_meds =
      update({}, attribute(0x80, 4, {0, 0, 0, 1}).add(attribute(0x80, 4, {0, 0, 0, 2})), {});
  Update u = parse_update(two_meds, false);
  EXPECT_EQ(u.disposition, AttributeDiscard);
  ASSERT_EQ(u.attributes.med.size(), 4U);
  EXPECT_EQ(static_cast<int>(u.attributes.med[3]), 1);
  const Buffer reach = mp_reach(kIpv6Unicast, Buffer().address("2001:db8::1"), prefixes({"2001:db8:1::/48"}));
  u = parse_update(update({}, Buffer(reach).add(reach), {}), false);
  EXPECT_EQ(u.disposition, Malformed);
  u = parse_update(update({}, mp_unreach(kIpv6Unicast, {}).add(mp_unreach(kIpv6Unicast, {})), {}), false);
  EXPECT_EQ(u.disposition, Malformed);
}

TEST(ParseUpdate, AttributeThatOverruns) {
  Buffer attributes = basic_attributes();
  attributes.u8(0x40).u8(5).u8(200).u8(0);
  const Buffer with_nlri = update({}, attributes, prefixes({"10.0.0.0/8"}));
  const Update u = parse_update(with_nlri, false);
  EXPECT_EQ(u.disposition, TreatAsWithdraw);
  EXPECT_EQ(texts(u.announced, kIpv4Unicast, false), (Texts{"10.0.0.0/8"}));
  EXPECT_EQ(parse_update(update({}, attributes, {}), false).disposition, Malformed);
}

TEST(ParseUpdate, LengthsThatDoNotFit) {
  const Buffer good = update(prefixes({"10.0.0.0/8"}), basic_attributes(), prefixes({"10.0.0.0/8"}));
  for (std::size_t n = 0; n < good.size(); ++n)
    EXPECT_EQ(parse_update(Bytes(good).first(n), false).disposition, Malformed);
  const auto patched = [&](std::size_t at, unsigned value) {
    Buffer b = good;
    b.bytes()[at] = static_cast<std::byte>(value);
    return parse_update(b, false);
  };
  EXPECT_EQ(patched(19, 0x10).error, ErrorCode::BgpUpdateMalformed);
  EXPECT_EQ(patched(19, 0x10).error_offset, 19U);
  EXPECT_EQ(patched(23, 0x10).error_offset, 23U);
  EXPECT_EQ(patched(18, 4).error, ErrorCode::BgpNotUpdate);
  EXPECT_EQ(patched(16, 0xff).error, ErrorCode::BgpBadLength);
}

TEST(ParseUpdate, OtherAttributesAreFoundAgain) {
  const Buffer m =
      update({}, attribute(0xc0, 99, {1}).add(basic_attributes()).add(attribute(0xc0, 200, {2, 3})), {});
  const Update u = parse_update(m, false);
  EXPECT_TRUE(u.attributes.has_other);
  Bytes rest = u.attributes.all;
  std::vector<int> other;
  for (RawAttribute raw; next_attribute(rest, raw);)
    if (!has_update_field(raw.type)) other.push_back(raw.type);
  EXPECT_EQ(other, (std::vector<int>{99, 200}));
  EXPECT_TRUE(rest.empty());
}

TEST(ParseUpdate, ExtendedMessage) {
  Buffer nlri;
  for (unsigned i = 0; i < 15000; ++i) nlri.u8(24).u8(10).u8(i >> 8).u8(i & 0xff);
  const Buffer m = update({}, basic_attributes(), nlri);
  ASSERT_GT(m.size(), 60000U);
  const Update u = parse_update(m, false);
  EXPECT_EQ(count_prefixes(u.announced, kIpv4Unicast, false), 15000);
}

TEST(HasUpdateField, IsTrueForExactlyTheSchema) {
  for (unsigned t = 0; t < 256; ++t) {
    const bool expected = (t >= 1 && t <= 10) || (t >= 14 && t <= 18) || t == 32 || t == 35;
    EXPECT_EQ(has_update_field(static_cast<std::uint8_t>(t)), expected) << t;
  }
}

TEST(RouteMonitoringPdu, CutsAtTheLengthOfThePdu) {
  const Buffer pdu = update({}, {}, {});
  ErrorCode error;
  EXPECT_EQ(route_monitoring_pdu(route_monitoring({}, Buffer(pdu).add(tlv(1, {1, 2}))), error).size(),
            pdu.size());
  EXPECT_EQ(error, ErrorCode::None);
  Buffer bad = pdu;
  bad.bytes()[3] = std::byte{0};
  EXPECT_TRUE(route_monitoring_pdu(route_monitoring({}, bad), error).empty());
  EXPECT_EQ(error, ErrorCode::BgpBadMarker);
  bad = pdu;
  bad.bytes()[17] = std::byte{200};
  EXPECT_TRUE(route_monitoring_pdu(route_monitoring({}, bad), error).empty());
  EXPECT_EQ(error, ErrorCode::BgpBadLength);
  EXPECT_TRUE(route_monitoring_pdu(route_monitoring({}, {}), error).empty());
  EXPECT_EQ(error, ErrorCode::BgpBadLength);
}

TEST(PrefixReader, EveryLength) {
  for (unsigned length = 0; length <= 128; ++length) {
    const Family f = length <= 32 ? kIpv4Unicast : kIpv6Unicast;
    for (const Family& family : {f, kIpv6Unicast}) {
      for (bool tail : {false, true}) {  // last in the field, and far from its end
        Buffer b;
        b.u8(length).fill(0xff, (length + 7) / 8);
        if (tail) b.fill(0, 40);
        PrefixReader reader(b, family, false);
        Prefix p;
        ASSERT_TRUE(reader.next(p));
        EXPECT_EQ(p.length, length);
        EXPECT_EQ(p.path_id, 0U);
        const IpAddress a = prefix_address(p);
        for (unsigned i = 0; i < (family.afi == 1 ? 32U : 128U); ++i) {
          const unsigned at = (family.afi == 1 ? 96 : 0) + i;
          EXPECT_EQ((a.bytes[at / 8] >> (7 - at % 8)) & 1, i < length ? 1 : 0) << length << " " << i;
        }
        EXPECT_EQ(a.is_v4(), family.afi == 1);
      }
    }
  }
}

TEST(PrefixReader, LocatesWhatIsBad) {
  EXPECT_EQ(texts(prefixes({"10.0.0.0/8"}).u8(33).fill(0, 40), kIpv4Unicast, false),
            (Texts{"10.0.0.0/8", "bad@2"}));
  EXPECT_EQ(texts(prefixes({"10.0.0.0/8"}).u8(24).u8(1).u8(2), kIpv4Unicast, false),
            (Texts{"10.0.0.0/8", "bad@2"}));
  EXPECT_EQ(texts(Buffer{129}.fill(0, 40), kIpv6Unicast, false), (Texts{"bad@0"}));
  EXPECT_EQ(texts(Buffer{0, 0, 0, 1}, kIpv4Unicast, true), (Texts{"bad@0"}));
  EXPECT_EQ(count_prefixes(Buffer{33}, kIpv4Unicast, false), -1);
}

TEST(PrefixReader, PathIds) {
  Buffer b;
  b.prefix("10.0.0.0/8", 7).prefix("0.0.0.0/0", 0xfffffff0).prefix("192.0.2.1/32", 0);
  EXPECT_EQ(texts(b, kIpv4Unicast, true), (Texts{"10.0.0.0/8#7", "0.0.0.0/0#4294967280", "192.0.2.1/32#0"}));
}

TEST(NextHopAddress, EveryLength) {
  const auto text = [](const Buffer& b) { return next_hop_address(b).to_string(); };
  EXPECT_EQ(text({}), "::");
  EXPECT_EQ(text(Buffer().address("192.0.2.1")), "192.0.2.1");
  EXPECT_EQ(text(Buffer().fill(0, 8)), "::");
  EXPECT_EQ(text(Buffer().u64(7).address("192.0.2.1")), "192.0.2.1");
  EXPECT_EQ(text(Buffer().address("2001:db8::1")), "2001:db8::1");
  EXPECT_EQ(text(Buffer().u64(7).address("2001:db8::1")), "2001:db8::1");
  EXPECT_EQ(text(Buffer().address("2001:db8::1").address("fe80::1")), "2001:db8::1");
  EXPECT_EQ(text(Buffer().address16("::").address("fe80::1")), "fe80::1");
  EXPECT_EQ(text(Buffer().u64(7).address("2001:db8::1").u64(7).address("fe80::1")), "2001:db8::1");
  for (std::size_t n : {1, 3, 5, 15, 17, 31, 33, 47, 49, 255}) EXPECT_EQ(text(Buffer().fill(9, n)), "::");
}

}  // namespace
}  // namespace arancini::wire
