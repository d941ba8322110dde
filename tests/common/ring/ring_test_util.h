#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "common/ring/ring_file.h"
#include "common/ring/ring_reader.h"
#include "common/ring/ring_writer.h"

namespace arancini::test {

// A directory of the test's own on tmpfs where there is one; removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string name = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
    name += "/arancini-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TempDir() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline RingFile::CreateOptions small_ring(std::uint64_t capacity = shm::kRingMinCapacityBytes) {
  RingFile::CreateOptions options;
  options.capacity_bytes = capacity;
  options.hugepages = HugepageMode::Never;
  options.created_realtime_ns = 1;
  return options;
}

inline RingFile create(const std::string& path, const RingFile::CreateOptions& options = small_ring()) {
  auto file = RingFile::create_or_attach(path, options);
  if (!file) ADD_FAILURE() << file.error().text;
  return std::move(file).value();
}

inline RingFile attach(const std::string& path, RingSide side) {
  auto file = RingFile::attach(path, side);
  if (!file) ADD_FAILURE() << file.error().text;
  return std::move(file).value();
}

// Payload bytes that tell which record they belong to.
inline std::byte payload_byte(std::uint64_t sequence, std::size_t i) {
  return static_cast<std::byte>((sequence * 0x9e3779b97f4a7c15ULL >> 32) + i * 7);
}

// Appends a record of `count` updates; false when the ring has no room. Not published.
inline bool append(RingWriter& writer, std::uint32_t payload_bytes, std::uint32_t count = 1) {
  const auto size = static_cast<std::uint32_t>((sizeof(shm::RecordHeader) + payload_bytes + 7) / 8 * 8);
  const std::span<std::byte> at = writer.claim(size);
  if (at.empty()) return false;
  shm::RecordHeader h{};
  h.size_bytes = size;
  h.kind = static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch);
  h.format = shm::kRecordFormat;
  h.first_sequence = raw(writer.next_sequence());
  h.count = count;
  h.payload_bytes = payload_bytes;
  for (std::size_t i = 0; i < payload_bytes; ++i) at[sizeof h + i] = payload_byte(h.first_sequence, i);
  writer.append(h);
  return true;
}

// Appends an event record; false when the ring has no room. Not published.
inline bool append_event(RingWriter& writer) {
  const std::span<std::byte> at = writer.claim(sizeof(shm::RecordHeader) + 8);
  if (at.empty()) return false;
  shm::RecordHeader h{};
  h.size_bytes = sizeof h + 8;
  h.kind = static_cast<std::uint8_t>(shm::RecordKind::Event);
  h.format = shm::kRecordFormat;
  h.first_sequence = raw(writer.next_sequence());
  h.payload_bytes = 8;
  h.event_sequence = writer.next_event_sequence();
  for (std::size_t i = 0; i < 8; ++i) at[sizeof h + i] = payload_byte(h.first_sequence, i);
  writer.append(h);
  return true;
}

inline bool payload_intact(const RingRecord& record) {
  for (std::size_t i = 0; i < record.payload.size(); ++i) {
    if (record.payload[i] != payload_byte(record.header.first_sequence, i)) return false;
  }
  return true;
}

}  // namespace arancini::test
