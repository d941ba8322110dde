#include "ingestd/segment_pool.h"

#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <system_error>

namespace arancini::ingestd {

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kReclaimWhenFull = 64;

constexpr unsigned class_of(std::size_t bytes) {
  // Steps of 16 up to 128, then four a doubling.
  if (bytes <= 128) return bytes == 0 ? 0 : static_cast<unsigned>((bytes + 15) / 16 - 1);
  const auto width = static_cast<unsigned>(std::bit_width(bytes - 1));
  const std::size_t step = std::size_t{1} << (width - 3);
  return 8 + (width - 8) * 4 + static_cast<unsigned>((bytes + step - 1) / step) - 5;
}

constexpr std::size_t size_of_class(unsigned cls) {
  if (cls < 8) return (std::size_t{cls} + 1) * 16;
  return std::size_t{(cls - 8) % 4 + 5} << ((cls - 8) / 4 + 5);
}

static_assert(size_of_class(class_of(1)) == 16 && size_of_class(class_of(128)) == 128);
static_assert(size_of_class(class_of(129)) == 160 && size_of_class(class_of(256)) == 256);
static_assert(size_of_class(class_of(28672)) == 28672 && class_of(65536) == 43 && size_of_class(43) == 65536);

// A seed that someone wrote down (0, 1, ~0) would make weak multipliers. SplitMix64's finaliser (Steele, Lea,
// Flood).
constexpr std::uint64_t whitened(std::uint64_t x) {
  x *= 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

// The headers of a region's chunks stand together at its end (Tail), so that blocks start on pages.
struct alignas(64) SegmentPool::Chunk {
  Chunk* next;  // in its class's list or among the spare ones
  Chunk* prev;
  void* free_list;
  std::byte* start;
  std::uint32_t size;     // of the chunk, without the headers in the last one
  std::uint32_t bump;     // blocks behind were never handed out since the chunk got its class
  std::uint32_t touched;  // up to here the kernel has given us memory
  std::uint32_t used;     // blocks handed out
  std::uint16_t cls;
  std::uint8_t linked;
};

struct alignas(64) SegmentPool::Tail {
  std::array<Chunk, kRegionBytes / kChunkBytes> chunks;
  Tail* next;
  std::byte* start;  // of the region

  static Tail* of(std::byte* region) { return reinterpret_cast<Tail*>(region + kRegionBytes - sizeof(Tail)); }
};

SegmentPool::Chunk* SegmentPool::chunk_of(void* block) noexcept {
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(block) % kRegionBytes;
  return &Tail::of(static_cast<std::byte*>(block) - offset)->chunks[offset / kChunkBytes];
}

struct alignas(64) SegmentPool::Large {
  Large* next;
  Large* prev;
  std::size_t mapped_bytes;
};

HashSeed HashSeed::random() {
  HashSeed seed;
  if (getrandom(&seed, sizeof seed, 0) != static_cast<ssize_t>(sizeof seed)) {
    throw std::system_error(errno, std::generic_category(), "getrandom");
  }
  return seed;
}

SegmentPool::SegmentPool(const Options& options)
    : limit_bytes_(options.limit_bytes),
      seed_{whitened(options.seed.a + 1), whitened(options.seed.b + 2)},
      huge_pages_(options.huge_pages) {}

SegmentPool::~SegmentPool() {
  for (Tail* tail = regions_; tail != nullptr;) {
    Tail* const next = tail->next;
    munmap(tail->start, kRegionBytes);
    tail = next;
  }
  for (Large* large = large_; large != nullptr;) {
    Large* const next = large->next;
    munmap(large, large->mapped_bytes);
    large = next;
  }
}

std::size_t SegmentPool::class_bytes(std::size_t bytes) noexcept {
  return bytes <= kMaxClassBytes ? size_of_class(class_of(bytes))
                                 : round_up(bytes + sizeof(Large), kPageBytes);
}

void* SegmentPool::allocate(std::size_t bytes) noexcept {
  void* block = bytes <= kMaxClassBytes ? allocate_small(bytes) : allocate_large(bytes);
  if (block == nullptr && discarded_ != nullptr) {
    reclaim_some(kReclaimWhenFull);
    block = bytes <= kMaxClassBytes ? allocate_small(bytes) : allocate_large(bytes);
  }
  if (block != nullptr) used_bytes_ += class_bytes(bytes);
  return block;
}

// Empty chunks keep their pages until somebody needs the bytes.
bool SegmentPool::charge(std::size_t bytes) noexcept {
  if (bytes > limit_bytes_) return false;
  while (memory_bytes_ > limit_bytes_ - bytes) {
    if (trim(1) == 0) return false;
  }
  memory_bytes_ += bytes;
  return true;
}

void SegmentPool::link(Chunk* chunk) noexcept {
  Chunk*& head = partial_[chunk->cls];
  chunk->prev = nullptr;
  chunk->next = head;
  if (head != nullptr) head->prev = chunk;
  head = chunk;
  chunk->linked = 1;
}

void SegmentPool::unlink(Chunk* chunk) noexcept {
  if (chunk->prev != nullptr) {
    chunk->prev->next = chunk->next;
  } else {
    partial_[chunk->cls] = chunk->next;
  }
  if (chunk->next != nullptr) chunk->next->prev = chunk->prev;
  chunk->linked = 0;
}

void SegmentPool::set_aside(Chunk* chunk) noexcept {
  chunk->next = spare_;
  spare_ = chunk;
  if (chunk->touched != 0) ++spare_touched_;
}

void* SegmentPool::allocate_small(std::size_t bytes) noexcept {
  const unsigned cls = class_of(bytes);
  const auto size = static_cast<std::uint32_t>(size_of_class(cls));
  Chunk* chunk = partial_[cls];
  if (chunk == nullptr) {
    chunk = take_chunk(cls);
    if (chunk == nullptr) return nullptr;
  }
  void* block = chunk->free_list;
  if (block != nullptr) {
    chunk->free_list = *static_cast<void**>(block);
  } else {
    const std::uint32_t end = chunk->bump + size;
    if (end > chunk->touched) {
      const std::uint32_t more = end - chunk->touched;
      if (!charge(more)) return nullptr;
      chunk->touched = end;
    }
    block = chunk->start + chunk->bump;
    chunk->bump = end;
  }
  ++chunk->used;
  if (chunk->free_list == nullptr && chunk->bump + size > chunk->size) unlink(chunk);
  return block;
}

SegmentPool::Chunk* SegmentPool::take_chunk(unsigned cls) noexcept {
  if (spare_ == nullptr && !map_region()) return nullptr;
  Chunk* const chunk = spare_;
  spare_ = chunk->next;
  if (chunk->touched != 0) --spare_touched_;
  if (huge_pages_ && chunk->touched != chunk->size) {
    if (!charge(chunk->size - chunk->touched)) {
      set_aside(chunk);
      return nullptr;
    }
    chunk->touched = chunk->size;
  }
  chunk->free_list = nullptr;
  chunk->bump = 0;
  chunk->used = 0;
  chunk->cls = static_cast<std::uint16_t>(cls);
  link(chunk);
  return chunk;
}

bool SegmentPool::map_region() noexcept {
  const std::size_t cost = huge_pages_ ? kRegionBytes : kPageBytes;
  if (!charge(cost)) return false;
  // Aligned: map twice as much and cut.
  void* const raw =
      mmap(nullptr, 2 * kRegionBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    memory_bytes_ -= cost;
    return false;
  }
  auto* const base = static_cast<std::byte*>(raw);
  const std::size_t before =
      (kRegionBytes - reinterpret_cast<std::uintptr_t>(base) % kRegionBytes) % kRegionBytes;
  if (before != 0) munmap(base, before);
  munmap(base + before + kRegionBytes, kRegionBytes - before);
  madvise(base + before, kRegionBytes, huge_pages_ ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  auto* const tail = Tail::of(base + before);
  tail->start = base + before;
  tail->next = regions_;
  regions_ = tail;
  for (std::size_t i = tail->chunks.size(); i-- > 0;) {
    Chunk& chunk = tail->chunks[i];
    chunk.start = tail->start + i * kChunkBytes;
    chunk.size = kChunkBytes;
    if (i == tail->chunks.size() - 1) chunk.size -= static_cast<std::uint32_t>(sizeof(Tail));
    chunk.touched = huge_pages_ ? chunk.size : 0;
    set_aside(&chunk);
  }
  return true;
}

void* SegmentPool::allocate_large(std::size_t bytes) noexcept {
  const std::size_t mapped = class_bytes(bytes);
  if (mapped < bytes || !charge(mapped)) return nullptr;
  void* const raw = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    memory_bytes_ -= mapped;
    return nullptr;
  }
  auto* const large = static_cast<Large*>(raw);
  large->mapped_bytes = mapped;
  large->prev = nullptr;
  large->next = large_;
  if (large_ != nullptr) large_->prev = large;
  large_ = large;
  return large + 1;
}

void SegmentPool::release(void* block, std::size_t bytes) noexcept {
  used_bytes_ -= class_bytes(bytes);
  if (bytes > kMaxClassBytes) {
    Large* const large = static_cast<Large*>(block) - 1;
    if (large->prev != nullptr) {
      large->prev->next = large->next;
    } else {
      large_ = large->next;
    }
    if (large->next != nullptr) large->next->prev = large->prev;
    memory_bytes_ -= large->mapped_bytes;
    munmap(large, large->mapped_bytes);
    return;
  }
  Chunk* const chunk = chunk_of(block);
  *static_cast<void**>(block) = chunk->free_list;
  chunk->free_list = block;
  if (chunk->linked == 0) link(chunk);
  if (--chunk->used == 0) {
    unlink(chunk);
    set_aside(chunk);
  }
}

void SegmentPool::discard(DirectoryHeader* directory) noexcept {
  directory->next = discarded_;
  discarded_ = directory;
}

bool SegmentPool::reclaim_some(std::size_t max_segments) noexcept {
  std::size_t left = max_segments;
  while (discarded_ != nullptr && left > 0) {
    DirectoryHeader* const header = discarded_;
    const auto* const refs = reinterpret_cast<const SegmentRef*>(header + 1);
    const std::size_t entries = std::size_t{1} << header->depth;
    for (; left > 0 && header->position < entries; --left) {
      const SegmentRef& ref = refs[header->position];
      header->position += 1U << (header->depth - ref.depth);
      if (ref.log2_slots != 0) release(ref.slots, std::size_t{header->slot_bytes} << ref.log2_slots);
    }
    if (header->position >= entries) {
      discarded_ = header->next;
      release(header, sizeof(DirectoryHeader) + (sizeof(SegmentRef) << header->depth));
    }
  }
  return discarded_ == nullptr;
}

std::size_t SegmentPool::trim(std::size_t max_chunks) noexcept {
  std::size_t count = 0;
  for (Chunk* chunk = spare_; spare_touched_ != 0 && count < max_chunks; chunk = chunk->next) {
    if (chunk->touched == 0) continue;
    // Whole pages: those with the headers stay.
    madvise(chunk->start, chunk->size / kPageBytes * kPageBytes, MADV_DONTNEED);
    memory_bytes_ -= chunk->touched;
    chunk->touched = 0;
    --spare_touched_;
    ++count;
  }
  return count;
}

}  // namespace arancini::ingestd
