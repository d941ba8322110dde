#include "ingestd/attribute_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace arancini::ingestd {
namespace {

constexpr HashSeed kSeed{0x0123456789abcdefULL, 0xfedcba9876543210ULL};

SegmentPool::Options options(std::uint64_t limit = UINT64_MAX) {
  return {limit, false, kSeed};
}

std::span<const std::byte> bytes_of(const std::string& s) {
  return std::as_bytes(std::span(s));
}
// The strings must outlive the key.
AttrKey key(const std::string& next_hop, const std::string& flags, const std::string& attributes) {
  return {bytes_of(next_hop), bytes_of(flags), bytes_of(attributes)};
}
std::string text(std::span<const std::byte> bytes) {
  std::string s(bytes.size(), '\0');
  if (!s.empty()) std::memcpy(s.data(), bytes.data(), s.size());
  return s;
}

TEST(AttributeStore, SharesEqualBlobsAndFreesTheLast) {
  SegmentPool pool(options());
  AttributeStore store(pool);
  const auto first = store.find_or_insert(key("hop", "f", "attributes"));
  ASSERT_NE(first.id, AttrId::None);
  EXPECT_TRUE(first.added);
  const auto second = store.find_or_insert(key("hop", "f", "attributes"));
  EXPECT_EQ(second.id, first.id);
  EXPECT_FALSE(second.added);
  EXPECT_EQ(store.references(first.id), 2U);
  EXPECT_EQ(text(store.bytes(first.id)), "hopfattributes");
  EXPECT_EQ(text(store.parts(first.id).next_hop), "hop");
  EXPECT_EQ(text(store.parts(first.id).flags), "f");
  EXPECT_EQ(text(store.parts(first.id).attributes), "attributes");
  EXPECT_EQ(store.find(key("hop", "f", "attributes")), first.id);
  store.ref(first.id, 3);
  EXPECT_FALSE(store.unref(first.id, 4));
  EXPECT_TRUE(store.unref(first.id));
  EXPECT_EQ(store.size(), 0U);
  EXPECT_EQ(store.find(key("hop", "f", "attributes")), AttrId::None);
}

TEST(AttributeStore, PartsThatRunTogetherAreDifferentKeys) {
  SegmentPool pool(options());
  AttributeStore store(pool);
  const AttrId a = store.intern(key("ab", "c", "d"));
  const AttrId b = store.intern(key("a", "bc", "d"));
  const AttrId c = store.intern(key("a", "b", "cd"));
  const AttrId d = store.intern(key("", "", "abcd"));
  const AttrId e = store.intern(key("", "", ""));
  EXPECT_EQ(store.size(), 5U);
  for (const AttrId id : {a, b, c, d, e}) EXPECT_TRUE(store.unref(id));
}

TEST(AttributeStore, DoesWhatAMapDoes) {
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    SegmentPool pool(options());
    {
      AttributeStore store(pool);
      std::mt19937_64 rng(seed);
      const std::string hop = "hop";
      const std::string none;
      struct Entry {
        AttrId id;
        std::uint32_t refs;
      };
      std::map<std::string, Entry> model;
      std::map<AttrId, std::string> by_id;
      for (int step = 0; step < 300000; ++step) {
        const bool growing = (step / 50000) % 2 == 0;
        const auto n = static_cast<std::uint32_t>(rng() % 20000);
        std::string attributes = std::to_string(n) + std::string(n % 97, 'x');
        if (n % 1000 == 0) attributes += std::string(70000, 'y');
        const AttrKey k = key(hop, none, attributes);
        const auto it = model.find(attributes);
        if (rng() % 10 < (growing ? 7U : 3U)) {
          const auto got = store.find_or_insert(k);
          ASSERT_NE(got.id, AttrId::None);
          ASSERT_EQ(got.added, it == model.end());
          if (it == model.end()) {
            model[attributes] = {got.id, 1};
            ASSERT_TRUE(by_id.emplace(got.id, attributes).second) << "an id in use was given out again";
          } else {
            ASSERT_EQ(got.id, it->second.id);
            ++it->second.refs;
          }
        } else if (it != model.end()) {
          const std::uint32_t drop = 1 + static_cast<std::uint32_t>(rng() % it->second.refs);
          ASSERT_EQ(store.unref(it->second.id, drop), drop == it->second.refs);
          it->second.refs -= drop;
          if (it->second.refs == 0) {
            by_id.erase(it->second.id);
            model.erase(it);
          }
        } else {
          ASSERT_EQ(store.find(k), AttrId::None);
        }
      }
      ASSERT_EQ(store.size(), model.size());
      for (const auto& [attributes, entry] : model) {
        ASSERT_EQ(text(store.bytes(entry.id)), "hop" + attributes);
        ASSERT_EQ(store.references(entry.id), entry.refs);
        ASSERT_TRUE(store.unref(entry.id, entry.refs));
      }
      ASSERT_EQ(store.size(), 0U);
    }
    while (!pool.reclaim_some(100)) {
    }
    ASSERT_EQ(pool.used_bytes(), 0U);
  }
}

