// The published bytes through the `capnp` program, against our schema and against the schema of readers that
// knew nothing behind @30.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/schema/batch_expander.h"
#include "common/schema/batch_writer.h"
#include "tests/common/schema/random_messages.h"

namespace arancini::schema {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// DESIGN 4.1, @0 to @30: what consumers have that were built before Arancini added its own fields.
constexpr const char* kOldSchema = R"(@0x83f9299a125b7932;
struct Update @0x91f1abe47b4600e2 {
  timeReceivedNs @0 :UInt64;
  timeBmpHeaderNs @1 :UInt64;
  routerAddr @2 :Data;
  routerPort @3 :UInt16;
  peerAddr @4 :Data;
  peerBgpId @5 :UInt32;
  peerAsn @6 :UInt32;
  prefixAddr @7 :Data;
  prefixLen @8 :UInt8;
  isPostPolicy @9 :Bool;
  isAdjRibOut @10 :Bool;
  announced @11 :Bool;
  synthetic @12 :Bool;
  origin @13 :Text;
  asPath @14 :List(UInt32);
  nextHop @15 :Data;
  multiExitDisc @16 :UInt32;
  localPreference @17 :UInt32;
  onlyToCustomer @18 :UInt32;
  atomicAggregate @19 :Bool;
  aggregatorAsn @20 :UInt32;
  aggregatorBgpId @21 :UInt32;
  communities @22 :List(Community);
  extendedCommunities @23 :List(ExtendedCommunity);
  largeCommunities @24 :List(LargeCommunity);
  originatorId @25 :UInt32;
  clusterList @26 :List(UInt32);
  mpReachAfi @27 :UInt16;
  mpReachSafi @28 :UInt8;
  mpUnreachAfi @29 :UInt16;
  mpUnreachSafi @30 :UInt8;
}
struct Community @0xe2d1ff3809d54a0a { asn @0 :UInt32; value @1 :UInt16; }
struct ExtendedCommunity @0xb71bff67ebf591a9 { typeHigh @0 :UInt8; typeLow @1 :UInt8; value @2 :Data; }
struct LargeCommunity @0x882a92a3e30d7d1f { globalAdmin @0 :UInt32; localDataPart1 @1 :UInt32; localDataPart2 @2 :UInt32; }
)";

