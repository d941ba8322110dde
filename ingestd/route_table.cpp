#include "ingestd/route_table.h"

#include "ingestd/broken.h"

namespace arancini::ingestd {

namespace {

using TableV4 = ExtendibleTable<RouteSlotV4>;
using TableV6 = ExtendibleTable<RouteSlotV6>;

// Calls f(table, hash, match) for the family's table.
template <class Variant, class F>
auto with(Variant& tables, const Prefix& prefix, F&& f) noexcept {
  return std::visit(
      [&](auto& table) {
        using Slot = typename std::remove_reference_t<decltype(table)>::SlotType;
        return f(table, Slot::hash(prefix, table.seed()), [&prefix](const Slot& s) { return s.is(prefix); });
      },
      tables);
}

}  // namespace

RouteTable::RouteTable(SegmentPool& pool, Family family) noexcept : pool_(&pool), table_(TableV4(pool)) {
  if (!is_plain_prefix_family(family)) broken("RouteTable of a family without plain prefixes");
  if (family.afi == 2) table_.emplace<TableV6>(pool);
}

void RouteTable::check(const Prefix& prefix) const noexcept {
  if (is_v4()) {
    if (prefix.high != 0 || (prefix.low >> 32) != (kV4MappedLow >> 32) || prefix.length > 32) {
      broken("prefix in an IPv4 table that is not IPv4");
    }
  } else if (prefix.length > 128) {
    broken("prefix longer than 128 bits");
  }
}

const RouteState* RouteTable::find(const Prefix& prefix) const noexcept {
  check(prefix);
  return with(table_, prefix, [](auto& table, std::uint64_t hash, auto match) -> const RouteState* {
    const auto* const slot = table.find(hash, match);
    return slot == nullptr ? nullptr : &slot->state;
  });
}

RouteState* RouteTable::find(const Prefix& prefix) noexcept {
  return const_cast<RouteState*>(std::as_const(*this).find(prefix));
}

std::pair<RouteState*, bool> RouteTable::insert(const Prefix& prefix) noexcept {
  check(prefix);
  has_path_ids_ |= prefix.path_id != 0;
  return with(table_, prefix,
              [&prefix](auto& table, std::uint64_t hash, auto match) -> std::pair<RouteState*, bool> {
                const auto [slot, is_new] = table.find_or_place(hash, match);
                if (slot == nullptr) return {nullptr, false};
                if (is_new) slot->set(prefix);
                return {&slot->state, is_new};
              });
}

bool RouteTable::erase(const Prefix& prefix) noexcept {
  check(prefix);
  return with(table_, prefix, [](auto& table, std::uint64_t hash, auto match) {
    auto* const slot = table.find(hash, match);
    if (slot == nullptr) return false;
    table.erase(slot, hash);
    return true;
  });
}

void RouteTable::prefetch(const Prefix& prefix) const noexcept {
  with(table_, prefix, [](auto& table, std::uint64_t hash, auto) { table.prefetch(hash); });
}

bool RouteTable::passed(const WalkCursor& cursor, const Prefix& prefix) const noexcept {
  if (cursor.done) return true;
  return with(table_, prefix, [&](auto&, std::uint64_t hash, auto) {
    if (hash != cursor.hash_position) return hash < cursor.hash_position;
    return cursor.in_tie && prefix <= cursor.tie;
  });
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
