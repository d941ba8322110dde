#include "ingestd/route_table.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <random>
#include <vector>

namespace arancini::ingestd {
namespace {

constexpr HashSeed kSeed{0x0123456789abcdefULL, 0xfedcba9876543210ULL};

SegmentPool::Options options(std::uint64_t limit = UINT64_MAX) {
  return {limit, false, kSeed};
}

Prefix v4(std::uint32_t addr, std::uint8_t length = 32, std::uint32_t path_id = 0) {
  return {0, kV4MappedLow | addr, path_id, length};
}

// From a small space, so that operations meet; masked as the decoder does.
Prefix random_prefix(std::mt19937_64& rng, Family family, std::uint32_t space) {
  const auto n = static_cast<std::uint32_t>(rng() % space);
  const std::uint32_t path_id = (n % 7 == 0) ? n % 3 : 0;
  if (family.afi == 1) {
    const auto length = static_cast<std::uint8_t>(n % 33);
    const std::uint32_t mask = length == 0 ? 0 : ~0U << (32 - length);
    return v4((n * 2654435761U) & mask, length, path_id);
  }
  Prefix p{0x2001'0db8'0000'0000ULL | n, 0, path_id, static_cast<std::uint8_t>(64 + n % 65)};
  p.low = (n % 2 == 0) ? 0 : (std::uint64_t{n} << 32);
  if (n == 0) p = {0, 0, 0, 0};
  return p;
}

struct Model {
  std::uint32_t attr = 0;
  std::uint16_t generation = 0;
  std::uint8_t flags = 0;
};

class BothFamilies : public testing::TestWithParam<Family> {};
INSTANTIATE_TEST_SUITE_P(RouteTable, BothFamilies,
                         testing::Values(kIpv4Unicast, kIpv4Multicast, kIpv6Unicast, kIpv6Multicast));

void expect_equal(RouteTable& table, const std::map<Prefix, Model>& model) {
  ASSERT_EQ(table.size(), model.size());
  WalkCursor cursor;
  std::map<Prefix, Model> seen;
  while (!cursor.done) {
    table.walk(cursor, 1000, [&](const Prefix& p, RouteState& s) {
      EXPECT_TRUE(seen.emplace(p, Model{raw(s.attr), s.generation, s.flags}).second);
      return WalkAction::Keep;
    });
  }
  ASSERT_EQ(seen.size(), model.size());
  for (const auto& [p, m] : model) {
    const RouteState* const s = std::as_const(table).find(p);
    ASSERT_NE(s, nullptr);
    ASSERT_EQ(raw(s->attr), m.attr);
    ASSERT_EQ(s->generation, m.generation);
    ASSERT_EQ(s->flags, m.flags);
    const auto it = seen.find(p);
    ASSERT_NE(it, seen.end());
    ASSERT_EQ(it->second.attr, m.attr);
  }
}

TEST_P(BothFamilies, DoesWhatAMapDoes) {
  for (const std::uint32_t space : {3U, 40U, 1000U, 60000U}) {
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      SegmentPool pool(options());
      {
        RouteTable table(pool, GetParam());
        std::map<Prefix, Model> model;
        std::mt19937_64 rng(seed * 1000 + space);
        for (int step = 0; step < 200000; ++step) {
          const Prefix p = random_prefix(rng, GetParam(), space);
          // Long phases of growth and of decline.
          const bool growing = (step / 30000) % 2 == 0;
          const std::uint64_t what = rng() % 10;
          if (what < (growing ? 7U : 2U)) {
            const auto [state, is_new] = table.insert(p);
            ASSERT_NE(state, nullptr);
            const auto [it, model_new] = model.try_emplace(p);
            ASSERT_EQ(is_new, model_new);
            ASSERT_EQ(raw(state->attr), it->second.attr);
            it->second = {static_cast<std::uint32_t>(rng()), static_cast<std::uint16_t>(rng()),
                          static_cast<std::uint8_t>(rng())};
            state->attr = AttrId{it->second.attr};
            state->generation = it->second.generation;
            state->flags = it->second.flags;
          } else if (what < 9) {
            ASSERT_EQ(table.erase(p), model.erase(p) == 1);
          } else {
            const RouteState* const state = std::as_const(table).find(p);
            const auto it = model.find(p);
            ASSERT_EQ(state != nullptr, it != model.end());
            if (state != nullptr) {
              ASSERT_EQ(raw(state->attr), it->second.attr);
            }
          }
        }
        expect_equal(table, model);
        for (const auto& entry : model) {
          ASSERT_TRUE(table.erase(entry.first));
        }
        ASSERT_EQ(table.size(), 0U);
        ASSERT_EQ(table.memory_bytes(), 0U);
      }
      ASSERT_EQ(pool.used_bytes(), 0U);
    }
  }
}

TEST(RouteTable, TellsLengthsAndPathIdsApart) {
  SegmentPool pool(options());
  RouteTable table(pool, kIpv4Unicast);
  for (std::uint8_t length = 0; length <= 32; ++length) {
    for (std::uint32_t path_id = 0; path_id < 100; ++path_id) {
      ASSERT_TRUE(table.insert(v4(0, length, path_id)).second);
      ASSERT_FALSE(table.insert(v4(0, length, path_id)).second);
    }
  }
  EXPECT_EQ(table.size(), 3300U);
}

TEST(RouteTable, EmptyTableTakesNoMemory) {
  SegmentPool pool(options());
  RouteTable table(pool, kIpv6Unicast);
  EXPECT_EQ(table.memory_bytes(), 0U);
  EXPECT_EQ(pool.memory_bytes(), 0U);
  EXPECT_EQ(table.find({1, 2, 3, 4}), nullptr);
  EXPECT_FALSE(table.erase({1, 2, 3, 4}));
  WalkCursor cursor;
  EXPECT_EQ(table.walk(cursor, 10, [](const Prefix&, RouteState&) { return WalkAction::Keep; }), 0U);
  EXPECT_TRUE(cursor.done);
}

// A scattered permutation, so that all differ.
Prefix nth(Family family, std::uint32_t n) {
  const std::uint32_t scattered = n * 2654435761U;
  if (family.afi == 1) return v4(scattered, 32);
  return {0x2000'0000'0000'0000ULL | (std::uint64_t{scattered} << 16), 0, 0, 48};
}

// DESIGN 4.8: memory an operator can plan with.
TEST(RouteTable, BytesPerRoute) {
  for (const Family family : {kIpv4Unicast, kIpv6Unicast}) {
    for (const std::uint32_t count : {100'000U, 300'000U, 500'000U, 1'000'000U}) {
      SegmentPool pool(options());
      RouteTable table(pool, family);
      for (std::uint32_t n = 0; n < count; ++n) ASSERT_TRUE(table.insert(nth(family, n)).second);
      const double per_route = static_cast<double>(pool.memory_bytes()) / count;
      printf("IPv%d, %7u routes: %.1f bytes/route\n", family.afi == 1 ? 4 : 6, count, per_route);
      EXPECT_LE(per_route, family.afi == 1 ? 40 : 70);
      EXPECT_LE(table.memory_bytes(), pool.used_bytes());
      EXPECT_LE(static_cast<double>(pool.memory_bytes()),
                1.05 * static_cast<double>(pool.used_bytes()) + 1e6);
    }
  }
}

// Many peers send little or nothing.
TEST(RouteTable, SmallTablesStaySmall) {
  SegmentPool pool(options());
  std::vector<RouteTable> tables;
  for (std::uint32_t t = 0; t < 10'000; ++t) {
    tables.emplace_back(pool, kIpv4Unicast);
    for (std::uint32_t n = 0; n < t % 10; ++n) ASSERT_TRUE(tables.back().insert(nth(kIpv4Unicast, n)).second);
  }
  EXPECT_LE(pool.memory_bytes(), 10'000U * 256U + 1'000'000U);
}

TEST(RouteTable, ShrinksWithItsRoutes) {
  SegmentPool pool(options());
  RouteTable table(pool, kIpv4Unicast);
  for (std::uint32_t n = 0; n < 500'000; ++n) ASSERT_TRUE(table.insert(nth(kIpv4Unicast, n)).second);
  for (std::uint32_t n = 1'000; n < 500'000; ++n) ASSERT_TRUE(table.erase(nth(kIpv4Unicast, n)));
  EXPECT_LE(table.memory_bytes(), 600'000U);
  for (std::uint32_t n = 0; n < 1'000; ++n) ASSERT_NE(table.find(nth(kIpv4Unicast, n)), nullptr);
  // A walk that erases gives memory back, too.
  for (std::uint32_t n = 0; n < 500'000; ++n) ASSERT_NE(table.insert(nth(kIpv4Unicast, n)).first, nullptr);
  WalkCursor cursor;
  while (!cursor.done) table.walk(cursor, 1000, [](const Prefix&, RouteState&) { return WalkAction::Erase; });
  EXPECT_EQ(table.size(), 0U);
  EXPECT_EQ(table.memory_bytes(), 0U);
  EXPECT_EQ(pool.used_bytes(), 0U);
}

// A sweep of an emptied or sparse table is bounded work as well.
TEST(RouteTable, WalkSlicesAreBounded) {
  SegmentPool pool(options());
  RouteTable table(pool, kIpv4Unicast);
  for (std::uint32_t n = 0; n < 500'000; ++n) ASSERT_TRUE(table.insert(nth(kIpv4Unicast, n)).second);
  for (const std::size_t slice : {1U, 100U, 1000U, 5000U}) {
    WalkCursor cursor;
    std::size_t total = 0;
    std::size_t calls = 0;
    while (!cursor.done && calls < 1000) {
      const std::size_t seen =
          table.walk(cursor, slice, [](const Prefix&, RouteState&) { return WalkAction::Keep; });
      ASSERT_LE(seen, slice);
      total += seen;
      ++calls;
    }
    if (cursor.done) {
      EXPECT_EQ(total, 500'000U);
    }
    if (slice >= 1000) {
      EXPECT_TRUE(cursor.done);
      EXPECT_LE(calls, 3 * 500'000U / slice);
    }
  }
}

// DESIGN 4.5: same input, same output.
TEST(RouteTable, SameSeedAndCallsGiveTheSameOrder) {
  const auto order = [](HashSeed seed) {
    SegmentPool pool({UINT64_MAX, false, seed});
    RouteTable table(pool, kIpv6Unicast);
    std::mt19937_64 rng(3);
    for (std::uint32_t n = 0; n < 30'000; ++n) {
      static_cast<void>(table.insert(random_prefix(rng, kIpv6Unicast, 20'000)));
      table.erase(random_prefix(rng, kIpv6Unicast, 20'000));
    }
    std::vector<Prefix> seen;
    WalkCursor cursor;
    while (!cursor.done) {
      table.walk(cursor, 77, [&](const Prefix& p, RouteState&) {
        seen.push_back(p);
        return WalkAction::Keep;
      });
    }
    return seen;
  };
  EXPECT_EQ(order({1, 2}), order({1, 2}));
  EXPECT_NE(order({1, 2}), order({1, 3}));
}

using RouteTableDeathTest = testing::Test;

TEST(RouteTableDeathTest, PrefixesOfAnotherFamilyAbort) {
  SegmentPool pool(options());
  RouteTable table(pool, kIpv4Unicast);
  EXPECT_DEATH(static_cast<void>(table.insert({0x2001'0db8'0000'0000ULL, 0, 0, 32})), "not IPv4");
  EXPECT_DEATH(static_cast<void>(table.find(v4(0, 33))), "not IPv4");
  EXPECT_DEATH(RouteTable(pool, Family{25, 70}), "without plain prefixes");
  RouteTable v6(pool, kIpv6Unicast);
  EXPECT_DEATH(static_cast<void>(v6.find({0, 0, 0, 129})), "longer than 128");
}

}  // namespace
}  // namespace arancini::ingestd
