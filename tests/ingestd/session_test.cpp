#include "ingestd/session.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace arancini::ingestd {
namespace {

constexpr std::uint32_t kLimit = 20'000;

std::string message(std::size_t size, unsigned seed, std::uint8_t type = 0) {
  std::string m(size, 0);
  std::mt19937 random(seed);
  for (char& c : m) c = static_cast<char>(random());
  m[0] = 3;
  for (int i = 0; i < 4; ++i) m[static_cast<std::size_t>(i) + 1] = static_cast<char>(size >> (24 - 8 * i));
  m[5] = static_cast<char>(type);
  return m;
}

std::span<const std::byte> bytes_of(std::string_view s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}

struct Collector {
  std::vector<std::string> messages;
  int refuse = 0;  // that many deliveries
  bool operator()(std::span<const std::byte> m) {
    if (refuse > 0) {
      --refuse;
      return false;
    }
    messages.emplace_back(reinterpret_cast<const char*>(m.data()), m.size());
    return true;
  }
};

TEST(Framer, DeliversWholeMessagesWhereTheyLie) {
  Framer framer(kLimit);
  const std::string input = message(60, 1) + message(48, 2) + message(6, 3, 4);
  std::vector<const std::byte*> where;
  const auto status = framer.feed(bytes_of(input), [&](std::span<const std::byte> m) {
    where.push_back(m.data());
    return true;
  });
  EXPECT_EQ(status, Framer::Status::NeedMore);
  const std::byte* start = bytes_of(input).data();
  EXPECT_EQ(where, (std::vector<const std::byte*>{start, start + 60, start + 108}));
  EXPECT_EQ(framer.offset(), input.size());
  EXPECT_EQ(framer.capacity_bytes(), 0U);  // nothing was copied
}

TEST(Framer, CopiesOnlyTheStraddlingMessage) {
  Framer framer(kLimit);
  Collector got;
  const std::string a = message(100, 1);
  const std::string b = message(200, 2);
  const std::string c = message(300, 3);
  EXPECT_EQ(framer.feed(bytes_of(a + b.substr(0, 50)), got), Framer::Status::NeedMore);
  EXPECT_EQ(framer.pending_bytes(), 50U);
  EXPECT_EQ(framer.feed(bytes_of(b.substr(50) + c), got), Framer::Status::NeedMore);
  EXPECT_EQ(framer.pending_bytes(), 0U);
  EXPECT_LE(framer.capacity_bytes(), 4096U);
  EXPECT_EQ(got.messages, (std::vector<std::string>{a, b, c}));
}

TEST(Framer, RandomSplitsAndRefusalsGiveTheSameMessages) {
  std::mt19937 engine(7);
  const auto random = [&] { return static_cast<unsigned>(engine()); };
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> expected;
    std::string stream;
    for (int i = 0; i < 40; ++i) {
      const std::size_t size = random() % 10 == 0 ? 48 + random() % (kLimit - 48) : 48 + random() % 300;
      expected.push_back(random() % 8 == 0 ? message(6, random(), 4) : message(size, random()));
      stream += expected.back();
    }
    Framer framer(kLimit);
    Collector got;
    std::size_t at = 0;
    auto status = Framer::Status::NeedMore;
    while (at < stream.size() || status == Framer::Status::Blocked) {
      if (random() % 5 == 0) got.refuse = static_cast<int>(random() % 3);
      if (status == Framer::Status::Blocked && (random() % 2 == 0 || at == stream.size())) {
        status = framer.retry(got);
      } else {
        const std::size_t most = round % 3 == 0 ? 3 : round % 3 == 1 ? 500 : 30'000;
        const std::size_t n = std::min<std::size_t>(1 + random() % most, stream.size() - at);
        // A buffer of its own, so that the sanitizer sees every byte that is kept by reference.
        const std::string piece = stream.substr(at, n);
        status = framer.feed(bytes_of(piece), got);
        at += n;
      }
      ASSERT_NE(status, Framer::Status::Bad);
      ASSERT_EQ(framer.blocked(), status == Framer::Status::Blocked);
      if (random() % 16 == 0) framer.trim();
    }
    ASSERT_TRUE(got.messages == expected) << round;
    EXPECT_EQ(framer.offset(), stream.size());
    EXPECT_EQ(framer.pending_bytes(), 0U);
  }
}

