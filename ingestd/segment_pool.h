#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

// Memory of one shard's route tables and attributes: size-classed slabs in mmap'd chunks, no malloc, no lock,
// one thread. Nothing here throws on the hot path; out of memory is a null pointer.
namespace arancini::ingestd {

// Secret key of the hash functions: without it nobody can choose prefixes or attributes that collide. Walk
// order depends on it, so a replay that must write identical records uses the recorded seed (DESIGN 4.5).
struct HashSeed {
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  static HashSeed random();  // from the kernel; throws std::system_error
};

// One slot range of an extendible hash table; see extendible_hash.h.
struct SegmentRef {
  void* slots;
  std::uint32_t count;      // used slots; valid in the first directory entry of the segment's range only
  std::uint8_t depth;       // how many leading hash bits all its keys share
  std::uint8_t log2_slots;  // 0: no slots of its own
  std::uint16_t reserved;
};

// Stands in front of a table's directory, so that a discarded table can wait in the pool's list until it is
// freed.
struct DirectoryHeader {
  DirectoryHeader* next;
  std::uint32_t position;  // next directory entry to free
  std::uint32_t slot_bytes;
  std::uint8_t depth;  // 2^depth entries follow
};

class SegmentPool {
 public:
  // Mapped at once, aligned, so that it can be a huge page.
  static constexpr std::size_t kRegionBytes = std::size_t{2} << 20;
  // Holds blocks of one size; given to another size when empty.
  static constexpr std::size_t kChunkBytes = std::size_t{256} << 10;
  // Larger blocks get a mapping of their own.
  static constexpr std::size_t kMaxClassBytes = std::size_t{64} << 10;

  struct Options {
    std::uint64_t limit_bytes = UINT64_MAX;  // of memory_bytes()
    bool huge_pages = false;                 // MADV_HUGEPAGE: the first touch of a region costs 100 us
    HashSeed seed{};                         // of all tables in this pool
  };
  explicit SegmentPool(const Options& options);
  // All tables that use the pool must be gone.
  ~SegmentPool();
  SegmentPool(const SegmentPool&) = delete;
  SegmentPool& operator=(const SegmentPool&) = delete;

  // At least `bytes`, contents undefined, 64-byte aligned from 256 bytes, 16-byte aligned below. Null when
  // the limit is reached or the kernel refuses; then a bounded part of what was discarded has been reclaimed:
  // try again later.
  [[nodiscard]] void* allocate(std::size_t bytes) noexcept;
  // `bytes` as given to allocate().
  void release(void* block, std::size_t bytes) noexcept;

  // Takes over a directory with all its segments; constant time.
  void discard(DirectoryHeader* directory) noexcept;
  // Frees at most `max_segments` segments of discarded tables. True when nothing is left.
  bool reclaim_some(std::size_t max_segments) noexcept;
  // Gives the pages of at most `max_chunks` empty chunks back to the kernel (tens of us each); returns of how
  // many. Happens by itself when the limit is reached.
  std::size_t trim(std::size_t max_chunks) noexcept;

  // Memory touched so far and not given back, as the kernel counts it within a page or so per chunk.
  [[nodiscard]] std::uint64_t memory_bytes() const noexcept { return memory_bytes_; }
  // Blocks handed out, by class size.
  [[nodiscard]] std::uint64_t used_bytes() const noexcept { return used_bytes_; }
  [[nodiscard]] std::uint64_t limit_bytes() const noexcept { return limit_bytes_; }
  [[nodiscard]] bool huge_pages() const noexcept { return huge_pages_; }
  void set_limit_bytes(std::uint64_t limit) noexcept { limit_bytes_ = limit; }
  // Segments of discarded tables that wait for reclaim_some() exist.
  [[nodiscard]] bool has_discarded() const noexcept { return discarded_ != nullptr; }
  // What the hash functions use: made from Options::seed, any of which will do.
  [[nodiscard]] const HashSeed& seed() const noexcept { return seed_; }

  // What a block of `bytes` really takes.
  static std::size_t class_bytes(std::size_t bytes) noexcept;

 private:
  struct Chunk;
  struct Tail;
  struct Large;
  static constexpr std::size_t kClasses = 44;

  static Chunk* chunk_of(void* block) noexcept;
  void* allocate_small(std::size_t bytes) noexcept;
  void* allocate_large(std::size_t bytes) noexcept;
  Chunk* take_chunk(unsigned cls) noexcept;
  bool map_region() noexcept;
  void set_aside(Chunk* chunk) noexcept;
  bool charge(std::size_t bytes) noexcept;
  void link(Chunk* chunk) noexcept;
  void unlink(Chunk* chunk) noexcept;

  std::array<Chunk*, kClasses> partial_{};  // chunks with free blocks, by class
  Chunk* spare_ = nullptr;                  // chunks without any block
  std::size_t spare_touched_ = 0;           // of those, with pages of their own
  Tail* regions_ = nullptr;
  Large* large_ = nullptr;
  DirectoryHeader* discarded_ = nullptr;
  std::uint64_t memory_bytes_ = 0;
  std::uint64_t used_bytes_ = 0;
  std::uint64_t limit_bytes_;
  HashSeed seed_;
  bool huge_pages_;
};

}  // namespace arancini::ingestd
