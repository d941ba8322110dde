#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "common/base/types.h"
#include "ingestd/hash.h"
#include "ingestd/segment_pool.h"

// Extendible hashing (Fagin, Nievergelt, Pippenger, Strong: "Extendible Hashing", TODS 1979): the top bits of
// the hash index a directory of segments, the low bits a slot in the segment (linear probing, deletion by
// backward shift). A full segment grows up to kFullSlots and from then on splits, so that no insert moves
// more than one segment.
namespace arancini::ingestd {

// Where a walk stands: keys whose hash is below `hash_position` are done, and of those that equal it, when
// `in_tie`, the ones up to `tie`. Valid whatever happens to the table meanwhile.
struct WalkCursor {
  std::uint64_t hash_position = 0;
  Prefix tie;
  bool in_tie = false;
  bool done = false;
};

// Slot: trivially copyable, all zero bytes are an empty one; bool empty() const; std::uint64_t hash(const
// HashSeed&) const. For walk() also `Prefix key() const`. One thread; noexcept; out of memory is a null
// pointer.
template <class Slot>
class ExtendibleTable {
 public:
  using SlotType = Slot;
  static constexpr unsigned kFirstLog2 = 4;
  static constexpr unsigned kFullLog2 = 10;
  static constexpr std::size_t kFullSlots = std::size_t{1} << kFullLog2;
  // Keys that share more hash bits than this are told apart in a larger segment.
  static constexpr unsigned kMaxDepth = 28;
  static constexpr unsigned kMaxSplitsPerInsert = 2;
  static_assert(std::is_trivially_copy_constructible_v<Slot> && std::is_trivially_destructible_v<Slot>);

  explicit ExtendibleTable(SegmentPool& pool) noexcept : pool_(&pool), seed_(pool.seed()) {}
  ExtendibleTable(ExtendibleTable&& other) noexcept : pool_(other.pool_), seed_(other.seed_) { take(other); }
  ExtendibleTable& operator=(ExtendibleTable&& other) noexcept {
    if (this != &other) {
      clear();
      pool_ = other.pool_;
      seed_ = other.seed_;
      take(other);
    }
    return *this;
  }
  ~ExtendibleTable() { clear(); }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t memory_bytes() const noexcept { return memory_bytes_; }
  [[nodiscard]] const HashSeed& seed() const noexcept { return seed_; }
  [[nodiscard]] std::size_t segment_count() const noexcept { return segments_; }
  [[nodiscard]] unsigned directory_depth() const noexcept { return depth_; }
  // Slots moved and zeroed since the start: what bounded work means, for tests.
  [[nodiscard]] std::uint64_t slots_moved() const noexcept { return slots_moved_; }

  template <class Match>
  [[nodiscard]] Slot* find(std::uint64_t hash, Match&& match) const noexcept {
    const SegmentRef& ref = directory()[index_of(hash)];
    Slot* const s = slots(ref);
    const std::uint64_t mask = mask_of(ref);
    for (std::uint64_t i = hash & mask;; i = (i + 1) & mask) {
      if (match(s[i])) return &s[i];
      if (s[i].empty()) return nullptr;
    }
  }

  void prefetch(std::uint64_t hash) const noexcept {
    const SegmentRef& ref = directory()[index_of(hash)];
    prefetch_line(slots(ref) + (hash & mask_of(ref)));
  }

  // The matching slot and false, or a new empty one and true, which the caller must fill at once, or
  // abandon(). Null and false when out of memory. `match` is also asked about empty slots and must refuse
  // them.
  template <class Match>
  std::pair<Slot*, bool> find_or_place(std::uint64_t hash, Match&& match) noexcept {
    unsigned splits = 0;
    for (;;) {
      const std::size_t index = index_of(hash);
      const SegmentRef& ref = directory()[index];
      Slot* const s = slots(ref);
      const std::uint64_t mask = mask_of(ref);
      std::uint64_t i = hash & mask;
      for (; !s[i].empty(); i = (i + 1) & mask) {
        if (match(s[i])) return {&s[i], false};
      }
      SegmentRef& first = directory()[first_of(index)];
      if (first.count < max_load(first.log2_slots)) {
        ++first.count;
        ++size_;
        return {&s[i], true};
      }
      if (!make_room(first_of(index), splits)) return {nullptr, false};
    }
  }

  // Undoes a find_or_place() that returned a new slot: nothing was written into it.
  void abandon(std::uint64_t hash) noexcept {
    const std::size_t first = first_of(index_of(hash));
    --directory()[first].count;
    --size_;
    shrink_if_sparse(first);
  }

