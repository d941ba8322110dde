#include "common/wire/bmp.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/common/wire/message_builder.h"

namespace arancini::wire {
namespace {

using namespace test;

constexpr std::uint32_t kMax = 1 << 20;

std::string text_of(Bytes b) {
  std::string s;
  for (std::byte x : b) s.push_back(static_cast<char>(x));
  return s;
}

Buffer four_byte_as(std::uint32_t asn) {
  return capability(65, Buffer().u32(asn));
}
Buffer addpath(Family f, unsigned mode) {
  return Buffer().u16(f.afi).u8(f.safi).u8(mode);
}

TEST(NextFrame, NeedsMoreUntilTheWholeMessageIsThere) {
  const Buffer message = bmp(BmpType::Initiation, tlv(2, Buffer().text("r1")));
  for (std::size_t n = 0; n < message.size(); ++n) {
    const Frame f = next_frame(Bytes(message).first(n), kMax);
    EXPECT_EQ(f.status, Frame::Status::NeedMore) << n;
    EXPECT_EQ(f.size_bytes, n < 6 ? 0U : message.size());
  }
  Buffer two = message;
  two.add(message);
  const Frame f = next_frame(two, kMax);
  EXPECT_EQ(f.status, Frame::Status::Ready);
  EXPECT_EQ(f.size_bytes, message.size());
  EXPECT_EQ(f.type, 4);
}

TEST(NextFrame, RejectsWhatCannotBeFramed) {
  const struct {
    Buffer bytes;
    ErrorCode error;
  } cases[] = {
      {Buffer{2}, ErrorCode::BmpBadVersion},
      {Buffer{4, 0, 0, 0, 6, 4}, ErrorCode::BmpBadVersion},
      {Buffer().u8(3).u32(5).u8(4), ErrorCode::BmpTooShort},
      {Buffer().u8(3).u32(0).u8(0), ErrorCode::BmpTooShort},
      {Buffer().u8(3).u32(47).u8(0), ErrorCode::BmpTooShort},
      {Buffer().u8(3).u32(47).u8(1), ErrorCode::BmpTooShort},
      {Buffer().u8(3).u32(47).u8(2), ErrorCode::BmpTooShort},
      {Buffer().u8(3).u32(47).u8(3), ErrorCode::BmpTooShort},
      {Buffer().u8(3).u32(47).u8(6), ErrorCode::BmpTooShort},
      {Buffer().u8(3).u32(kMax + 1).u8(0), ErrorCode::BmpTooLong},
      {Buffer().u8(3).u32(0xffffffff).u8(77), ErrorCode::BmpTooLong},
  };
  for (const auto& c : cases) {
    const Frame f = next_frame(c.bytes, kMax);
    EXPECT_EQ(f.status, Frame::Status::Bad);
    EXPECT_EQ(f.error, c.error);
  }
}

TEST(NextFrame, CarriesUnknownTypes) {
  const Frame f = next_frame(Buffer().u8(3).u32(7).u8(99).u8(0), kMax);
  EXPECT_EQ(f.status, Frame::Status::Ready);
  EXPECT_EQ(f.type, 99);
}

TEST(PerPeerHeader, FlagsAndTypeTellTheView) {
  const struct {
    unsigned type, flags;
    View view;
    bool as2;
  } cases[] = {
      {0, 0x00, View::AdjInPre, false},  {0, 0x40, View::AdjInPost, false},
      {0, 0x20, View::AdjInPre, true},   {0, 0x60, View::AdjInPost, true},
      {0, 0x10, View::AdjOutPre, false}, {0, 0x50, View::AdjOutPost, false},
      {1, 0x40, View::AdjInPost, false}, {2, 0x00, View::AdjInPre, false},
      {2, 0x30, View::AdjOutPre, true},  {3, 0x00, View::LocRib, false},
      {3, 0x80, View::LocRib, false},    {3, 0x60, View::LocRib, false},
      {9, 0x00, View::AdjInPre, false},
  };
  for (const auto& c : cases) {
    PerPeerHeader h;
    ASSERT_TRUE(parse_per_peer_header(
        route_monitoring({.type = c.type, .flags = c.flags, .address = "0.0.0.0"}, Buffer()), h));
    EXPECT_EQ(h.view(), c.view) << c.type << " " << c.flags;
    EXPECT_EQ(h.as2_format(), c.as2);
    EXPECT_EQ(h.is_loc_rib(), c.type == 3);
  }
}

TEST(PerPeerHeader, ReadsAllFields) {
  PerPeerHeader h;
  ASSERT_TRUE(parse_per_peer_header(
      route_monitoring(
          {.type = 1, .flags = 0x80, .distinguisher = 0x0000fde800000001, .address = "2001:db8::1"},
          Buffer()),
      h));
  EXPECT_EQ(h.address.to_string(), "2001:db8::1");
  EXPECT_EQ(h.distinguisher, 0x0000fde800000001U);
  EXPECT_EQ(h.asn, 65001U);
  EXPECT_EQ(h.bgp_id, 0x0a000001U);
  EXPECT_EQ(h.timestamp_ns, 1700000000123456000U);
}

TEST(PerPeerHeader, AddressFollowsTheBytesWhereTheFlagContradictsThem) {
  const struct {
    unsigned type, flags;
    std::string_view address, expected;
  } cases[] = {
      {0, 0x00, "192.0.2.1", "192.0.2.1"}, {0, 0x00, "2001:db8::1", "2001:db8::1"}, {0, 0x80, "::1", "::1"},
      {3, 0x00, "0.0.0.0", "0.0.0.0"},     {3, 0x80, "0.0.0.0", "0.0.0.0"},  // F flag, not V
  };
  for (const auto& c : cases) {
    PerPeerHeader h;
    ASSERT_TRUE(parse_per_peer_header(
        route_monitoring({.type = c.type, .flags = c.flags, .address = c.address}, Buffer()), h));
    EXPECT_EQ(h.address.to_string(), c.expected);
  }
}

TEST(PerPeerHeader, IsRefusedWhereThereIsNone) {
  PerPeerHeader h;
  EXPECT_FALSE(parse_per_peer_header(bmp(BmpType::Initiation, Buffer().fill(0, 60)), h));
  EXPECT_FALSE(parse_per_peer_header(bmp(BmpType::Termination, Buffer().fill(0, 60)), h));
  EXPECT_FALSE(parse_per_peer_header(Buffer().u8(3).u32(60).u8(99).fill(0, 54), h));
  EXPECT_FALSE(parse_per_peer_header(bmp(BmpType::RouteMonitoring, Buffer().fill(0, 41)), h));
}

TEST(TlvReader, IteratesAndLocatesAnOverrun) {
  Buffer body = tlv(1, Buffer().text("descr")).add(tlv(2, Buffer().text("name"))).add(tlv(0, {}));
  const Buffer message = bmp(BmpType::Initiation, body);
  TlvReader reader(information_tlvs(message));
  Tlv t;
  ASSERT_TRUE(reader.next(t));
  EXPECT_EQ(t.type, kInitiationSysDescr);
  EXPECT_EQ(text_of(t.value), "descr");
  ASSERT_TRUE(reader.next(t));
  EXPECT_EQ(t.type, kInitiationSysName);
  ASSERT_TRUE(reader.next(t));
  EXPECT_EQ(t.type, kInitiationString);
  EXPECT_TRUE(t.value.empty());
  EXPECT_FALSE(reader.next(t));
  EXPECT_TRUE(reader.ok());

  for (std::size_t cut = 1; cut < 5; ++cut) {
    TlvReader short_reader(Bytes(body).first(body.size() - cut));
    int n = 0;
    while (short_reader.next(t)) ++n;
    EXPECT_EQ(n, 2);
    EXPECT_EQ(short_reader.ok(), cut == 4);
  }
}

TEST(ParseOpen, ReadsCapabilities) {
  Buffer caps = mp_capability(kIpv4Unicast).add(mp_capability(kIpv6Unicast)).add(mp_capability({25, 70}));
  caps.add(capability(2, {})).add(capability(6, {})).add(four_byte_as(4200000012)).add(capability(70, {}));
  caps.add(capability(69, addpath(kIpv4Unicast, 3).add(addpath(kIpv6Unicast, 1)).add(addpath({1, 4}, 7))));
  caps.add(capability(64, Buffer{0x40, 0x78}));
  const OpenInfo o = parse_open(open(23456, 0x0a000002, caps));
  EXPECT_TRUE(o.valid);
  EXPECT_TRUE(o.complete);
  EXPECT_EQ(o.asn, 4200000012U);
  EXPECT_EQ(o.hold_time, 180);
  EXPECT_EQ(o.bgp_id, 0x0a000002U);
  EXPECT_TRUE(o.four_byte_as);
  EXPECT_TRUE(o.extended_message);
  EXPECT_TRUE(o.enhanced_refresh);
  ASSERT_EQ(o.family_count, 3U);
  EXPECT_EQ(o.families[2], (Family{25, 70}));
  EXPECT_EQ(o.addpath_mode(kIpv4Unicast), 3);
  EXPECT_EQ(o.addpath_mode(kIpv6Unicast), 1);
  EXPECT_EQ(o.addpath_mode({1, 4}), 0);
}

TEST(ParseOpen, WithoutCapabilities) {
  const OpenInfo o = parse_open(open(65001, 1, {}));
  EXPECT_TRUE(o.complete);
  EXPECT_EQ(o.asn, 65001U);
  EXPECT_FALSE(o.four_byte_as);
  EXPECT_EQ(o.family_count, 0U);
}

TEST(ParseOpen, ReadsExtendedOptionalParameters) {
  Buffer caps;
  for (unsigned i = 0; i < 60; ++i) caps.add(mp_capability({static_cast<std::uint16_t>(100 + i), 1}));
  caps.add(four_byte_as(70000));
  const Buffer parameter = Buffer().u8(2).u16(static_cast<unsigned>(caps.size())).add(caps);
  const Buffer message = open_with_parameters(
      23456, 1, Buffer().u8(255).u8(255).u16(static_cast<unsigned>(parameter.size())).add(parameter));
  const OpenInfo o = parse_open(message);
  EXPECT_TRUE(o.complete);
  EXPECT_EQ(o.asn, 70000U);
  EXPECT_EQ(o.family_count, OpenInfo::kMaxFamilies);  // bounded
}

// As GoBGP sends it with many families: the lengths of the parameter and of all parameters wrap at 256.
TEST(ParseOpen, ReadsBeyondAWrappedParameterLength) {
  for (unsigned families : {42, 43, 60}) {
    Buffer caps;
    for (unsigned i = 0; i < families; ++i)
      caps.add(mp_capability({1, static_cast<std::uint8_t>(1 + i % 20)}));
    caps.add(four_byte_as(4200000012));
    const Buffer parameter = Buffer().u8(2).u8(caps.size() & 0xff).add(caps);
    const OpenInfo o =
        parse_open(open_with_parameters(23456, 1, Buffer().u8(parameter.size() & 0xff).add(parameter)));
    EXPECT_TRUE(o.valid);
    EXPECT_EQ(o.family_count, 20U);
    EXPECT_EQ(o.asn, 4200000012U) << families;
  }
}

TEST(MergeCapabilities, AddsWithoutRepeating) {
  OpenInfo a =
      parse_open(open(1, 1, mp_capability(kIpv4Unicast).add(capability(69, addpath(kIpv4Unicast, 1)))));
  const OpenInfo b = parse_open(open(1, 1,
                                     mp_capability(kIpv4Unicast)
                                         .add(mp_capability(kIpv6Unicast))
                                         .add(capability(69, addpath(kIpv6Unicast, 3)))));
  merge_capabilities(a, b);
  EXPECT_EQ(a.family_count, 2U);
  EXPECT_EQ(a.addpath_mode(kIpv4Unicast), 1);
  EXPECT_EQ(a.addpath_mode(kIpv6Unicast), 3);
}

TEST(ParseOpen, TakesWhatParsesOfACutOne) {
  const Buffer whole = open(65001, 1, mp_capability(kIpv4Unicast).add(mp_capability(kIpv6Unicast)));
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const OpenInfo o = parse_open(Bytes(whole).first(n));
    EXPECT_EQ(o.valid, n >= 29) << n;
    EXPECT_FALSE(o.complete);
    EXPECT_LE(o.family_count, 1U);
  }
}

TEST(ParsePeerUp, ReadsEverything) {
  const PeerFields fields{.flags = 0x80, .address = "2001:db8::2"};
  const Buffer message = peer_up(fields, open(65001, 1, four_byte_as(65001)),
                                 open(23456, 2, four_byte_as(4200000012)), tlv(3, Buffer().text("global")));
  PerPeerHeader h;
  ASSERT_TRUE(parse_per_peer_header(message, h));
  PeerUp up;
  EXPECT_EQ(parse_peer_up(message, h, up), ErrorCode::None);
  EXPECT_EQ(up.local_port, 179);
  EXPECT_EQ(up.remote_port, 40000);
  EXPECT_EQ(up.sent.asn, 65001U);
  EXPECT_EQ(up.received.asn, 4200000012U);
  TlvReader tlvs(up.tlvs);
  Tlv t;
  ASSERT_TRUE(tlvs.next(t));
  EXPECT_EQ(text_of(t.value), "global");
}

TEST(ParsePeerUp, AddPathIsPerDirection) {
  const struct {
    unsigned sent, received;
    bool in, out, loc;
  } cases[] = {
      {1, 2, true, false, true},   {2, 1, false, true, true}, {3, 3, true, true, true},
      {1, 1, false, false, true},  {3, 1, false, true, true}, {0, 3, false, false, true},
      {0, 0, false, false, false},
  };
  for (const auto& c : cases) {
    const Buffer message = peer_up({}, open(65001, 1, capability(69, addpath(kIpv4Unicast, c.sent))),
                                   open(65002, 2, capability(69, addpath(kIpv4Unicast, c.received))));
    PerPeerHeader h;
    ASSERT_TRUE(parse_per_peer_header(message, h));
    PeerUp up;
    ASSERT_EQ(parse_peer_up(message, h, up), ErrorCode::None);
    EXPECT_EQ(addpath_negotiated_in(up, kIpv4Unicast), c.in);
    EXPECT_EQ(addpath_negotiated_out(up, kIpv4Unicast), c.out);
    EXPECT_EQ(addpath_negotiated(up, View::AdjInPost, kIpv4Unicast), c.in);
    EXPECT_EQ(addpath_negotiated(up, View::AdjOutPre, kIpv4Unicast), c.out);
    EXPECT_EQ(addpath_negotiated(up, View::LocRib, kIpv4Unicast), c.loc);
    EXPECT_FALSE(addpath_negotiated_in(up, kIpv6Unicast));
  }
}

// As GoBGP sends it with many families: the one-byte length of the parameters wrapped, the BGP length follows
// it.
TEST(ParsePeerUp, FindsTheSecondOpenWhenTheFirstOverruns) {
  Buffer sent = open(65001, 1, mp_capability(kIpv4Unicast));
  sent.bytes()[16] = std::byte{1};  // 256 bytes more than there are
  const Buffer received = open(65002, 2, mp_capability(kIpv6Unicast));
  const Buffer message = peer_up({}, sent, received);
  PerPeerHeader h;
  ASSERT_TRUE(parse_per_peer_header(message, h));
  PeerUp up;
  std::uint32_t offset = 0;
  EXPECT_EQ(parse_peer_up(message, h, up, &offset), ErrorCode::BmpMalformedPeerUp);
  EXPECT_EQ(offset, 68U);
  ASSERT_TRUE(up.sent.valid);
  ASSERT_EQ(up.sent.family_count, 1U);
  EXPECT_EQ(up.sent.families[0], kIpv4Unicast);
  ASSERT_TRUE(up.received.complete);
  EXPECT_EQ(up.received.asn, 65002U);
}

TEST(ParsePeerUp, KeepsTheFirstOpenWhenTheSecondIsCut) {
  const Buffer message = peer_up({}, open(65001, 1, mp_capability(kIpv4Unicast)), open(65002, 2, {}));
  PerPeerHeader h;
  ASSERT_TRUE(parse_per_peer_header(message, h));
  PeerUp up;
  std::uint32_t offset = 0;
  EXPECT_EQ(parse_peer_up(Bytes(message).first(message.size() - 5), h, up, &offset),
            ErrorCode::BmpMalformedPeerUp);
  EXPECT_TRUE(up.sent.complete);
  EXPECT_FALSE(up.received.valid);
  EXPECT_EQ(offset, message.size() - 29);
}

TEST(ParsePeerDown, EveryReason) {
  const Buffer notification = bgp(3, Buffer{6, 2});
  const struct {
    Buffer body;
    ErrorCode error;
    std::size_t data;
  } cases[] = {
      {Buffer{1}.add(notification), ErrorCode::None, notification.size()},
      {Buffer{3}.add(notification), ErrorCode::None, notification.size()},
      {Buffer{1}, ErrorCode::BmpMalformedPeerDown, 0},
      {Buffer{2, 0, 0}, ErrorCode::None, 2},
      {Buffer{2, 0}, ErrorCode::BmpMalformedPeerDown, 1},
      {Buffer{4}, ErrorCode::None, 0},
      {Buffer{5}, ErrorCode::None, 0},
      {Buffer{6}.add(tlv(3, Buffer().text("vrf"))), ErrorCode::None, 7},
      {Buffer{6, 0, 3, 0, 9}, ErrorCode::BmpMalformedPeerDown, 4},
      {Buffer{77}, ErrorCode::None, 0},
      {Buffer{}, ErrorCode::BmpMalformedPeerDown, 0},
  };
  for (const auto& c : cases) {
    PeerDown down;
    EXPECT_EQ(parse_peer_down(bmp(BmpType::PeerDown, per_peer({}).add(c.body)), down), c.error);
    EXPECT_EQ(down.data.size(), c.data);
  }
}

TEST(Statistics, HandsOutTheTlvsWhateverTheCountSays) {
  const Buffer message =
      bmp(BmpType::StatisticsReport,
          per_peer({}).u32(9).add(tlv(7, Buffer().u64(5))).add(tlv(65531, Buffer().u32(1))));
  std::uint32_t count = 0;
  TlvReader reader(statistics_tlvs(message, count));
  EXPECT_EQ(count, 9U);
  Tlv t;
  int n = 0;
  while (reader.next(t)) ++n;
  EXPECT_EQ(n, 2);
  EXPECT_TRUE(reader.ok());
  EXPECT_EQ(t.type, 65531);
}

TEST(BmpTypeName, NamesAllAndOnlyKnownTypes) {
  EXPECT_EQ(bmp_type_name(0), "route monitoring");
  EXPECT_EQ(bmp_type_name(6), "route mirroring");
  EXPECT_EQ(bmp_type_name(7), "unknown");
  EXPECT_EQ(bmp_type_name(255), "unknown");
}

}  // namespace
}  // namespace arancini::wire
