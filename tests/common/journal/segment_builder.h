#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "common/journal/checkpoint.h"
#include "common/journal/segment.h"

// Writes journal files byte by byte as publishd does, so that tests can damage them.
namespace arancini::journal::test {

inline WriterId test_writer() {
  WriterId id;
  for (std::size_t i = 0; i < id.bytes.size(); ++i) id.bytes[i] = static_cast<std::uint8_t>(i + 1);
  return id;
}

class TempDir {
 public:
  TempDir() {
    // In memory: a disk would be flushed for each of the thousands of rewritten files.
    std::string name = std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp";
    name += "/arancini-journal-format-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~TempDir() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// Whole records with contents that follow from `sequence`.
inline std::string records(std::uint64_t sequence, int count, std::size_t payload) {
  std::string out;
  for (int i = 0; i < count; ++i) {
    shm::RecordHeader h{};
    h.kind = static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch);
    h.format = shm::kRecordFormat;
    h.first_sequence = sequence + static_cast<std::uint64_t>(i);
    h.count = 1;
    h.payload_bytes = static_cast<std::uint32_t>(payload);
    h.size_bytes = static_cast<std::uint32_t>((sizeof h + payload + 7) / 8 * 8);
    std::string record(h.size_bytes, '\0');
    std::memcpy(record.data(), &h, sizeof h);
    std::minstd_rand random(static_cast<std::uint32_t>(h.first_sequence));
    for (std::size_t k = 0; k < payload; ++k) record[sizeof h + k] = static_cast<char>(random());
    out += record;
  }
  return out;
}

struct BuiltFrame {
  std::uint64_t number = 0;
  std::uint64_t offset = 0;
  std::uint64_t begin = 0;
  std::string payload;
};

// Segments of one writer, a frame of three records each.
class SegmentBuilder {
 public:
  std::string begin_segment(std::size_t capacity) {
    SegmentHeader h{};
    h.magic = kSegmentMagic;
    h.version = kVersion;
    h.layout_hash = kLayoutHash;
    h.segment_id = 0x1122334455667788 + frames.size();
    const WriterId writer = test_writer();
    std::copy(writer.bytes.begin(), writer.bytes.end(), std::begin(h.writer_id));
    h.writer_created_ns = 1'700'000'000'000'000'000;
    h.shard = 3;
    h.header_bytes = kSegmentHeaderBytes;
    h.begin = position;
    h.capacity_bytes = capacity;
    h.first_frame = next_frame;
    h.first_order = next_frame * 10;
    h.floor_stream_sequence = 5;
    h.floor_created_ns = 6;
    h.created_realtime_ns = 1'700'000'000'000'000'001;
    seal(h);
    id_ = h.segment_id;
    bytes.assign(capacity, '\0');
    std::memcpy(bytes.data(), &h, sizeof h);
    std::memcpy(bytes.data() + kSecondHeaderOffset, &h, sizeof h);
    offset_ = kSegmentHeaderBytes;
    return segment_name(RingPosition{position});
  }
  void add_frame(std::size_t record_payload = 40, std::uint64_t durable = 0) {
    const std::string payload = records(sequence, 3, record_payload);
    FrameHeader h{};
    h.magic = kFrameMagic;
    h.payload_bytes = static_cast<std::uint32_t>(payload.size());
    h.begin = position;
    h.first_sequence = sequence;
    h.order = next_frame * 10;
    h.frame = next_frame;
    h.segment_id = id_;
    h.durable_frame = durable;
    seal(h, std::as_bytes(std::span(payload)));
    frames.push_back({next_frame, offset_, position, payload});
    std::memcpy(bytes.data() + offset_, &h, sizeof h);
    std::memcpy(bytes.data() + offset_ + sizeof h, payload.data(), payload.size());
    offset_ += frame_file_bytes(payload.size());
    position += payload.size();
    sequence += 3;
    ++next_frame;
  }
  [[nodiscard]] std::uint64_t used() const { return offset_; }

  std::string bytes;  // of the present segment
  std::vector<BuiltFrame> frames;
  std::uint64_t position = 4096;
  std::uint64_t sequence = 1;
  std::uint64_t next_frame = 1;

 private:
  std::uint64_t id_ = 0;
  std::uint64_t offset_ = 0;
};

}  // namespace arancini::journal::test
