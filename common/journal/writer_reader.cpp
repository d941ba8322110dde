#include "common/journal/writer_reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

namespace arancini::journal {

namespace {

constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

}  // namespace

WriterReader::WriterReader(Fd directory, std::string path)
    : directory_(std::move(directory)), path_(std::move(path)) {}

std::string WriterReader::refresh() {
  const int fd = ::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fmt::format("{}: {}", path_, std::strerror(errno));
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(fd), ::closedir);
  std::vector<Segment> found;
  errno = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    const auto begin = position_of_segment(entry->d_name);
    struct stat st {};
    if (!begin || ::fstatat(directory_.get(), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
    const auto known = std::find_if(segments_.begin(), segments_.end(), [&](const Segment& s) {
      return s.begin == *begin && s.inode == st.st_ino && s.header;
    });
    Segment s;
    if (known != segments_.end()) {
      s = *known;
    } else {
      s.name = entry->d_name;
      s.begin = *begin;
      s.inode = st.st_ino;
      auto file = SegmentFile::open(directory_.get(), s.name);
      if (file) {
        s.header = file->header();
      } else if (file.error().damaged) {
        s.fault = file.error().text;
      } else {
        continue;  // gone again
      }
    }
    s.size_bytes = static_cast<std::uint64_t>(st.st_size);
    found.push_back(std::move(s));
  }
  std::sort(found.begin(), found.end(), [](const Segment& a, const Segment& b) { return a.begin < b.begin; });
  segments_ = std::move(found);
  return {};
}

const WriterReader::Segment* WriterReader::first_after(RingPosition begin, bool inclusive) const {
  for (const Segment& s : segments_) {
    if (s.header && (s.begin > begin || (inclusive && s.begin == begin))) return &s;
  }
  return nullptr;
}

const WriterReader::Segment* WriterReader::successor() const {
  return first_after(RingPosition{file_->header().begin}, false);
}

bool WriterReader::open(const Segment& segment) {
  auto file = SegmentFile::open(directory_.get(), segment.name);
  if (!file || file->header().first_frame != segment.header->first_frame) return false;
  file_ = std::move(file).value();
  file_name_ = segment.name;
  inode_ = segment.inode;
  offset_ = kSegmentHeaderBytes;
  at_frame_ = file_->header().first_frame;
  expected_ = std::max(expected_, at_frame_);
  scanned_ = 0;
  return true;
}

void WriterReader::seek(RingPosition at) {
  file_.reset();
  wanted_ = at;
  expected_ = 0;
  last_seen_ = {};
  refresh();
  const Segment* start = first_after(RingPosition{0}, true);
  for (const Segment& s : segments_) {
    if (s.header && s.begin <= at) start = &s;
  }
  if (start != nullptr) (void)open(*start);
}

WriterReader::Status WriterReader::next(const Limits& limits, bool thorough, Buffer& buffer, Frame& out) {
  using FileStatus = SegmentFile::Status;
  bool listed = false;
  for (;;) {
    if (!file_) {
      if (!listed) {
        refresh();
        listed = true;
      }
      const Segment* first = first_after(RingPosition{0}, true);
      if (first != nullptr && open(*first)) continue;
      if (first != nullptr || limits.acknowledged < std::max<std::uint64_t>(expected_, 1) ||
          std::max(limits.begin, wanted_) >= limits.acknowledged_end) {
        return Status::End;
      }
      damage_ = {"",
                 0,
                 fmt::format("{}: the segments are not there", path_),
                 std::max<std::uint64_t>(expected_, 1),
                 limits.acknowledged,
                 limits.acknowledged_end};
      expected_ = limits.acknowledged + 1;
      return Status::Damaged;
    }
    if (at_frame_ > limits.last_frame) return Status::End;
    const Segment* after = successor();
    const std::uint64_t limit = after == nullptr ? kNoLimit : after->header->first_frame;
    if (at_frame_ >= limit) {
      if (!open(*after)) {
        if (listed) return Status::End;  // being replaced or removed
        refresh();
        listed = true;
      }
      continue;
    }
    FrameHeader h;
    FileStatus status = file_->read_header(offset_, h);
    const char* fault = status == FileStatus::Nothing ? "no frame" : file_->fault();
    if (status == FileStatus::Frame && h.frame != at_frame_) {
      status = FileStatus::Damaged;
      fault = "frame with another number";
    }
    if (status == FileStatus::Frame) {
      const std::uint64_t next_offset = offset_ + frame_file_bytes(h.payload_bytes);
      const bool skipped = at_frame_ < expected_ || RingPosition{h.begin + h.payload_bytes} <= wanted_;
      if (skipped || file_->read_payload(offset_, h, buffer, out) == FileStatus::Frame) {
        last_seen_ = h;
        offset_ = next_offset;
        ++at_frame_;
        expected_ = std::max(expected_, at_frame_);
        if (skipped) continue;
        return Status::Frame;
      }
      status = FileStatus::Damaged;
      fault = file_->fault();
    }
    // Not there. A successor may have come meanwhile, or the frame was just being written.
    if (!listed) {
      refresh();
      listed = true;
      // A segment in which nothing was acknowledged may have been replaced by another one of its name.
      const auto same = std::find_if(segments_.begin(), segments_.end(),
                                     [&](const Segment& s) { return s.name == file_name_; });
      if (same != segments_.end() && same->header && same->inode != inode_) (void)open(*same);
      continue;
    }
    const bool must = limit != kNoLimit || (limits.acknowledged >= at_frame_ &&
                                            std::max(limits.begin, wanted_) < limits.acknowledged_end);
    if (!must && !thorough && (status == FileStatus::Nothing || scanned_ == offset_)) return Status::End;
    const std::uint64_t bad_offset = offset_;
    const auto found = file_->find_frame(offset_, at_frame_, limit, buffer, out);
    scanned_ = offset_;
    // A frame that says that an earlier one was durable makes this one's absence a loss.
    if (!must && !(found && out.header.durable_frame >= at_frame_)) return Status::End;
    damage_ = {file_name_,
               bad_offset,
               fmt::format("{}/{} at byte {}: {}", path_, file_name_, bad_offset, fault),
               std::max(at_frame_, expected_),
               0,
               {}};
    bool discarded = false;
    if (found) {
      offset_ = *found;
      at_frame_ = out.header.frame;
      damage_.resume = out.begin();
    } else if (after != nullptr) {
      at_frame_ = limit;
      damage_.resume = after->begin;
      discarded = after->begin <= limits.begin;
      // A whole segment whose header is damaged lies between.
      for (const Segment& s : segments_) {
        if (!s.header && RingPosition{file_->header().begin} < s.begin && s.begin < after->begin)
          damage_.text += "; " + path_ + "/" + s.fault;
      }
    } else {
      at_frame_ = limits.acknowledged + 1;
      damage_.resume = limits.acknowledged_end;
    }
    damage_.last_frame = at_frame_ - 1;
    expected_ = std::max(expected_, at_frame_);
    if (damage_.resume <= wanted_ || damage_.first_frame > damage_.last_frame) continue;
    return discarded ? Status::Discarded : Status::Damaged;
  }
}

}  // namespace arancini::journal
