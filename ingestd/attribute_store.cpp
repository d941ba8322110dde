#include "ingestd/attribute_store.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "ingestd/broken.h"
#include "ingestd/hash.h"

namespace arancini::ingestd {

namespace {

// Records are made writable by the huge page: every look at an attribute set begins with its record, far from
// the one before.
constexpr std::size_t kStepBytes = std::size_t{2} << 20;
constexpr std::uint32_t kIdsPerStep = kStepBytes / 16;

std::byte* append(std::byte* to, std::span<const std::byte> part) noexcept {
  if (!part.empty()) std::memcpy(to, part.data(), part.size());
  return to + part.size();
}

bool is_canonical(std::span<const std::byte> flags) noexcept {
  return !flags.empty() && (flags.front() & kAttributesCanonical) != std::byte{0};
}

bool same(std::span<const std::byte> part, const std::byte* bytes) noexcept {
  return part.empty() || std::memcmp(part.data(), bytes, part.size()) == 0;
}

}  // namespace

// In front of the blob's bytes.
struct AttributeStore::Header {
  std::uint32_t size_bytes;  // of the three parts together
  std::uint16_t next_hop_bytes;
  std::uint16_t flags_bytes;
};

AttributeStore::Header AttributeStore::header_of(const Record& record) noexcept {
  Header header;
  std::memcpy(&header, record.blob, sizeof header);
  return header;
}

AttributeStore::AttributeStore(SegmentPool& pool, std::uint32_t max_ids)
    : pool_(&pool), index_(pool), max_ids_(std::max(max_ids, kIdsPerStep) / kIdsPerStep * kIdsPerStep) {
  static_assert(kIdsPerStep * sizeof(Record) == kStepBytes);
  reserved_bytes_ = std::size_t{max_ids_} * sizeof(Record) + kStepBytes;
  reserved_ = mmap(nullptr, reserved_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserved_ == MAP_FAILED)
    throw std::system_error(errno, std::generic_category(), "address space for attribute records");
  if (pool.huge_pages()) madvise(reserved_, reserved_bytes_, MADV_HUGEPAGE);
  const std::size_t off = reinterpret_cast<std::uintptr_t>(reserved_) % kStepBytes;
  records_ =
      reinterpret_cast<Record*>(static_cast<std::byte*>(reserved_) + (off == 0 ? 0 : kStepBytes - off));
}

AttributeStore::~AttributeStore() {
  for (std::uint32_t id = 1; id < next_id_; ++id) {
    const Record& record = records_[id];
    if (record.blob != nullptr) pool_->release(record.blob, sizeof(Header) + header_of(record).size_bytes);
  }
  munmap(reserved_, reserved_bytes_);
}

std::uint32_t AttributeStore::tag_of(const AttrKey& key) const noexcept {
  const HashSeed& seed = index_.seed();
  std::uint64_t h = key.flags.size() == 1 ? static_cast<std::uint64_t>(key.flags.front()) << 8 | 1U
                                          : hash_bytes(key.flags, 2, seed);
  if (!key.next_hop.empty()) h = hash_bytes(key.next_hop, h, seed);
  h = hash_bytes(key.attributes, h, seed);
  return static_cast<std::uint32_t>(h >> 32);
}

bool AttributeStore::equal(std::uint32_t id, const AttrKey& key) const noexcept {
  const Header header = header_of(records_[id]);
  if (header.next_hop_bytes != key.next_hop.size() || header.flags_bytes != key.flags.size() ||
      header.size_bytes != key.next_hop.size() + key.flags.size() + key.attributes.size()) {
    return false;
  }
  const std::byte* const bytes = records_[id].blob + sizeof header;
  return same(key.next_hop, bytes) && same(key.flags, bytes + key.next_hop.size()) &&
         same(key.attributes, bytes + key.next_hop.size() + key.flags.size());
}

// The next free id, still free; 0 when there is none.
std::uint32_t AttributeStore::take_id() noexcept {
  if (free_id_ != 0) return free_id_;
  if (next_id_ >= writable_ids_) {
    if (writable_ids_ >= max_ids_) return 0;
    if (mprotect(records_ + writable_ids_, kIdsPerStep * sizeof(Record), PROT_READ | PROT_WRITE) != 0)
      return 0;
    writable_ids_ += kIdsPerStep;
  }
  return next_id_;
}

AttributeStore::Interned AttributeStore::find_or_insert(const AttrKey& key, std::uint32_t tag) noexcept {
  if (key.next_hop.size() > UINT16_MAX || key.flags.size() > UINT16_MAX)
    broken("attribute key with a part too long");
  const std::size_t size = key.next_hop.size() + key.flags.size() + key.attributes.size();
  if (size > UINT32_MAX - sizeof(Header)) broken("attribute key of 4 GiB");
  const std::uint64_t hash = Slot::spread(tag);
  const auto [slot, is_new] = index_.find_or_place(
      hash, [&](const Slot& s) { return s.tag == tag && !s.empty() && equal(s.id, key); });
  if (slot == nullptr) return {};
  if (!is_new) {
    ref(AttrId{slot->id});
    return {AttrId{slot->id}, false};
  }
  const std::uint32_t id = take_id();
  auto* const blob = id == 0 ? nullptr : static_cast<std::byte*>(pool_->allocate(sizeof(Header) + size));
  if (blob == nullptr) {
    index_.abandon(hash);
    return {};
  }
  Record& record = records_[id];
  if (id == free_id_) {
    free_id_ = record.refs;
  } else {
    ++next_id_;
  }
  const Header header{static_cast<std::uint32_t>(size), static_cast<std::uint16_t>(key.next_hop.size()),
                      static_cast<std::uint16_t>(key.flags.size())};
  std::memcpy(blob, &header, sizeof header);
  append(append(append(blob + sizeof header, key.next_hop), key.flags), key.attributes);
  record = {blob, 1, tag};
  slot->id = id;
  slot->tag = tag;
  if (is_canonical(key.flags)) ++canonical_sets_;
  blob_bytes_ += SegmentPool::class_bytes(sizeof(Header) + size);
  return {AttrId{id}, true};
}

AttrId AttributeStore::find(const AttrKey& key) const noexcept {
  const std::uint32_t tag = tag_of(key);
  const Slot* const slot = index_.find(
      Slot::spread(tag), [&](const Slot& s) { return s.tag == tag && !s.empty() && equal(s.id, key); });
  return slot == nullptr ? AttrId::None : AttrId{slot->id};
}

// The last reference is gone.
void AttributeStore::forget(AttrId id) noexcept {
  Record& record = records_[raw(id)];
  const Header header = header_of(record);
  const std::uint64_t hash = Slot::spread(record.tag);
  Slot* const slot = index_.find(hash, [id](const Slot& s) { return s.id == raw(id); });
  if (slot == nullptr) broken("attribute blob not in its index");
  index_.erase(slot, hash);
  if (is_canonical({record.blob + sizeof header + header.next_hop_bytes, header.flags_bytes}))
    --canonical_sets_;
  const std::size_t block_bytes = sizeof header + header.size_bytes;
  pool_->release(record.blob, block_bytes);
  blob_bytes_ -= SegmentPool::class_bytes(block_bytes);
  record = {nullptr, free_id_, 0};
  free_id_ = raw(id);
}

std::uint32_t AttributeStore::references(AttrId id) const noexcept {
  return live(id).refs;
}

std::span<const std::byte> AttributeStore::bytes(AttrId id) const noexcept {
  const Record& record = live(id);
  return {record.blob + sizeof(Header), header_of(record).size_bytes};
}

AttrKey AttributeStore::parts(AttrId id) const noexcept {
  const Header header = header_of(live(id));
  const std::span<const std::byte> all = bytes(id);
  return {all.first(header.next_hop_bytes), all.subspan(header.next_hop_bytes, header.flags_bytes),
          all.subspan(std::size_t{header.next_hop_bytes} + header.flags_bytes)};
}

std::size_t AttributeStore::memory_bytes() const noexcept {
  return blob_bytes_ + index_.memory_bytes() + std::size_t{next_id_} * sizeof(Record);
}

}  // namespace arancini::ingestd
