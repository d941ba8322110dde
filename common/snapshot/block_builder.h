#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/snapshot/entries.h"
#include "common/snapshot/format.h"

namespace arancini::snapshot {

// Puts entries into a buffer as blocks without checksums and numbers, which SnapshotWriter adds. For the hot
// thread: no allocation, no exceptions, a few stores per entry. One kind of block is open at a time; another
// entry closes it.
class BlockBuilder {
 public:
  // Borrowed; at most kMaxPayloadBytes are of use in one block.
  explicit BlockBuilder(std::span<std::byte> buffer) : buffer_(buffer) {}
  BlockBuilder() = default;

  // False: no room, nothing was added. Strings are cut to 65535 bytes. What an empty buffer has no room for
  // fits nowhere.
  bool add(const RouterEntry& router) noexcept;
  bool add(const ViewEntry& view) noexcept;
  bool add(const AttributesEntry& attributes) noexcept;
  bool add(const TableEntry& table) noexcept;
  // Of the table with that id and family. The prefix is one that RouteTable takes.
  bool add(std::uint32_t table, Family family, const RouteEntry& route) noexcept;

  // Whole blocks; ends the open one. The next entry begins another.
  [[nodiscard]] std::span<std::byte> blocks() noexcept;
  [[nodiscard]] bool empty() const { return used_ == 0; }
  [[nodiscard]] std::size_t used_bytes() const { return used_; }
  // Begins anew in another buffer.
  void reset(std::span<std::byte> buffer) noexcept;

 private:
  // Space for one more entry, in the open block, in a new one, or in whichever will do. Null: no room.
  std::byte* extend(std::size_t bytes) noexcept;
  std::byte* open(BlockKind kind, std::size_t bytes) noexcept;
  std::byte* take(BlockKind kind, std::size_t bytes) noexcept;
  void close() noexcept;

  std::span<std::byte> buffer_;
  std::size_t used_ = 0;
  std::size_t begin_ = 0;  // of the open block
  std::uint32_t count_ = 0;
  BlockKind kind_{};  // 0: no block is open
  std::uint32_t table_ = 0;
  bool path_ids_ = false;
};

}  // namespace arancini::snapshot
