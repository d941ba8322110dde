#include "ingestd/route_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
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

}  // namespace
}  // namespace arancini::ingestd