TEST(AttributeStore, ServesBlobsOfAnySize) {
  SegmentPool pool(options());
  AttributeStore store(pool);
  std::map<std::string, AttrId> ids;
  for (const std::size_t size : {0, 1, 7, 8, 9, 120, 121, 4096, 65527, 65528, 65529, 200000, 5000000}) {
    const std::string attributes(size, static_cast<char>('a' + size % 20));
    ids[attributes] = store.intern(key("", "", attributes));
  }
  for (const auto& [attributes, id] : ids) {
    EXPECT_EQ(text(store.bytes(id)), attributes);
    EXPECT_EQ(store.intern(key("", "", attributes)), id);
    EXPECT_TRUE(store.unref(id, 2));
  }
}

// Blobs that differ in one bit anywhere, and prefixes of one another.
TEST(AttributeStore, TellsNearlyEqualBlobsApart) {
  SegmentPool pool(options());
  AttributeStore store(pool);
  std::size_t expected = 0;
  for (std::size_t size = 0; size <= 70; ++size) {
    std::string attributes(size, '\0');
    ASSERT_TRUE(store.find_or_insert(key("", "", attributes)).added);
    ++expected;
    for (std::size_t bit = 0; bit < size * 8; ++bit) {
      attributes[bit / 8] = static_cast<char>(1 << (bit % 8));
      ASSERT_TRUE(store.find_or_insert(key("", "", attributes)).added);
      attributes[bit / 8] = 0;
      ++expected;
    }
  }
  EXPECT_EQ(store.size(), expected);
}

TEST(AttributeStore, OutOfMemoryChangesNothing) {
  SegmentPool pool(options(std::uint64_t{2} << 20));
  AttributeStore store(pool);
  std::vector<AttrId> ids;
  std::string attributes;
  for (std::uint32_t n = 0;; ++n) {
    attributes = std::to_string(n) + std::string(100, 'x');
    const auto got = store.find_or_insert(key("", "", attributes));
    if (got.id == AttrId::None) break;
    ASSERT_TRUE(got.added);
    ids.push_back(got.id);
  }
  EXPECT_GT(ids.size(), 8000U);
  EXPECT_LE(pool.memory_bytes(), pool.limit_bytes());
  EXPECT_EQ(store.size(), ids.size());
  // What is there can still be shared, and what is given back can be used.
  const std::string first = std::to_string(0) + std::string(100, 'x');
  EXPECT_EQ(store.intern(key("", "", first)), ids[0]);
  EXPECT_EQ(store.find(key("", "", attributes)), AttrId::None);
  EXPECT_TRUE(store.unref(ids.back()));
  const auto now = store.find_or_insert(key("", "", attributes));
  EXPECT_TRUE(now.added);
  EXPECT_EQ(now.id, ids.back()) << "ids are re-used";
  EXPECT_EQ(store.highest_id(), ids.size());
}

TEST(AttributeStore, OutOfIdsChangesNothing) {
  SegmentPool pool(options());
  AttributeStore store(pool, 1);  // rounded up to a step of 131072, id 0 is none
  std::uint32_t count = 0;
  std::string attributes;
  for (;; ++count) {
    attributes = std::to_string(count);
    if (store.intern(key("", "", attributes)) == AttrId::None) break;
  }
  EXPECT_EQ(count, 131071U);
  EXPECT_EQ(store.size(), 131071U);
  EXPECT_TRUE(store.unref(AttrId{77}));
  EXPECT_EQ(store.intern(key("", "", attributes)), AttrId{77});
}

using AttributeStoreDeathTest = testing::Test;

TEST(AttributeStoreDeathTest, StaleIdsAndWrongCountsAbort) {
  SegmentPool pool(options());
  AttributeStore store(pool);
  const AttrId id = store.intern(key("", "", "a"));
  const AttrId other = store.intern(key("", "", "b"));
  EXPECT_DEATH(store.unref(id, 2), "below zero");
  EXPECT_DEATH(store.ref(AttrId::None), "out of range");
  EXPECT_DEATH(static_cast<void>(store.bytes(AttrId{99})), "out of range");
  store.ref(other, UINT32_MAX - 1);
  EXPECT_DEATH(store.ref(other), "overflows");
  EXPECT_DEATH(static_cast<void>(store.intern(key("", "", "b"))), "overflows");
  EXPECT_TRUE(store.unref(other, UINT32_MAX));
  EXPECT_TRUE(store.unref(id));
  EXPECT_DEATH(static_cast<void>(store.bytes(id)), "after its last reference");
  EXPECT_DEATH(store.unref(id), "after its last reference");
}

}  // namespace
}  // namespace arancini::ingestd
