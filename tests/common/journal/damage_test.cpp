#include <fcntl.h>

#include <functional>

#include "common/journal/writer_reader.h"
#include "tests/common/journal/segment_builder.h"

// One writer's segments, damaged at every place: what is read is what was written, and what is missing is
// told.
namespace arancini::journal::test {
namespace {

struct Read {
  std::vector<std::uint64_t> frames;
  std::vector<WriterReader::Damage> damage;
};

class Damage : public testing::Test {
 protected:
  // Two segments of six frames.
  void SetUp() override {
    for (int s = 0; s < 2; ++s) {
      names_.push_back(builder_.begin_segment(kSegmentHeaderBytes + 8 * 512));
      for (int i = 0; i < 6; ++i) {
        builder_.add_frame(30 + static_cast<std::size_t>(i), builder_.next_frame - 1);
        builder_.position += i % 3 == 2 ? 64 : 0;  // padding of the ring
      }
      files_.push_back(builder_.bytes);
      used_.push_back(builder_.used());
      write_file(path(s), builder_.bytes);
    }
    limits_ = {RingPosition{0}, 12,
               RingPosition{builder_.frames.back().begin + builder_.frames.back().payload.size()}};
  }
  [[nodiscard]] std::string path(int segment) const {
    return dir_.path() + "/" + names_[static_cast<std::size_t>(segment)];
  }

  // Every byte of headers and frames, and some of what is empty.
  [[nodiscard]] std::vector<std::size_t> places(int segment) const {
    std::vector<std::size_t> out;
    const auto s = static_cast<std::size_t>(segment);
    for (std::size_t at = 0; at < files_[s].size(); ++at) {
      const bool used = at < sizeof(SegmentHeader) || (at >= kSegmentHeaderBytes && at < used_[s]);
      if (used || at % 61 == 0) out.push_back(at);
    }
    return out;
  }

  Read read(const WriterReader::Limits& limits, bool thorough = false) {
    WriterReader reader(Fd(::open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY)), dir_.path());
    reader.seek(RingPosition{0});
    Read out;
    Buffer buffer;
    Frame frame;
    for (;;) {
      switch (reader.next(limits, thorough, buffer, frame)) {
        case WriterReader::Status::End: return out;
        case WriterReader::Status::Frame: {
          const BuiltFrame& built = builder_.frames.at(frame.header.frame - 1);
          EXPECT_TRUE(frame.header.begin == built.begin && frame.payload.size() == built.payload.size() &&
                      std::memcmp(frame.payload.data(), built.payload.data(), built.payload.size()) == 0)
              << "frame " << frame.header.frame << " is not what was written";
          out.frames.push_back(frame.header.frame);
          break;
        }
        case WriterReader::Status::Damaged:
        case WriterReader::Status::Discarded: out.damage.push_back(reader.damage()); break;
      }
      if (out.frames.size() + out.damage.size() > 100) {
        ADD_FAILURE() << "does not end";
        return out;
      }
    }
  }
  // Every frame is either read or in a damage, in order, up to `last`.
  static bool complete(const Read& r, std::uint64_t last) {
    std::vector<std::uint64_t> seen = r.frames;
    for (const auto& d : r.damage)
      for (std::uint64_t n = d.first_frame; n <= d.last_frame; ++n) seen.push_back(n);
    std::sort(seen.begin(), seen.end());
    if (seen.size() != last) return false;
    for (std::uint64_t n = 1; n <= last; ++n)
      if (seen[n - 1] != n) return false;
    return std::is_sorted(r.frames.begin(), r.frames.end());
  }

