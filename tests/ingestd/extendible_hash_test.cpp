#include "ingestd/extendible_hash.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "ingestd/route_table.h"

namespace arancini::ingestd {
namespace {

constexpr HashSeed kSeed{0x0123456789abcdefULL, 0xfedcba9876543210ULL};

SegmentPool::Options options(std::uint64_t limit = UINT64_MAX) {
  return {limit, false, kSeed};
}

// A slot whose hash the test chooses.
struct TestSlot {
  std::uint64_t hash_value = 0;
  std::uint32_t id = 0;
  std::uint32_t used = 0;
  [[nodiscard]] std::uint64_t hash(const HashSeed&) const { return hash_value; }
  [[nodiscard]] bool empty() const { return used == 0; }
  [[nodiscard]] Prefix key() const { return {0, 0, id, 0}; }
};
using TestTable = ExtendibleTable<TestSlot>;
using TestKey = std::pair<std::uint64_t, std::uint32_t>;

auto matches(const TestKey& k) {
  return [k](const TestSlot& s) { return !s.empty() && s.hash_value == k.first && s.id == k.second; };
}
// 1 new, 0 known, -1 out of memory.
int insert(TestTable& table, const TestKey& k) {
  const auto [slot, is_new] = table.find_or_place(k.first, matches(k));
  if (slot == nullptr) return -1;
  if (!is_new) return 0;
  slot->hash_value = k.first;
  slot->id = k.second;
  slot->used = 1;
  return 1;
}
bool erase(TestTable& table, const TestKey& k) {
  TestSlot* const slot = table.find(k.first, matches(k));
  if (slot == nullptr) return false;
  table.erase(slot, k.first);
  return true;
}

struct Distribution {
  const char* name;
  std::uint64_t (*draw)(std::mt19937_64&);
};

class AnyHashes : public testing::TestWithParam<Distribution> {};
// Good hashes, and what an attacker who knew the seed could do.
INSTANTIATE_TEST_SUITE_P(
    ExtendibleTable, AnyHashes,
    testing::Values(
        Distribution{"Uniform", [](std::mt19937_64& r) -> std::uint64_t { return r(); }},
        Distribution{"SameTopBits",
                     [](std::mt19937_64& r) -> std::uint64_t { return 0xabcdef1200000000ULL | (r() >> 32); }},
        Distribution{"SameLowBits", [](std::mt19937_64& r) -> std::uint64_t { return r() << 12; }},
        Distribution{"FewValues",
                     [](std::mt19937_64& r) -> std::uint64_t { return (r() % 50) * 0x0500000000000001ULL; }},
        Distribution{"AllEqual", [](std::mt19937_64&) -> std::uint64_t { return 0x7777777777777777ULL; }},
        Distribution{"AllOnes", [](std::mt19937_64&) -> std::uint64_t { return UINT64_MAX; }},
        Distribution{"Zero", [](std::mt19937_64&) -> std::uint64_t { return 0; }},
        Distribution{"Dense", [](std::mt19937_64& r) -> std::uint64_t { return r() % 4096; }},
        Distribution{"OneLeadingBit",
                     [](std::mt19937_64& r) -> std::uint64_t { return std::uint64_t{1} << (r() % 64); }}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_P(AnyHashes, DoesWhatASetDoes) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    SegmentPool pool(options());
    {
      TestTable table(pool);
      std::set<TestKey> model;
      std::vector<TestKey> known;
      std::mt19937_64 rng(seed);
      for (int step = 0; step < 12000; ++step) {
        const bool growing = (step / 4000) % 2 == 0;
        if (known.empty() || rng() % 10 < (growing ? 7U : 3U)) {
          const TestKey k{GetParam().draw(rng), static_cast<std::uint32_t>(rng() % 1000)};
          ASSERT_EQ(insert(table, k), model.insert(k).second ? 1 : 0);
          known.push_back(k);
        } else {
          const std::size_t i = rng() % known.size();
          ASSERT_EQ(erase(table, known[i]), model.erase(known[i]) == 1);
          known[i] = known.back();
          known.pop_back();
        }
        if (step % 1000 == 0) {
          ASSERT_TRUE(table.check_invariants()) << step;
        }
      }
      ASSERT_TRUE(table.check_invariants());
      ASSERT_EQ(table.size(), model.size());
      for (const TestKey& k : model) ASSERT_NE(table.find(k.first, matches(k)), nullptr);
      // The directory stays in proportion, and so does the memory.
      ASSERT_LE(std::size_t{1} << table.directory_depth(),
                std::max<std::size_t>(64, 16 * table.segment_count()));
      for (const TestKey& k : model) ASSERT_TRUE(erase(table, k));
      ASSERT_EQ(table.memory_bytes(), 0U);
    }
    ASSERT_EQ(pool.used_bytes(), 0U);
  }
}

TEST_P(AnyHashes, WalkVisitsExactlyOnceWhateverHappensBetweenSlices) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    SegmentPool pool(options());
    TestTable table(pool);
    std::mt19937_64 rng(seed);
    std::set<TestKey> present;
    const std::size_t start_size = std::size_t{1} << (rng() % 13);
    for (std::size_t i = 0; i < start_size; ++i) {
      const TestKey k{GetParam().draw(rng), static_cast<std::uint32_t>(rng() % 100000)};
      ASSERT_GE(insert(table, k), 0);
      present.insert(k);
    }
    std::set<TestKey> stable = present;  // in the table during the whole walk
    std::map<TestKey, int> visits;
    const std::uint64_t slice_limit = seed % 2 == 0 ? 3000 : 40;
    const std::uint64_t erase_percent = rng() % 100;
    WalkCursor cursor;
    std::size_t calls = 0;
    while (!cursor.done) {
      ASSERT_LT(++calls, 100000U);
      const std::size_t wanted = 1 + rng() % slice_limit;
      std::size_t seen = 0;
      const std::size_t reported = table.walk(cursor, wanted, [&](TestSlot& slot) {
        ++seen;
        const TestKey k{slot.hash_value, slot.id};
        EXPECT_EQ(present.count(k), 1U);
        ++visits[k];
        if (rng() % 100 >= erase_percent) return false;
        present.erase(k);
        // Visited, so it has had its turn; stays in `stable`.
        return true;
      });
      ASSERT_EQ(reported, seen);
      ASSERT_LE(seen, wanted);
      ASSERT_EQ(table.size(), present.size());
      const std::size_t changes = rng() % 200;
      for (std::size_t i = 0; i < changes; ++i) {
        if (rng() % 2 == 0 || present.empty()) {
          const TestKey k{GetParam().draw(rng), static_cast<std::uint32_t>(rng() % 100000)};
          ASSERT_GE(insert(table, k), 0);
          present.insert(k);
        } else {
          auto it = present.lower_bound({GetParam().draw(rng), static_cast<std::uint32_t>(rng() % 100000)});
          if (it == present.end()) it = present.begin();
          ASSERT_TRUE(erase(table, *it));
          if (visits.count(*it) == 0) stable.erase(*it);
          present.erase(it);
        }
      }
      // New arrivals can outrun slices of a few entries.
      if (calls > 2000) break;
    }
    ASSERT_TRUE(table.check_invariants());
    for (const auto& [k, n] : visits) ASSERT_EQ(n, 1) << std::hex << k.first << ' ' << k.second;
    if (!cursor.done) continue;
    for (const TestKey& k : stable) ASSERT_EQ(visits.count(k), 1U) << std::hex << k.first << ' ' << k.second;
  }
}

