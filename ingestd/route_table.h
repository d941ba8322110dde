#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <variant>

#include "common/base/types.h"
#include "ingestd/attribute_store.h"
#include "ingestd/broken.h"
#include "ingestd/extendible_hash.h"
#include "ingestd/hash.h"
#include "ingestd/segment_pool.h"

// The routes of one (peer, view, family): a hash table of Prefix -> RouteState that grows by splitting one
// segment at a time (docs/decisions/0005-route-table.md). One thread. No exceptions, no malloc.
namespace arancini::ingestd {

// RouteState::flags. The rest is free for the curation.
inline constexpr std::uint8_t kRouteTold = 0x01;   // downstream was told this route
inline constexpr std::uint8_t kRouteDirty = 0x02;  // what downstream was told differs: see untold.h
inline constexpr std::uint8_t kRouteStale = 0x04;  // not refreshed since the session or peer came back
inline constexpr std::uint8_t kRouteGone = 0x08;   // withdrawn by the router, withdraw not told yet
// Two bits of policy verdict: 0 not judged.
inline constexpr std::uint8_t kRouteVerdictMask = 0x30;
inline constexpr std::uint8_t kRouteVerdictPass = 0x10;
inline constexpr std::uint8_t kRouteVerdictReject = 0x20;
inline constexpr std::uint8_t kRouteVerdictChange = 0x30;  // passes, with tags or changed attributes

// What the table keeps for a route. New ones are zero. The table does not count references of `attr`: the
// curation does.
struct RouteState {
  AttrId attr = AttrId::None;
  std::uint16_t generation = 0;
  std::uint8_t flags = 0;

  RouteState() = default;
  RouteState(const RouteState&) = default;
  // Would overwrite the key's part in the slot: set the fields.
  RouteState& operator=(const RouteState&) = delete;

 protected:
  std::uint8_t length_plus_1_ = 0;  // of the prefix; 0: the slot is empty
};

// 16 and 28 bytes: at 7/8 to 7/16 load 18-37 and 32-64 bytes a route.
struct RouteSlotV4 : RouteState {
  std::uint32_t addr = 0;
  std::uint32_t path_id = 0;

  static std::uint64_t hash(const Prefix& p, const HashSeed& s) noexcept {
    return hash_words((p.low << 32) | p.path_id, p.length, s);
  }
  [[nodiscard]] std::uint64_t hash(const HashSeed& s) const noexcept {
    return hash_words((std::uint64_t{addr} << 32) | path_id, length_plus_1_ - 1U, s);
  }
  [[nodiscard]] bool empty() const noexcept { return length_plus_1_ == 0; }
  [[nodiscard]] bool is(const Prefix& p) const noexcept {
    return addr == static_cast<std::uint32_t>(p.low) && path_id == p.path_id &&
           length_plus_1_ == p.length + 1U;
  }
  void set(const Prefix& p) noexcept {
    addr = static_cast<std::uint32_t>(p.low);
    path_id = p.path_id;
    length_plus_1_ = static_cast<std::uint8_t>(p.length + 1U);
  }
  [[nodiscard]] Prefix key() const noexcept {
    return {0, kV4MappedLow | addr, path_id, static_cast<std::uint8_t>(length_plus_1_ - 1U)};
  }
};
static_assert(sizeof(RouteState) == 8 && sizeof(RouteSlotV4) == 16);

struct RouteSlotV6 : RouteState {
  std::uint32_t path_id = 0;
  std::uint32_t word[4] = {};  // host order halves of high, low: the slot is 4-byte aligned