  TempDir dir_;
  SegmentBuilder builder_;
  std::vector<std::string> names_;
  std::vector<std::string> files_;
  std::vector<std::uint64_t> used_;
  WriterReader::Limits limits_;
};

TEST_F(Damage, NoneIsSeenWhereThereIsNone) {
  for (const bool thorough : {false, true}) {
    const Read r = read(limits_, thorough);
    EXPECT_EQ(r.frames.size(), 12U);
    EXPECT_TRUE(r.damage.empty());
    EXPECT_EQ(read({}, thorough).frames.size(), 12U);
  }
}

TEST_F(Damage, AFlippedBitCostsItsFrameAtMostAndIsTold) {
  for (int s = 0; s < 2; ++s) {
    const std::string& good = files_[static_cast<std::size_t>(s)];
    for (const std::size_t at : places(s)) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
      write_file(path(s), bad);
      const Read r = read(limits_);
      ASSERT_TRUE(complete(r, 12)) << "byte " << at << " of segment " << s;
      // A header has a twin; bytes behind the last frame and the padding of frames are nobody's.
      ASSERT_LE(r.damage.size(), 1U) << at;
      const bool in_frame = std::any_of(
          builder_.frames.begin() + s * 6, builder_.frames.begin() + s * 6 + 6, [&](const BuiltFrame& f) {
            return at >= f.offset && at < f.offset + sizeof(FrameHeader) + f.payload.size();
          });
      ASSERT_EQ(r.damage.size(), in_frame ? 1U : 0U) << at;
      if (!in_frame) continue;
      ASSERT_EQ(r.damage[0].first_frame, r.damage[0].last_frame) << at;
      const BuiltFrame& hit = builder_.frames[r.damage[0].first_frame - 1];
      ASSERT_TRUE(at >= hit.offset && at < hit.offset + sizeof(FrameHeader) + hit.payload.size()) << at;
      ASSERT_EQ(r.damage[0].file, names_[static_cast<std::size_t>(s)]);
      ASSERT_EQ(r.damage[0].offset, hit.offset);
      ASSERT_NE(r.damage[0].text.find(path(s)), std::string::npos);
    }
    write_file(path(s), good);
  }
}

TEST_F(Damage, ACutFileLeavesAnExactPrefix) {
  const std::string& good = files_[1];
  for (const std::size_t at : places(1)) {
    write_file(path(1), good.substr(0, at));
    // Acknowledged: what is missing is told.
    ASSERT_TRUE(complete(read(limits_), 12)) << at;
    // Never acknowledged: what is there counts, and no more was ever promised.
    for (const bool thorough : {false, true}) {
      const Read r = read({}, thorough);
      ASSERT_TRUE(r.damage.empty()) << at;
      ASSERT_TRUE(complete(r, r.frames.size())) << at;
      for (const BuiltFrame& f : builder_.frames) {
        const bool whole = f.number <= 6 || (at >= kSegmentHeaderBytes &&
                                             f.offset + sizeof(FrameHeader) + f.payload.size() <= at);
        ASSERT_EQ(whole, f.number <= r.frames.size()) << at << " frame " << f.number;
      }
    }
  }
}

TEST_F(Damage, ATornTailIsCutOffOnlyWhereNothingBehindItSaysThatItWasDurable) {
  // Frame 11 is garbage, frame 12 is whole and says that 11 was durable.
  std::string bad = files_[1];
  bad[builder_.frames[10].offset + 70] = static_cast<char>(bad[builder_.frames[10].offset + 70] ^ 1);
  write_file(path(1), bad);
  Read r = read({}, true);
  ASSERT_EQ(r.damage.size(), 1U);
  EXPECT_EQ(r.damage[0].first_frame, 11U);
  EXPECT_EQ(r.frames.back(), 12U);
  // Zeros there look like an end: only the thorough look of recovery goes behind them.
  std::fill_n(bad.begin() + static_cast<std::ptrdiff_t>(builder_.frames[10].offset), 200, '\0');
  write_file(path(1), bad);
  r = read({}, true);
  ASSERT_EQ(r.damage.size(), 1U);
  EXPECT_EQ(r.frames.back(), 12U);
  EXPECT_EQ(read({}, false).frames.back(), 10U);
}

TEST_F(Damage, FramesOfOneBatchThatReachedTheDiskInAnotherOrderAreNoDamage) {
  SegmentBuilder b;
  const std::string name = b.begin_segment(8192);
  for (int i = 0; i < 4; ++i) b.add_frame(30, 0);  // none knows of another
  const TempDir dir;
  std::string bytes = b.bytes;
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(b.frames[2].offset), 64, '\0');
  write_file(dir.path() + "/" + name, bytes);
  WriterReader reader(Fd(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY)), dir.path());
  reader.seek(RingPosition{0});
  Buffer buffer;
  Frame frame;
  for (std::uint64_t n = 1; n <= 2; ++n) {
    ASSERT_EQ(reader.next({}, true, buffer, frame), WriterReader::Status::Frame);
    EXPECT_EQ(frame.header.frame, n);
  }
  EXPECT_EQ(reader.next({}, true, buffer, frame), WriterReader::Status::End);
}

