#include "common/base/config.h"

#include <gtest/gtest.h>

namespace arancini {
namespace {

std::string error_of(const char* text) {
  try {
    (void)parse_config(text, "f.toml");
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

TEST(Config, EmptyFileGivesTheDocumentedDefaults) {
  const Config c = parse_config("", "f.toml");
  EXPECT_EQ(c.bmp.listen.to_string(), "0.0.0.0:4000");
  EXPECT_EQ(c.metrics.listen.to_string(), "127.0.0.1:8080");
  EXPECT_EQ(c.nats.url, "nats://127.0.0.1:4222");
  EXPECT_EQ(c.publish.format, PublishFormat::UpdateV1Concat);
}

TEST(Config, NamesFileLineAndKeyOfAMistake) {
  EXPECT_EQ(error_of("[bmp]\nbacklog = \"x\"\n"),
            "f.toml:2: bmp.backlog must be a whole number from 1 to 65535");
  EXPECT_EQ(error_of("[bmp]\n\nbaklog = 1\n"), "f.toml:3: unknown key bmp.baklog");
  EXPECT_EQ(error_of("[bpm]\n"), "f.toml:1: unknown table [bpm]");
  EXPECT_NE(error_of("[ring]\nsize_bytes = 50000000\n").find("power of two"), std::string::npos);
  EXPECT_NE(error_of("[publish]\nformat = \"json\"\n").find("update-v1, update-v1-concat, batch-v2"),
            std::string::npos);
  EXPECT_NE(error_of("[bmp\n").find("f.toml:1:"), std::string::npos);
  EXPECT_NE(error_of("[bmp]\nlisten = \"nowhere\"\n").find("f.toml:2: bmp.listen"), std::string::npos);
}

TEST(Config, RefusesWhatCannotWorkWithItsLine) {
  EXPECT_EQ(error_of("[ring]\nsize_bytes = 50000000\n"),
            "f.toml:2: ring.size_bytes must be a power of two, not 50000000");
  EXPECT_EQ(error_of("[log]\nlevel = \"x\"\n"),
            "f.toml:2: log.level must be one of: debug, info, warn, error");
  for (const char* url : {"foo", "http://x", "nats://", "nats://:4222", "nats://a,b", ""}) {
    EXPECT_EQ(error_of((std::string("[nats]\nurl = \"") + url + "\"\n").c_str())
                  .rfind("f.toml:2: nats.url must be", 0),
              0U)
        << url;
  }
  for (const char* url : {"embedded", "nats://a:1,nats://b:2", "tls://user:pw@host", "nats://[::1]:4222"}) {
    EXPECT_EQ(error_of((std::string("[nats]\nurl = \"") + url + "\"\n").c_str()), "") << url;
  }
  EXPECT_EQ(error_of("[nats]\nupdates_stream = \"A.B\"\n").rfind("f.toml:2: nats.updates_stream must not", 0),
            0U);
  EXPECT_EQ(error_of("[nats]\n\nevents_stream = \"ARANCINI_UPDATES\"\n"),
            "f.toml:3: nats.events_stream must not be the updates stream");
  EXPECT_EQ(error_of("[nats]\nsubject_prefix = \"a.>\"\n").rfind("f.toml:2: nats.subject_prefix must be", 0),
            0U);
  EXPECT_EQ(error_of("[snapshot]\nstore = \"s3\"\n"),
            "f.toml:2: snapshot.store must be one of: file, kv, none");
  EXPECT_EQ(error_of("[snapshot]\nkv_bucket = \"a.b\"\n"),
            "f.toml:2: snapshot.kv_bucket must be made of letters, digits, '-' and '_'");
  EXPECT_EQ(error_of("[instance]\nname = \"\"\n"), "f.toml:2: instance.name must not be empty");
  ConfigFlags flags;
  flags.config = "/";
  EXPECT_THROW((void)load_config(flags), ConfigError);
  flags.config.reset();
  flags.nats = "nowhere";
  EXPECT_THROW((void)load_config(flags), ConfigError);
  flags.nats.reset();
  flags.log_level = "x";
  EXPECT_THROW((void)load_config(flags), ConfigError);
}

TEST(Config, TcpForControlNeedsMutualTls) {
  EXPECT_EQ(
      error_of("[control]\nlisten = \"127.0.0.1:4001\"\ntls_cert = \"c\"\ntls_key = \"k\"\n"),
      "f.toml:2: control.listen needs control.tls_cert, control.tls_key and control.tls_ca: there is no "
      "TCP without mTLS");
  EXPECT_EQ(error_of("[control]\nlisten = \"here\"\n").rfind("f.toml:2: control.listen", 0), 0U);
  EXPECT_EQ(error_of("[control]\nallow_names = [\"\"]\n").rfind("f.toml:2: control.allow_names must be", 0),
            0U);
  const Config c = parse_config(
      "[control]\nlisten = '127.0.0.1:4001'\ntls_cert = 'c'\ntls_key = 'k'\ntls_ca = 'a'\n"
      "allow_names = ['noc']\nread_only_names = ['wall']\n",
      "f.toml");
  EXPECT_EQ(c.control.listen->to_string(), "127.0.0.1:4001");
  EXPECT_EQ(c.control.allow_names, std::vector<std::string>{"noc"});
  EXPECT_FALSE(parse_config("[control]\nlisten = ''\n", "f.toml").control.listen);
}

TEST(Config, RouterEntriesAreRules) {
  const Config c = parse_config(R"(
[bmp]
allow = ["10.0.0.0/8", "2001:db8::/32"]
max_sessions_per_router = 4
max_routes_per_router = 1000

[[router]]
address = "192.0.2.1"
name = "edge-1.ams"
tags = ["edge", "ams"]
max_routes = 0

[[router]]
address = "192.0.2.7"
name = "core-a"
sys_name = "a"
max_sessions = 1

[[router]]
address = "192.0.2.7"

[[router]]
address = "198.51.100.0/24"
tags = ["lab"]
)",
                                "f.toml");
  const RouterRules& r = c.routers;
  const auto at = [](const char* text) { return *IpAddress::parse(text); };
  EXPECT_TRUE(r.allows(at("10.255.0.1")) && r.allows(at("2001:db8::9")));
  EXPECT_TRUE(r.allows(at("192.0.2.1")) && r.allows(at("198.51.100.200"))) << "an entry takes it in";
  EXPECT_FALSE(r.allows(at("11.0.0.1")) || r.allows(at("2001:db9::9")));
  ASSERT_NE(r.find(at("192.0.2.1")), nullptr);
  EXPECT_EQ(r.find(at("192.0.2.1"))->name, "edge-1.ams");
  EXPECT_EQ(r.find(at("192.0.2.1"))->tags, (std::vector<std::string>{"edge", "ams"}));
  EXPECT_EQ(r.routes_of(r.find(at("192.0.2.1"))), 0U) << "no limit, whatever the others have";
  EXPECT_EQ(r.sessions_of(r.find(at("192.0.2.1"))), 4U);
  EXPECT_EQ(r.routes_of(nullptr), 1000U);
  EXPECT_EQ(r.find(at("10.0.0.1")), nullptr);
  EXPECT_EQ(r.find(at("198.51.100.3"))->tags, (std::vector<std::string>{"lab"}));
  EXPECT_FALSE(r.needs_sys_name(at("192.0.2.1")));
  EXPECT_TRUE(r.needs_sys_name(at("192.0.2.7")));
  EXPECT_EQ(r.find(at("192.0.2.7"), "a")->name, "core-a");
  EXPECT_EQ(r.sessions_of(r.find(at("192.0.2.7"), "a")), 1U);
  EXPECT_EQ(r.find(at("192.0.2.7"), "b")->name, "");
  EXPECT_EQ(r.named(at("192.0.2.7"), "core-a"), r.find(at("192.0.2.7"), "a"));
  EXPECT_EQ(r.named(at("192.0.2.7"), ""), r.find(at("192.0.2.7"), "b"));
  EXPECT_EQ(r.named(at("192.0.2.1"), ""), nullptr);
  EXPECT_EQ(r.name_of(at("192.0.2.1"), "whatever"), "edge-1.ams");
  EXPECT_EQ(r.name_of(at("192.0.2.7"), "a"), "core-a");
  EXPECT_EQ(r.name_of(at("192.0.2.7"), "b"), "");
  EXPECT_EQ(r.name_of(at("10.0.0.1"), "a"), "") << "allowed without an entry";
  EXPECT_EQ(r.name_of(at("11.0.0.1"), "a"), std::nullopt) << "nothing allows it";
}

TEST(Config, ARouterThatNoEntryTellsFromTheOthersOfItsAddressIsKeptOut) {
  const Config c =
      parse_config("[[router]]\naddress = \"192.0.2.7\"\nname = \"core-a\"\nsys_name = \"a\"\n", "f.toml");
  const IpAddress address = *IpAddress::parse("192.0.2.7");
  EXPECT_EQ(c.routers.name_of(address, "a"), "core-a");
  EXPECT_EQ(c.routers.name_of(address, "b"), std::nullopt);
}

TEST(Config, WithoutTablesThereAreNoSnapshots) {
  EXPECT_EQ(parse_config("", "f.toml").snapshot.store, SnapshotStoreKind::File);
  const Config c = parse_config("[curation]\nenabled = false\n[snapshot]\nstore = \"kv\"\n", "f.toml");
  EXPECT_EQ(c.snapshot.store, SnapshotStoreKind::None);
}

TEST(Config, WithoutTablesThereAreNoDumps) {
  const std::string error = error_of("[curation]\nenabled = false\n[dump]\ninterval_s = 60\n");
  EXPECT_EQ(error.rfind("f.toml:4: dump.interval_s must be 0 with curation.enabled = false", 0), 0U) << error;
  EXPECT_EQ(parse_config("[curation]\nenabled = false\n[dump]\ninterval_s = 0\n", "f.toml").dump.interval_s,
            0);
}

TEST(Config, RouterEntriesThatCannotBeMeant) {
  EXPECT_EQ(error_of("[[router]]\nname = \"x\"\n").rfind("f.toml: router.address must be an address", 0), 0U);
  EXPECT_EQ(error_of("[[router]]\naddress = \"10.0.0.1/8\"\n").rfind("f.toml:2: router.address must be", 0),
            0U);
  EXPECT_EQ(error_of("[[router]]\naddress = \"10.0.0.0/8\"\nname = \"x\"\n"),
            "f.toml:3: router.name needs a single address: a prefix is about several routers");
  EXPECT_EQ(error_of("[[router]]\naddress = \"10.0.0.1\"\nname = \"a b\"\n")
                .rfind("f.toml:3: router.name must be at most 64 letters", 0),
            0U);
  EXPECT_EQ(error_of("[[router]]\naddress = \"10.0.0.1\"\n[[router]]\naddress = \"10.0.0.1\"\n"),
            "f.toml:4: router.address 10.0.0.1 has an entry already; another one needs a sys_name");
  EXPECT_EQ(error_of("[[router]]\naddress = \"10.0.0.1\"\nname = \"x\"\n"
                     "[[router]]\naddress = \"10.0.0.2\"\nname = \"x\"\n"),
            "f.toml:6: router.name \"x\" is there already");
  EXPECT_EQ(error_of("[[router]]\naddress = \"10.0.0.1\"\ntags = [1]\n"),
            "f.toml:3: router.tags must be a list of strings");
  EXPECT_EQ(error_of("[[router]]\naddress = \"10.0.0.1\"\nmax_route = 1\n"),
            "f.toml:3: unknown key router.max_route");
  EXPECT_EQ(error_of("[router]\naddress = \"10.0.0.1\"\n"),
            "f.toml:1: router must be an array of tables: [[router]]");
  EXPECT_EQ(error_of("[bmp]\nallow = [\"10.0.0.0/33\"]\n").rfind("f.toml:2: bmp.allow must be", 0), 0U);
  EXPECT_EQ(error_of("[ring]\nwhen_full = \"drop-newest\"\n[curation]\nenabled = false\n")
                .rfind("f.toml:4: curation.enabled must be true", 0),
            0U);
}

TEST(Config, FlagsOverrideTheFile) {
  ConfigFlags flags;
  flags.bmp_listen = "[::1]:4001";
  flags.shards = 3;
  flags.format = "update-v1";
  const Config c = load_config(flags);
  EXPECT_EQ(c.bmp.listen.host, "::1");
  EXPECT_EQ(c.bmp.listen.to_string(), "[::1]:4001");
  EXPECT_EQ(c.shards.count, 3U);
  EXPECT_EQ(c.publish.format, PublishFormat::UpdateV1);
  flags.format = "xml";
  EXPECT_THROW((void)load_config(flags), ConfigError);
  flags.format.reset();
  flags.config = "/nonexistent/f.toml";
  EXPECT_THROW((void)load_config(flags), ConfigError);
}

}  // namespace
}  // namespace arancini