  // `slot` of a find() with the same hash.
  void erase(Slot* slot, std::uint64_t hash) noexcept {
    const std::size_t first = first_of(index_of(hash));
    SegmentRef& ref = directory()[first];
    remove(ref, static_cast<std::uint64_t>(slot - slots(ref)));
    shrink_if_sparse(first);
  }

  // RouteTable::walk says what is guaranteed. `visit(Slot&) -> bool`: true erases.
  template <class Visit>
  std::size_t walk(WalkCursor& cursor, std::size_t max_entries, Visit&& visit) {
    max_entries = std::min(max_entries, std::size_t{1} << 40);
    std::size_t visited = 0;
    auto slots_left = static_cast<std::int64_t>(2 * kFullSlots + 8 * max_entries);
    while (!cursor.done && visited < max_entries && slots_left > 0) {
      const std::size_t first = first_of(index_of(cursor.hash_position));
      SegmentRef& ref = directory()[first];
      if (ref.count == 0) {
        --slots_left;
        advance(cursor, first);
        continue;
      }
      const bool at_start = !cursor.in_tie && cursor.hash_position == first_hash(first);
      const std::size_t left = max_entries - visited;
      if (at_start && ref.count <= left) {
        slots_left -= static_cast<std::int64_t>(mask_of(ref) + 1);
        visited += scan(ref, visit, [](const Slot&) { return true; });
        advance(cursor, first);
      } else if (at_start && visited > 0) {
        break;  // a part costs as much as the whole: let the next call begin with it
      } else {
        slots_left -= static_cast<std::int64_t>(2 * (mask_of(ref) + 1));
        visited += visit_part(cursor, first, left, visit);
      }
      shrink_if_sparse(first);
    }
    return visited;
  }

  // The hash behind the segment that `hash` belongs to; 0: none is behind it.
  [[nodiscard]] std::uint64_t segment_end(std::uint64_t hash) const noexcept {
    const std::size_t first = first_of(index_of(hash));
    const std::size_t next = first + span_of(first);
    return next >> depth_ != 0 ? 0 : first_hash(next);
  }

  // `f(const Slot&) -> bool` for the entries with a hash in [from, to), which must lie within one segment; 0
  // as `to` is the end of all. False: `f` was, and the rest is not visited. Changes nothing, not even the
  // layout.
  template <class F>
  bool visit(std::uint64_t from, std::uint64_t to, F&& f) const {
    const std::size_t first = first_of(index_of(from));
    const SegmentRef& ref = directory()[first];
    const bool all = from == first_hash(first) && to == segment_end(from);
    std::uint32_t left = ref.count;
    for (std::uint64_t i = 0; left > 0 && i <= mask_of(ref); ++i) {
      const Slot& slot = slots(ref)[i];
      if (slot.empty()) continue;
      --left;
      if (!all) {
        const std::uint64_t hash = slot.hash(seed_);
        if (hash < from || (to != 0 && hash >= to)) continue;
      }
      if (!f(slot)) return false;
    }
    return true;
  }

  // Constant time; memory goes to the pool's list of discarded tables.
  void clear() noexcept {
    if (header_ != nullptr) {
      header_->position = 0;
      header_->slot_bytes = sizeof(Slot);
      header_->depth = depth_;
      pool_->discard(header_);
    } else if (single_.log2_slots != 0) {
      pool_->release(single_.slots, segment_bytes(single_.log2_slots));
    }
    forget();
  }

  // True if counts, placement and directory agree; for tests, visits everything.
  [[nodiscard]] bool check_invariants() const noexcept;

 private:
  // 7/8; a segment always keeps an empty slot, so that probing ends.
  static constexpr std::uint32_t max_load(unsigned log2) noexcept {
    return log2 == 0 ? 0 : (1U << log2) - (1U << (log2 - 3));
  }
  static constexpr std::size_t segment_bytes(unsigned log2) noexcept { return sizeof(Slot) << log2; }
  static Slot* slots(const SegmentRef& ref) noexcept { return static_cast<Slot*>(ref.slots); }
  static std::uint64_t mask_of(const SegmentRef& ref) noexcept {
    return (std::uint64_t{1} << ref.log2_slots) - 1;
  }
  static void copy(Slot& to, const Slot& from) noexcept {
    std::memcpy(static_cast<void*>(&to), &from, sizeof(Slot));
  }
  static void zero(Slot& slot) noexcept { std::memset(static_cast<void*>(&slot), 0, sizeof(Slot)); }

