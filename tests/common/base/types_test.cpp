#include "common/base/types.h"

#include <gtest/gtest.h>

namespace arancini {
namespace {

IpAddress ip(const char* text) {
  return IpAddress::parse(text).value();
}

TEST(IpAddress, MapsIpv4IntoIpv6) {
  EXPECT_EQ(ip("192.0.2.1"), IpAddress::from_v4(0xc0000201));
  EXPECT_EQ(ip("192.0.2.1"), ip("::ffff:192.0.2.1"));
  EXPECT_TRUE(ip("192.0.2.1").is_v4());
  EXPECT_FALSE(ip("2001:db8::1").is_v4());
  EXPECT_EQ(ip("192.0.2.1").to_string(), "192.0.2.1");
  EXPECT_EQ(ip("2001:db8:0:0::1").to_string(), "2001:db8::1");
  EXPECT_FALSE(IpAddress::parse("192.0.2").has_value());
  EXPECT_FALSE(IpAddress::parse("fe80::1%eth0").has_value());
}

TEST(SubjectToken, WritesEightGroupsForIpv6AndDottedAsUnderscores) {
  EXPECT_EQ(subject_token(ip("192.0.2.1")), "v4_192_0_2_1");
  EXPECT_EQ(subject_token(ip("2001:db8::1")), "v6_2001_db8_0_0_0_0_0_1");
  EXPECT_EQ(subject_token(ip("::ffff:10.0.0.1")), "v4_10_0_0_1");
  EXPECT_EQ(subject_token(ip("::")), "v6_0_0_0_0_0_0_0_0");
}

TEST(OwnerOf, SpreadsRoutersAndIsStable) {
  int count[4] = {};
  for (std::uint32_t i = 0; i < 4000; ++i) ++count[raw(owner_of(IpAddress::from_v4(0x0a000000 + i), 4))];
  for (const int n : count) EXPECT_GT(n, 700);
  EXPECT_EQ(raw(owner_of(ip("10.0.0.1"), 1)), 0U);
  EXPECT_LT(raw(owner_of(ip("2001:db8::1"), 3)), 3U);
}

TEST(WriterId, RoundTripsAsHex) {
  WriterId id;
  for (std::size_t i = 0; i < 16; ++i) id.bytes[i] = static_cast<std::uint8_t>(17 * i);
  EXPECT_EQ(WriterId::from_hex(id.to_hex()), id);
  EXPECT_FALSE(WriterId::from_hex("00").has_value());
  EXPECT_FALSE(WriterId::from_hex(std::string(32, 'g')).has_value());
}

TEST(Distinguisher, IsWrittenByItsType) {
  EXPECT_EQ(distinguisher_text(0), "0:0");
  EXPECT_EQ(distinguisher_text(0x0000'fde8'0000'0007U), "65000:7");
  EXPECT_EQ(distinguisher_text(0x0001'c000'0201'0007U), "192.0.2.1:7");
  EXPECT_EQ(distinguisher_text(0x0002'0001'0000'0007U), "65536:7");
  EXPECT_EQ(distinguisher_text(0x0009'0000'0001'0007U), "9:1:7");
}

}  // namespace
}  // namespace arancini