TEST(Framer, ShowsEachMessageBeforeItIsDeliveredAndNotTooEarly) {
  std::string stream;
  for (unsigned i = 0; i < 50; ++i) stream += message(48 + i * 7 % 40, i);
  Framer framer(kLimit);
  std::vector<const std::byte*> shown;
  std::size_t delivered = 0;
  std::size_t most = 0;
  const auto deliver = [&](std::span<const std::byte> m) {
    EXPECT_LT(delivered, shown.size());
    EXPECT_EQ(shown[delivered], m.data());
    ++delivered;
    return true;
  };
  const auto show = [&](std::span<const std::byte> m) {
    shown.push_back(m.data());
    most = std::max(most, shown.size() - delivered);
  };
  EXPECT_EQ(framer.feed(bytes_of(stream), deliver, show), Framer::Status::NeedMore);
  EXPECT_EQ(delivered, 50U);
  EXPECT_EQ(shown.size(), 50U);
  EXPECT_EQ(most, Framer::kAhead);
}

TEST(Framer, SaysWhereFramingIsLost) {
  for (const std::size_t split : {0U, 1U, 99U, 100U, 101U, 103U, 106U}) {
    Framer framer(kLimit);
    Collector got;
    std::string bad = message(60, 2);
    bad[0] = 4;
    const std::string stream = message(100, 1) + bad + message(70, 3);
    auto status = framer.feed(bytes_of(stream.substr(0, split)), got);
    if (status != Framer::Status::Bad) status = framer.feed(bytes_of(stream.substr(split)), got);
    EXPECT_EQ(status, Framer::Status::Bad);
    EXPECT_EQ(framer.error(), ErrorCode::BmpBadVersion);
    EXPECT_EQ(framer.offset(), 100U);
    EXPECT_EQ(got.messages.size(), 1U);
    EXPECT_EQ(framer.feed(bytes_of(message(48, 4)), got), Framer::Status::Bad);
    EXPECT_EQ(got.messages.size(), 1U);
  }
}

TEST(Framer, RefusesOversizedAndUndersizedLengths) {
  Framer large(kLimit);
  Collector got;
  EXPECT_EQ(large.feed(bytes_of(message(kLimit, 1)), got), Framer::Status::NeedMore);
  EXPECT_EQ(large.feed(bytes_of(message(kLimit + 1, 1).substr(0, 6)), got), Framer::Status::Bad);
  EXPECT_EQ(large.error(), ErrorCode::BmpTooLong);
  Framer small(kLimit);
  EXPECT_EQ(small.feed(bytes_of(message(47, 1)), got),
            Framer::Status::Bad);  // Route Monitoring without its headers
  EXPECT_EQ(small.error(), ErrorCode::BmpTooShort);
}

TEST(Framer, MemoryGrowsWithDataNotWithPromisesAndShrinksAgain) {
  Framer framer(kLimit);
  Collector got;
  const std::string big = message(kLimit, 1);
  framer.feed(bytes_of(big.substr(0, 10)), got);
  EXPECT_LE(framer.capacity_bytes(), 4096U);
  framer.feed(bytes_of(big.substr(10)), got);
  got.refuse = 1;
  std::string flood;
  for (unsigned i = 0; i < 20; ++i) flood += message(kLimit, i);
  EXPECT_EQ(framer.feed(bytes_of(flood), got), Framer::Status::Blocked);
  EXPECT_GE(framer.capacity_bytes(), flood.size());
  EXPECT_EQ(framer.retry(got), Framer::Status::NeedMore);
  EXPECT_EQ(got.messages.size(), 21U);
  framer.trim();  // it was needed until now
  framer.trim();
  EXPECT_LE(framer.capacity_bytes(), 16U * 1024);
}

}  // namespace
}  // namespace arancini::ingestd
