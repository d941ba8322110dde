// The steady state of tables and attributes calls no allocator at all: malloc is replaced by one that counts.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "ingestd/attribute_store.h"
#include "ingestd/route_table.h"
#include "tests/ingestd/counting_malloc.h"

namespace arancini::ingestd {
namespace {

TEST(RibAllocations, NoneInSteadyStateNorWhileGrowing) {
  if (ARANCINI_COUNTS_MALLOC == 0) GTEST_SKIP() << "a sanitizer owns malloc";
  const std::uint64_t at_start = g_allocations;
  // Through a volatile pointer: a pair of malloc and free in sight of one another may be left out.
  void* (*volatile const counted)(std::size_t) = std::malloc;
  std::free(counted(1));
  ASSERT_EQ(g_allocations, at_start + 1) << "the counter does not count";

  SegmentPool pool({UINT64_MAX, false, {1, 2}});
  AttributeStore store(pool);
  RouteTable v4(pool, kIpv4Unicast);
  RouteTable v6(pool, kIpv6Unicast);
  std::mt19937_64 rng(1);
  std::vector<AttrId> held(5000, AttrId::None);
  std::array<std::byte, 300> attributes{};

  const std::uint64_t before = g_allocations;
  std::uint64_t visited = 0;
  for (int step = 0; step < 1'000'000; ++step) {
    const auto n = static_cast<std::uint32_t>(rng() % 300000);
    const Prefix p4{0, kV4MappedLow | (n << 8), 0, 24};
    const Prefix p6{0x2001'0000'0000'0000ULL + n, 0, 0, 64};
    v4.prefetch(p4);
    if (rng() % 3 != 0) {
      v4.insert(p4).first->generation = 1;
      v6.insert(p6).first->generation = 1;
    } else {
      v4.erase(p4);
      v6.erase(p6);
    }
    visited += v4.find(p4) != nullptr ? 1 : 0;
    const std::uint64_t value = rng() % 20000;
    std::memcpy(attributes.data(), &value, sizeof value);
    AttrId& slot = held[n % held.size()];
    if (slot != AttrId::None) store.unref(slot);
    slot = store.intern({{}, {}, std::span(attributes).first(20 + value % 280)});
    if (step % 100000 == 99999) {
      WalkCursor cursor;
      while (!cursor.done) {
        visited += v6.walk(cursor, 100, [](const Prefix& p, RouteState&) {
          return p.high % 2 == 0 ? WalkAction::Erase : WalkAction::Keep;
        });
      }
    }
    if (step == 700000) {
      v4.clear();
      while (!pool.reclaim_some(8)) {
      }
      pool.trim(1000);
    }
  }
  EXPECT_EQ(g_allocations - before, 0U);
  EXPECT_GT(visited, 0U);
  EXPECT_GT(v4.size(), 50000U);
}

}  // namespace
}  // namespace arancini::ingestd
