#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/fd.h"
#include "common/base/types.h"
#include "common/journal/segment.h"

namespace arancini::journal {

// The frames of one writer in order, across its segments, also while they are being written and removed.
// Frame numbers are dense: what does not follow is either the end, or damage that is told.
class WriterReader {
 public:
  // `path` is the directory's, for texts.
  WriterReader(Fd directory, std::string path);

  // What the checkpoint says. Frames up to `acknowledged` must be there, unless they lie before `begin`.
  struct Limits {
    RingPosition begin{};
    std::uint64_t acknowledged = 0;
    RingPosition acknowledged_end{};
    std::uint64_t last_frame = UINT64_MAX;  // what comes behind is not looked at
  };

  // The next frame is the first with records at or behind `at`.
  void seek(RingPosition at);

  enum class Status : std::uint8_t {
    Frame,
    End,        // for now
    Damaged,    // frames are lost, see damage(); the next call goes on behind them
    Discarded,  // the same, but they lay before Limits::begin: retention was faster than the reader
  };
  // `thorough`: looks for frames behind what could be the end. For recovery; a reader beside a writer needs
  // it only where something is wrong.
  [[nodiscard]] Status next(const Limits& limits, bool thorough, Buffer& buffer, Frame& out);

  struct Damage {
    std::string file;  // name in the directory; empty when a whole segment is missing
    std::uint64_t offset = 0;
    std::string text;  // where and what, for the operator
    std::uint64_t first_frame = 0;
    std::uint64_t last_frame = 0;
    RingPosition resume{};  // where what follows begins
  };
  [[nodiscard]] const Damage& damage() const { return damage_; }

  struct Segment {
    std::string name;
    RingPosition begin{};
    std::uint64_t inode = 0;
    std::uint64_t size_bytes = 0;
    std::optional<SegmentHeader> header;  // not there: damaged
    std::string fault;
  };
  // Lists the directory anew; by position. Empty text: fine.
  std::string refresh();
  [[nodiscard]] const std::vector<Segment>& segments() const { return segments_; }
  // Where the next frame is expected: file and offset. Null: no segment yet.
  [[nodiscard]] const SegmentFile* file() const { return file_ ? &*file_ : nullptr; }
  [[nodiscard]] const std::string& file_name() const { return file_name_; }
  [[nodiscard]] std::uint64_t offset() const { return offset_; }
  // The header of the last frame that was found intact or skipped, since seek().
  [[nodiscard]] const FrameHeader& last_seen() const { return last_seen_; }
  [[nodiscard]] int directory() const { return directory_.get(); }

 private:
  [[nodiscard]] const Segment* successor() const;  // of the open file
  [[nodiscard]] const Segment* first_after(RingPosition begin, bool inclusive) const;
  bool open(const Segment& segment);

  Fd directory_;
  std::string path_;
  std::vector<Segment> segments_;
  std::optional<SegmentFile> file_;
  std::string file_name_;
  std::uint64_t inode_ = 0;
  std::uint64_t offset_ = 0;    // in file_
  std::uint64_t at_frame_ = 0;  // the number of the frame there
  std::uint64_t expected_ = 0;  // the next that the caller has not seen; 0: any
  RingPosition wanted_{};       // of seek()
  FrameHeader last_seen_{};
  std::uint64_t scanned_ = 0;  // offset in file_ behind which nothing was found
  Damage damage_;
};

}  // namespace arancini::journal
