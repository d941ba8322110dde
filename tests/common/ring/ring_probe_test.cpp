#include "common/ring/ring_probe.h"

#include <fstream>

#include "tests/common/ring/ring_test_util.h"

namespace arancini::test {
namespace {

TEST(RingProbe, SeesWhatBothSidesSay) {
  TempDir dir;
  const std::string path = dir.file("ring-3");
  RingFile::CreateOptions options = small_ring();
  options.shard = 3;
  RingWriter writer(create(path, options));
  writer.set_layout(4);
  RingReader reader(attach(path, RingSide::Reader));
  const auto probe = RingProbe::open(path);
  ASSERT_TRUE(probe);
  EXPECT_EQ(probe->writer_id(), writer.writer_id());
  EXPECT_EQ(probe->shard(), 3U);
  EXPECT_EQ(probe->shard_count(), 4U);
  EXPECT_EQ(raw(probe->layout_since()), 0U);
  EXPECT_EQ(probe->log().identity, 0U);
  EXPECT_TRUE(probe->writer_lives());
  EXPECT_FALSE(probe->moved_aside());

  ASSERT_TRUE(append(writer, 40));
  writer.publish();
  EXPECT_EQ(probe->tail(), writer.tail());
  writer.set_layout(5);
  EXPECT_EQ(probe->shard_count(), 5U);
  EXPECT_EQ(probe->layout_since(), writer.tail());

  RingRecord record;
  ASSERT_EQ(reader.next(record), RingReader::Status::Record);
  reader.release(record.end);
  reader.set_published(record.end);
  reader.set_log_mark(17, 1000);
  EXPECT_EQ(probe->head(), record.end);
  EXPECT_EQ(probe->log().published, record.end);
  EXPECT_EQ(probe->log().sequence, 17U);
  EXPECT_EQ(probe->log().identity, 1000U);
  EXPECT_EQ(writer.log_mark().sequence, 17U);
  EXPECT_EQ(writer.log_mark().identity, 1000U);
  EXPECT_EQ(writer.in_log(), record.end);
  EXPECT_EQ(writer.dump_request(), 0U);
  reader.request_dump();
  EXPECT_EQ(writer.dump_request(), 1U);
}

TEST(RingProbe, FindsAllRingsAndNothingElse) {
  TempDir dir;
  {
    const RingWriter a(create(dir.file("ring-0")));
    const RingWriter b(create(dir.file("ring-11")));
  }
  std::filesystem::rename(dir.file("ring-11"), dir.file("ring-11.old-2"));
  std::ofstream(dir.file("ring-5")) << "no ring";
  std::ofstream(dir.file("ring-5.bad-1")) << "no ring";
  std::filesystem::copy_file(dir.file("ring-0"), dir.file("ring-x"));
  const auto all = RingProbe::all(dir.path());
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].path(), dir.file("ring-0"));
  EXPECT_FALSE(all[0].writer_lives());
  EXPECT_EQ(all[1].path(), dir.file("ring-11.old-2"));
  EXPECT_TRUE(all[1].moved_aside());
  EXPECT_FALSE(RingProbe::open(dir.file("none")));
}

}  // namespace
}  // namespace arancini::test