class CapnpTool : public testing::Test {
 protected:
  CapnpTool() {
    std::string pattern = (fs::temp_directory_path() / "arancini-capnp-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
  }
  ~CapnpTool() override { fs::remove_all(dir_); }

  void write(const std::string& name, std::string_view bytes) const {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::ostringstream out;
    out << std::ifstream(dir_ / name, std::ios::binary).rdbuf();
    return out.str();
  }
  // The tool's output for the messages in file "in".
  [[nodiscard]] std::string run(const std::string& arguments) const {
    const std::string command =
        "cd '" + dir_.string() + "' && " CAPNP_TOOL " " + arguments + " < in > out 2> err";
    EXPECT_EQ(std::system(command.c_str()), 0) << read("err");
    return read("out");
  }

  fs::path dir_;
};

const std::vector<std::byte>& announced_attributes() {
  static const std::vector<std::byte> bytes = [] {
    std::vector<std::byte> b;
    for (const unsigned v :
         {0x40U, 1U,  1U,  2U,                                                          // ORIGIN incomplete
          0x40U, 2U,  10U, 2U,    2U,    0U,    0U,    0xfdU, 0xe9U, 0U, 0U, 0U, 174U,  // AS_PATH 65001 174
          0xc0U, 8U,  4U,  0xfdU, 0xe9U, 0U,    100U,                                   // 65001:100
          0xc0U, 16U, 8U,  0U,    2U,    0xfdU, 0xe9U, 0U,    0U,    0U, 7U,            // RT 65001:7
          0xc0U, 32U, 12U, 0U,    0U,    0xfdU, 0xe9U, 0U,    0U,    0U, 1U, 0U, 0U,   0U, 2U,  // 65001:1:2
          0xc0U, 99U, 2U,  0xabU, 0xcdU}) {  // no field here
      b.push_back(static_cast<std::byte>(v));
    }
    return b;
  }();
  return bytes;
}

// Two IPv6 routes of one announcement, expanded, or as one batch.
std::string published(bool as_batch = false) {
  const std::vector<std::byte>& all = announced_attributes();
  wire::Attributes a;
  a.all = all;
  a.has_other = true;
  wire::Bytes rest = all;
  for (wire::RawAttribute raw; wire::next_attribute(rest, raw);) {
    if (raw.type < 64) a.present |= std::uint64_t{1} << raw.type;
    switch (raw.type) {
      case 1: a.origin = raw.value; break;
      case 2: a.as_path = raw.value; break;
      case 8: a.communities = raw.value; break;
      case 16: a.extended_communities = raw.value; break;
      case 32: a.large_communities = raw.value; break;
      default: break;
    }
  }
  BatchMeta meta{.received_realtime_ns = 1700000000000000001U,
                 .bmp_timestamp_ns = 1700000000000001000U,
                 .router_address = IpAddress::from_v4(0xc0000201),
                 .router_port = 54321,
                 .router_name = "edge1",
                 .peer_address = *IpAddress::parse("2001:db8::1"),
                 .peer_bgp_id = 0x0a000001,
                 .peer_asn = 65001,
                 .view = View::AdjOutPost,
                 .family = kIpv6Unicast,
                 .via_mp = true,
                 .announced = true};
  meta.writer.bytes[15] = 7;
  const Prefix p{.high = 0x20010db800010000, .low = 0, .path_id = 5, .length = 48};
  const Prefix q{.high = 0x20010db800020000, .low = 0, .path_id = 6, .length = 47};
  const auto record = test::encode(meta, {&a, *IpAddress::parse("2001:db8::2")}, {p, q}, Sequence{41});
  BatchExpander expander;
  EXPECT_TRUE(expander.open(record.header, record.payload()));
  if (as_batch) {
    BatchWriter writer;
    const auto batch = writer.write(expander, 0, 2, true);
    return {reinterpret_cast<const char*>(batch.data()), batch.size()};
  }
  std::vector<std::byte> out(expander.update_bytes() * 2);
  expander.write_update(0, out.data());
  expander.write_update(1, out.data() + expander.update_bytes());
  return {reinterpret_cast<const char*>(out.data()), out.size()};
}

json address(std::initializer_list<unsigned> head, std::size_t bytes = 16) {
  std::vector<unsigned> all(head);
  all.resize(bytes);
  return all;
}

void expect_old_fields(const json& u, unsigned third_group, unsigned length) {
  EXPECT_EQ(u.at("timeReceivedNs"), "1700000000000000001");
  EXPECT_EQ(u.at("timeBmpHeaderNs"), "1700000000000001000");
  EXPECT_EQ(u.at("routerAddr"), json({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1}));
  EXPECT_EQ(u.at("routerPort"), 54321);
  EXPECT_EQ(u.at("peerAddr"), json({32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}));
  EXPECT_EQ(u.at("peerBgpId"), 0x0a000001);
  EXPECT_EQ(u.at("peerAsn"), 65001);
  EXPECT_EQ(u.at("prefixAddr"), address({32, 1, 13, 184, 0, third_group}));
  EXPECT_EQ(u.at("prefixLen"), length);
  EXPECT_EQ(u.at("isPostPolicy"), true);
  EXPECT_EQ(u.at("isAdjRibOut"), true);
  EXPECT_EQ(u.at("announced"), true);
  EXPECT_EQ(u.at("synthetic"), false);
  EXPECT_EQ(u.at("origin"), "INCOMPLETE");
  EXPECT_EQ(u.at("asPath"), json({65001, 174}));
  EXPECT_EQ(u.at("nextHop"), json({32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}));
  EXPECT_EQ(u.at("communities"), json::parse(R"([{"asn": 65001, "value": 100}])"));
  EXPECT_EQ(u.at("extendedCommunities"),
            json::parse(R"([{"typeHigh": 0, "typeLow": 2, "value": [253, 233, 0, 0, 0, 7]}])"));
  EXPECT_EQ(u.at("largeCommunities"),
            json::parse(R"([{"globalAdmin": 65001, "localDataPart1": 1, "localDataPart2": 2}])"));
  EXPECT_EQ(u.at("mpReachAfi"), 2);
  EXPECT_EQ(u.at("mpReachSafi"), 1);
  EXPECT_EQ(u.at("mpUnreachAfi"), 0);
}

std::vector<json> objects(const std::string& text) {
  std::vector<json> out;
  std::istringstream in(text);
  while (in >> std::ws && !in.eof()) {
    json j;
    in >> j;
    out.push_back(std::move(j));
  }
  return out;
}

TEST_F(CapnpTool, ReadsPublishedBatches) {
  write("in", published(true));
  const auto batches = objects(run("convert binary:json -I/usr/include " SCHEMA_DIR "/batch.capnp Batch"));
  ASSERT_EQ(batches.size(), 1U);
  const json& b = batches[0];
  EXPECT_EQ(b.at("firstSequence"), "41");
  EXPECT_EQ(b.at("timeReceivedNs"), "1700000000000000001");
  EXPECT_EQ(b.at("timeBmpHeaderNs"), "1700000000000001000");
  EXPECT_EQ(b.at("announced"), true);
  EXPECT_EQ(b.at("synthetic"), false);
  EXPECT_EQ(b.at("multiprotocol"), true);
  EXPECT_EQ(b.at("reason"), "none");
  const json& s = b.at("source");
  EXPECT_EQ(s.at("routerAddr"), json({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1}));
  EXPECT_EQ(s.at("peerAddr"), json({32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}));
  EXPECT_EQ(s.at("writerId").at(15), 7);
  EXPECT_EQ(s.at("routerId"), "edge1");
  EXPECT_EQ(s.at("routerPort"), 54321);
  EXPECT_EQ(s.at("peerAsn"), 65001);
  EXPECT_EQ(s.at("peerBgpId"), 0x0a000001);
  EXPECT_EQ(s.at("afi"), 2);
  EXPECT_EQ(s.at("safi"), 1);
  EXPECT_EQ(s.at("view"), "adjOutPost");
  const json& a = b.at("attributes");
  EXPECT_EQ(a.at("origin"), "incomplete");
  EXPECT_EQ(a.at("asPath"), json({65001, 174}));
  EXPECT_EQ(a.at("nextHop"), json({32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}));
  EXPECT_EQ(a.at("communities"), json({0xfde90064U}));
  EXPECT_EQ(a.at("largeCommunities"), json({65001, 1, 2}));
  EXPECT_EQ(a.at("extendedCommunities"), json({std::to_string(0x0002fde900000007U)}));
  EXPECT_EQ(a.at("rawAttributes"), json({192, 99, 2, 171, 205}));
  const json& r = b.at("routes");
  ASSERT_EQ(r.size(), 2U);
  EXPECT_EQ(r[1].at("addr0"), 0x20010db8U);
  EXPECT_EQ(r[1].at("addr1"), 0x00020000U);
  EXPECT_EQ(r[1].at("addr2"), "0");
  EXPECT_EQ(r[1].at("prefixLen"), 47);
  EXPECT_EQ(r[1].at("pathId"), 6);
}

TEST_F(CapnpTool, ReadsPublishedUpdates) {
  write("in", published());
  const auto updates = objects(run("convert binary:json -I/usr/include " SCHEMA_DIR "/update.capnp Update"));
  ASSERT_EQ(updates.size(), 2U);
  expect_old_fields(updates[0], 1, 48);
  expect_old_fields(updates[1], 2, 47);
  EXPECT_EQ(updates[0].at("sequence"), "41");
  EXPECT_EQ(updates[1].at("sequence"), "42");
  EXPECT_EQ(updates[0].at("pathId"), 5);
  EXPECT_EQ(updates[1].at("pathId"), 6);
  EXPECT_EQ(updates[0].at("view"), "adjOutPost");
  EXPECT_EQ(updates[0].at("reason"), "none");
  EXPECT_EQ(updates[0].at("routerId"), "edge1");
  EXPECT_EQ(updates[0].at("writerId").back(), 7);
  EXPECT_EQ(updates[0].at("rawAttributes"), json({0xc0, 99, 2, 0xab, 0xcd}));
  EXPECT_EQ(updates[0].at("attributesPresent"),
            std::to_string((1U << 1 | 1U << 2 | 1U << 8 | 1U << 16) + (1ULL << 32)));
}

TEST_F(CapnpTool, ReadersOfTheOldSchemaStillRead) {
  write("in", published());
  write("old.capnp", kOldSchema);
  const auto updates = objects(run("convert binary:json old.capnp Update"));
  ASSERT_EQ(updates.size(), 2U);
  expect_old_fields(updates[0], 1, 48);
  expect_old_fields(updates[1], 2, 47);
  EXPECT_FALSE(updates[0].contains("sequence"));
}

TEST_F(CapnpTool, DecodesToText) {
  write("in", published());
  const std::string text = run("decode -I/usr/include " SCHEMA_DIR "/update.capnp Update");
  EXPECT_NE(text.find("asPath = [65001, 174]"), std::string::npos) << text;
}

}  // namespace
}  // namespace arancini::schema
