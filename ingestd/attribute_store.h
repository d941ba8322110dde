#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ingestd/broken.h"
#include "ingestd/extendible_hash.h"
#include "ingestd/hash.h"
#include "ingestd/segment_pool.h"

// Attribute sets that routes share: each distinct blob is kept once, reference counted. One thread. No
// exceptions, no malloc.
namespace arancini::ingestd {

// Names an interned blob of one AttributeStore while it is referenced; re-used afterwards.
enum class AttrId : std::uint32_t { None = 0 };
constexpr std::uint32_t raw(AttrId id) {
  return static_cast<std::uint32_t>(id);
}

// What makes two attribute sets equal: all three parts, each with its length. `next_hop` and `flags` up to
// 65535 bytes each (longer aborts), `attributes` without such a limit.
struct AttrKey {
  std::span<const std::byte> next_hop;
  std::span<const std::byte> flags;
  std::span<const std::byte> attributes;
};

// In the first byte of AttrKey::flags: the attributes are in their canonical form (attribute_set.h).
inline constexpr std::byte kAttributesCanonical{0x02};

class AttributeStore {
 public:
  // `pool` outlives the store and limits its memory (records of 16 bytes an id are counted in memory_bytes(),
  // not in the pool). Reserves address space, not memory, for `max_ids` records; throws std::system_error if
  // refused.
  explicit AttributeStore(SegmentPool& pool, std::uint32_t max_ids = 1U << 27);
  ~AttributeStore();
  AttributeStore(const AttributeStore&) = delete;
  AttributeStore& operator=(const AttributeStore&) = delete;

  // The id of the blob that equals `key`, with one more reference. AttrId::None when out of memory or ids:
  // nothing changed.
  [[nodiscard]] AttrId intern(const AttrKey& key) noexcept { return find_or_insert(key).id; }
  struct Interned {
    AttrId id = AttrId::None;
    bool added = false;  // there was none like it
  };
  [[nodiscard]] Interned find_or_insert(const AttrKey& key) noexcept {
    return find_or_insert(key, tag_of(key));
  }
  // The same, with what tag_of() said of the key.
  [[nodiscard]] Interned find_or_insert(const AttrKey& key, std::uint32_t tag) noexcept;
  [[nodiscard]] std::uint32_t tag_of(const AttrKey& key) const noexcept;
  // Without a reference; AttrId::None if there is none.
  [[nodiscard]] AttrId find(const AttrKey& key) const noexcept;

  // `id` must be live: None, a freed or an unknown id aborts; so does a count above 2^32 - 1 or below 0.
  void ref(AttrId id, std::uint32_t n = 1) noexcept {
    Record& record = live(id);
    if (record.refs > UINT32_MAX - n) broken("attribute reference count overflows");
    record.refs += n;
  }
  // True when these were the last references: the blob is gone and the id may be given to another.
  bool unref(AttrId id, std::uint32_t n = 1) noexcept {
    Record& record = live(id);
    if (record.refs < n) broken("attribute reference count below zero");
    record.refs -= n;
    if (record.refs != 0) return false;
    forget(id);
    return true;
  }
  [[nodiscard]] std::uint32_t references(AttrId id) const noexcept;
  // next_hop, flags and attributes one after the other. Valid until the last unref.
  [[nodiscard]] std::span<const std::byte> bytes(AttrId id) const noexcept;
  [[nodiscard]] AttrKey parts(AttrId id) const noexcept;
  // Starts loading the record of `id` (None is fine), for ref() or unref() soon.
  void prefetch(AttrId id) const noexcept { prefetch_line(records_ + raw(id)); }
  // Starts loading what find_or_insert() of a key with this tag will touch.
  void prefetch_tag(std::uint32_t tag) const noexcept { index_.prefetch(Slot::spread(tag)); }
  // Starts loading what the last unref() of `id` will touch, if one more will be the last. Any id will do;
  // its record should be there by now.
  void prefetch_last(AttrId id) const noexcept {
    if (raw(id) >= next_id_) return;
    const Record& record = records_[raw(id)];
    if (record.blob == nullptr || record.refs != 1) return;
    prefetch_line(record.blob);
    prefetch_tag(record.tag);
  }

  // Blobs with kAttributesCanonical.
  [[nodiscard]] std::size_t canonical_sets() const noexcept { return canonical_sets_; }
  // Distinct blobs.
  [[nodiscard]] std::size_t size() const noexcept { return index_.size(); }
  // Blobs and index by class size, and records.
  [[nodiscard]] std::size_t memory_bytes() const noexcept;
  // No id is or was above this: arrays beside the store can be indexed by id.
  [[nodiscard]] std::uint32_t highest_id() const noexcept { return next_id_ - 1; }

 private:
  struct Record {
    std::byte* blob;     // null: free
    std::uint32_t refs;  // when free: the next free id
    std::uint32_t tag;   // upper half of the hash
  };
  struct Header;
  struct Slot {
    std::uint32_t id = 0;   // 0: empty
    std::uint32_t tag = 0;  // upper half of the hash
    [[nodiscard]] bool empty() const noexcept { return id == 0; }
    // Directory bits from the top, slot bits from the bottom: both come from the tag.
    static constexpr std::uint64_t spread(std::uint32_t t) noexcept { return (std::uint64_t{t} << 32) | t; }
    [[nodiscard]] std::uint64_t hash(const HashSeed&) const noexcept { return spread(tag); }
  };

  [[nodiscard]] bool equal(std::uint32_t id, const AttrKey& key) const noexcept;
  [[nodiscard]] static Header header_of(const Record& record) noexcept;
  std::uint32_t take_id() noexcept;
  [[nodiscard]] Record& live(AttrId id) const noexcept {
    if (raw(id) == 0 || raw(id) >= next_id_) broken("attribute id out of range");
    Record& record = records_[raw(id)];
    if (record.blob == nullptr) broken("attribute id used after its last reference");
    return record;
  }
  void forget(AttrId id) noexcept;

  SegmentPool* pool_;
  ExtendibleTable<Slot> index_;
  void* reserved_ = nullptr;  // address space
  std::size_t reserved_bytes_ = 0;
  Record* records_ = nullptr;  // in it, from a huge page's begin on; made writable block by block
  std::uint32_t max_ids_;
  std::uint32_t writable_ids_ = 0;
  std::uint32_t next_id_ = 1;
  std::uint32_t free_id_ = 0;
  std::size_t blob_bytes_ = 0;
  std::size_t canonical_sets_ = 0;
};

}  // namespace arancini::ingestd