TEST_P(AnyHashes, OutOfMemoryChangesNothing) {
  SegmentPool pool(options());
  TestTable table(pool);
  std::set<TestKey> model;
  std::mt19937_64 rng(7);
  std::size_t refused = 0;
  for (int step = 0; step < 30000; ++step) {
    if (step % 500 == 0) {
      // Now and then nothing more can be had.
      pool.set_limit_bytes(rng() % 2 == 0 ? pool.memory_bytes() : UINT64_MAX);
    }
    const TestKey k{GetParam().draw(rng), static_cast<std::uint32_t>(rng() % 1000)};
    if (rng() % 10 < 7) {
      const int done = insert(table, k);
      if (done < 0) {
        ++refused;
        ASSERT_EQ(model.count(k), 0U);
        ASSERT_EQ(table.find(k.first, matches(k)), nullptr);
      } else {
        ASSERT_EQ(done, model.insert(k).second ? 1 : 0);
      }
    } else {
      ASSERT_EQ(erase(table, k), model.erase(k) == 1);
    }
    ASSERT_EQ(table.size(), model.size());
  }
  ASSERT_TRUE(table.check_invariants());
  for (const TestKey& k : model) ASSERT_NE(table.find(k.first, matches(k)), nullptr);
  if (model.size() > 2000) {
    EXPECT_GT(refused, 0U);
  }
}

