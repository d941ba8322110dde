#include "common/journal/segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "common/journal/crc32c.h"

namespace arancini::journal {

namespace {

constexpr std::size_t kNameDigits = 20;
constexpr std::string_view kSuffix = ".seg";
constexpr int kReadTries = 3;  // before a read error counts as damage

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

std::string segment_name(RingPosition begin) {
  return fmt::format("{:020}{}", raw(begin), kSuffix);
}

std::optional<RingPosition> position_of_segment(std::string_view name) {
  if (name.size() != kNameDigits + kSuffix.size() || !name.ends_with(kSuffix)) return std::nullopt;
  std::uint64_t v = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + kNameDigits, v);
  if (error != std::errc() || end != name.data() + kNameDigits) return std::nullopt;
  return RingPosition{v};
}

void seal(SegmentHeader& header) {
  header.crc = crc_of_struct(header, &SegmentHeader::crc);
}

const char* check(const SegmentHeader& h) {
  if (h.magic != kSegmentMagic) return "is not a journal segment (magic differs)";
  if (h.version != kVersion) return "has another format version";
  if (h.layout_hash != kLayoutHash) return "has another layout hash";
  if (h.crc != crc_of_struct(h, &SegmentHeader::crc)) return "has a damaged header";
  if (h.header_bytes != kSegmentHeaderBytes || h.begin % shm::kRecordAlignBytes != 0 || h.first_frame == 0 ||
      h.capacity_bytes < kSegmentHeaderBytes) {
    return "has an impossible header";
  }
  return nullptr;
}

void seal(FrameHeader& header, std::span<const std::byte> payload) {
  header.payload_crc = crc32c(payload);
  header.header_crc = crc_of_struct(header, &FrameHeader::header_crc);
}

const char* check_records(const FrameHeader& frame, std::span<const std::byte> payload) {
  std::uint64_t sequence = frame.first_sequence;
  for (std::size_t at = 0; at < payload.size();) {
    shm::RecordHeader h;
    if (payload.size() - at < sizeof h) return "record header cut off";
    std::memcpy(&h, payload.data() + at, sizeof h);
    if (h.kind != static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch) &&
        h.kind != static_cast<std::uint8_t>(shm::RecordKind::Barrier) &&
        h.kind != static_cast<std::uint8_t>(shm::RecordKind::Event)) {
      return "record of an unknown kind";
    }
    if (h.size_bytes < sizeof h || h.size_bytes > payload.size() - at ||
        h.size_bytes > shm::kRecordMaxBytes || h.size_bytes % shm::kRecordAlignBytes != 0) {
      return "record with an impossible size";
    }
    if (h.payload_bytes > h.size_bytes - sizeof h) return "payload larger than its record";
    if (h.template_offset_bytes > h.payload_bytes ||
        h.template_bytes > h.payload_bytes - h.template_offset_bytes) {
      return "template outside of its payload";
    }
    if (h.first_sequence == 0 || h.first_sequence != sequence || sequence + h.count < sequence)
      return "record that does not continue the sequence";
    sequence += h.count;
    at += h.size_bytes;
  }
  return nullptr;
}

ssize_t read_at(int fd, std::span<std::byte> out, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return static_cast<ssize_t>(done);
}

namespace {

ssize_t read_stubbornly(int fd, std::span<std::byte> out, std::uint64_t offset) {
  ssize_t n = -1;
  for (int i = 0; i < kReadTries && n < 0; ++i) n = read_at(fd, out, offset);
  return n;
}

}  // namespace

Result<SegmentFile, SegmentFile::Error> SegmentFile::open(int directory, const std::string& name) {
  const auto failed = [&](bool damaged, const std::string& why) {
    return Err{Error{damaged, name + ": " + why}};
  };
  Fd fd(::openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) return failed(false, std::strerror(errno));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return failed(false, std::strerror(errno));
  if (!S_ISREG(st.st_mode)) return failed(true, "is not a regular file");
  std::string why;
  for (const std::size_t offset : {std::size_t{0}, kSecondHeaderOffset}) {
    SegmentHeader h{};
    const ssize_t n = read_stubbornly(fd.get(), std::as_writable_bytes(std::span(&h, 1)), offset);
    const char* wrong = nullptr;
    if (n < 0) {
      wrong = "cannot be read";
    } else if (n < static_cast<ssize_t>(sizeof h)) {
      wrong = "is too short for a segment";
    } else if (wrong = check(h); wrong == nullptr && RingPosition{h.begin} != position_of_segment(name)) {
      wrong = "has another position than its name";
    }
    if (wrong == nullptr) return SegmentFile(std::move(fd), h);
    if (why.empty()) why = wrong;
  }
  return failed(true, why);
}

