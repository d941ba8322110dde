#include "ingestd/route_table.h"

#include "ingestd/broken.h"

namespace arancini::ingestd {

namespace {

using TableV4 = ExtendibleTable<RouteSlotV4>;
using TableV6 = ExtendibleTable<RouteSlotV6>;

}  // namespace

RouteTable::RouteTable(SegmentPool& pool, Family family) noexcept : pool_(&pool), table_(TableV4(pool)) {
  if (!is_plain_prefix_family(family)) broken("RouteTable of a family without plain prefixes");
  if (family.afi == 2) table_.emplace<TableV6>(pool);
}

bool RouteTable::passed(const WalkCursor& cursor, const Prefix& prefix) const noexcept {
  if (cursor.done) return true;
  const std::uint64_t hashed = hash(prefix);
  if (hashed != cursor.hash_position) return hashed < cursor.hash_position;
  return cursor.in_tie && prefix <= cursor.tie;
}

std::size_t RouteTable::size() const noexcept {
  return std::visit([](const auto& table) { return table.size(); }, table_);
}

std::size_t RouteTable::memory_bytes() const noexcept {
  return std::visit([](const auto& table) { return table.memory_bytes(); }, table_);
}

void RouteTable::clear() noexcept {
  has_path_ids_ = false;
  std::visit([](auto& table) { table.clear(); }, table_);
}

bool RouteTable::clear_some(std::size_t max_segments) noexcept {
  clear();
  return pool_->reclaim_some(max_segments);
}

}  // namespace arancini::ingestd