  // What a segment without entries points to: one empty slot, never written.
  static SegmentRef nothing(std::uint8_t depth) noexcept {
    alignas(64) static constexpr std::array<std::byte, 64> kEmpty{};
    static_assert(sizeof(Slot) <= sizeof kEmpty);
    return {const_cast<std::byte*>(kEmpty.data()), 0, depth, 0, 0};
  }

  SegmentRef* directory() noexcept { return directory_; }
  [[nodiscard]] const SegmentRef* directory() const noexcept { return directory_; }
  // Two shifts: one by 64 is undefined at depth 0.
  [[nodiscard]] std::size_t index_of(std::uint64_t hash) const noexcept {
    return (hash >> 1) >> (63 - depth_);
  }
  [[nodiscard]] std::uint64_t first_hash(std::size_t index) const noexcept {
    return depth_ == 0 ? 0 : std::uint64_t{index} << (64 - depth_);
  }
  [[nodiscard]] std::size_t span_of(std::size_t index) const noexcept {
    return std::size_t{1} << (depth_ - directory()[index].depth);
  }
  [[nodiscard]] std::size_t first_of(std::size_t index) const noexcept {
    return index & ~(span_of(index) - 1);
  }

  void forget() noexcept {
    header_ = nullptr;
    depth_ = 0;
    single_ = nothing(0);
    directory_ = &single_;
    size_ = 0;
    segments_ = 0;
    memory_bytes_ = 0;
  }

  void take(ExtendibleTable& other) noexcept {
    header_ = other.header_;
    single_ = other.single_;
    directory_ = header_ == nullptr ? &single_ : other.directory_;
    depth_ = other.depth_;
    size_ = other.size_;
    segments_ = other.segments_;
    memory_bytes_ = other.memory_bytes_;
    slots_moved_ = other.slots_moved_;
    other.forget();
  }

  void set(std::size_t first, std::size_t span, SegmentRef ref) noexcept {
    for (std::size_t i = first; i < first + span; ++i) directory()[i] = ref;
  }

  Slot* allocate_segment(unsigned log2) noexcept {
    void* const block = pool_->allocate(segment_bytes(log2));
    if (block == nullptr) return nullptr;
    std::memset(block, 0, segment_bytes(log2));
    memory_bytes_ += SegmentPool::class_bytes(segment_bytes(log2));
    ++segments_;
    return static_cast<Slot*>(block);
  }
  void release_segment(const SegmentRef& ref) noexcept {
    if (ref.log2_slots == 0) return;
    pool_->release(ref.slots, segment_bytes(ref.log2_slots));
    memory_bytes_ -= SegmentPool::class_bytes(segment_bytes(ref.log2_slots));
    --segments_;
  }

  static void place(Slot* s, std::uint64_t mask, std::uint64_t hash, const Slot& entry) noexcept {
    std::uint64_t i = hash & mask;
    while (!s[i].empty()) i = (i + 1) & mask;
    copy(s[i], entry);
  }

  static std::uint64_t after_an_empty_slot(const Slot* s, std::uint64_t mask) noexcept {
    std::uint64_t i = 0;
    while (!s[i].empty()) ++i;
    return (i + 1) & mask;
  }

  bool make_room(std::size_t first, unsigned& splits) noexcept {
    const SegmentRef ref = directory()[first];
    if (ref.log2_slots >= kFullLog2 && splits < kMaxSplitsPerInsert) {
      if (ref.depth < depth_ || (may_double() && double_directory(first))) {
        ++splits;
        return split(first);
      }
    }
    if (ref.log2_slots >= 30) return false;
    return resize(first, std::max(kFirstLog2, ref.log2_slots + 1U));
  }

  // The directory stays in proportion to the segments, also when somebody found keys that share many hash
  // bits.
  [[nodiscard]] bool may_double() const noexcept {
    return depth_ < kMaxDepth && (std::size_t{2} << depth_) <= std::max<std::size_t>(64, 8 * segments_);
  }

  static std::size_t directory_bytes(unsigned depth) noexcept {
    return sizeof(DirectoryHeader) + (sizeof(SegmentRef) << depth);
  }

  void free_directory() noexcept {
    if (header_ == nullptr) return;
    pool_->release(header_, directory_bytes(depth_));
    memory_bytes_ -= SegmentPool::class_bytes(directory_bytes(depth_));
  }

  // False when out of memory. `first` follows its segment.
  bool double_directory(std::size_t& first) noexcept {
    const unsigned depth = depth_ + 1U;
    void* const block = pool_->allocate(directory_bytes(depth));
    if (block == nullptr) return false;
    auto* const header = static_cast<DirectoryHeader*>(block);
    auto* const refs = reinterpret_cast<SegmentRef*>(header + 1);
    for (std::size_t i = 0; i < (std::size_t{1} << depth_); ++i)
      refs[2 * i] = refs[2 * i + 1] = directory()[i];
    free_directory();
    memory_bytes_ += SegmentPool::class_bytes(directory_bytes(depth));
    header_ = header;
    directory_ = refs;
    depth_ = static_cast<std::uint8_t>(depth);
    first *= 2;
    return true;
  }

