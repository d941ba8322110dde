#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/snapshot/block_builder.h"
#include "common/snapshot/byte_stream.h"
#include "common/snapshot/entries.h"

namespace arancini::snapshot {

// Writes one snapshot: header, entries in any order in which each comes after those it names, end. After an
// error nothing more is written; finish() tells it. Cold threads only.
class SnapshotWriter {
 public:
  // Borrowed.
  explicit SnapshotWriter(ByteSink& sink);

  void begin(const Header& header);
  // Blocks of a BlockBuilder; checksums and numbers are put into them.
  void blocks(std::span<std::byte> blocks);
  // Single entries, collected into blocks.
  void router(const RouterEntry& entry) { add(entry); }
  void view(const ViewEntry& entry) { add(entry); }
  void attributes(const AttributesEntry& entry) { add(entry); }
  void table(const TableEntry& entry) { add(entry); }
  void route(std::uint32_t table, Family family, const RouteEntry& entry);
  // Totals are counted here, but for the routes, which must agree. Empty, or what went wrong: one line.
  std::string finish(const End& end);

  [[nodiscard]] std::uint64_t bytes_written() const { return bytes_; }
  [[nodiscard]] bool failed() const { return !error_.empty(); }

 private:
  template <class Entry>
  void add(const Entry& entry);
  void flush();
  void write(std::span<const std::byte> bytes);

  ByteSink& sink_;
  std::unique_ptr<std::byte[]> buffer_;
  BlockBuilder builder_;
  std::uint32_t next_block_ = 0;
  std::uint64_t counts_[6] = {};  // entries by BlockKind
  std::uint64_t bytes_ = 0;
  std::string error_;
};

}  // namespace arancini::snapshot
