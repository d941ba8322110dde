#include "common/schema/as_path.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

namespace arancini::schema {
namespace {

constexpr std::uint32_t kAsTrans = 23456;

struct Segment {
  std::uint8_t type;
  std::vector<std::uint32_t> members;
  bool operator==(const Segment&) const = default;
};
void PrintTo(const Segment& s, std::ostream* out) {
  *out << static_cast<int>(s.type) << ":" << testing::PrintToString(s.members);
}

std::vector<std::byte> bytes_of(const std::vector<Segment>& path, std::size_t as_bytes) {
  std::vector<std::byte> out;
  for (const Segment& s : path) {
    out.push_back(std::byte{s.type});
    out.push_back(static_cast<std::byte>(s.members.size()));
    for (const std::uint32_t asn : s.members) {
      for (std::size_t i = as_bytes; i > 0; --i) out.push_back(static_cast<std::byte>(asn >> (8 * (i - 1))));
    }
  }
  return out;
}

std::vector<Segment> walk(const wire::Attributes& a) {
  std::vector<Segment> out;
  AsPathWalk w(a);
  for (PathSegment s; w.next(s);) {
    Segment& to = out.emplace_back(Segment{s.type, {}});
    for (std::uint32_t i = 0; i < s.count; ++i) to.members.push_back(s.member(i));
  }
  return out;
}

std::vector<Segment> merged(const std::vector<Segment>& as_path, const std::vector<Segment>& as4_path) {
  const auto old_bytes = bytes_of(as_path, 2);
  const auto new_bytes = bytes_of(as4_path, 4);
  wire::Attributes a;
  a.as2 = true;
  a.as_path = old_bytes;
  a.as4_path = new_bytes;
  return walk(a);
}

TEST(AsPathWalk, TakesFourByteSegmentsAsTheyAre) {
  const std::vector<Segment> path{{3, {65000}}, {2, {4200000001, 174}}, {1, {7, 8}}};
  const auto bytes = bytes_of(path, 4);
  wire::Attributes a;
  a.as_path = bytes;
  EXPECT_EQ(walk(a), path);
  a.as4_path = bytes;  // from a 4-byte speaker: discarded
  EXPECT_EQ(walk(a), path);
}

TEST(AsPathWalk, PrependsTheLeadingAsesToAs4Path) {
  EXPECT_EQ(merged({{2, {100, kAsTrans, kAsTrans}}}, {{2, {4200000001, 4200000002}}}),
            (std::vector<Segment>{{2, {100}}, {2, {4200000001, 4200000002}}}));
  EXPECT_EQ(merged({{2, {kAsTrans, 200}}}, {{2, {4200000001, 200}}}),
            (std::vector<Segment>{{2, {4200000001, 200}}}));
}

TEST(AsPathWalk, IgnoresAnAs4PathThatIsLonger) {
  EXPECT_EQ(merged({{2, {kAsTrans}}}, {{2, {1, 2}}}), (std::vector<Segment>{{2, {kAsTrans}}}));
}

TEST(AsPathWalk, CountsASetAsOne) {
  EXPECT_EQ(merged({{2, {10, kAsTrans}}, {1, {30, 31, 32}}}, {{2, {4200000001}}, {1, {30, 31, 4200000032}}}),
            (std::vector<Segment>{{2, {10}}, {2, {4200000001}}, {1, {30, 31, 4200000032}}}));
}

TEST(AsPathWalk, KeepsLeadingConfederationSegmentsAndDropsThemFromAs4Path) {
  EXPECT_EQ(merged({{3, {65010}}, {2, {kAsTrans}}}, {{3, {65099}}, {2, {4200000001}}}),
            (std::vector<Segment>{{3, {65010}}, {2, {4200000001}}}));
}

TEST(AsPathWalk, AnAggregatorOtherThanAsTransVoidsAs4Path) {
  const auto path = bytes_of({{2, {100, kAsTrans}}}, 2);
  const auto as4 = bytes_of({{2, {4200000001}}}, 4);
  std::vector<std::byte> aggregator{std::byte{0}, std::byte{100}, std::byte{1},
                                    std::byte{2}, std::byte{3},   std::byte{4}};
  const std::vector<std::byte> as4_aggregator(8, std::byte{9});
  wire::Attributes a;
  a.as2 = true;
  a.as_path = path;
  a.as4_path = as4;
  a.aggregator = aggregator;
  EXPECT_EQ(walk(a).size(), 2U) << "without AS4_AGGREGATOR the rule does not apply";
  a.as4_aggregator = as4_aggregator;
  EXPECT_EQ(walk(a), (std::vector<Segment>{{2, {100, kAsTrans}}}));
  EXPECT_EQ(aggregator_of(a).asn, 100U);
  EXPECT_EQ(aggregator_of(a).bgp_id, 0x01020304U);

  aggregator[0] = std::byte{0x5b};
  aggregator[1] = std::byte{0xa0};
  EXPECT_EQ(walk(a), (std::vector<Segment>{{2, {100}}, {2, {4200000001}}}));
  EXPECT_EQ(aggregator_of(a).asn, 0x09090909U);
  EXPECT_EQ(aggregator_of(a).bgp_id, 0x09090909U);
}

TEST(AsPathWalk, EndsAtASegmentThatOverruns) {
  auto bytes = bytes_of({{2, {1, 2}}, {2, {3, 4}}}, 4);
  bytes.pop_back();
  wire::Attributes a;
  a.as_path = bytes;
  EXPECT_EQ(walk(a), (std::vector<Segment>{{2, {1, 2}}}));
}

}  // namespace
}  // namespace arancini::schema