const char* SegmentFile::check_frame(const FrameHeader& h) const {
  if (h.magic != kFrameMagic) return "no frame (magic differs)";
  if (h.header_crc != crc_of_struct(h, &FrameHeader::header_crc)) return "frame header's checksum differs";
  if (h.segment_id != header_.segment_id) return "frame of another segment";
  if (h.payload_bytes == 0 || h.payload_bytes > kFrameMaxPayloadBytes ||
      h.payload_bytes % shm::kRecordAlignBytes != 0 || h.begin % shm::kRecordAlignBytes != 0 ||
      h.begin + h.payload_bytes < h.begin || h.begin < header_.begin || h.frame < header_.first_frame ||
      h.first_sequence == 0) {
    return "frame header with impossible values";
  }
  return nullptr;
}

SegmentFile::Status SegmentFile::read_header(std::uint64_t offset, FrameHeader& out) {
  out = {};
  const auto bytes = std::as_writable_bytes(std::span(&out, 1));
  const ssize_t n = read_stubbornly(fd_.get(), bytes, offset);
  if (n < 0) {
    fault_ = "read error";
    return Status::Damaged;
  }
  if (all_zero(bytes)) return Status::Nothing;
  fault_ = n < static_cast<ssize_t>(sizeof out) ? "frame header cut off" : check_frame(out);
  return fault_ == nullptr ? Status::Frame : Status::Damaged;
}

SegmentFile::Status SegmentFile::read_payload(std::uint64_t offset, const FrameHeader& header, Buffer& buffer,
                                              Frame& out) {
  const std::span<std::byte> bytes = buffer.get(header.payload_bytes);
  const ssize_t n = read_stubbornly(fd_.get(), bytes, offset + sizeof header);
  fault_ = n < 0                                    ? "read error"
           : n < static_cast<ssize_t>(bytes.size()) ? "frame cut off"
           : crc32c(bytes) != header.payload_crc    ? "frame's checksum differs"
                                                    : check_records(header, bytes);
  if (fault_ != nullptr) return Status::Damaged;
  out = {header, bytes, offset};
  return Status::Frame;
}

std::optional<std::uint64_t> SegmentFile::find_frame(std::uint64_t offset, std::uint64_t after,
                                                     std::uint64_t before, Buffer& buffer, Frame& out) {
  std::array<std::byte, 1 << 16> window;
  for (std::uint64_t at = offset + kFrameAlignBytes;;) {
    const ssize_t n = read_at(fd_.get(), window, at);
    if (n < static_cast<ssize_t>(sizeof(FrameHeader))) {
      if (n >= 0) return std::nullopt;
      // Unreadable: on, sector by sector, as far as the file goes.
      struct stat st {};
      if (::fstat(fd_.get(), &st) != 0 || at >= static_cast<std::uint64_t>(st.st_size)) return std::nullopt;
      at += 512;
      continue;
    }
    const std::size_t whole = static_cast<std::size_t>(n) / kFrameAlignBytes * kFrameAlignBytes;
    for (std::size_t i = 0; i < whole; i += kFrameAlignBytes) {
      std::uint32_t magic = 0;
      std::memcpy(&magic, window.data() + i, sizeof magic);
      if (magic != kFrameMagic) continue;
      FrameHeader h{};
      if (read_header(at + i, h) != Status::Frame || h.frame <= after || h.frame >= before) continue;
      if (read_payload(at + i, h, buffer, out) == Status::Frame) return at + i;
    }
    at += whole;
  }
}

}  // namespace arancini::journal
