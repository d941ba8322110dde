#include "common/nats/nats_settings.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "common/base/config.h"
#include "common/nats/nats_connector.h"

namespace arancini {
namespace {

TEST(NatsUrls, ListWithLoginsAndPorts) {
  const auto u =
      split_nats_urls("nats://a, tls://user:p%40ss%3Aword@b.example:4333,nats://tok%2Cen@[::1]:5000");
  ASSERT_EQ(u.size(), 3U);
  EXPECT_EQ(u[0].address, "a:4222");
  EXPECT_FALSE(u[0].tls);
  EXPECT_EQ(u[1].address, "b.example:4333");
  EXPECT_TRUE(u[1].tls);
  EXPECT_FALSE(u[1].host_is_ip);
  EXPECT_EQ(u[1].user, "user");
  EXPECT_EQ(u[1].password, "p@ss:word");
  EXPECT_EQ(u[1].to_string(), "tls://b.example:4333");
  EXPECT_EQ(u[2].address, "[::1]:5000");
  EXPECT_EQ(u[2].host, "::1");
  EXPECT_TRUE(u[2].host_is_ip);
  EXPECT_EQ(u[2].token, "tok,en");
  EXPECT_TRUE(u[2].user.empty());
}

TEST(NatsUrls, SixWithoutPortAndNothing) {
  EXPECT_EQ(split_nats_urls("nats://[fe80::1]").at(0).address, "[fe80::1]:4222");
  EXPECT_TRUE(split_nats_urls(" , ").empty());
}

class Secrets : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/arancini-nats-XXXXXX";
    path_ = name;
    const int fd = ::mkstemp(path_.data());
    ASSERT_GE(fd, 0);
    ::close(fd);
  }
  void TearDown() override { ::unlink(path_.c_str()); }
  std::string path_;
};

TEST_F(Secrets, FilesThatOthersMayReadAreNamed) {
  Config c = parse_config("[nats]\nuser = \"u\"\npassword = \"p\"\n", path_);
  ::chmod(path_.c_str(), 0644);
  EXPECT_NE(exposed_nats_secrets(c).find(path_), std::string::npos);
  ::chmod(path_.c_str(), 0640);
  EXPECT_EQ(exposed_nats_secrets(c), "");
  Config without = parse_config("[nats]\nurl = \"nats://a\"\n", path_);
  ::chmod(path_.c_str(), 0644);
  EXPECT_EQ(exposed_nats_secrets(without), "");
  without.nats.creds = path_;
  EXPECT_NE(exposed_nats_secrets(without).find(path_), std::string::npos);
}

TEST(JetStreamFailure, CodesAndAdvice) {
  const auto code = [](std::uint32_t n, const char* text) { return jetstream_failure(n, text).code; };
  EXPECT_EQ(code(10008, "JetStream system temporarily unavailable"), ErrorCode::NatsUnreachable);
  EXPECT_EQ(code(10023, "insufficient resources"), ErrorCode::StreamFull);
  EXPECT_EQ(code(10047, "insufficient storage resources available"), ErrorCode::StreamFull);
  EXPECT_EQ(code(10077, "maximum messages exceeded"), ErrorCode::StreamFull);
  EXPECT_EQ(code(10077, "maximum bytes exceeded"), ErrorCode::StreamFull);
  EXPECT_EQ(code(10077, "write x.blk: no space left on device"), ErrorCode::StreamFull);
  EXPECT_EQ(code(10077, "something else"), ErrorCode::PublishRejected);
  EXPECT_EQ(code(10109, "invalid operation on sealed stream"), ErrorCode::StreamUnusable);
  EXPECT_EQ(code(10076, "JetStream not enabled"), ErrorCode::StreamUnusable);
  EXPECT_EQ(code(19999, "news"), ErrorCode::PublishRejected);
  EXPECT_NE(jetstream_failure(10047, "insufficient storage").text.find("10047"), std::string::npos);
}

}  // namespace
}  // namespace arancini
