#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/snapshot/byte_stream.h"

namespace arancini::snapshot {

// "shard-<k>-of-<n>-<20 digits>.snap": whose it is, and how new.
struct SnapshotName {
  std::uint32_t shard = 0;
  std::uint32_t shard_count = 0;
  std::uint64_t number = 0;
  friend auto operator<=>(const SnapshotName&, const SnapshotName&) = default;
  [[nodiscard]] std::string to_string() const;
  static std::optional<SnapshotName> parse(std::string_view text);
};

// Takes the bytes of one snapshot, which exists once commit() has said so, and leaves no trace before.
class SnapshotSink : public ByteSink {
 public:
  // Durable, under its name. Empty, or one line.
  virtual std::string commit() = 0;
};

// Where snapshots of all shards are kept. May block; one cold thread. Errors are one line for the operator.
class SnapshotStore {
 public:
  virtual ~SnapshotStore() = default;
  // What is there and not set aside, in any order; other files are not looked at.
  virtual Result<std::vector<SnapshotName>, std::string> list() = 0;
  virtual Result<std::unique_ptr<ByteSource>, std::string> open(const SnapshotName& name) = 0;
  virtual Result<std::unique_ptr<SnapshotSink>, std::string> create(const SnapshotName& name) = 0;
  // Not to be loaded and not to be deleted: kept as "<name>.corrupt". Empty, or one line.
  virtual std::string set_aside(const SnapshotName& name) = 0;
  virtual std::string remove(const SnapshotName& name) = 0;
  // Any thread: what blocks ends soon, and nothing begins any more.
  virtual void interrupt() {}
  // For texts: where `name` lies.
  [[nodiscard]] virtual std::string describe(const SnapshotName& name) const = 0;
};

}  // namespace arancini::snapshot
