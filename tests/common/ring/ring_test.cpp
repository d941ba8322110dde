#include <gtest/gtest.h>

#include "common/ring/ring_reader.h"
#include "common/ring/ring_writer.h"
#include "tests/common/ring/ring_test_util.h"

namespace arancini::test {
namespace {

TEST(Ring, DeliversWhatWasPublished) {
  const TempDir dir;
  RingWriter writer(create(dir.file("ring")));
  RingReader reader(attach(dir.file("ring"), RingSide::Reader));
  RingRecord record;
  EXPECT_EQ(raw(writer.next_sequence()), 1U);
  EXPECT_EQ(reader.next(record), RingReader::Status::Empty);
  ASSERT_TRUE(append(writer, 100, 3));
  EXPECT_EQ(reader.next(record), RingReader::Status::Empty) << "not published yet";
  writer.publish();
  ASSERT_EQ(reader.next(record), RingReader::Status::Record);
  EXPECT_EQ(record.header.first_sequence, 1U);
  EXPECT_EQ(record.header.count, 3U);
  EXPECT_EQ(record.payload.size(), 100U);
  EXPECT_TRUE(payload_intact(record));
  EXPECT_EQ(reader.next(record), RingReader::Status::Empty);
  EXPECT_EQ(raw(writer.next_sequence()), 4U);
  EXPECT_EQ(reader.writer_id(), writer.writer_id());
  EXPECT_EQ(reader.writer_epoch(), 1U);
  reader.release(reader.cursor());
  EXPECT_EQ(writer.used_bytes(), 0U);
}

TEST(RingReader, RedeliversUnackedAfterReattach) {
  const TempDir dir;
  RingWriter writer(create(dir.file("ring")));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(append(writer, 40));
  writer.publish();
  RingRecord record;
  {
    RingReader reader(attach(dir.file("ring"), RingSide::Reader));
    ASSERT_EQ(reader.next(record), RingReader::Status::Record);
    reader.release(record.end);
    ASSERT_EQ(reader.next(record), RingReader::Status::Record);
    EXPECT_EQ(record.header.first_sequence, 2U);
  }
  RingReader reader(attach(dir.file("ring"), RingSide::Reader));
  ASSERT_EQ(reader.next(record), RingReader::Status::Record);
  EXPECT_EQ(record.header.first_sequence, 2U);
  reader.rewind();
  ASSERT_EQ(reader.next(record), RingReader::Status::Record);
  EXPECT_EQ(record.header.first_sequence, 2U);
}

TEST(RingWriter, ContinuesItsSequenceAfterReattach) {
  const TempDir dir;
  WriterId id;
  for (std::uint64_t epoch = 1; epoch <= 5; ++epoch) {
    RingWriter writer(create(dir.file("ring")));
    if (epoch == 1) id = writer.writer_id();
    EXPECT_EQ(writer.file().created(), epoch == 1);
    EXPECT_EQ(writer.writer_id(), id);
    EXPECT_EQ(writer.epoch(), epoch);
    EXPECT_EQ(raw(writer.next_sequence()), 1 + 2 * (epoch - 1));
    ASSERT_TRUE(append(writer, 10, 2));
    writer.publish();
    ASSERT_TRUE(append(writer, 10, 7)) << "never published, so never happened";
  }
  RingReader reader(attach(dir.file("ring"), RingSide::Reader));
  RingRecord record;
  for (std::uint64_t i = 0; i < 5; ++i) {
    ASSERT_EQ(reader.next(record), RingReader::Status::Record);
    EXPECT_EQ(record.header.first_sequence, 1 + 2 * i);
  }
  EXPECT_EQ(reader.next(record), RingReader::Status::Empty);
}

}  // namespace
}  // namespace arancini::test
