// tail, fold and audit against a real nats-server.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/schema/event_build.h"
#include "common/schema/message_headers.h"
#include "tests/tools/nats_stream.h"
#include "tools/aranctl.h"

namespace arancini::tools {
namespace {

using nlohmann::json;
using schema::PayloadFormat;
using test::Finished;
using test::Message;
using test::prefix;
using test::publish;
using test::run_aranctl;

WriterId writer(std::uint8_t n) {
  WriterId id;
  id.bytes[15] = n;
  return id;
}

schema::BatchMeta meta_of(std::uint32_t router, std::uint32_t asn, bool announced = true) {
  schema::BatchMeta m;
  m.received_realtime_ns = 1'700'000'000'000'000'000U;
  m.router_address = IpAddress::from_v4(0xc0000200 + router);
  m.peer_address = IpAddress::from_v4(0x0a000000 + asn % 256);
  m.peer_asn = asn;
  m.announced = announced;
  m.writer = writer(1);
  return m;
}

Message announce(std::uint64_t sequence, std::vector<Prefix> routes, std::vector<std::uint32_t> as_path,
                 schema::BatchMeta meta = meta_of(1, 65001)) {
  return {meta, std::move(as_path), IpAddress::from_v4(0x0a0000fe), std::move(routes), sequence};
}
Message withdraw(std::uint64_t sequence, std::vector<Prefix> routes,
                 schema::BatchMeta meta = meta_of(1, 65001)) {
  meta.announced = false;
  return {meta, {}, {}, std::move(routes), sequence};
}

class AranctlStream : public testing::Test {
 protected:
  Finished run(const std::string& command, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{command, "--nats", server_.url(), "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_aranctl(arguments);
  }
  json audit(int expected_exit, std::vector<std::string> more = {"--settle", "0"}) {
    const Finished r = run("audit", std::move(more));
    EXPECT_EQ(r.exit_code, expected_exit) << r.out << r.err;
    return json::parse(r.out, nullptr, false);
  }

  test::NatsServer server_;
  test::Publisher publisher_{server_};
};

TEST_F(AranctlStream, FoldGivesTheTableInTheContractsForm) {
  publisher_.create_stream();
  schema::BatchMeta v6 = meta_of(2, 65002);
  v6.family = kIpv6Unicast;
  v6.via_mp = true;
  v6.view = View::AdjInPost;
  v6.peer_distinguisher = (std::uint64_t{65000} << 32) | 7;
  v6.router_name = "edge2";
  publish(publisher_,
          announce(1, {prefix("10.2.0.0/16"), prefix("10.1.0.0/16"), prefix("10.1.0.0/16", 7)}, {65001}));
  publish(publisher_, announce(4, {prefix("2001:db8::/32")}, {65002, 174}, v6));
  publish(publisher_, announce(5, {prefix("10.1.0.0/16")}, {65001, 3356}));  // another path
  publish(publisher_, withdraw(6, {prefix("10.2.0.0/16"), prefix("10.9.0.0/16")}));

  const Finished r = run("fold");
  EXPECT_EQ(r.exit_code, kExitOk) << r.err;
  EXPECT_EQ(r.err, "");
  EXPECT_EQ(
      r.out,
      R"({"router":"192.0.2.1","peer":"10.0.0.233","peer_asn":65001,"peer_distinguisher":"0:0","view":"adj-in-pre","afi":1,"safi":1,"prefix":"10.1.0.0/16","path_id":0,"origin":"IGP","as_path":[65001,3356],"next_hop":"10.0.0.254"})"
      "\n"
      R"({"router":"192.0.2.1","peer":"10.0.0.233","peer_asn":65001,"peer_distinguisher":"0:0","view":"adj-in-pre","afi":1,"safi":1,"prefix":"10.1.0.0/16","path_id":7,"origin":"IGP","as_path":[65001],"next_hop":"10.0.0.254"})"
      "\n"
      R"({"router":"edge2","peer":"10.0.0.234","peer_asn":65002,"peer_distinguisher":"65000:7","view":"adj-in-post","afi":2,"safi":1,"prefix":"2001:db8::/32","path_id":0,"origin":"IGP","as_path":[65002,174],"next_hop":"10.0.0.254"})"
      "\n");
  EXPECT_EQ(publisher_.consumers(), 0) << "fold left a consumer behind";

  const Finished readable = run_aranctl({"fold", "--nats", server_.url()});
  EXPECT_NE(readable.out.find("  10.1.0.0/16 path-id 7 via 10.0.0.254 as-path [65001] IGP"),
            std::string::npos)
      << readable.out;
  EXPECT_NE(readable.out.find("3 routes from 7 updates"), std::string::npos) << readable.out;
}

TEST_F(AranctlStream, EveryFormatFoldsAlike) {
  publisher_.create_stream();
  publish(publisher_, announce(1, {prefix("10.1.0.0/16"), prefix("10.2.0.0/16")}, {65001}),
          PayloadFormat::BatchV2);
  publish(publisher_, announce(3, {prefix("10.3.0.0/16")}, {65001}), PayloadFormat::UpdateV1);
  publish(publisher_, announce(4, {prefix("10.4.0.0/16"), prefix("10.5.0.0/16")}, {65001}));
  // Another producer of the schema: no headers.
  publisher_.publish("arancini.updates.v4_192_0_2_1.65001.1_1",
                     test::payload_of(announce(6, {prefix("10.6.0.0/16")}, {65001}), PayloadFormat::UpdateV1),
                     {});
  const Finished r = run("fold");
  EXPECT_EQ(r.exit_code, kExitOk) << r.err;
  ASSERT_EQ(r.lines().size(), 6U);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(json::parse(r.lines()[i]).at("prefix"), "10." + std::to_string(i + 1) + ".0.0/16");
  }
}

TEST_F(AranctlStream, PrefixSelectsOneCollectorOfTheStream) {
  publisher_.create_stream();
  publish(publisher_, announce(1, {prefix("10.1.0.0/16")}, {65001}));
  Message other = announce(1, {prefix("10.2.0.0/16")}, {65001});
  other.meta.writer = writer(2);
  publish(publisher_, other, PayloadFormat::UpdateV1, "other");
  EXPECT_EQ(run("fold").lines().size(), 2U);
  for (const char* p : {"arancini", "other"}) {
    const Finished r = run("fold", {"--prefix", p});
    EXPECT_EQ(r.exit_code, kExitOk) << r.err;
    EXPECT_EQ(r.lines().size(), 1U);
  }
  const Finished r = run("fold", {"--prefix", "nobody"});
  EXPECT_EQ(r.exit_code, kExitNoInput);
  EXPECT_NE(r.err.find("nobody.updates.>"), std::string::npos) << r.err;
}

TEST_F(AranctlStream, ReadsMoreThanOneBatchAndAnEmptyStream) {
  publisher_.create_stream();
  EXPECT_EQ(run("fold").exit_code, kExitOk);
  EXPECT_EQ(audit(kExitOk).at("records"), 0);
  constexpr std::uint64_t kMessages = 2500;
  for (std::uint64_t i = 0; i < kMessages; ++i) {
    Prefix p = prefix("10.0.0.0/24");
    p.low += i << 8;
    publish(publisher_, announce(1 + i, {p}, {65001}));
  }
  EXPECT_EQ(run("fold").lines().size(), kMessages);
  const json a = audit(kExitOk);
  EXPECT_EQ(a.at("records"), kMessages);
  EXPECT_EQ(a.at("messages"), kMessages);
  EXPECT_EQ(a.at("writers").at(0).at("shard"), 3);
  EXPECT_EQ(a.at("writers").at(0).at("last"), kMessages);
}

TEST_F(AranctlStream, AuditFindsGapsDuplicatesAndWrongOrder) {
  publisher_.create_stream();
  publish(publisher_, announce(1, {prefix("10.1.0.0/16")}, {65001}));
  publish(publisher_, announce(5, {prefix("10.2.0.0/16")}, {65001}));
  // Subjects interleave: 2 of another subject behind 5 is in order.
  publish(publisher_, announce(2, {prefix("10.1.0.0/16")}, {65001}, meta_of(2, 65001)));
  json a = audit(kExitFound);
  EXPECT_EQ(a.at("records"), 3);
  EXPECT_EQ(a.at("gaps"), 2);
  EXPECT_EQ(a.at("duplicates"), 0);
  EXPECT_EQ(a.at("order_violations"), 0);
  EXPECT_EQ(a.at("writers").at(0).at("missing"), json::parse("[[3,4]]"));

  publish(publisher_, announce(3, {prefix("10.1.0.0/16"), prefix("10.3.0.0/16")}, {65001}));
  a = audit(kExitFound);
  EXPECT_EQ(a.at("gaps"), 0);
  EXPECT_EQ(a.at("duplicates"), 0);
  EXPECT_EQ(a.at("order_violations"), 2) << "3 and 4 came behind 5 of their subject";

  publish(publisher_, announce(5, {prefix("10.2.0.0/16")}, {65001}));
  a = audit(kExitFound);
  EXPECT_EQ(a.at("duplicates"), 1);
}

TEST_F(AranctlStream, AuditCountsPerWriter) {
  publisher_.create_stream();
  for (const std::uint8_t w : {std::uint8_t{1}, std::uint8_t{2}}) {
    Message m = announce(1, {prefix("10.1.0.0/16"), prefix("10.2.0.0/16")}, {65001});
    m.meta.writer = writer(w);
    publish(publisher_, m);
  }
  const json a = audit(kExitOk);
  EXPECT_EQ(a.at("records"), 4);
  EXPECT_EQ(a.at("gaps"), 0);
  EXPECT_EQ(a.at("duplicates"), 0);
  ASSERT_EQ(a.at("writers").size(), 2U);
  EXPECT_EQ(a.at("writers").at(1).at("writer"), writer(2).to_hex());
  EXPECT_EQ(a.at("writers").at(1).at("records"), 2);
}

TEST_F(AranctlStream, AuditSeesHeadersThatLieAndBytesThatDoNotDecode) {
  publisher_.create_stream();
  const Message m = announce(1, {prefix("10.1.0.0/16")}, {65001});
  publisher_.publish("arancini.updates.a.1.1_1", test::payload_of(m, PayloadFormat::UpdateV1),
                     {{"Arancini-Format", "update-v1"},
                      {"Arancini-Writer", m.meta.writer.to_hex()},
                      {"Arancini-First", "1"},
                      {"Arancini-Last", "2"},
                      {"Arancini-Count", "2"}});
  publisher_.publish("arancini.updates.a.1.1_1", "not a payload", {{"Arancini-Format", "update-v1"}});
  const json a = audit(kExitBadData);
  EXPECT_EQ(a.at("header_mismatches"), 1);
  EXPECT_EQ(a.at("undecodable"), 1);
  const Finished r = run("fold");
  EXPECT_EQ(r.exit_code, kExitBadData);
  EXPECT_EQ(r.lines().size(), 1U) << "what can be read is still folded";
  EXPECT_NE(r.err.find("stream sequence 2"), std::string::npos) << r.err;
}

TEST_F(AranctlStream, SaysThatTheBeginningIsGone) {
  publisher_.create_stream(2);
  for (std::uint64_t i = 1; i <= 4; ++i) publish(publisher_, announce(i, {prefix("10.1.0.0/16")}, {65001}));
  const Finished r = run("fold");
  EXPECT_EQ(r.exit_code, kExitIncomplete);
  EXPECT_EQ(r.lines().size(), 1U);
  EXPECT_NE(r.err.find("beginning"), std::string::npos) << r.err;
  const json a = audit(kExitIncomplete);
  EXPECT_EQ(a.at("gaps"), 0) << "what retention took is no gap";
  EXPECT_EQ(a.at("beginning_discarded"), true);

  publisher_.purge();
  EXPECT_EQ(run("fold").exit_code, kExitIncomplete);
  EXPECT_EQ(run("fold").out, "");
}

TEST_F(AranctlStream, SaysThatAWriterDoesNotStartAtOne) {
  publisher_.create_stream();
  publish(publisher_, announce(4, {prefix("10.1.0.0/16")}, {65001}));
  const Finished r = run("fold", {"--settle", "0"});
  EXPECT_EQ(r.exit_code, kExitIncomplete);
  EXPECT_NE(r.err.find("3 of 4 updates are not in the stream, first 1 to 3"), std::string::npos) << r.err;
  EXPECT_EQ(audit(kExitFound).at("gaps"), 3);
}

TEST_F(AranctlStream, HolesOfALiveStreamGetTimeToClose) {
  publisher_.create_stream();
  publish(publisher_, announce(2, {prefix("10.1.0.0/16")}, {65001}));
  test::Running running({"audit", "--nats", server_.url(), "--json", "--settle", "20"});
  // Behind the hole's end more arrives, with a hole of its own: that one is not judged.
  publish(publisher_, announce(1, {prefix("10.1.0.0/16")}, {65001}, meta_of(2, 65001)));
  const Finished r = running.finish();
  EXPECT_EQ(r.exit_code, kExitOk) << r.out << r.err;
}

TEST_F(AranctlStream, TailPrintsWhatIsThereAndEndsAtTheCount) {
  publisher_.create_stream();
  publish(publisher_, announce(1, {prefix("10.1.0.0/16"), prefix("10.2.0.0/16")}, {65001}));
  schema::BatchMeta down = meta_of(1, 65001);
  down.synthetic = true;
  down.reason = Reason::PeerDown;
  publish(publisher_, withdraw(3, {prefix("10.1.0.0/16")}, down));
  const Finished r = run("tail", {"--count", "3"});
  EXPECT_EQ(r.exit_code, kExitOk) << r.err;
  ASSERT_EQ(r.lines().size(), 3U);
  const json first = json::parse(r.lines()[0]);
  for (const char* key : {"router", "peer", "peer_asn", "peer_distinguisher", "view", "afi", "safi", "prefix",
                          "path_id", "origin", "as_path", "next_hop", "announced", "synthetic", "reason",
                          "sequence", "shard", "time_received_ns", "time_bmp_ns"}) {
    EXPECT_TRUE(first.contains(key)) << key;
  }
  EXPECT_EQ(first.at("sequence"), 1);
  EXPECT_EQ(first.at("shard"), 3);
  EXPECT_EQ(first.at("time_received_ns"), 1'700'000'000'000'000'000U);
  const json last = json::parse(r.lines()[2]);
  EXPECT_EQ(last.at("announced"), false);
  EXPECT_EQ(last.at("synthetic"), true);
  EXPECT_EQ(last.at("reason"), "peerDown");
  EXPECT_FALSE(last.contains("as_path"));
  EXPECT_FALSE(last.contains("next_hop"));

  EXPECT_EQ(run("tail", {"--all"}).lines().size(), 3U);
  EXPECT_EQ(run("tail", {"--all", "--from", "2"}).lines().size(), 1U);
  const Finished text = run_aranctl({"tail", "--nats", server_.url(), "--from-start", "--count", "3"});
  EXPECT_NE(
      text.out.find("2023-11-14T22:13:20.000000Z + 10.1.0.0/16 via 10.0.0.254 as-path [65001] IGP router "
                    "192.0.2.1 peer 10.0.0.233 AS65001"),
      std::string::npos)
      << text.out;
  EXPECT_NE(text.out.find("(synthetic: peerDown)"), std::string::npos) << text.out;
}

TEST_F(AranctlStream, TailPrintsEvents) {
  publisher_.create_events_stream();
  schema::EventFields event;
  event.kind = schema::EventKind::Dropped;
  event.scope = schema::EventScope::Router;
  event.has_router = true;
  event.router = IpAddress::from_v4(0xc0000201);
  event.writer = writer(7);
  event.counters = {{"announcements", 12}, {"withdraws", 3}};
  event.time_ns = 1'700'000'000'000'000'000U;
  const auto publish_event = [&](std::string_view kind) {
    ++event.sequence;
    const std::vector<std::byte> payload = schema::build_event(event);
    publisher_.publish(
        "arancini.events.v4_192_0_2_1.0." + std::string(kind),
        {reinterpret_cast<const char*>(payload.data()), payload.size()},
        {{schema::kHeaderFormat, std::string(schema::kEventFormat)}, {schema::kHeaderShard, "2"}});
  };
  publish_event("dropped");
  event.kind = schema::EventKind::Reconciled;
  publish_event("reconciled");
  Finished r = run("tail", {"--events", "--all"});
  EXPECT_EQ(r.exit_code, kExitOk) << r.err;
  ASSERT_EQ(r.lines().size(), 2U) << r.out;
  const json first = json::parse(r.lines()[0]);
  EXPECT_EQ(first.at("kind"), "dropped");
  EXPECT_EQ(first.at("router"), "192.0.2.1");
  EXPECT_EQ(first.at("counters").at("announcements"), 12);
  EXPECT_EQ(first.at("sequence"), 1);
  EXPECT_EQ(first.at("shard"), 2);
  EXPECT_FALSE(first.contains("peer"));
  EXPECT_EQ(json::parse(r.lines()[1]).at("kind"), "reconciled");
  EXPECT_EQ(run("tail", {"--events", "--count", "1"}).lines().size(), 1U);
  publisher_.publish("arancini.events.v4_192_0_2_1.0.dropped", "not an event", {});
  r = run("tail", {"--events", "--all"});
  EXPECT_EQ(r.exit_code, kExitBadData);
  EXPECT_EQ(r.lines().size(), 2U);
}

TEST_F(AranctlStream, TailFollowsThroughARestartOfTheServer) {
  publisher_.create_stream();
  publish(publisher_, announce(1, {prefix("10.1.0.0/16")}, {65001}));
  test::Running tail({"tail", "--nats", server_.url(), "--from-start", "--count", "3", "--json"});
  EXPECT_EQ(json::parse(tail.next_line(), nullptr, false).at("sequence"), 1);
  publish(publisher_, announce(2, {prefix("10.1.0.0/16")}, {65001}));
  EXPECT_EQ(json::parse(tail.next_line(), nullptr, false).at("sequence"), 2);
  server_.kill();
  server_.start();
  test::Publisher again(server_);
  publish(again, announce(3, {prefix("10.1.0.0/16")}, {65001}));
  EXPECT_EQ(json::parse(tail.next_line(), nullptr, false).at("sequence"), 3);
  const Finished r = tail.finish();
  EXPECT_EQ(r.exit_code, kExitOk) << r.err;
  EXPECT_EQ(r.out, "");
}

TEST_F(AranctlStream, ErrorsNameWhatIsMissing) {
  Finished r = run("fold");
  EXPECT_EQ(r.exit_code, kExitNoInput);
  EXPECT_NE(r.err.find("ARANCINI_UPDATES"), std::string::npos) << r.err;
  EXPECT_EQ(r.out, "");
  server_.kill();
  for (const char* command : {"fold", "audit", "tail"}) {
    r = run(command);
    EXPECT_EQ(r.exit_code, kExitUnavailable);
    EXPECT_NE(r.err.find(server_.url()), std::string::npos) << r.err;
  }
  EXPECT_EQ(run_aranctl({"fold", "--no-such-flag"}).exit_code, kExitUsage);
  EXPECT_EQ(run_aranctl({}).exit_code, kExitUsage);
  EXPECT_EQ(run("tail", {"--from", "yesterday"}).exit_code, kExitUsage);
}

// The environment's URL is for those who name nothing else.
TEST(AranctlJournal, EnvironmentDirectoriesAndPrefix) {
  char name[] = "/tmp/arancini-aranctl-XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  const std::filesystem::path dir = name;
  std::filesystem::create_directories(dir / "state/journal");
  std::filesystem::create_directories(dir / "other");
  std::ofstream(dir / "state/journal/lock") << "1\n";
  std::ofstream(dir / "other/lost+found") << "";
  std::ofstream(dir / "journal.toml")
      << "[paths]\nstate_dir = \"" << (dir / "state").string() << "\"\n[sink]\nkind = \"journal\"\n";
  std::ofstream(dir / "nats.toml") << "[nats]\nurl = \"nats://127.0.0.1:2\"\n";
  const std::string journal = (dir / "state/journal").string();
  ASSERT_EQ(::setenv("ARANCINI_NATS", "nats://127.0.0.1:1", 1), 0);
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{"--journal", journal}, {"--config", (dir / "journal.toml").string()}}) {
    for (std::vector<std::string> arguments :
         {std::vector<std::string>{"audit", "--settle", "0"}, {"fold", "--settle", "0"}, {"tail", "--all"}}) {
      arguments.insert(arguments.end(), more.begin(), more.end());
      const Finished r = run_aranctl(arguments);
      EXPECT_EQ(r.exit_code, kExitOk) << arguments.front() << " " << more.front() << r.err;
      arguments.insert(arguments.end(), {"--prefix", "arancini"});
      EXPECT_EQ(run_aranctl(arguments).exit_code, kExitUsage);
    }
  }
  // It goes before the URL of a configuration; a flag excludes --journal.
  const Finished named = run_aranctl({"audit", "--config", (dir / "nats.toml").string()});
  EXPECT_EQ(named.exit_code, kExitUnavailable);
  EXPECT_NE(named.err.find("127.0.0.1:1"), std::string::npos) << named.err;
  EXPECT_EQ(run_aranctl({"audit", "--journal", journal, "--nats", "nats://a"}).exit_code, kExitUsage);
  ASSERT_EQ(::unsetenv("ARANCINI_NATS"), 0);
  for (const char* command : {"audit", "fold", "tail"}) {
    const Finished r = run_aranctl({command, "--journal", (dir / "other").string()});
    EXPECT_EQ(r.exit_code, kExitNoInput);
    EXPECT_NE(r.err.find("is no journal"), std::string::npos) << r.err;
  }
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace arancini::tools
