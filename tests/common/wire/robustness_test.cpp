// Every cut and many random changes of valid messages through every function of common/wire. What comes out
// is not judged, only that it lies within what went in; the rest is for ASan and UBSan.
#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "common/wire/bgp_update.h"
#include "common/wire/bmp.h"
#include "tests/common/wire/message_builder.h"

namespace arancini::wire {
namespace {

using namespace test;

void expect_within(Bytes part, Bytes whole) {
  if (part.empty()) return;
  EXPECT_GE(part.data(), whole.data());
  EXPECT_LE(part.data() + part.size(), whole.data() + whole.size());
}

std::uint64_t walk_nlri(Bytes nlri, Family family, Bytes whole) {
  expect_within(nlri, whole);
  AddPathJudge judge(true);
  std::uint64_t sum = judge.judge(nlri, family).path_ids;
  for (bool path_ids : {false, true}) {
    PrefixReader reader(nlri, family, path_ids);
    for (Prefix p; reader.next(p);) sum += p.low + p.length;
    EXPECT_LE(reader.offset(), nlri.size());
    EXPECT_EQ(reader.ok(), reader.offset() == nlri.size());
  }
  return sum;
}

std::uint64_t walk_tlvs(Bytes bytes, Bytes whole) {
  TlvReader reader(bytes);
  std::uint64_t sum = 0;
  for (Tlv t; reader.next(t);) {
    expect_within(t.value, whole);
    sum += t.type + t.value.size();
  }
  return sum;
}

// Reads all that can be read of a BMP message. The sum keeps the compiler from dropping the work.
std::uint64_t walk(Bytes message) {
  std::uint64_t sum = 0;
  const Frame frame = next_frame(message, 1 << 20);
  sum += static_cast<std::uint64_t>(frame.status) + frame.size_bytes;
  PerPeerHeader h;
  if (parse_per_peer_header(message, h)) sum += static_cast<std::uint64_t>(h.view()) + h.timestamp_ns;
  PeerUp up;
  std::uint32_t offset = 0;
  if (parse_peer_up(message, h, up, &offset) != ErrorCode::None) {
    EXPECT_LE(offset, message.size());
  }
  expect_within(up.tlvs, message);
  EXPECT_LE(up.sent.family_count, OpenInfo::kMaxFamilies);
  EXPECT_LE(up.sent.addpath_count, OpenInfo::kMaxFamilies);
  sum += addpath_negotiated(up, View::AdjInPre, kIpv4Unicast) + walk_tlvs(up.tlvs, message);
  PeerDown down;
  sum += static_cast<std::uint64_t>(parse_peer_down(message, down));
  expect_within(down.data, message);
  std::uint32_t count = 0;
  sum += walk_tlvs(information_tlvs(message), message) + walk_tlvs(statistics_tlvs(message, count), message) +
         walk_tlvs(mirroring_tlvs(message), message);

  ErrorCode error;
  Bytes pdu = route_monitoring_pdu(message, error);
  expect_within(pdu, message);
  EXPECT_EQ(pdu.empty(), error != ErrorCode::None);
  // Also what the envelope would have stopped.
  if (pdu.empty() && message.size() > 48) pdu = message.subspan(48);
  for (bool as2 : {false, true}) {
    const Update u = parse_update(pdu, as2);
    EXPECT_LE(u.error_offset, pdu.size());
    EXPECT_EQ(u.disposition == Update::Disposition::Good, u.error == ErrorCode::None);
    const Attributes& a = u.attributes;
    for (Bytes b :
         {a.origin, a.as_path, a.next_hop, a.med, a.local_pref, a.aggregator, a.communities, a.originator_id,
          a.cluster_list, a.extended_communities, a.as4_path, a.as4_aggregator, a.large_communities,
          a.only_to_customer, a.all, u.withdrawn, u.announced, u.mp_reach.next_hop})
      expect_within(b, pdu);
    // What is present can be read without looking again.
    if (a.has(AttrType::Med)) {
      EXPECT_EQ(a.med.size(), 4U);
    }
    if (a.has(AttrType::AsPath)) {
      EXPECT_TRUE(as_path_parses(a.as_path, a.as2 ? 2 : 4));
    }
    if (a.has(AttrType::Communities)) {
      EXPECT_EQ(a.communities.size() % 4, 0U);
    }
    Bytes rest = a.all;
    for (RawAttribute raw; next_attribute(rest, raw);) sum += raw.type;
    sum += walk_nlri(u.withdrawn, kIpv4Unicast, pdu) + walk_nlri(u.announced, kIpv4Unicast, pdu);
    sum += walk_nlri(u.mp_reach.nlri, u.mp_reach.family, pdu) +
           walk_nlri(u.mp_unreach.nlri, u.mp_unreach.family, pdu);
    sum += next_hop_address(u.mp_reach.next_hop).bytes[0] + next_hop_address(a.next_hop).bytes[15];
  }
  return sum;
}

// On the heap with its exact size, so that ASan sees a read of the byte behind it.
std::uint64_t walk_exactly(Bytes message) {
  const auto copy = std::make_unique<std::byte[]>(message.size());
  std::copy(message.begin(), message.end(), copy.get());
  return walk(Bytes(copy.get(), message.size()));
}

std::vector<Buffer> valid_messages() {
  const PeerFields v4;
  const PeerFields v6{.type = 1, .flags = 0xc0, .distinguisher = 7, .address = "2001:db8::2"};
  Buffer caps = mp_capability(kIpv4Unicast).add(mp_capability(kIpv6Unicast));
  caps.add(capability(65, Buffer().u32(65001))).add(capability(6, {})).add(capability(70, {}));
  caps.add(capability(69, Buffer().u16(1).u8(1).u8(3).u16(2).u8(1).u8(3)));
  const Buffer extended_parameters = Buffer()
                                         .u8(255)
                                         .u8(255)
                                         .u16(static_cast<unsigned>(caps.size() + 3))
                                         .u8(2)
                                         .u16(static_cast<unsigned>(caps.size()));

  Buffer attributes = basic_attributes();
  for (unsigned type : {4, 5, 6, 7, 8, 9, 10, 16, 17, 18, 32, 35, 99}) {
    const std::size_t size = type == 6 ? 0 : type == 7 || type == 16 || type == 18 ? 8 : type == 32 ? 24 : 4;
    const Buffer value = type == 17 ? as_sequence4({1, 2, 3}) : Buffer().fill(type, size);
    attributes.add(attribute(attribute_flags(type), type, value));
  }
  attributes.add(attribute(0xc0, 8, Buffer().fill(1, 400)));
  const Buffer nlri =
      prefixes({"10.0.0.0/8", "192.0.2.0/24", "0.0.0.0/0", "198.51.100.7/32", "203.0.113.128/25"});
  Buffer ids;
  ids.prefix("10.0.0.0/8", 1).prefix("192.0.2.0/24", 70000).prefix("198.51.100.0/24", 0xfffffffe);
  const Buffer v6_nlri = prefixes({"2001:db8::/32", "::/0", "2001:db8::1/128", "2001:db8:4000::/35"});
  const Buffer v6_attributes =
      basic_attributes()
          .add(mp_unreach(kIpv6Unicast, prefixes({"2001:db8:1::/48"})))
          .add(mp_reach(kIpv6Unicast, Buffer().address("2001:db8::1").address("fe80::1"), v6_nlri));

  std::vector<Buffer> messages;
  messages.push_back(
      bmp(BmpType::Initiation, tlv(1, Buffer().text("descr")).add(tlv(2, Buffer().text("name")))));
  messages.push_back(bmp(BmpType::Termination, tlv(1, {0, 0})));
  messages.push_back(
      peer_up(v4, open(65001, 1, caps), open(65002, 2, caps), tlv(3, Buffer().text("global"))));
  messages.push_back(
      peer_up(v6, open_with_parameters(65001, 1, Buffer(extended_parameters).add(caps)), open(65002, 2, {})));
  messages.push_back(bmp(BmpType::PeerDown, per_peer(v4).u8(1).add(bgp(3, {6, 2}))));
  messages.push_back(bmp(BmpType::PeerDown, per_peer(v6).u8(2).u16(9)));
  messages.push_back(bmp(BmpType::PeerDown, per_peer({.type = 3}).u8(6).add(tlv(3, Buffer().text("vrf")))));
  messages.push_back(bmp(BmpType::StatisticsReport,
                         per_peer(v4).u32(2).add(tlv(0, Buffer().u32(1))).add(tlv(7, Buffer().u64(2)))));
  messages.push_back(
      bmp(BmpType::RouteMirroring, per_peer(v4).add(tlv(1, {0, 1})).add(tlv(0, update({}, {}, {})))));
  messages.push_back(route_monitoring(v4, update(prefixes({"10.1.0.0/16"}), attributes, nlri)));
  messages.push_back(route_monitoring(v4, update({}, basic_attributes(), ids)));
  messages.push_back(route_monitoring(v6, update({}, v6_attributes, {}).add(tlv(1, {1, 2, 3}))));
  messages.push_back(route_monitoring(v4, update({}, {}, {})));
  messages.push_back(route_monitoring(
      {.flags = 0x20},
      update({}, attribute(0x40, 1, {0}).add(attribute(0x40, 2, as_sequence2({1, 2}))), nlri)));
  return messages;
}

TEST(WireRobustness, EveryCutOfEveryMessage) {
  for (const Buffer& message : valid_messages())
    for (std::size_t n = 0; n <= message.size(); ++n) walk_exactly(Bytes(message).first(n));
}

TEST(WireRobustness, EveryByteWithTheWorstValues) {
  for (const Buffer& message : valid_messages())
    for (std::size_t at = 0; at < message.size(); ++at)
      for (unsigned value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
        Buffer changed = message;
        changed.bytes()[at] = static_cast<std::byte>(value);
        walk_exactly(changed);
      }
}

TEST(WireRobustness, RandomBitFlips) {
  std::mt19937_64 random(20260101);
  const auto messages = valid_messages();
  for (int round = 0; round < 300000; ++round) {
    Buffer changed = messages[random() % messages.size()];
    // Behind the headers as a rule: that is where the structure is.
    const std::size_t from = changed.size() > 60 && random() % 8 != 0 ? 48 : 0;
    for (auto flips = 1 + random() % 6; flips > 0; --flips) {
      const std::size_t at = from + random() % (changed.size() - from);
      changed.bytes()[at] ^= static_cast<std::byte>(1U << (random() % 8));
    }
    walk_exactly(changed);
  }
}

TEST(WireRobustness, RandomBytesBehindAGoodHeader) {
  std::mt19937_64 random(20260102);
  for (int round = 0; round < 100000; ++round) {
    Buffer body;
    for (auto n = random() % 300; n > 0; --n) body.u8(static_cast<unsigned>(random() & 0xff));
    const auto type = static_cast<BmpType>(random() % 8);
    // Half of them as the body of an UPDATE, so that the decoder is reached.
    walk_exactly(bmp(type, per_peer({}).add(round % 2 != 0 ? bgp(2, body) : body)));
  }
}

// A stream cut anywhere and with anything in it comes to an end, and never goes beyond its bytes.
TEST(WireRobustness, FramingOfARandomStreamTerminates) {
  std::mt19937_64 random(20260103);
  Buffer stream;
  for (const Buffer& m : valid_messages()) stream.add(m);
  for (int round = 0; round < 2000; ++round) {
    Buffer changed = stream;
    changed.bytes()[random() % changed.size()] = static_cast<std::byte>(random() & 0xff);
    Bytes rest = Bytes(changed).first(random() % changed.size());
    while (!rest.empty()) {
      const Frame f = next_frame(rest, 1 << 16);
      if (f.status != Frame::Status::Ready) break;
      ASSERT_GE(f.size_bytes, 6U);
      ASSERT_LE(f.size_bytes, rest.size());
      rest = rest.subspan(f.size_bytes);
    }
  }
}

}  // namespace
}  // namespace arancini::wire