  // Moves the segment's entries into one of 2^log2 slots.
  bool resize(std::size_t first, unsigned log2) noexcept {
    const SegmentRef old = directory()[first];
    Slot* const fresh = allocate_segment(log2);
    if (fresh == nullptr) return false;
    const std::uint64_t mask = (std::uint64_t{1} << log2) - 1;
    for (std::uint64_t i = 0; old.count != 0 && i <= mask_of(old); ++i) {
      const Slot& entry = slots(old)[i];
      if (!entry.empty()) place(fresh, mask, entry.hash(seed_), entry);
    }
    slots_moved_ += mask + 1;
    set(first, span_of(first), {fresh, old.count, old.depth, static_cast<std::uint8_t>(log2), 0});
    release_segment(old);
    return true;
  }

  // The segment's depth is below the directory's.
  bool split(std::size_t first) noexcept {
    const SegmentRef old = directory()[first];
    Slot* const s = slots(old);
    const std::uint64_t mask = mask_of(old);
    Slot* const sibling = allocate_segment(old.log2_slots);
    if (sibling == nullptr) return false;
    const unsigned shift = 63U - old.depth;
    std::uint32_t moved = 0;
    // From the start of a run of used slots: then what stays is put back at or before where it was.
    std::uint64_t i = after_an_empty_slot(s, mask);
    for (std::uint64_t n = 0; n <= mask; ++n, i = (i + 1) & mask) {
      if (s[i].empty()) continue;
      const Slot entry = s[i];
      const std::uint64_t hash = entry.hash(seed_);
      zero(s[i]);
      const bool upper = ((hash >> shift) & 1U) != 0;
      place(upper ? sibling : s, mask, hash, entry);
      moved += upper ? 1 : 0;
    }
    slots_moved_ += mask + 1;
    const std::size_t half = span_of(first) / 2;
    const auto depth = static_cast<std::uint8_t>(old.depth + 1);
    set(first, half, {s, old.count - moved, depth, old.log2_slots, 0});
    set(first + half, half, {sibling, moved, depth, old.log2_slots, 0});
    // Only when nearly all keys were on one side.
    shrink_if_sparse(first);
    shrink_if_sparse(first + half);
    return true;
  }

  // Backward shift (Knuth, TAOCP 3, 6.4 algorithm R).
  void remove(SegmentRef& ref, std::uint64_t hole) noexcept {
    Slot* const s = slots(ref);
    const std::uint64_t mask = mask_of(ref);
    for (std::uint64_t i = (hole + 1) & mask; !s[i].empty(); i = (i + 1) & mask) {
      const std::uint64_t home = s[i].hash(seed_) & mask;
      if (((i - home) & mask) >= ((i - hole) & mask)) {
        copy(s[hole], s[i]);
        hole = i;
      }
    }
    zero(s[hole]);
    --ref.count;
    --size_;
  }

  // Gives memory back; keeps all when there is none to do it with.
  void shrink_if_sparse(std::size_t first) noexcept {
    const SegmentRef ref = directory()[first];
    if (ref.count == 0) {
      release_segment(ref);
      set(first, span_of(first), nothing(ref.depth));
      if (size_ == 0) {
        free_directory();
        forget();
      }
      return;
    }
    if (ref.log2_slots > kFirstLog2 && ref.count <= (1U << ref.log2_slots) / 8) {
      unsigned log2 = kFirstLog2;
      while (max_load(log2) < 2 * ref.count) ++log2;
      if (log2 < ref.log2_slots) resize(first, log2);
    }
  }

  void advance(WalkCursor& cursor, std::size_t first) const noexcept {
    const std::size_t next = first + span_of(first);
    cursor.in_tie = false;
    if (next >> depth_ != 0) {
      cursor.done = true;
    } else {
      cursor.hash_position = first_hash(next);
    }
  }

  // Visits the chosen entries of one segment, each once, although erasing moves others.
  template <class Visit, class Choose>
  std::size_t scan(SegmentRef& ref, Visit& visit, Choose&& choose) {
    Slot* const s = slots(ref);
    const std::uint64_t mask = mask_of(ref);
    std::size_t visited = 0;
    // No shift crosses the empty slot before the start, so what moves into slot i comes from those not seen
    // yet.
    std::uint64_t i = after_an_empty_slot(s, mask);
    for (std::uint64_t n = 0; n <= mask;) {
      if (!s[i].empty() && choose(std::as_const(s[i]))) {
        ++visited;
        if (visit(s[i])) {
          remove(ref, i);
          continue;
        }
      }
      i = (i + 1) & mask;
      ++n;
    }
    return visited;
  }