TEST(ExtendibleTable, AnInsertMovesAtMostOneSegment) {
  SegmentPool pool(options());
  TestTable table(pool);
  std::mt19937_64 rng(1);
  std::uint64_t worst = 0;
  for (std::uint32_t n = 0; n < 1'000'000; ++n) {
    const std::uint64_t before = table.slots_moved();
    ASSERT_EQ(insert(table, {rng(), n}), 1);
    worst = std::max(worst, table.slots_moved() - before);
  }
  EXPECT_EQ(worst, TestTable::kFullSlots);
  RecordProperty("worst_slots_moved", static_cast<int>(worst));
}

// Hashes that share 40 bits cannot be split: the segment grows, work is in proportion to what was inserted,
// and others that come later still split.
TEST(ExtendibleTable, WhatCannotSplitGrows) {
  SegmentPool pool(options());
  TestTable table(pool);
  for (std::uint32_t n = 0; n < 50000; ++n) {
    const std::uint64_t before = table.slots_moved();
    ASSERT_EQ(insert(table, {0x123456789a000000ULL | n, n}), 1);
    ASSERT_LE(table.slots_moved() - before, std::uint64_t{8} * std::max<std::uint32_t>(n, 64));
  }
  EXPECT_LE(table.memory_bytes(), 50000 * sizeof(TestSlot) * 4);
  EXPECT_LE(table.directory_depth(), 10U);
  std::mt19937_64 rng(1);
  for (std::uint32_t n = 0; n < 200000; ++n) ASSERT_EQ(insert(table, {rng(), n}), 1);
  EXPECT_TRUE(table.check_invariants());
  EXPECT_EQ(table.size(), 250000U);
}

TEST(ExtendibleTable, MovedFromIsEmptyAndUsable) {
  SegmentPool pool(options());
  for (const std::uint32_t count : {0U, 1U, 900U, 20000U}) {
    TestTable a(pool);
    std::mt19937_64 rng(1);
    for (std::uint32_t n = 0; n < count; ++n) ASSERT_EQ(insert(a, {rng(), n}), 1);
    TestTable b(std::move(a));
    EXPECT_EQ(b.size(), count);
    // What a moved-from table does is what is tested.
    // NOLINTBEGIN(bugprone-use-after-move,clang-analyzer-cplusplus.Move)
    EXPECT_EQ(a.size(), 0U);
    ASSERT_EQ(insert(a, {1, 1}), 1);
    // NOLINTEND(bugprone-use-after-move,clang-analyzer-cplusplus.Move)
    a = std::move(b);
    EXPECT_EQ(a.size(), count);
    EXPECT_TRUE(a.check_invariants());
    rng.seed(1);
    for (std::uint32_t n = 0; n < count; ++n) ASSERT_TRUE(erase(a, {rng(), n}));
  }
  while (!pool.reclaim_some(10)) {
  }
  EXPECT_EQ(pool.used_bytes(), 0U);
}

// The prefixes of the Internet are anything but random: runs of /24, all zero low bits, few path ids.
TEST(Hash, SpreadsRealisticPrefixesOverDirectoryAndSlots) {
  for (const HashSeed given : {kSeed, HashSeed{0, 0}, HashSeed{1, 2}, HashSeed{0, 0xffffffffffffffffULL}}) {
    const HashSeed seed = SegmentPool({UINT64_MAX, false, given}).seed();
    for (int kind = 0; kind < 4; ++kind) {
      constexpr std::size_t kBuckets = 1024;
      constexpr std::size_t kKeys = 200 * kBuckets;
      std::vector<double> top(kBuckets);
      std::vector<double> low(kBuckets);
      for (std::uint32_t n = 0; n < kKeys; ++n) {
        std::uint64_t h = 0;
        switch (kind) {
          case 0: h = RouteSlotV4::hash({0, kV4MappedLow | (0x0a000000U + (n << 8)), 0, 24}, seed); break;
          case 1: h = RouteSlotV4::hash({0, kV4MappedLow | 0xc0000200U, n, 24}, seed); break;
          case 2:
            h = RouteSlotV6::hash({0x20010db800000000ULL + (std::uint64_t{n} << 16), 0, 0, 48}, seed);
            break;
          default:
            h = RouteSlotV6::hash({0x20010db800000000ULL, std::uint64_t{n} << 40, 0, 128}, seed);
            break;
        }
        ++top[h >> 54];
        ++low[h & (kBuckets - 1)];
      }
      for (const auto& buckets : {top, low}) {
        double chi2 = 0;
        for (const double b : buckets) chi2 += (b - 200) * (b - 200) / 200;
        // 1023 degrees of freedom: mean 1023, deviation 45.
        EXPECT_LT(chi2, 1023 + 6 * 45) << "kind " << kind;
      }
    }
  }
}

}  // namespace
}  // namespace arancini::ingestd
