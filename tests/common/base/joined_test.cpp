#include "common/base/joined.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace arancini {
namespace {

TEST(Joined, SetsSeparatorsBetweenMembersOnly) {
  EXPECT_EQ(joined(std::vector<std::string>{}), "");
  EXPECT_EQ(joined(std::set<std::string>{"a"}), "a");
  EXPECT_EQ(joined(std::vector<std::string>{"a", "b", "c"}), "a, b, c");
  EXPECT_EQ(joined(std::vector<std::string>{"", "b", ""}, "/"), "/b/");
}

TEST(Joined, AsksForTheTextOfEach) {
  EXPECT_EQ(joined(std::vector<int>{1, 20}, " ", [](int n) { return std::to_string(n); }), "1 20");
  struct Named {
    std::string name;
  };
  EXPECT_EQ(joined(std::vector<Named>{{"x"}, {"y"}}, ",", &Named::name), "x,y");
}

}  // namespace
}  // namespace arancini
