#include "tools/text_table.h"

#include <gtest/gtest.h>

namespace arancini::tools {
namespace {

TEST(TextTable, ShortNumbersKeepTheirSize) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(999), "999");
  EXPECT_EQ(short_number(1000), "1.0k");
  EXPECT_EQ(short_number(9949), "9.9k");
  EXPECT_EQ(short_number(9999), "10k");
  EXPECT_EQ(short_number(999'499), "999k");
  EXPECT_EQ(short_number(999'999), "1.0M");
  EXPECT_EQ(short_number(12'345'678), "12M");
  EXPECT_EQ(short_number(~std::uint64_t{0}), "18E");
}

TEST(TextTable, ShortDurations) {
  EXPECT_EQ(short_duration(0), "0s");
  EXPECT_EQ(short_duration(59), "59s");
  EXPECT_EQ(short_duration(303), "5m03s");
  EXPECT_EQ(short_duration(7500), "2h05m");
  EXPECT_EQ(short_duration(3 * 86400 + 4 * 3600 + 59), "3d04h");
}

TEST(TextTable, FitCutsAtCodePoints) {
  EXPECT_EQ(fit("abc", 3), "abc");
  EXPECT_EQ(fit("abcd", 3), "ab~");
  EXPECT_EQ(fit("äöü", 3), "äöü");
  EXPECT_EQ(fit("äöüß", 3), "äö~");
  EXPECT_EQ(fit("", 0), "");
}

TEST(TextTable, WrapsBetweenWords) {
  EXPECT_EQ(wrapped("one two three", 2, 9), "  one two\n  three\n");
  EXPECT_EQ(wrapped("incomprehensible x", 1, 8), " incomprehensible\n x\n");
  EXPECT_EQ(wrapped("", 2, 9), "");
}

TEST(TextTable, ColumnsAreAsWideAsTheirWidestCellAndNotWiderThanTheirLimit) {
  TextTable table({{"NAME", 5}, {"N", 4, true}, {"X", 3}});
  table.add({"a", "12", ""});
  table.add({"router", "7", "yes"});
  EXPECT_EQ(table.text(),
            "NAME    N  X\n"
            "a      12\n"
            "rout~   7  yes\n");
}

}  // namespace
}  // namespace arancini::tools
