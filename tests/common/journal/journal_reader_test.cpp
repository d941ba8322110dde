#include "common/journal/journal_reader.h"

#include "tests/common/journal/segment_builder.h"

namespace arancini::journal::test {
namespace {

// Three segments of two frames, numbered 10, 20, … 60; `gone`: so many of the first segments are not there.
std::vector<std::uint64_t> orders_from(std::uint64_t from, int gone, std::uint64_t& whole_from) {
  TempDir dir;
  const std::string writer = dir.path() + "/" + test_writer().to_hex();
  std::filesystem::create_directory(writer);
  SegmentBuilder builder;
  for (int s = 0; s < 3; ++s) {
    const std::string name = builder.begin_segment(kSegmentHeaderBytes + 8 * 512);
    for (int i = 0; i < 2; ++i) builder.add_frame(40, builder.next_frame - 1);
    if (s >= gone) write_file(writer + "/" + name, builder.bytes);
  }
  auto reader = JournalReader::open(dir.path());
  EXPECT_TRUE(reader.ok());
  reader->look();
  EXPECT_EQ(reader->last_order(), 60U);
  whole_from = reader->whole_from();
  reader->stop_at_end(true);
  reader->skip_to(from);
  std::vector<std::uint64_t> out;
  Frame frame;
  JournalReader::Writer who;
  while (reader->next(frame, who) == JournalReader::Status::Frame) out.push_back(frame.header.order);
  return out;
}

using Orders = std::vector<std::uint64_t>;

TEST(JournalReader, SkipsWholeSegmentsBelowAnOrder) {
  std::uint64_t whole_from = 0;
  EXPECT_EQ(orders_from(1, 0, whole_from), (Orders{10, 20, 30, 40, 50, 60}));
  EXPECT_EQ(whole_from, 0U);
  EXPECT_EQ(orders_from(29, 0, whole_from), (Orders{10, 20, 30, 40, 50, 60}));
  EXPECT_EQ(orders_from(30, 0, whole_from), (Orders{30, 40, 50, 60}));
  EXPECT_EQ(orders_from(45, 0, whole_from), (Orders{30, 40, 50, 60})) << "some below still come";
  EXPECT_EQ(orders_from(1000, 0, whole_from), (Orders{50, 60}));
}

TEST(JournalReader, SaysFromWhereNothingIsGone) {
  std::uint64_t whole_from = 0;
  EXPECT_EQ(orders_from(1, 1, whole_from), (Orders{30, 40, 50, 60}));
  EXPECT_EQ(whole_from, 30U);
  EXPECT_EQ(orders_from(1, 2, whole_from), (Orders{50, 60}));
  EXPECT_EQ(whole_from, 50U);
}

}  // namespace
}  // namespace arancini::journal::test
