#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "common/base/result.h"

namespace arancini::snapshot {

// Where a snapshot comes from: a file, a blob, memory. May block; cold threads only.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Up to out.size() bytes; 0 only at the end. The error is one line for the operator.
  virtual Result<std::size_t, std::string> read(std::span<std::byte> out) = 0;
};

// Where it goes to.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // All bytes, or one line that says why not: then nothing more is written. Empty: done.
  virtual std::string write(std::span<const std::byte> bytes) = 0;
};

// In memory, borrowed.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes) : bytes_(bytes) {}
  Result<std::size_t, std::string> read(std::span<std::byte> out) override;

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace arancini::snapshot
