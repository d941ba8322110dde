#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/base/types.h"
#include "ingestd/hot_task.h"
#include "ingestd/peer_table.h"

namespace arancini::ingestd {

struct LookupQuery {
  enum class Match : std::uint8_t {
    Longest,  // of each table: the most specific route that covers the prefix
    Exact,
    Longer,  // the prefix, and all that lie in it
  };
  IpAddress address{};      // IPv4 mapped
  std::uint8_t length = 0;  // 0 to 32 of IPv4, 0 to 128 of IPv6
  Match match = Match::Longest;
  std::optional<IpAddress> router;  // nullopt: all
  std::string router_name{};        // with `router`: only the one of that name; empty: all of that address
  std::uint64_t limit = 0;          // of routes, 0: none
};

// What the router has of a prefix (also what drop-newest has not told yet), of all peers and views. Without
// an index: a find for each length and table; a walk over the table where routes have path ids, and for
// Longer.
//
// The hot thread encodes routes as ring records of one route each (sequence 0) into a buffer; when it is
// full, it waits until the other side has taken it.
class LookupTask final : public HotTask {
 public:
  // Holds the largest record that attributes of one BGP message can make.
  static constexpr std::size_t kBufferBytes = 1U << 20;

  explicit LookupTask(const LookupQuery& query);

  Progress run(Shard::Impl& shard) noexcept override;

  // The other side. Whether take() would return something: the buffer is full.
  [[nodiscard]] bool full() const { return full_.load(std::memory_order_acquire); }
  // Once full(), or once HotTasks::done(): records, header and payload, one after the other. Valid until
  // taken().
  [[nodiscard]] std::span<const std::byte> records() const { return {buffer_.data(), used_}; }
  // The buffer is empty again; then HotTasks::wake().
  void taken();
  // Valid once HotTasks::done(): there are more than the limit, or more paths of one prefix than it can hold.
  [[nodiscard]] bool truncated() const { return truncated_; }

 private:
  // Prefixes found and not encoded yet; a slice of a walk.
  static constexpr std::size_t kMostFound = 512;

  [[nodiscard]] bool is_wanted(const Router& router) const;
  [[nodiscard]] bool covers(const Prefix& prefix) const;
  [[nodiscard]] RibTable* table_at_cursor(Shard::Impl& shard) const;
  void next_table(Shard::Impl& shard, std::size_t& budget);
  // Looks at more of the table; what it found is in found_.
  void search(RibTable& table, std::size_t& budget);
  void find_lengths(RibTable& table, std::size_t& budget);
  void walk(RibTable& table, std::size_t& budget);
  void note(const Prefix& prefix);
  // False: the buffer is full.
  [[nodiscard]] bool encode(Shard::Impl& shard, RibTable& table, const Prefix& prefix);

  const LookupQuery query_;
  const bool v4_;
  Prefix wanted_;
  std::vector<std::byte> buffer_;
  std::size_t used_ = 0;
  std::atomic<bool> full_{false};

  std::size_t row_ = 0, table_index_ = 0;
  const RibTable* table_ = nullptr;  // null: the next one is to be found
  WalkCursor cursor_;
  std::vector<Prefix> found_;
  std::size_t encoded_ = 0;  // of found_
  std::uint64_t routes_ = 0;
  bool truncated_ = false;
};

}  // namespace arancini::ingestd
