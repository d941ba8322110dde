#include "tools/top_frame.h"

#include <gtest/gtest.h>

#include <sstream>

namespace arancini::tools {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000U;

TopSample sample(std::uint64_t second) {
  TopSample s;
  s.monotonic_ns = second * kSecond;
  s.realtime_ns = 1'700'000'000U * kSecond + s.monotonic_ns;
  s.status.set_instance("test");
  s.status.mutable_sink()->set_kind("nats");
  s.status.mutable_nats()->set_state("connected");
  return s;
}

control::v1::Router& add_router(TopSample& s, const std::string& address, std::uint64_t updates,
                                std::uint64_t bytes, std::uint64_t silent_s) {
  auto& r = *s.routers.add_routers();
  r.set_address(address);
  r.set_state("initiated");
  r.set_updates(updates);
  r.set_bytes(bytes);
  r.set_last_message_ns(s.realtime_ns - silent_s * kSecond);
  return r;
}

std::vector<std::string> order(const TopFrame& frame) {
  std::vector<std::string> out;
  for (const TopRouter& r : frame.routers) out.push_back(r.router.address());
  return out;
}

TEST(TopFrame, RatesAreOfTheTimeBetweenTheSamples) {
  TopSample a = sample(10);
  TopSample b = sample(12);
  add_router(a, "192.0.2.1", 1000, 50'000, 1);
  add_router(b, "192.0.2.1", 4000, 90'000, 1).set_malformed(3);
  auto& before = *a.status.add_shards();
  before.set_updates(100);
  auto& now = *b.status.add_shards();
  now.set_updates(300);
  now.set_suppressed(8);
  const TopFrame frame = top_frame(a, b, TopSort::Updates);
  EXPECT_DOUBLE_EQ(frame.interval_s, 2);
  ASSERT_EQ(frame.routers.size(), 1U);
  EXPECT_DOUBLE_EQ(frame.routers[0].rates.updates, 1500);
  EXPECT_DOUBLE_EQ(frame.routers[0].rates.bytes, 20'000);
  EXPECT_DOUBLE_EQ(frame.routers[0].rates.malformed, 1.5);
  ASSERT_EQ(frame.shards.size(), 1U);
  EXPECT_DOUBLE_EQ(frame.shards[0].rates.updates, 100);
  EXPECT_DOUBLE_EQ(frame.shards[0].rates.suppressed, 4);
}

TEST(TopFrame, WhatBeganAnewOrIsNewHasNoRate) {
  TopSample a = sample(10);
  TopSample b = sample(11);
  add_router(a, "192.0.2.1", 1000, 0, 1);
  add_router(b, "192.0.2.1", 20, 0, 1);
  add_router(b, "192.0.2.2", 5000, 0, 1);
  for (const TopRouter& r : top_frame(a, b, TopSort::Updates).routers) EXPECT_EQ(r.rates.updates, 0);
}

TEST(TopFrame, RoutersBehindOneAddressAreTwo) {
  TopSample a = sample(10);
  TopSample b = sample(11);
  add_router(a, "192.0.2.1", 0, 0, 1).set_name("a");
  add_router(a, "192.0.2.1", 0, 0, 1).set_name("b");
  add_router(b, "192.0.2.1", 7, 0, 1).set_name("a");
  add_router(b, "192.0.2.1", 9, 0, 1).set_name("b");
  const TopFrame frame = top_frame(a, b, TopSort::Updates);
  EXPECT_EQ(frame.routers[0].router.name(), "b");
  EXPECT_DOUBLE_EQ(frame.routers[0].rates.updates, 9);
  EXPECT_DOUBLE_EQ(frame.routers[1].rates.updates, 7);
}

TEST(TopFrame, SortsByWhatIsAskedForAndEqualOnesByAddress) {
  TopSample a = sample(10);
  TopSample b = sample(11);
  for (const char* address : {"10.0.0.3", "10.0.0.1", "10.0.0.2"}) add_router(a, address, 0, 0, 1);
  add_router(b, "10.0.0.3", 5, 100, 9).set_routes(1);
  add_router(b, "10.0.0.1", 9, 300, 1).set_routes(2);
  add_router(b, "10.0.0.2", 7, 200, 5).set_routes(3);
  using Names = std::vector<std::string>;
  EXPECT_EQ(order(top_frame(a, b, TopSort::Updates)), (Names{"10.0.0.1", "10.0.0.2", "10.0.0.3"}));
  EXPECT_EQ(order(top_frame(a, b, TopSort::Bytes)), (Names{"10.0.0.1", "10.0.0.2", "10.0.0.3"}));
  EXPECT_EQ(order(top_frame(a, b, TopSort::Routes)), (Names{"10.0.0.2", "10.0.0.1", "10.0.0.3"}));
  EXPECT_EQ(order(top_frame(a, b, TopSort::Lag)), (Names{"10.0.0.3", "10.0.0.2", "10.0.0.1"}));
  EXPECT_EQ(order(top_frame(a, b, TopSort::Malformed)), (Names{"10.0.0.1", "10.0.0.2", "10.0.0.3"}));
}

TEST(TopFrame, ARouterThatNeverSaidAnythingIsTheMostSilent) {
  TopSample a = sample(10);
  TopSample b = sample(11);
  add_router(b, "10.0.0.1", 0, 0, 3600);
  add_router(b, "10.0.0.2", 0, 0, 0).set_last_message_ns(0);
  const TopFrame frame = top_frame(a, b, TopSort::Lag);
  EXPECT_EQ(frame.routers[0].router.address(), "10.0.0.2");
  EXPECT_NE(top_text(frame, 10).find("never"), std::string::npos);
  EXPECT_TRUE(top_json(frame, 10)["routers"][0]["silent_s"].is_null());
  EXPECT_EQ(top_json(frame, 10)["routers"][1]["silent_s"], 3600);
}

TEST(TopFrame, EightyColumnsWhateverTheNumbersAre) {
  TopSample a = sample(10);
  TopSample b = sample(11);
  b.status.set_instance(std::string(100, 'i'));
  b.status.mutable_nats()->set_state("not authorized");
  auto& k = *b.status.add_shards();
  k.set_shard(1023);
  k.set_ring_state("disconnected: the reader's process is gone and nobody knows why");
  for (const auto set : {&control::v1::ShardStatus::set_sessions, &control::v1::ShardStatus::set_routes,
                         &control::v1::ShardStatus::set_updates, &control::v1::ShardStatus::set_suppressed}) {
    (k.*set)(UINT64_MAX);
  }
  add_router(a, "2001:db8:1111:2222:3333:4444:5555:6666", 0, 0, 1);
  auto& r = add_router(b, "2001:db8:1111:2222:3333:4444:5555:6666", UINT64_MAX, UINT64_MAX, 86400 * 99);
  r.set_state("initiated");
  r.set_condition("no initiation");
  r.set_peers_up(99999);
  r.set_routes(UINT64_MAX);
  r.set_malformed(UINT64_MAX);
  std::istringstream lines(top_text(top_frame(a, b, TopSort::Updates), 10));
  int n = 0;
  for (std::string line; std::getline(lines, line); ++n) EXPECT_LE(line.size(), 80U) << line;
  EXPECT_EQ(n, 8);
}

TEST(TopFrame, RoutersThatAreNotShownAreCounted) {
  TopSample a = sample(10);
  TopSample b = sample(11);
  for (const char* address : {"10.0.0.3", "10.0.0.1", "10.0.0.2"}) add_router(b, address, 0, 0, 1);
  const TopFrame frame = top_frame(a, b, TopSort::Updates);
  EXPECT_NE(top_text(frame, 1).find("and 2 more\n"), std::string::npos);
  EXPECT_EQ(top_text(frame, 3).find("more"), std::string::npos);
  EXPECT_EQ(top_json(frame, 1)["routers"].size(), 1U);
  EXPECT_EQ(top_json(frame, 1)["routers_not_shown"], 2);
}

}  // namespace
}  // namespace arancini::tools
