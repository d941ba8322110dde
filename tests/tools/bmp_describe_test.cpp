#include "tools/bmp_describe.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "tests/common/wire/message_builder.h"

namespace arancini::tools {
namespace {

using namespace wire::test;
using nlohmann::json;
using wire::BmpType;
using wire::Bytes;

json described(const Buffer& message) {
  return json::parse(describe_bmp(message));
}

std::vector<json> lines(Bytes stream, std::size_t* errors = nullptr) {
  std::vector<json> out;
  const std::size_t n =
      describe_bmp_stream(stream, [&](const std::string& l) { out.push_back(json::parse(l)); });
  if (errors != nullptr) *errors = n;
  return out;
}

TEST(DescribeBmp, RouteMonitoringWithAllAttributes) {
  Buffer attributes = basic_attributes();
  attributes.add(attribute(0x80, 4, Buffer().u32(5)))
      .add(attribute(0x40, 5, Buffer().u32(200)))
      .add(attribute(0x40, 6, {}))
      .add(attribute(0xc0, 7, Buffer().u32(65001).address("192.0.2.9")))
      .add(attribute(0xc0, 8, Buffer().u16(65001).u16(7)))
      .add(attribute(0x80, 9, Buffer().address("192.0.2.7")))
      .add(attribute(0x80, 10, Buffer().address("192.0.2.8")))
      .add(attribute(0xc0, 16, Buffer().u64(0x0002fde800000001)))
      .add(attribute(0xc0, 32, Buffer().u32(1).u32(2).u32(3)))
      .add(attribute(0xc0, 35, Buffer().u32(65009)))
      .add(attribute(0xc0, 99, {1, 2}))
      .add(mp_unreach(kIpv6Unicast, prefixes({"2001:db8::/32"})));
  const json j = described(
      route_monitoring({.type = 1, .flags = 0x40, .distinguisher = 0x0000fde800000007},
                       update(prefixes({"10.0.0.0/8"}), attributes, prefixes({"198.51.100.0/24"}))));
  EXPECT_EQ(j["type"], "route monitoring");
  EXPECT_EQ(j["peer"]["address"], "192.0.2.1");
  EXPECT_EQ(j["peer"]["distinguisher"], "65000:7");
  EXPECT_EQ(j["peer"]["view"], "adj-in-post");
  EXPECT_EQ(j["peer"]["time_bmp_ns"], 1700000000123456000U);
  EXPECT_FALSE(j.contains("errors"));
  const json& u = j["update"];
  EXPECT_EQ(u["disposition"], "good");
  EXPECT_EQ(u["withdrawn"], json::parse(R"([{"afi":1,"safi":1,"prefix":"10.0.0.0/8"},
                                            {"afi":2,"safi":1,"prefix":"2001:db8::/32"}])"));
  EXPECT_EQ(u["announced"], json::parse(R"([{"afi":1,"safi":1,"prefix":"198.51.100.0/24"}])"));
  EXPECT_EQ(u["attributes"],
            json::parse(R"({"origin":"IGP","as_path":[65001,4200000012],"next_hop":"192.0.2.1","med":5,
    "local_pref":200,"atomic_aggregate":true,"aggregator":{"asn":65001,"bgp_id":"192.0.2.9"},"communities":["65001:7"],
    "large_communities":["1:2:3"],"ext_communities":["0002fde800000001"],"originator_id":"192.0.2.7",
    "cluster_list":["192.0.2.8"],"only_to_customer":65009,"other":[{"type":99,"flags":192,"value":"0102"}]})"));
}

TEST(DescribeBmp, SetsAndOtherFamilies) {
  const Buffer path = Buffer(as_sequence4({65001})).u8(1).u8(2).u32(65002).u32(65003);
  const json j = described(
      route_monitoring({}, update({},
                                  attribute(0x40, 1, {2})
                                      .add(attribute(0x40, 2, path))
                                      .add(mp_reach({25, 70}, Buffer().address("192.0.2.1"), {1, 2, 3})),
                                  {})));
  EXPECT_EQ(j["update"]["attributes"]["as_path"], json::parse("[65001]"));
  EXPECT_EQ(j["update"]["attributes"]["as_segments"],
            json::parse(R"([{"type":"sequence","members":[65001]},{"type":"set","members":[65002,65003]}])"));
  EXPECT_EQ(j["update"]["announced"], json::parse(R"([{"afi":25,"safi":70,"nlri":"010203"}])"));
}

TEST(DescribeBmp, EveryOtherType) {
  EXPECT_EQ(described(bmp(BmpType::Initiation, tlv(2, Buffer().text("r1\n"))))["sys_name"], "r1\\x0a");
  EXPECT_EQ(described(bmp(BmpType::Termination, tlv(1, {0, 3})))["reason"], 3);
  json j = described(peer_up({}, open(65001, 1, mp_capability(kIpv6Unicast)),
                             open(65002, 2, capability(69, Buffer().u16(1).u8(1).u8(3))),
                             tlv(3, Buffer().text("vrf"))));
  EXPECT_EQ(j["local_port"], 179);
  EXPECT_EQ(j["sent_open"]["families"], json::parse(R"(["2/1"])"));
  EXPECT_EQ(j["received_open"]["addpath"], json::parse(R"({"1/1":"both"})"));
  EXPECT_EQ(j["tlvs"][0]["value"], "vrf");
  j = described(bmp(BmpType::PeerDown, per_peer({}).u8(3).add(bgp(3, {6, 2}))));
  EXPECT_EQ(j["reason"], 3);
  EXPECT_EQ(j["notification"], json::parse(R"({"code":6,"subcode":2})"));
  j = described(
      bmp(BmpType::StatisticsReport,
          per_peer({}).u32(2).add(tlv(7, Buffer().u64(9))).add(tlv(9, Buffer().u16(2).u8(1).u64(4)))));
  EXPECT_EQ(j["statistics"][0]["value"], 9);
  EXPECT_EQ(j["statistics"][1]["family"], "2/1");
  j = described(bmp(BmpType::RouteMirroring, per_peer({}).add(tlv(0, bgp(2, {0, 9}))).add(tlv(1, {0, 0}))));
  EXPECT_EQ(j["mirrored"][0]["bgp_message"], "update");
  EXPECT_EQ(j["mirrored"][0]["update"]["disposition"], "malformed");
  EXPECT_FALSE(j.contains("errors"));  // it is the mirrored message's
  EXPECT_EQ(j["mirrored"][1]["information"], 0);
  EXPECT_EQ(described(Buffer().u8(3).u32(6).u8(42))["type_number"], 42);
}

TEST(DescribeBmpStream, OffsetsCountFromTheStartOfTheStream) {
  Buffer stream = bmp(BmpType::Initiation, tlv(2, Buffer().text("r1")));
  const std::size_t second = stream.size();
  stream.add(route_monitoring({}, update({}, attribute(0x40, 1, {9}), prefixes({"10.0.0.0/8"}))));
  const std::size_t third = stream.size();
  stream.add(route_monitoring({}, update(Buffer{8, 10, 40}, {}, {})));
  const std::size_t fourth = stream.size();
  stream.u8(9).fill(0, 20);
  std::size_t errors = 0;
  const auto out = lines(stream, &errors);
  ASSERT_EQ(out.size(), 4U);
  EXPECT_EQ(errors, 3U);
  EXPECT_EQ(out[0]["offset"], 0);
  EXPECT_EQ(out[1]["offset"], second);
  EXPECT_EQ(out[1]["update"]["disposition"], "treat as withdraw");
  EXPECT_EQ(out[1]["errors"][0]["offset"], second + 48 + 23);
  EXPECT_EQ(out[2]["errors"][0]["offset"], third + 48 + 21 + 2);
  EXPECT_EQ(out[2]["update"]["withdrawn"].size(), 1U);
  EXPECT_EQ(out[3]["type"], "framing error");
  EXPECT_EQ(out[3]["errors"][0]["code"], 101);
  EXPECT_EQ(out[3]["errors"][0]["offset"], fourth);
}

TEST(DescribeBmpStream, PeerUpTellsAddPathForWhatFollows) {
  const Buffer both = capability(69, Buffer().u16(1).u8(1).u8(3));
  Buffer stream = peer_up({}, open(65001, 1, both), open(65002, 2, both));
  stream.add(route_monitoring({}, update({}, basic_attributes(), Buffer().prefix("198.51.100.0/24", 7))));
  stream.add(route_monitoring({}, update({}, basic_attributes(), prefixes({"198.51.100.0/24"}))));
  const auto out = lines(stream);
  ASSERT_EQ(out.size(), 3U);
  EXPECT_EQ(out[1]["update"]["announced"][0]["path_id"], 7);
  EXPECT_FALSE(out[1].contains("addpath_mismatch"));
  EXPECT_TRUE(out[2]["addpath_mismatch"]);
}

TEST(DescribeBmpStream, CutAndDamagedInputIsSaidNotThrown) {
  Buffer stream = peer_up({}, open(65001, 1, mp_capability(kIpv6Unicast)), open(65002, 2, {}));
  stream.add(
      route_monitoring({}, update(prefixes({"10.0.0.0/8"}), basic_attributes(), prefixes({"10.0.0.0/9"}))));
  stream.add(bmp(BmpType::PeerDown, per_peer({}).u8(1).add(bgp(3, {6, 2}))));
  stream.add(bmp(BmpType::RouteMirroring, per_peer({}).add(tlv(0, update({}, {}, {})))));
  stream.add(bmp(BmpType::StatisticsReport, per_peer({}).u32(1).add(tlv(7, Buffer().u64(9)))));
  for (std::size_t n = 0; n <= stream.size(); ++n) lines(Bytes(stream).first(n));
  std::mt19937_64 random(7);
  for (int round = 0; round < 3000; ++round) {
    Buffer changed = stream;
    for (int i = 0; i < 4; ++i)
      changed.bytes()[random() % changed.size()] = static_cast<std::byte>(random() & 0xff);
    lines(changed);
  }
}

}  // namespace
}  // namespace arancini::tools
