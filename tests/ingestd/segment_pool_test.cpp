#include "ingestd/segment_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "ingestd/route_table.h"

namespace arancini::ingestd {
namespace {

constexpr HashSeed kSeed{0x0123456789abcdefULL, 0xfedcba9876543210ULL};

TEST(SegmentPool, BlocksDoNotOverlapAndAreAligned) {
  SegmentPool pool({UINT64_MAX, false, kSeed});
  std::mt19937_64 rng(1);
  struct Block {
    std::byte* start;
    std::size_t bytes;
    unsigned char fill;
  };
  std::vector<Block> blocks;
  for (int step = 0; step < 40000; ++step) {
    if (blocks.empty() || rng() % 10 < (step / 5000 % 2 == 0 ? 7U : 3U)) {
      const std::size_t bytes = 1 + rng() % (std::size_t{1} << (4 + rng() % 14));
      auto* const start = static_cast<std::byte*>(pool.allocate(bytes));
      ASSERT_NE(start, nullptr);
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(start) % (bytes >= 256 ? 64 : 16), 0U);
      ASSERT_GE(SegmentPool::class_bytes(bytes), bytes);
      const auto fill = static_cast<unsigned char>(rng());
      std::memset(start, fill, bytes);
      blocks.push_back({start, bytes, fill});
    } else {
      const std::size_t i = rng() % blocks.size();
      const Block b = blocks[i];
      for (std::size_t k = 0; k < b.bytes; k += 61) ASSERT_EQ(b.start[k], std::byte{b.fill});
      ASSERT_EQ(b.start[b.bytes - 1], std::byte{b.fill});
      pool.release(b.start, b.bytes);
      blocks[i] = blocks.back();
      blocks.pop_back();
    }
  }
  ASSERT_GE(pool.memory_bytes(), pool.used_bytes());
  for (const Block& b : blocks) pool.release(b.start, b.bytes);
  EXPECT_EQ(pool.used_bytes(), 0U);
  while (pool.trim(3) != 0) {
  }
  // A page of headers for each region remains.
  EXPECT_LE(pool.memory_bytes(), 64 * 4096U);
}

TEST(SegmentPool, ClassesWasteAtMostAQuarter) {
  for (std::size_t bytes = 128; bytes <= SegmentPool::kMaxClassBytes; bytes += 16) {
    ASSERT_LE(SegmentPool::class_bytes(bytes), bytes + bytes / 4 + 1) << bytes;
  }
  // Segments of IPv4 and IPv6 slots waste nothing.
  for (std::size_t slots = 16; slots <= 1024; slots *= 2) {
    EXPECT_EQ(SegmentPool::class_bytes(slots * sizeof(RouteSlotV4)), slots * sizeof(RouteSlotV4));
    EXPECT_EQ(SegmentPool::class_bytes(slots * sizeof(RouteSlotV6)), slots * sizeof(RouteSlotV6));
  }
}

TEST(SegmentPool, RefusesBeyondItsLimitAndServesAfterRelease) {
  for (const bool huge : {false, true}) {
    SegmentPool pool({std::uint64_t{4} << 20, huge, kSeed});
    std::vector<void*> blocks;
    while (void* const block = pool.allocate(1024)) blocks.push_back(block);
    EXPECT_LE(pool.memory_bytes(), pool.limit_bytes());
    EXPECT_GE(blocks.size(), 3900U);
    EXPECT_EQ(pool.allocate(std::size_t{1} << 20), nullptr);
    pool.release(blocks.back(), 1024);
    blocks.back() = pool.allocate(1024);
    EXPECT_NE(blocks.back(), nullptr);
    for (void* const block : blocks) pool.release(block, 1024);
    // Another class may have the chunks now.
    void* const other = pool.allocate(16384);
    EXPECT_NE(other, nullptr);
    pool.release(other, 16384);
  }
}

TEST(SegmentPool, DiscardedTablesAreFreedInSlices) {
  SegmentPool pool({UINT64_MAX, false, kSeed});
  std::size_t segments = 0;
  {
    RouteTable table(pool, kIpv4Unicast);
    for (std::uint32_t n = 0; n < 200000; ++n) ASSERT_TRUE(table.insert({0, kV4MappedLow | n, 0, 32}).second);
    segments = table.memory_bytes() / (1024 * sizeof(RouteSlotV4));
    EXPECT_FALSE(table.clear_some(1));
    // Usable at once, beside what is still to be freed.
    EXPECT_EQ(table.size(), 0U);
    EXPECT_EQ(table.memory_bytes(), 0U);
    EXPECT_EQ(table.find({0, kV4MappedLow | 5, 0, 32}), nullptr);
    ASSERT_TRUE(table.insert({0, kV4MappedLow | 5, 0, 32}).second);
    EXPECT_TRUE(pool.has_discarded());
  }
  std::size_t calls = 1;
  while (true) {
    const std::uint64_t before = pool.used_bytes();
    const bool done = pool.reclaim_some(10);
    // Ten segments, and the directory with the last.
    EXPECT_LE(before - pool.used_bytes(), 10 * 1024 * sizeof(RouteSlotV4) + 65536);
    ++calls;
    if (done) break;
  }
  EXPECT_GE(calls, segments / 10);
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST(SegmentPool, ReclaimsDiscardedTablesWhenMemoryIsShort) {
  SegmentPool pool({std::uint64_t{8} << 20, false, kSeed});
  RouteTable table(pool, kIpv4Unicast);
  std::uint32_t n = 0;
  while (table.insert({0, kV4MappedLow | n, 0, 32}).first != nullptr) ++n;
  const std::size_t full = table.size();
  EXPECT_GT(full, 150000U);
  // What stands in the table is untouched by the refusal.
  for (std::uint32_t i = 0; i < n; ++i) ASSERT_NE(table.find({0, kV4MappedLow | i, 0, 32}), nullptr);
  table.clear();
  // Each refusal frees a bounded part of the discarded table; no help from reclaim_some() here. Blocks of
  // other sizes hold some memory now.
  const auto again = static_cast<std::uint32_t>(full - full / 20);
  std::size_t refusals = 0;
  for (std::uint32_t i = 0; i < again; ++i) {
    while (table.insert({0, kV4MappedLow | i, 0, 32}).first == nullptr) {
      ASSERT_LT(++refusals, 100U) << i << " of " << full;
    }
  }
  EXPECT_EQ(table.size(), again);
}

}  // namespace
}  // namespace arancini::ingestd
