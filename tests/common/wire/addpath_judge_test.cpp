#include <gtest/gtest.h>

#include "common/wire/bgp_update.h"
#include "tests/common/wire/message_builder.h"

namespace arancini::wire {
namespace {

using namespace test;

// Unless stated otherwise the judge knows nothing but what was negotiated.
struct Case {
  const char* what;
  Family family;
  Buffer nlri;
  bool negotiated;
  bool path_ids;
};

TEST(AddPathJudge, OneMessageByItself) {
  const Buffer two24 = prefixes({"198.51.100.0/24", "198.51.101.0/24"});
  const Buffer one24 = prefixes({"198.51.100.0/24"});
  const Buffer small_id = Buffer().prefix("198.51.100.0/24", 1);
  const Buffer tens = Buffer().prefix("10.0.1.0/24", 1);  // parses both ways
  const Buffer v6 = prefixes({"2001:db8:1::/48", "2001:db8:2::/48"});
  const Buffer v6_id = Buffer().prefix("2001:db8:1::/48", 7).prefix("2001:db8:2::/48", 8);
  const Case cases[] = {
      {"as negotiated, without", kIpv4Unicast, one24, false, false},
      {"as negotiated, with", kIpv4Unicast, small_id, true, true},
      {"FRR: negotiated, sent without", kIpv4Unicast, one24, true, false},
      {"FRR: two /24 read as one id and a prefix", kIpv4Unicast, two24, true, false},
      {"not negotiated, sent with", kIpv4Unicast, small_id, false, true},
      {"both parse, id reads as default routes", kIpv4Unicast, tens, true, true},
      {"both parse, id reads as default routes, not negotiated", kIpv4Unicast, tens, false, true},
      {"default route alone", kIpv4Unicast, prefixes({"0.0.0.0/0"}), true, false},
      {"default route with an id", kIpv4Unicast, Buffer().prefix("0.0.0.0/0", 3), true, true},
      {"default route with id 0", kIpv4Unicast, Buffer().prefix("0.0.0.0/0", 0), true, true},
      {"host route ending in zero", kIpv4Unicast, prefixes({"192.0.2.0/32"}), true, false},
      {"v6 without", kIpv6Unicast, v6, true, false},
      {"v6 with", kIpv6Unicast, v6_id, false, true},
      {"v6 default with id", kIpv6Unicast, Buffer().prefix("::/0", 9), true, true},
      {"multicast", kIpv4Multicast, small_id, true, true},
      {"raw pre-policy: host bits, default, the same prefix twice", kIpv4Unicast,
       Buffer{20, 198, 51, 255, 0}.add(one24).add(one24), false, false},
      {"the same with ADD-PATH negotiated", kIpv4Unicast, Buffer{20, 198, 51, 255, 0}.add(one24).add(one24),
       true, false},
      {"large ids that read as prefixes with host bits", kIpv4Unicast,
       Buffer().prefix("16.17.18.19/32", 0x01020304).prefix("20.21.22.23/32", 0x01020304), false, true},
  };
  for (const Case& c : cases) {
    AddPathJudge judge(c.negotiated);
    const auto v = judge.judge(c.nlri, c.family);
    EXPECT_TRUE(v.parses) << c.what;
    EXPECT_EQ(v.path_ids, c.path_ids) << c.what;
    EXPECT_EQ(v.mismatch, c.path_ids != c.negotiated) << c.what;
  }
}

TEST(AddPathJudge, GobgpMixesBothInOneSession) {
  AddPathJudge judge(true);
  for (int round = 0; round < 3; ++round) {
    EXPECT_FALSE(judge.judge(prefixes({"198.51.100.0/24", "198.51.101.0/24"}), kIpv4Unicast).path_ids);
    EXPECT_TRUE(judge.judge(Buffer().prefix("198.51.100.0/24", 1), kIpv4Unicast).path_ids);
    EXPECT_TRUE(judge.judge(Buffer().prefix("10.0.1.0/24", 1), kIpv4Unicast).path_ids);
  }
}

TEST(AddPathJudge, ARouterKnownForLargeIdsKeepsThem) {
  const Buffer ambiguous = Buffer().prefix("198.51.101.0/24", 0x18c63364);  // reads as two /24
  AddPathJudge unknown(true);
  EXPECT_FALSE(unknown.judge(ambiguous, kIpv4Unicast).path_ids);
  AddPathJudge known(true);
  EXPECT_TRUE(known.judge(Buffer().prefix("198.51.101.0/24", 0xc0000201), kIpv4Unicast).path_ids);
  EXPECT_TRUE(known.judge(ambiguous, kIpv4Unicast).path_ids);
}

TEST(AddPathJudge, SaysWhenNeitherParses) {
  AddPathJudge judge(true);
  const auto v = judge.judge(Buffer{77, 1, 2}, kIpv4Unicast);
  EXPECT_FALSE(v.parses);
  EXPECT_FALSE(v.mismatch);
}

TEST(AddPathJudge, EmptyAndForeignNlriAreAsNegotiated) {
  AddPathJudge judge(true);
  EXPECT_TRUE(judge.judge({}, kIpv4Unicast).parses);
  EXPECT_FALSE(judge.judge({}, kIpv4Unicast).mismatch);
  const auto v = judge.judge(Buffer{77, 1, 2}, {25, 70});
  EXPECT_TRUE(v.parses);
  EXPECT_TRUE(v.path_ids);
}

}  // namespace
}  // namespace arancini::wire
