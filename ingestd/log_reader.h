#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/base/types.h"

// The log that consumers read, as publishd serves it (common/proto/log.proto), without gRPC.
namespace arancini::ingestd {

struct LogRequest {
  std::uint32_t shard = 0;
  std::uint32_t shard_count = 1;
  WriterId writer;
  std::uint64_t log_sequence = 0;
  std::uint64_t log_identity = 0;
  RingPosition ring_position{};
};

struct LogBegin {
  bool local = false;
  std::uint64_t log_identity = 0;
  std::uint64_t from_sequence = 0;
  std::uint64_t first_sequence = 0;
  std::uint64_t last_sequence = 0;
  bool other_log = false;
};

struct LogDone {
  RingPosition ring_position{};
  std::uint64_t log_identity = 0;
  std::uint64_t log_sequence = 0;
};

// What comes, in order; spans are valid during the call. False ends the reading.
class LogVisitor {
 public:
  virtual ~LogVisitor() = default;
  virtual bool begin(const LogBegin& begin) = 0;
  virtual bool message(std::uint64_t log_sequence, std::string_view format,
                       std::span<const std::byte> payload) = 0;
  // Header (shm::RecordHeader) and payload of a record that is not published yet.
  virtual bool record(std::span<const std::byte> header, std::span<const std::byte> payload) = 0;
  virtual bool waiting(std::string_view text) = 0;
  virtual bool done(const LogDone& done) = 0;
};

class LogReader {
 public:
  virtual ~LogReader() = default;
  // Until done() was called, or the visitor ended it: then empty. Else why it ended, in one line.
  virtual std::string read(const LogRequest& request, LogVisitor& visitor) = 0;
  // Any thread, at any time: read() ends soon, and so does every later one.
  virtual void cancel() = 0;
};

}  // namespace arancini::ingestd