  [[nodiscard]] std::uint64_t high() const noexcept { return (std::uint64_t{word[1]} << 32) | word[0]; }
  [[nodiscard]] std::uint64_t low() const noexcept { return (std::uint64_t{word[3]} << 32) | word[2]; }
  static std::uint64_t hash(const Prefix& p, const HashSeed& s) noexcept {
    return hash_words(p.high, p.low, (std::uint64_t{p.path_id} << 8) | p.length, s);
  }
  [[nodiscard]] std::uint64_t hash(const HashSeed& s) const noexcept {
    return hash_words(high(), low(), (std::uint64_t{path_id} << 8) | (length_plus_1_ - 1U), s);
  }
  [[nodiscard]] bool empty() const noexcept { return length_plus_1_ == 0; }
  [[nodiscard]] bool is(const Prefix& p) const noexcept {
    return high() == p.high && low() == p.low && path_id == p.path_id && length_plus_1_ == p.length + 1U;
  }
  void set(const Prefix& p) noexcept {
    word[0] = static_cast<std::uint32_t>(p.high);
    word[1] = static_cast<std::uint32_t>(p.high >> 32);
    word[2] = static_cast<std::uint32_t>(p.low);
    word[3] = static_cast<std::uint32_t>(p.low >> 32);
    path_id = p.path_id;
    length_plus_1_ = static_cast<std::uint8_t>(p.length + 1U);
  }
  [[nodiscard]] Prefix key() const noexcept {
    return {high(), low(), path_id, static_cast<std::uint8_t>(length_plus_1_ - 1U)};
  }
};
static_assert(sizeof(RouteSlotV6) == 28);

enum class WalkAction : std::uint8_t { Keep, Erase };

class RouteTable {
  // Calls f(table) for the family's table.
  template <class Variant, class F>
  static auto with(Variant& tables, F&& f) noexcept {
    if (auto* const v4 = std::get_if<0>(&tables)) return f(*v4);
    return f(*std::get_if<1>(&tables));
  }

 public:
  // `family` must be a plain prefix family (is_plain_prefix_family). `pool` outlives the table.
  RouteTable(SegmentPool& pool, Family family) noexcept;
  RouteTable(RouteTable&&) noexcept = default;
  RouteTable& operator=(RouteTable&&) noexcept = default;
  // Constant time: the memory waits in the pool for reclaim_some().
  ~RouteTable() = default;

  // Prefixes are of the table's family: IPv4 ones mapped (high 0, upper half of low kV4MappedLow). Others
  // abort.

  // Every function that takes a prefix alone hashes it; who has several things to do with one hashes it once.
  [[nodiscard]] std::uint64_t hash(const Prefix& prefix) const noexcept {
    check(prefix);
    return with(table_, [&prefix](auto& table) {
      return std::remove_reference_t<decltype(table)>::SlotType::hash(prefix, table.seed());
    });
  }
  // Null if there is none. Valid until the next insert, erase, clear or walk of this table.
  [[nodiscard]] RouteState* find(const Prefix& prefix) noexcept { return find(prefix, hash(prefix)); }
  [[nodiscard]] const RouteState* find(const Prefix& prefix) const noexcept {
    return const_cast<RouteTable*>(this)->find(prefix);
  }
  [[nodiscard]] RouteState* find(const Prefix& prefix, std::uint64_t hash) noexcept {
    return with(table_, [&](auto& table) -> RouteState* {
      auto* const slot = table.find(hash, [&prefix](const auto& s) { return s.is(prefix); });
      return slot;
    });
  }
  // The route's state and whether it is new (then zero). {nullptr, false} when the pool is out of memory:
  // nothing changed, stop reading from the router and try again later. Valid as find()'s. Work is bounded: at
  // most two splits and one growth of one segment (kMaxSegmentSlots slots), rarely the doubling of the
  // directory (16 bytes a segment).
  [[nodiscard]] std::pair<RouteState*, bool> insert(const Prefix& prefix) noexcept {
    return insert(prefix, hash(prefix));
  }
  [[nodiscard]] std::pair<RouteState*, bool> insert(const Prefix& prefix, std::uint64_t hash) noexcept {
    has_path_ids_ |= prefix.path_id != 0;
    return with(table_, [&](auto& table) -> std::pair<RouteState*, bool> {
      const auto [slot, is_new] =
          table.find_or_place(hash, [&prefix](const auto& s) { return s.is(prefix); });
      if (slot == nullptr) return {nullptr, false};
      if (is_new) slot->set(prefix);
      return {slot, is_new};
    });
  }
  // False if there was none.
  bool erase(const Prefix& prefix) noexcept {
    const std::uint64_t hashed = hash(prefix);
    RouteState* const route = find(prefix, hashed);
    if (route != nullptr) erase(*route, hashed);
    return route != nullptr;
  }
  // `route` of a find() or insert() with that hash.
  void erase(RouteState& route, std::uint64_t hash) noexcept {
    with(table_, [&](auto& table) {
      using Slot = typename std::remove_reference_t<decltype(table)>::SlotType;
      table.erase(static_cast<Slot*>(&route), hash);
    });
  }
  // Starts loading what find() or insert() of this prefix will touch: call it a few prefixes ahead.
  void prefetch(const Prefix& prefix) const noexcept { prefetch(hash(prefix)); }
  void prefetch(std::uint64_t hash) const noexcept {
    with(table_, [hash](auto& table) { table.prefetch(hash); });
  }

