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
