#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/schema/event_build.h"
#include "tests/tools/nats_stream.h"
#include "tools/aranctl.h"

namespace arancini::tools {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using schema::PayloadFormat;
using test::Finished;
using test::run_aranctl;

class AranctlDecode : public testing::Test {
 protected:
  AranctlDecode() {
    std::string pattern = (fs::temp_directory_path() / "arancini-decode-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
  }
  ~AranctlDecode() override { fs::remove_all(dir_); }

  Finished decode(const std::string& bytes, std::vector<std::string> flags = {}) {
    const fs::path file = dir_ / "file";
    std::ofstream(file, std::ios::binary) << bytes;
    flags.insert(flags.begin(), "decode");
    flags.push_back(file);
    return run_aranctl(flags);
  }

  fs::path dir_;
};

test::Message message() {
  test::Message m;
  m.meta.router_address = IpAddress::from_v4(0xc0000201);
  m.meta.peer_asn = 65001;
  m.meta.announced = true;
  m.as_path = {65001, 174};
  m.next_hop = IpAddress::from_v4(0x0a000001);
  m.routes = {test::prefix("10.1.0.0/16"), test::prefix("10.2.0.0/16")};
  m.first_sequence = 41;
  return m;
}

TEST_F(AranctlDecode, PrintsPayloadsOfEveryFormat) {
  for (const PayloadFormat format : {PayloadFormat::UpdateV1Concat, PayloadFormat::BatchV2}) {
    const Finished r = decode(test::payload_of(message(), format));
    EXPECT_EQ(r.exit_code, kExitOk) << r.err;
    ASSERT_EQ(r.lines().size(), 2U);
    const json u = json::parse(r.lines()[1]);
    EXPECT_EQ(u.at("prefix"), "10.2.0.0/16");
    EXPECT_EQ(u.at("sequence"), 42);
    EXPECT_EQ(u.at("as_path"), json({65001, 174}));
  }
}

TEST_F(AranctlDecode, ExplainsWhereMessagesLie) {
  const std::string payload = test::payload_of(message(), PayloadFormat::UpdateV1Concat);
  const Finished r = decode(payload, {"--explain"});
  ASSERT_EQ(r.lines().size(), 4U);
  const json second = json::parse(r.lines()[2]);
  EXPECT_EQ(second.at("message"), "Update");
  EXPECT_EQ(second.at("offset"), payload.size() / 2);
  EXPECT_EQ(second.at("bytes"), payload.size() / 2);
  EXPECT_EQ(second.at("updates"), 1);
  EXPECT_EQ(json::parse(r.lines()[3]).at("attributes_present"), json({"ORIGIN", "AS_PATH", "NEXT_HOP"}));
  const Finished batch = decode(test::payload_of(message(), PayloadFormat::BatchV2), {"--explain"});
  EXPECT_EQ(json::parse(batch.lines().at(0)).at("message"), "UpdateBatch");
  EXPECT_EQ(json::parse(batch.lines().at(0)).at("updates"), 2);
}

TEST_F(AranctlDecode, LocatesWhatDoesNotDecode) {
  std::string payload = test::payload_of(message(), PayloadFormat::UpdateV1Concat);
  const std::size_t half = payload.size() / 2;
  payload.resize(payload.size() - 8);
  const Finished r = decode(payload);
  EXPECT_EQ(r.exit_code, kExitBadData);
  EXPECT_EQ(r.lines().size(), 1U);
  EXPECT_NE(r.err.find("message at byte " + std::to_string(half)), std::string::npos) << r.err;
}

TEST_F(AranctlDecode, PrintsBmp) {
  // Initiation with a sysName (RFC 7854 4.3), and one byte too few of a second one.
  const std::string initiation("\x03\x00\x00\x00\x0c\x04\x00\x02\x00\x02r1", 12);
  Finished r = decode(initiation + initiation);
  EXPECT_EQ(r.exit_code, kExitOk) << r.err;
  ASSERT_EQ(r.lines().size(), 2U);
  EXPECT_EQ(json::parse(r.lines()[1]).at("offset"), 12);
  EXPECT_EQ(json::parse(r.lines()[0]).at("sys_name"), "r1");
  r = decode(initiation + initiation.substr(0, 11));
  EXPECT_EQ(r.exit_code, kExitBadData);
}

TEST_F(AranctlDecode, PrintsEvents) {
  schema::EventFields event;
  event.kind = schema::EventKind::PeerDown;
  event.scope = schema::EventScope::View;
  event.has_router = true;
  event.router = IpAddress::from_v4(0xc0000201);
  event.peer = *IpAddress::parse("2001:db8::1");
  event.peer_asn = 65001;
  event.view = arancini::View::AdjInPost;
  event.reason = arancini::Reason::PeerDown;
  event.raw = {std::byte{3}, std::byte{255}};
  std::string bytes;
  for (event.sequence = 1; event.sequence <= 2; ++event.sequence) {
    const auto payload = schema::build_event(event);
    bytes.append(reinterpret_cast<const char*>(payload.data()), payload.size());
  }
  Finished r = decode(bytes);
  EXPECT_EQ(r.exit_code, kExitOk) << r.err;
  ASSERT_EQ(r.lines().size(), 2U);
  const json j = json::parse(r.lines()[1]);
  EXPECT_EQ(j.at("kind"), "peer_down");
  EXPECT_EQ(j.at("peer"), "2001:db8::1");
  EXPECT_EQ(j.at("peer_asn"), 65001);
  EXPECT_EQ(j.at("view"), "adj-in-post");
  EXPECT_EQ(j.at("raw"), "03ff");
  EXPECT_EQ(j.at("sequence"), 2);
  EXPECT_FALSE(j.contains("afi"));
  r = decode(bytes.substr(0, bytes.size() - 8));
  EXPECT_EQ(r.exit_code, kExitBadData);
  EXPECT_EQ(r.lines().size(), 1U);
}

TEST_F(AranctlDecode, RefusesOtherFiles) {
  EXPECT_EQ(decode("hello world, this is no payload").exit_code, kExitBadData);
  EXPECT_EQ(decode("").exit_code, kExitBadData);
  EXPECT_EQ(run_aranctl({"decode", dir_ / "missing"}).exit_code, kExitNoInput);
  EXPECT_EQ(run_aranctl({"decode", dir_}).exit_code, kExitNoInput);
}

}  // namespace
}  // namespace arancini::tools