  [[nodiscard]] std::size_t size() const noexcept;
  // Some route that was ever inserted since clear() had a path id: prefixes cannot be found without knowing
  // it.
  [[nodiscard]] bool has_path_ids() const noexcept { return has_path_ids_; }
  // A walk that has come to `cursor` has this prefix behind it. Walks of all tables of a pool and family go
  // in one order.
  [[nodiscard]] bool passed(const WalkCursor& cursor, const Prefix& prefix) const noexcept;
  // Segments and directory, by class size; what waits in the pool after clear() is no longer counted.
  [[nodiscard]] std::size_t memory_bytes() const noexcept;
  [[nodiscard]] bool is_v4() const noexcept { return table_.index() == 0; }

  // Visits up to `max_entries` routes from the cursor on; returns how many. `f(const Prefix&, RouteState&) ->
  // WalkAction` may change attr, generation and flags, and erases by its return value; it must not otherwise
  // touch this table. Between calls the table may change in any way (insert, erase, split, clear).
  // Guarantees, for a walk from a default cursor until cursor.done:
  //  - a route that is in the table during the whole walk is visited exactly once;
  //  - any other prefix is visited at most once, also when it is erased and inserted again meanwhile;
  //  - `max_entries` is never exceeded. A call may visit fewer, even none, since it prefers whole segments
  //  and
  //    scans about 8 * max_entries + 2048 slots at most: go on until done. Slices below 900 routes cost a
  //    scan of the segment each;
  //  - order follows the seeded hash, within a segment also its history: same seed, same calls, same order.
  template <class F>
  std::size_t walk(WalkCursor& cursor, std::size_t max_entries, F&& f) {
    return std::visit(
        [&](auto& table) {
          using Slot = typename std::remove_reference_t<decltype(table)>::SlotType;
          return table.walk(cursor, max_entries, [&](Slot& slot) {
            return f(slot.key(), static_cast<RouteState&>(slot)) == WalkAction::Erase;
          });
        },
        table_);
  }

  // For those who read two tables of one family and pool as if they were one: both order their routes by the
  // same hash. segment_end(): a position behind `position` up to which visit() costs a scan of one segment;
  // 0: the end. visit() calls `f(const Prefix&, const RouteState&) -> bool` for the routes in [from, to),
  // `to` at most segment_end(from); false ends it, and is its result. The table stays as it is, to the byte.
  [[nodiscard]] std::uint64_t segment_end(std::uint64_t position) const noexcept {
    return std::visit([position](const auto& table) { return table.segment_end(position); }, table_);
  }
  template <class F>
  bool visit(std::uint64_t from, std::uint64_t to, F&& f) const {
    return std::visit(
        [&](const auto& table) {
          using Slot = typename std::remove_cvref_t<decltype(table)>::SlotType;
          return table.visit(from, to, [&](const Slot& slot) {
            return f(slot.key(), static_cast<const RouteState&>(slot));
          });
        },
        table_);
  }

  // Forgets all routes, constant time; the memory waits in the pool for reclaim_some(). The table is usable
  // at once.
  void clear() noexcept;
  // clear(), then frees up to `max_segments` segments that wait in the pool, of whichever table. True when
  // none is left.
  bool clear_some(std::size_t max_segments) noexcept;

 private:
  void check(const Prefix& prefix) const noexcept {
    if (is_v4() ? prefix.high != 0 || (prefix.low >> 32) != (kV4MappedLow >> 32) || prefix.length > 32
                : prefix.length > 128) {
      broken(is_v4() ? "prefix in an IPv4 table that is not IPv4" : "prefix longer than 128 bits");
    }
  }

  SegmentPool* pool_;
  bool has_path_ids_ = false;
  std::variant<ExtendibleTable<RouteSlotV4>, ExtendibleTable<RouteSlotV6>> table_;
};

}  // namespace arancini::ingestd
