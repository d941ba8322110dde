#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/base/log.h"
#include "publishd/journal_store.h"
#include "publishd/wake.h"
#include "shm-layout/record.h"

// A journal in a directory of its own, and records whose contents follow from their sequence.
namespace arancini::publishd::test {

using namespace std::chrono_literals;

inline bool wait_for(const std::function<bool()>& condition, std::chrono::milliseconds limit = 20s) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(1ms);  // between two looks
  }
  return true;
}

class TempTree {
 public:
  explicit TempTree(const std::string& in = "/tmp") {
    std::string name = in + "/arancini-journal-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~TempTree() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  TempTree(const TempTree&) = delete;
  TempTree& operator=(const TempTree&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline WriterId writer_id(std::uint8_t n) {
  WriterId id;
  id.bytes.fill(n);
  return id;
}

// The n-th record of a ring (from 1): sizes and contents are a function of `n` alone.
struct TestRecord {
  explicit TestRecord(std::uint64_t n, RingPosition at, std::size_t most_bytes = 900) {
    std::minstd_rand random(static_cast<std::uint32_t>(n * 7919 + 13));
    const std::size_t payload = 8 + random() % most_bytes;
    bytes.resize(payload);
    for (auto& b : bytes) b = static_cast<std::byte>(random());
    record.header = {};
    record.header.size_bytes = static_cast<std::uint32_t>((sizeof(shm::RecordHeader) + payload + 7) / 8 * 8);
    record.header.kind = static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch);
    record.header.format = shm::kRecordFormat;
    record.header.first_sequence = 3 * n;  // three updates each
    record.header.count = 3;
    record.header.payload_bytes = static_cast<std::uint32_t>(payload);
    record.payload = bytes;
    record.begin = at;
    record.end = at + record.header.size_bytes;
  }
  [[nodiscard]] bool same(const RingRecord& other) const {
    return std::memcmp(&other.header, &record.header, sizeof record.header) == 0 &&
           other.begin == record.begin && other.end == record.end &&
           other.payload.size() == record.payload.size() &&
           std::memcmp(other.payload.data(), record.payload.data(), record.payload.size()) == 0;
  }
  std::vector<std::byte> bytes;
  RingRecord record;
};

// A ring of test records with padding now and then, appended in order and checked in order.
class Feed {
 public:
  explicit Feed(std::size_t most_bytes = 900) : most_bytes_(most_bytes) {}
  [[nodiscard]] TestRecord at(std::uint64_t n) {
    while (positions_.size() <= n) {
      const std::uint64_t k = positions_.size() - 1;
      const TestRecord last(k, positions_.back(), most_bytes_);
      positions_.push_back(last.record.end + (k % 50 == 49 ? 64 * (k % 7) : 0));
    }
    return TestRecord(n, positions_[n], most_bytes_);
  }
  // Appends records `next`.. up to `to` (not included) until there is no room; returns how many.
  std::uint64_t append(SpillStore& store, std::uint64_t to) {
    std::uint64_t n = 0;
    for (; next < to && store.append(at(next).record); ++next) ++n;
    return n;
  }
  void append_all(SpillStore& store, std::uint64_t to) {
    ASSERT_TRUE(wait_for([&] {
      append(store, to);
      return next == to;
    }));
    store.flush();
    ASSERT_TRUE(wait_for([&] { return store.end() == at(to - 1).record.end; }));
  }
  // Number of the first record that begins at `position` or behind it.
  std::uint64_t first_at(RingPosition position) {
    std::uint64_t n = 1;
    while (at(n).record.begin < position) ++n;
    return n;
  }
  std::uint64_t next = 1;

 private:
  std::size_t most_bytes_;
  std::vector<RingPosition> positions_{RingPosition{0}, RingPosition{1 << 20}};
};

class JournalHost {
 public:
  explicit JournalHost(JournalOptions options) : log_("journal-test", LogLevel::Error) {
    journal = std::make_unique<Journal>(std::move(options), wake, log_);
  }
  Wake wake;

 private:
  Logger log_;

 public:
  std::unique_ptr<Journal> journal;
};

// Reads one record, waiting for the read-ahead; Empty only at end().
inline RingReader::Status read_one(SpillStore& store, RingRecord& out) {
  RingReader::Status status = RingReader::Status::Empty;
  wait_for([&] {
    status = store.next(out);
    return status != RingReader::Status::Empty || store.cursor() >= store.end();
  });
  return status;
}

}  // namespace arancini::publishd::test
