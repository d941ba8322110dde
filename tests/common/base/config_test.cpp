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
