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

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

// Stands in the last bytes of its chunk, so that blocks start on pages.
struct alignas(64) SegmentPool::Chunk {
  Chunk* next;  // in its class's list or among the spare ones
  Chunk* prev;
  Chunk* all_next;
  Chunk* all_prev;
  void* free_list;
  std::uint32_t bump;     // blocks behind were never handed out since the chunk got its class
  std::uint32_t touched;  // highest bump ever: what the kernel has given us
  std::uint32_t used;     // blocks handed out
  std::uint16_t cls;
  std::uint8_t linked;

  static Chunk* of(void* block) {
    const std::uintptr_t start = reinterpret_cast<std::uintptr_t>(block) & ~(kChunkBytes - 1);
    return reinterpret_cast<Chunk*>(start + kChunkBytes - sizeof(Chunk));
  }
  [[nodiscard]] std::byte* start() { return reinterpret_cast<std::byte*>(this + 1) - kChunkBytes; }
};

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
    : limit_bytes_(options.limit_bytes), seed_(options.seed), huge_pages_(options.huge_pages) {}

SegmentPool::~SegmentPool() {
  for (Chunk* chunk = all_; chunk != nullptr;) {
    Chunk* const next = chunk->all_next;
    munmap(chunk->start(), kChunkBytes);
    chunk = next;
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
      if (!huge_pages_) {
        if (memory_bytes_ + more > limit_bytes_) return nullptr;
        memory_bytes_ += more;
      }
      chunk->touched = end;
    }
    block = chunk->start() + chunk->bump;
    chunk->bump = end;
  }
  ++chunk->used;
  if (chunk->free_list == nullptr && chunk->bump + size > kChunkBytes - sizeof(Chunk)) unlink(chunk);
  return block;
}

SegmentPool::Chunk* SegmentPool::take_chunk(unsigned cls) noexcept {
  Chunk* chunk = spare_;
  if (chunk != nullptr) {
    spare_ = chunk->next;
  } else {
    const std::size_t cost = huge_pages_ ? kChunkBytes : kPageBytes;
    if (memory_bytes_ + cost > limit_bytes_) return nullptr;
    // Aligned: map twice as much and cut.
    void* const raw =
        mmap(nullptr, 2 * kChunkBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return nullptr;
    auto* const base = static_cast<std::byte*>(raw);
    const std::size_t before =
        (kChunkBytes - reinterpret_cast<std::uintptr_t>(base) % kChunkBytes) % kChunkBytes;
    if (before != 0) munmap(base, before);
    munmap(base + before + kChunkBytes, kChunkBytes - before);
    madvise(base + before, kChunkBytes, huge_pages_ ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    chunk = Chunk::of(base + before);
    memory_bytes_ += cost;
    chunk->all_next = all_;
    if (all_ != nullptr) all_->all_prev = chunk;
    all_ = chunk;
  }
  chunk->free_list = nullptr;
  chunk->bump = 0;
  chunk->used = 0;
  chunk->cls = static_cast<std::uint16_t>(cls);
  link(chunk);
  return chunk;
}

void* SegmentPool::allocate_large(std::size_t bytes) noexcept {
  const std::size_t mapped = class_bytes(bytes);
  if (mapped < bytes || memory_bytes_ + mapped > limit_bytes_) return nullptr;
  void* const raw = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* const large = static_cast<Large*>(raw);
  large->mapped_bytes = mapped;
  large->prev = nullptr;
  large->next = large_;
  if (large_ != nullptr) large_->prev = large;
  large_ = large;
  memory_bytes_ += mapped;
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
  Chunk* const chunk = Chunk::of(block);
  *static_cast<void**>(block) = chunk->free_list;
  chunk->free_list = block;
  if (chunk->linked == 0) link(chunk);
  if (--chunk->used == 0) {
    unlink(chunk);
    chunk->next = spare_;
    spare_ = chunk;
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
  for (; spare_ != nullptr && count < max_chunks; ++count) {
    Chunk* const chunk = spare_;
    spare_ = chunk->next;
    if (chunk->all_prev != nullptr) {
      chunk->all_prev->all_next = chunk->all_next;
    } else {
      all_ = chunk->all_next;
    }
    if (chunk->all_next != nullptr) chunk->all_next->all_prev = chunk->all_prev;
    memory_bytes_ -= huge_pages_ ? kChunkBytes : kPageBytes + chunk->touched;
    munmap(chunk->start(), kChunkBytes);
  }
  return count;
}

}  // namespace arancini::ingestd
