#include <cstddef>

#include "common/journal/crc32c.h"
#include "tests/common/journal/segment_builder.h"

namespace arancini::journal::test {
namespace {

std::span<const std::byte> bytes_of(const std::string& s) {
  return std::as_bytes(std::span(s));
}

TEST(Crc32c, GivesTheNumbersOfTheRfc) {  // RFC 3720 B.4
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\0'))), 0x8a9136aaU);
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\xff'))), 0x62a8ab43U);
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283U);
  EXPECT_EQ(crc32c({}), 0U);
}

TEST(Crc32c, IsTheSameWithAndWithoutTheInstructionAndInPieces) {
  std::string text;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(crc32c(bytes_of(text)), crc32c_portable(bytes_of(text))) << i;
    const auto all = bytes_of(text);
    const std::size_t cut = static_cast<std::size_t>(i) / 3;
    EXPECT_EQ(crc32c(all.subspan(cut), crc32c(all.first(cut))), crc32c(all)) << i;
    EXPECT_EQ(crc32c_portable(all.subspan(cut), crc32c_portable(all.first(cut))), crc32c(all)) << i;
    text += static_cast<char>(i * 37 + 11);
  }
}

// What is on disks out there. When this fails the format has changed: raise kVersion.
TEST(JournalFormat, IsWhatItWas) {
  SegmentBuilder b;
  b.begin_segment(8192);
  b.add_frame();
  b.add_frame(41, 1);
  EXPECT_EQ(kVersion, 1U);
  EXPECT_EQ(kLayoutHash, 0xe1c642e2e6581b14ULL);
  EXPECT_EQ(crc32c(bytes_of(b.bytes)), 0xa32198b2U);
  CheckpointPage page;
  init_checkpoint(page, test_writer(), 7, 3);
  store(page, Published{RingPosition{4096}, 11, 12});
  store(page, Published{RingPosition{8192}, 13, 12});
  store(page, Durable{9, RingPosition{16384}, 90});
  EXPECT_EQ(crc32c(std::as_bytes(std::span(&page, 1))), 0xd04fb5e0U);
}

TEST(JournalFormat, NamesSortByPosition) {
  EXPECT_EQ(segment_name(RingPosition{42}), "00000000000000000042.seg");
  EXPECT_EQ(position_of_segment("18446744073709551615.seg"), RingPosition{UINT64_MAX});
  for (const char* bad :
       {"", "42.seg", "00000000000000000042.seg2", "0000000000000000004x.seg", "99999999999999999999.seg",
        "-0000000000000000042.seg", "00000000000000000042.tmp"}) {
    EXPECT_FALSE(position_of_segment(bad)) << bad;
  }
}

TEST(Checkpoint, ATornSlotLeavesTheOneBefore) {
  CheckpointPage page;
  init_checkpoint(page, test_writer(), 7, 3);
  ASSERT_TRUE(read_checkpoint(page));
  EXPECT_FALSE(read_checkpoint(page)->published);
  EXPECT_FALSE(read_checkpoint(page)->durable);
  for (std::uint64_t n = 1; n < 6; ++n) {
    const CheckpointPage before = page;
    store(page, Published{RingPosition{n * 4096}, n, 12});
    store(page, Durable{n, RingPosition{n * 100}, n});
    ASSERT_EQ(read_checkpoint(page)->published->begin, RingPosition{n * 4096});
    ASSERT_EQ(read_checkpoint(page)->durable->frame, n);
    if (n == 1) continue;
    // Any mixture of old and new bytes, cut anywhere.
    for (std::size_t cut = 0; cut <= sizeof page; cut += 1) {
      CheckpointPage torn = before;
      std::memcpy(&torn, &page, cut);
      const auto c = read_checkpoint(torn);
      ASSERT_TRUE(c);
      ASSERT_TRUE(c->published && c->durable);
      ASSERT_TRUE(c->published->begin == RingPosition{n * 4096} ||
                  c->published->begin == RingPosition{(n - 1) * 4096});
      ASSERT_EQ(raw(c->published->begin), c->published->floor_stream_sequence * 4096);
      ASSERT_EQ(raw(c->durable->end), c->durable->frame * 100);
    }
  }
  page.identity.shard = 4;
  EXPECT_FALSE(read_checkpoint(page));
}

TEST(Records, AreCheckedInEveryLength) {
  const std::string good = records(9, 3, 40);
  FrameHeader frame{};
  frame.first_sequence = 9;
  const auto check = [&](const std::string& payload) { return check_records(frame, bytes_of(payload)); };
  ASSERT_EQ(check(good), nullptr);
  for (std::size_t cut = 1; cut < good.size(); ++cut) {
    if (cut % 104 != 0) {
      ASSERT_NE(check(good.substr(0, cut)), nullptr) << cut;
    }
  }
  const auto with = [&](std::size_t offset, auto value) {
    std::string bad = good;
    std::memcpy(bad.data() + 104 + offset, &value, sizeof value);
    return bad;
  };
  EXPECT_NE(check(with(offsetof(shm::RecordHeader, size_bytes), 0U)), nullptr);
  EXPECT_NE(check(with(offsetof(shm::RecordHeader, size_bytes), 100U)), nullptr);
  EXPECT_NE(check(with(offsetof(shm::RecordHeader, size_bytes), 0xfffffff8U)), nullptr);
  EXPECT_NE(check(with(offsetof(shm::RecordHeader, kind), std::uint8_t{0})), nullptr);
  EXPECT_NE(check(with(offsetof(shm::RecordHeader, kind), std::uint8_t{77})), nullptr);
  EXPECT_NE(check(with(offsetof(shm::RecordHeader, payload_bytes), 41U)), nullptr);
  EXPECT_NE(check(with(offsetof(shm::RecordHeader, first_sequence), std::uint64_t{11})), nullptr);
  EXPECT_NE(check(with(offsetof(shm::RecordHeader, template_offset_bytes), 41U)), nullptr);
  EXPECT_NE(check(with(offsetof(shm::RecordHeader, template_bytes), 0xffffffffU)), nullptr);
}

}  // namespace
}  // namespace arancini::journal::test
