#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/base/fd.h"
#include "common/base/result.h"
#include "common/base/types.h"
#include "common/journal/format.h"

namespace arancini::journal {

// "<20 digits>.seg": by name is by position.
std::string segment_name(RingPosition begin);
std::optional<RingPosition> position_of_segment(std::string_view name);

// A complete header with its CRC, and what may be accepted as one. Null: fine, else what is wrong.
void seal(SegmentHeader& header);
const char* check(const SegmentHeader& header);
// Sets both CRCs; magic and sizes are the caller's.
void seal(FrameHeader& header, std::span<const std::byte> payload);
// That the payload is whole ring records, dense in sequence, all lengths in bounds. Null: fine.
const char* check_records(const FrameHeader& header, std::span<const std::byte> payload);

// Grows, never shrinks; contents are not kept.
class Buffer {
 public:
  std::span<std::byte> get(std::size_t bytes) {
    if (bytes > capacity_) {
      bytes_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
      capacity_ = bytes;
    }
    return {bytes_.get(), bytes};
  }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t capacity_ = 0;
};

struct Frame {
  FrameHeader header{};
  std::span<const std::byte> payload;  // in the buffer it was read into
  std::uint64_t offset = 0;            // in the file
  [[nodiscard]] RingPosition begin() const { return RingPosition{header.begin}; }
  [[nodiscard]] RingPosition end() const { return RingPosition{header.begin + header.payload_bytes}; }
};

// A segment for reading; also one that is being written by another process. Contents are untrusted.
class SegmentFile {
 public:
  struct Error {
    bool damaged = false;  // the file can be read, but is no segment of this version
    std::string text;
  };
  static Result<SegmentFile, Error> open(int directory, const std::string& name);

  [[nodiscard]] const SegmentHeader& header() const { return header_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

  enum class Status : std::uint8_t {
    Frame,
    Nothing,  // zeros, or the end of the file
    Damaged,  // fault() says what
  };
  // The frame header at `offset`: intact, of this segment, and its payload lies within the file.
  [[nodiscard]] Status read_header(std::uint64_t offset, FrameHeader& out);
  // The payload of a frame whose header was read.
  [[nodiscard]] Status read_payload(std::uint64_t offset, const FrameHeader& header, Buffer& buffer,
                                    Frame& out);
  // The first intact frame behind `offset` with a number in (after, before).
  [[nodiscard]] std::optional<std::uint64_t> find_frame(std::uint64_t offset, std::uint64_t after,
                                                        std::uint64_t before, Buffer& buffer, Frame& out);
  [[nodiscard]] const char* fault() const { return fault_; }

 private:
  SegmentFile(Fd fd, const SegmentHeader& header) : fd_(std::move(fd)), header_(header) {}
  [[nodiscard]] const char* check_frame(const FrameHeader& header) const;

  Fd fd_;
  SegmentHeader header_;
  const char* fault_ = "";
};

// The bytes that are there, fewer only at the end of the file; -1 with errno.
ssize_t read_at(int fd, std::span<std::byte> out, std::uint64_t offset);

}  // namespace arancini::journal
