#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tools/route_fold.h"
#include "tools/route_json.h"
#include "tools/sequence_audit.h"

namespace arancini::tools {
namespace {

using schema::DecodedUpdate;

DecodedUpdate route(const char* prefix, std::uint8_t length, std::uint32_t first_asn = 65001) {
  DecodedUpdate u;
  u.router = IpAddress::from_v4(0xc0000201);
  u.peer = IpAddress::from_v4(0x0a000001);
  u.peer_asn = 65001;
  u.family = kIpv4Unicast;
  u.prefix_address = *IpAddress::parse(prefix);
  u.prefix_length = length;
  u.announced = true;
  u.attributes_present = 1U << 1 | 1U << 2 | 1U << 3;
  u.origin = "IGP";
  u.as_path = {first_asn, 174};
  u.next_hop = IpAddress::from_v4(0x0a000001);
  return u;
}

TEST(RouteJson, ShowsAttributesThatWereThereAndOnlyThose) {
  DecodedUpdate u = route("10.0.0.0", 8);
  auto j = route_json(u);
  for (const char* key : {"med", "local_pref", "communities", "large_communities", "ext_communities"}) {
    EXPECT_FALSE(j.contains(key)) << key;
  }
  u.attributes_present |= 1ULL << 4 | 1ULL << 5 | 1ULL << 8 | 1ULL << 16 | 1ULL << 32;
  u.communities = {{65001, 100}};
  u.large_communities = {{65001, 1, 2}};
  u.ext_communities = {{0, 2, 0xfd, 0xe9, 0, 0, 0, 7}};
  j = route_json(u);
  EXPECT_EQ(j["med"], 0) << "present and zero";
  EXPECT_EQ(j["local_pref"], 0);
  EXPECT_EQ(j["communities"], nlohmann::ordered_json({"65001:100"}));
  EXPECT_EQ(j["large_communities"], nlohmann::ordered_json({"65001:1:2"}));
  EXPECT_EQ(j["ext_communities"], nlohmann::ordered_json({"0002fde900000007"}));
}

TEST(RouteJson, NestsSets) {
  DecodedUpdate u = route("10.0.0.0", 8);
  u.as_segments = {{3, {65010}}, {2, {65001, 174}}, {1, {7, 8}}, {4, {9}}};
  EXPECT_EQ(to_line(route_json(u)["as_path"]),
            R"([{"confed_sequence":[65010]},65001,174,[7,8],{"confed_set":[9]}])");
  u.as_segments.clear();
  u.as_path.clear();
  EXPECT_EQ(to_line(route_json(u)["as_path"]), "[]") << "a route of the router's own AS";
}

TEST(RouteJson, PrintsIpv6ByFamily) {
  DecodedUpdate u = route("10.0.0.0", 8);
  u.family = kIpv6Unicast;
  u.prefix_length = 104;
  EXPECT_EQ(prefix_text(u), "::ffff:10.0.0.0/104");
}

TEST(RouteJson, SurvivesNamesThatAreNotUtf8) {
  DecodedUpdate u = route("10.0.0.0", 8);
  u.router_id = "edge\xff";
  EXPECT_FALSE(to_line(route_json(u)).empty());
}

TEST(FoldLines, SortByNumberNotByText) {
  std::vector<DecodedUpdate> routes{route("10.0.0.0", 16), route("9.0.0.0", 8), route("10.0.0.0", 8),
                                    route("10.0.0.0", 8)};
  routes[3].peer = IpAddress::from_v4(0x09000001);
  std::vector<std::string> prefixes;
  for (const std::string& line : fold_lines(routes))
    prefixes.push_back(nlohmann::json::parse(line).at("prefix"));
  EXPECT_EQ(prefixes, (std::vector<std::string>{"10.0.0.0/8", "9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16"}));
}

// Against the plain definition, over random updates.
TEST(RouteFold, IsTheMapFromKeyToLastAnnouncement) {
  std::mt19937_64 random(1);
  RouteFold fold;
  std::map<RouteKey, DecodedUpdate> expected;
  for (int i = 0; i < 50000; ++i) {
    DecodedUpdate u = route("10.0.0.0", static_cast<std::uint8_t>(8 + random() % 4),
                            static_cast<std::uint32_t>(random() % 20));
    u.prefix_address.bytes[13] = static_cast<std::uint8_t>(random() % 16);
    u.router = IpAddress::from_v4(0xc0000200 + static_cast<std::uint32_t>(random() % 3));
    if (random() % 4 == 0) u.router_id = "edge";
    u.peer.bytes[15] = static_cast<std::uint8_t>(random() % 3);
    u.peer_distinguisher = random() % 2;
    u.peer_type = static_cast<std::uint8_t>(random() % 2);
    u.view = static_cast<View>(random() % kViewCount);
    u.path_id = static_cast<std::uint32_t>(random() % 2);
    u.med = static_cast<std::uint32_t>(random() % 3);
    u.announced = random() % 3 != 0;
    fold.apply(u);
    if (u.announced) {
      expected[route_key(u)] = u;
    } else {
      expected.erase(route_key(u));
    }
  }
  std::vector<std::string> folded;
  fold.for_each([&](const DecodedUpdate& u) { folded.push_back(to_line(route_json(u))); });
  std::vector<std::string> wanted;
  wanted.reserve(expected.size());
  for (const auto& [key, u] : expected) wanted.push_back(to_line(route_json(u)));
  EXPECT_EQ(fold.size(), expected.size());
  EXPECT_EQ(folded, wanted);
}

TEST(SequenceSet, ClosesHolesInAnyOrder) {
  std::vector<std::uint64_t> all(2000);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i + 1;
  std::mt19937_64 random(2);
  std::shuffle(all.begin(), all.end(), random);
  SequenceSet set;
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_TRUE(set.add(all[i]));
    EXPECT_FALSE(set.add(all[random() % (i + 1)]));
    EXPECT_EQ(set.size(), i + 1);
  }
  EXPECT_EQ(set.missing(1, 2000), 0U);
  EXPECT_TRUE(set.holes(1, 2000, 10).empty());
  EXPECT_EQ(set.first(), 1U);
  EXPECT_EQ(set.last(), 2000U);
}

TEST(SequenceSet, NamesItsHoles) {
  SequenceSet set;
  for (const std::uint64_t s : {3U, 4U, 7U, 10U}) set.add(s);
  using Ranges = std::vector<SequenceSet::Range>;
  EXPECT_EQ(set.holes(1, 10, 10), (Ranges{{1, 2}, {5, 6}, {8, 9}}));
  EXPECT_EQ(set.holes(1, 10, 2), (Ranges{{1, 2}, {5, 6}}));
  EXPECT_EQ(set.holes(4, 8, 10), (Ranges{{5, 6}, {8, 8}}));
  EXPECT_EQ(set.missing(1, 10), 6U);
  EXPECT_EQ(set.missing(4, 8), 3U);
  EXPECT_EQ(set.missing(1, 0), 0U);
}

TEST(SequenceAudit, JudgesOnlyWhatWasThere) {
  SequenceAudit audit;
  WriterId w;
  audit.add(w, "a", 1);
  audit.add(w, "a", 4);
  audit.judge_up_to_here();
  EXPECT_EQ(audit.gaps(false), 2U);
  audit.add(w, "b", 9);
  EXPECT_EQ(audit.gaps(false), 2U);
  audit.add(w, "b", 3);
  EXPECT_EQ(audit.gaps(false), 1U);
  WriterId other;
  other.bytes[0] = 1;
  audit.add(other, "a", 5);
  EXPECT_EQ(audit.gaps(false), 1U);
  EXPECT_EQ(audit.order_violations(), 1U);
  EXPECT_EQ(audit.duplicates(), 0U);
}

}  // namespace
}  // namespace arancini::tools