  // The next `wanted` entries of a segment in order of (hash, key), or fewer; moves the cursor behind them.
  template <class Visit>
  std::size_t visit_part(WalkCursor& cursor, std::size_t first, std::size_t wanted, Visit& visit) {
    struct Candidate {
      std::uint64_t hash;
      const Slot* slot;
    };
    const auto before = [](const Candidate& x, const Candidate& y) {
      return x.hash != y.hash ? x.hash < y.hash : x.slot->key() < y.slot->key();
    };
    const auto is_left = [&cursor](std::uint64_t hash, const Slot& slot) {
      return hash != cursor.hash_position ? hash > cursor.hash_position
                                          : !cursor.in_tie || slot.key() > cursor.tie;
    };
    SegmentRef& ref = directory()[first];
    // What does not fit, in a segment that could not split, is cut to the lower half again and again.
    std::array<Candidate, kFullSlots> found;
    wanted = std::min(wanted, kFullSlots / 2);
    std::size_t count = 0;
    bool all = true;
    for (std::uint64_t i = 0; i <= mask_of(ref); ++i) {
      const Slot& slot = slots(ref)[i];
      if (slot.empty()) continue;
      const Candidate candidate{slot.hash(seed_), &slot};
      if (!is_left(candidate.hash, slot)) continue;
      if (count == found.size()) {
        std::nth_element(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(wanted), found.end(),
                         before);
        count = wanted;
        all = false;
      }
      found[count++] = candidate;
    }
    if (count == 0) {
      advance(cursor, first);
      return 0;
    }
    if (count > wanted) {
      all = false;
      std::nth_element(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(wanted - 1),
                       found.begin() + static_cast<std::ptrdiff_t>(count), before);
      count = wanted;
    }
    const Candidate last =
        *std::max_element(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(count), before);
    const Prefix last_key = last.slot->key();
    const std::size_t visited = scan(ref, visit, [&](const Slot& slot) {
      const std::uint64_t hash = slot.hash(seed_);
      return is_left(hash, slot) && (hash != last.hash ? hash < last.hash : slot.key() <= last_key);
    });
    if (all) {
      advance(cursor, first);
    } else {
      cursor.hash_position = last.hash;
      cursor.in_tie = true;
      cursor.tie = last_key;
    }
    return visited;
  }

  SegmentRef* directory_ = &single_;
  std::uint8_t depth_ = 0;
  SegmentRef single_ = nothing(0);  // the directory while its depth is 0 for the first time
  DirectoryHeader* header_ = nullptr;
  SegmentPool* pool_;
  HashSeed seed_;
  std::size_t size_ = 0;
  std::size_t segments_ = 0;
  std::size_t memory_bytes_ = 0;
  std::uint64_t slots_moved_ = 0;
};

template <class Slot>
bool ExtendibleTable<Slot>::check_invariants() const noexcept {
  std::size_t total = 0;
  std::size_t segments = 0;
  for (std::size_t first = 0; first < (std::size_t{1} << depth_); first += span_of(first)) {
    const SegmentRef& ref = directory()[first];
    if (ref.depth > depth_ || first_of(first) != first) return false;
    for (std::size_t i = first; i < first + span_of(first); ++i) {
      if (directory()[i].slots != ref.slots || directory()[i].depth != ref.depth ||
          directory()[i].log2_slots != ref.log2_slots) {
        return false;
      }
    }
    if (ref.count > max_load(ref.log2_slots) || (ref.count == 0) != (ref.log2_slots == 0)) return false;
    segments += ref.log2_slots != 0 ? 1 : 0;
    std::size_t used = 0;
    for (std::uint64_t i = 0; i <= mask_of(ref); ++i) {
      const Slot& slot = slots(ref)[i];
      if (slot.empty()) continue;
      ++used;
      const std::uint64_t hash = slot.hash(seed_);
      if (first_of(index_of(hash)) != first) return false;
      for (std::uint64_t p = hash & mask_of(ref); p != i; p = (p + 1) & mask_of(ref)) {
        if (slots(ref)[p].empty()) return false;
      }
    }
    if (used != ref.count) return false;
    total += used;
  }
  return total == size_ && segments == segments_;
}

}  // namespace arancini::ingestd