TEST_F(Damage, ALostSegmentIsTold) {
  std::filesystem::remove(path(0));
  // What was there first nobody knows; a reader of the whole looks at first_frame.
  EXPECT_EQ(read(limits_).frames.front(), 7U);
  write_file(path(0), files_[0]);
  std::filesystem::remove(path(1));
  const Read r = read(limits_);
  EXPECT_TRUE(complete(r, 12));
  ASSERT_EQ(r.damage.size(), 1U);
  EXPECT_EQ(r.damage[0].first_frame, 7U);
  EXPECT_EQ(r.damage[0].resume, limits_.acknowledged_end);
  std::filesystem::remove(path(0));
  EXPECT_EQ(read(limits_).damage.size(), 1U);
}

TEST_F(Damage, WhatWasPublishedNeedsNotBeThere) {
  std::filesystem::remove(path(1));
  WriterReader::Limits limits = limits_;
  limits.begin = limits.acknowledged_end;
  EXPECT_TRUE(read(limits).damage.empty());
}

TEST_F(Damage, BytesOfAnotherSegmentAreNeverTaken) {
  // A frame of the first segment, whole and with the right number, copied into the second.
  SegmentBuilder other = builder_;
  std::string bad = files_[1];
  const BuiltFrame& f = builder_.frames[6];
  const BuiltFrame& stale = builder_.frames[0];
  std::memcpy(bad.data() + f.offset, files_[0].data() + stale.offset,
              sizeof(FrameHeader) + stale.payload.size());
  write_file(path(1), bad);
  const Read r = read(limits_);
  EXPECT_TRUE(complete(r, 12));
  ASSERT_EQ(r.damage.size(), 1U);
  EXPECT_EQ(r.damage[0].first_frame, 7U);
}

TEST_F(Damage, ALaterSegmentWinsOverFramesThatWereWrittenTwice) {
  // After a failed fdatasync frames 5 and 6 were written again, into a new segment.
  SegmentBuilder b;
  const std::string first = b.begin_segment(8192);
  for (int i = 0; i < 4; ++i) b.add_frame(30);
  const SegmentBuilder at_failure = b;
  for (int i = 0; i < 2; ++i) b.add_frame(30);
  const std::string before = b.bytes;
  b = at_failure;
  const std::string second = b.begin_segment(8192);
  for (int i = 0; i < 3; ++i) b.add_frame(50);
  const TempDir dir;
  write_file(dir.path() + "/" + first, before);
  write_file(dir.path() + "/" + second, b.bytes);
  WriterReader reader(Fd(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY)), dir.path());
  reader.seek(RingPosition{0});
  Buffer buffer;
  Frame frame;
  for (const BuiltFrame& f : b.frames) {
    ASSERT_EQ(reader.next({}, false, buffer, frame), WriterReader::Status::Frame);
    ASSERT_EQ(frame.header.frame, f.number);
    ASSERT_EQ(frame.payload.size(), f.payload.size());
  }
  EXPECT_EQ(reader.next({}, true, buffer, frame), WriterReader::Status::End);
}

TEST_F(Damage, AReaderBesideAWriterFollowsASegmentThatIsReplaced) {
  SegmentBuilder b;
  const TempDir dir;
  const std::string name = b.begin_segment(8192);
  write_file(dir.path() + "/" + name, b.bytes);  // nothing in it
  WriterReader reader(Fd(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY)), dir.path());
  reader.seek(RingPosition{0});
  Buffer buffer;
  Frame frame;
  ASSERT_EQ(reader.next({}, false, buffer, frame), WriterReader::Status::End);
  // Its first write failed; another file takes its place.
  b.begin_segment(8192);
  b.add_frame();
  write_file(dir.path() + "/new", b.bytes);
  std::filesystem::rename(dir.path() + "/new", dir.path() + "/" + name);
  const WriterReader::Limits limits{RingPosition{0}, 1, RingPosition{b.position}};
  ASSERT_EQ(reader.next(limits, false, buffer, frame), WriterReader::Status::Frame);
  EXPECT_EQ(frame.header.frame, 1U);
  EXPECT_EQ(reader.next(limits, false, buffer, frame), WriterReader::Status::End);
}

TEST_F(Damage, SeekFindsThePlaceInAnySegment) {
  for (const BuiltFrame& f : builder_.frames) {
    for (const std::uint64_t inside : {std::uint64_t{0}, std::uint64_t{8}}) {
      WriterReader reader(Fd(::open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY)), dir_.path());
      reader.seek(RingPosition{f.begin + inside});
      Buffer buffer;
      Frame frame;
      ASSERT_EQ(reader.next(limits_, false, buffer, frame), WriterReader::Status::Frame);
      ASSERT_EQ(frame.header.frame, f.number);
    }
  }
}

}  // namespace
}  // namespace arancini::journal::test
