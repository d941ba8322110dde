#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "common/schema/batch_expander.h"
#include "ingestd/lookup_task.h"
#include "tests/ingestd/route_messages.h"
#include "tests/ingestd/shard_harness.h"

namespace arancini::testing {
namespace {

using ingestd::LookupQuery;
using ingestd::LookupTask;
using Match = LookupQuery::Match;

Buffer announce6(const PeerSpec& p, const std::vector<Nlri>& nlri) {
  UpdateBuilder u;
  u.origin(0).as_path({1, 2, 3}).mp_announce(kIpv6Unicast, ip("2001:db8::1"), nlri);
  return route_monitoring(p, u);
}

struct Answer {
  std::vector<schema::DecodedUpdate> routes;
  bool truncated = false;
  int buffers = 0;

  // "router/peer prefix#path_id", sorted.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& r : routes) {
      out.push_back(r.router.to_string() + " " + r.peer.to_string() + " " + r.prefix_address.to_string() +
                    "/" + std::to_string(r.prefix_length) + "#" + std::to_string(r.path_id));
    }
    std::sort(out.begin(), out.end());
    return out;
  }
};

void collect(const LookupTask& task, Answer& answer) {
  auto left = task.records();
  ++answer.buffers;
  schema::BatchExpander batch;
  while (!left.empty()) {
    shm::RecordHeader header;
    std::memcpy(&header, left.data(), sizeof header);
    ASSERT_TRUE(batch.open(header, left.subspan(sizeof header, header.payload_bytes)));
    ASSERT_EQ(batch.count(), 1U);
    std::vector<std::byte> update(batch.update_bytes());
    batch.write_update(0, update.data());
    const auto problem =
        schema::decode_payload(schema::PayloadFormat::UpdateV1, update,
                               [&](const schema::DecodedUpdate& u) { answer.routes.push_back(u); });
    ASSERT_EQ(problem, std::nullopt);
    left = left.subspan(header.size_bytes);
  }
}

template <class Between>
Answer look_up(ShardHarness& h, const LookupQuery& query, Between&& between) {
  LookupTask task(query);
  Answer answer;
  EXPECT_TRUE(h.shard().tasks().post(task));
  for (int i = 0; i < 100000; ++i) {
    h.shard().do_work();
    if (h.shard().tasks().done(task)) {
      collect(task, answer);
      answer.truncated = task.truncated();
      return answer;
    }
    if (task.full()) {
      collect(task, answer);
      task.taken();
    }
    between();
  }
  ADD_FAILURE() << "a lookup never ends";
  return answer;
}
Answer look_up(ShardHarness& h, const LookupQuery& query) {
  return look_up(h, query, [] {});
}
LookupQuery query(std::string_view text, Match match = Match::Longest) {
  const Nlri n(text);
  return {.address = n.address, .length = n.length, .match = match, .router = std::nullopt, .limit = 0};
}
using Names = std::vector<std::string>;

class Lookup : public ::testing::Test {
 protected:
  Lookup() : a(h.open("192.0.2.1")), b(h.open("192.0.2.2")) {
    h.send(a, peer_up(peer()));
    h.send(a, announce(peer(), {"0.0.0.0/0", "20.0.0.0/8", "20.1.0.0/16", "20.1.2.0/24", "21.0.0.0/8"}));
    h.send(a, announce6(peer("2001:db8::7"), {"2001:db8:1::/48", "::/0", "2001:db8:1:2::/64"}));
    h.send(b, peer_up(peer("10.0.0.2", 65002)));
    h.send(b, announce(peer("10.0.0.2", 65002), {"20.1.0.0/16", "20.1.2.128/25", "30.0.0.0/8"}, 9));
    h.settle();
  }
  ShardHarness h;
  SessionId a, b;
};

TEST_F(Lookup, LongestOfEachTable) {
  EXPECT_EQ(look_up(h, query("20.1.2.3/32")).names(),
            (Names{"192.0.2.1 10.0.0.1 20.1.2.0/24#0", "192.0.2.2 10.0.0.2 20.1.0.0/16#0"}));
  EXPECT_EQ(look_up(h, query("20.1.2.200/32")).names(),
            (Names{"192.0.2.1 10.0.0.1 20.1.2.0/24#0", "192.0.2.2 10.0.0.2 20.1.2.128/25#0"}));
  EXPECT_EQ(look_up(h, query("99.0.0.1/32")).names(), (Names{"192.0.2.1 10.0.0.1 0.0.0.0/0#0"}));
  EXPECT_EQ(look_up(h, query("20.1.2.0/23")).names(),
            (Names{"192.0.2.1 10.0.0.1 20.1.0.0/16#0", "192.0.2.2 10.0.0.2 20.1.0.0/16#0"}));
  EXPECT_EQ(look_up(h, query("2001:db8:1:2::5/128")).names(),
            (Names{"192.0.2.1 2001:db8::7 2001:db8:1:2::/64#0"}));
  EXPECT_EQ(look_up(h, query("fe80::1/128")).names(), (Names{"192.0.2.1 2001:db8::7 ::/0#0"}));
}

TEST_F(Lookup, Exact) {
  EXPECT_EQ(look_up(h, query("20.1.0.0/16", Match::Exact)).names(),
            (Names{"192.0.2.1 10.0.0.1 20.1.0.0/16#0", "192.0.2.2 10.0.0.2 20.1.0.0/16#0"}));
  EXPECT_TRUE(look_up(h, query("20.1.0.0/17", Match::Exact)).names().empty());
  EXPECT_EQ(look_up(h, query("0.0.0.0/0", Match::Exact)).names(), (Names{"192.0.2.1 10.0.0.1 0.0.0.0/0#0"}));
}

TEST_F(Lookup, Longer) {
  EXPECT_EQ(look_up(h, query("20.1.0.0/16", Match::Longer)).names(),
            (Names{"192.0.2.1 10.0.0.1 20.1.0.0/16#0", "192.0.2.1 10.0.0.1 20.1.2.0/24#0",
                   "192.0.2.2 10.0.0.2 20.1.0.0/16#0", "192.0.2.2 10.0.0.2 20.1.2.128/25#0"}));
  EXPECT_EQ(look_up(h, query("0.0.0.0/0", Match::Longer)).routes.size(), 8U);
  EXPECT_EQ(look_up(h, query("::/0", Match::Longer)).routes.size(), 3U);
}

TEST_F(Lookup, OfOneRouterAndAtMostSoMany) {
  LookupQuery q = query("20.1.2.3/32");
  q.router = ip("192.0.2.2");
  EXPECT_EQ(look_up(h, q).names(), (Names{"192.0.2.2 10.0.0.2 20.1.0.0/16#0"}));
  q.router = ip("192.0.2.99");
  EXPECT_TRUE(look_up(h, q).routes.empty());
  q = query("0.0.0.0/0", Match::Longer);
  q.limit = 3;
  const Answer cut = look_up(h, q);
  EXPECT_EQ(cut.routes.size(), 3U);
  EXPECT_TRUE(cut.truncated);
  q.limit = 8;
  EXPECT_FALSE(look_up(h, q).truncated);
}

TEST_F(Lookup, RoutesComeWithAllTheirAttributes) {
  UpdateBuilder u;
  u.basics({64999, 65010}, ip("10.0.0.9")).med(5).local_pref(200).communities({0x00010002});
  u.announce("40.0.0.0/8");
  h.send(a, route_monitoring(peer(), u));
  const Answer answer = look_up(h, query("40.1.1.1/32"));
  const auto found = std::find_if(answer.routes.begin(), answer.routes.end(),
                                  [](const auto& r) { return r.prefix_length == 8; });
  ASSERT_NE(found, answer.routes.end());
  EXPECT_EQ(found->as_path, (std::vector<std::uint32_t>{64999, 65010}));
  EXPECT_EQ(found->med, 5U);
  EXPECT_EQ(found->local_pref, 200U);
  EXPECT_EQ(found->communities.size(), 1U);
  EXPECT_EQ(found->next_hop, ip("10.0.0.9"));
  EXPECT_EQ(found->peer_asn, 65001U);
  EXPECT_TRUE(found->announced);
  EXPECT_EQ(found->reason, Reason::None);
  EXPECT_EQ(found->sequence, 0U);
}

TEST_F(Lookup, PathIds) {
  const OpenSpec open{.addpath = {{kIpv4Unicast, 3}}};
  h.send(b, peer_up(peer("10.0.0.3"), open, open));
  h.send(b, announce(peer("10.0.0.3"), {Nlri("50.0.0.0/8", 1), Nlri("50.0.0.0/8", 2), Nlri("50.1.0.0/16", 7),
                                        Nlri("50.1.0.0/16", 8), Nlri("50.1.1.0/24", 7)}));
  EXPECT_EQ(look_up(h, query("50.1.2.3/32")).names(),
            (Names{"192.0.2.1 10.0.0.1 0.0.0.0/0#0", "192.0.2.2 10.0.0.3 50.1.0.0/16#7",
                   "192.0.2.2 10.0.0.3 50.1.0.0/16#8"}));
  EXPECT_EQ(look_up(h, query("50.0.0.0/8", Match::Exact)).names(),
            (Names{"192.0.2.2 10.0.0.3 50.0.0.0/8#1", "192.0.2.2 10.0.0.3 50.0.0.0/8#2"}));
  EXPECT_EQ(look_up(h, query("50.0.0.0/8", Match::Longer)).routes.size(), 5U);
}

// What is there all the time is found once, whatever else changes; full buffers are taken in between.
TEST(LookupWalk, FindsEachRouteOnceWhileTheTableChanges) {
  ShardHarness h({.ring_bytes = 1U << 22});
  const SessionId s = h.open();
  h.send(s, peer_up(peer()));
  const auto nth = [](unsigned i) { return Nlri(IpAddress::from_v4(0x14000000U + (i << 8)), 24U); };
  constexpr unsigned kStay = 8000;
  for (unsigned i = 0; i < kStay; i += 100) {
    std::vector<Nlri> some;
    for (unsigned n = i; n < i + 100; ++n) some.push_back(nth(n));
    h.send(s, announce(peer(), some));
  }
  h.settle();
  std::mt19937 engine(5);
  const auto rng = [&] { return static_cast<std::uint32_t>(engine()); };
  const Answer answer = look_up(h, query("20.0.0.0/7", Match::Longer), [&] {
    const unsigned n = kStay + rng() % 5000;
    if (rng() % 3 != 0) {
      h.send(s, announce(peer(), {nth(n)}));
    } else {
      UpdateBuilder u;
      h.send(s, route_monitoring(peer(), u.withdraw(nth(n))));
    }
  });
  EXPECT_GT(answer.buffers, 2);
  std::set<std::string> names;
  unsigned stay = 0;
  for (const auto& r : answer.routes) {
    EXPECT_TRUE(names.insert(r.prefix_address.to_string()).second) << "twice";
    stay += (r.prefix_address.v4() - 0x14000000U) >> 8 < kStay ? 1 : 0;
  }
  EXPECT_EQ(stay, kStay);
}

// Against a linear search, with random prefixes of all lengths.
TEST(LookupWalk, LongestIsWhatALinearSearchFinds) {
  for (const bool path_ids : {false, true}) {
    ShardHarness h;
    std::mt19937 engine(11);
    const auto rng = [&] { return static_cast<std::uint32_t>(engine()); };
    const SessionId s = h.open();
    const OpenSpec open = path_ids ? OpenSpec{.addpath = {{kIpv4Unicast, 3}}} : OpenSpec{};
    h.send(s, peer_up(peer(), open, open));
    std::set<std::pair<std::uint32_t, unsigned>> table;
    for (int i = 0; i < 600; ++i) {
      const unsigned length = 1 + rng() % 32;
      const std::uint32_t address = (0x0a000000U | (rng() & 0x03ffffffU)) & (~0U << (32 - length));
      table.emplace(address, length);
      h.send(s, announce(peer(), {Nlri(IpAddress::from_v4(address), length,
                                       path_ids ? std::optional(1 + rng() % 2) : std::nullopt)}));
    }
    h.settle();
    for (int i = 0; i < 300; ++i) {
      const std::uint32_t wanted = 0x0a000000U | (rng() & 0x03ffffffU);
      int best = -1;
      for (const auto& [address, length] : table) {
        if (((address ^ wanted) >> (32 - length)) == 0) best = std::max(best, static_cast<int>(length));
      }
      const Answer answer = look_up(h, {.address = IpAddress::from_v4(wanted),
                                        .length = 32,
                                        .match = Match::Longest,
                                        .router = {},
                                        .limit = 0});
      ASSERT_EQ(answer.routes.empty(), best < 0);
      for (const auto& r : answer.routes) ASSERT_EQ(r.prefix_length, best);
    }
  }
}

// Behind one address, told apart by name.
TEST(LookupByName, OneRouterOfAnAddress) {
  ShardHarness::Options options;
  for (const char* name : {"a", "b"}) {
    RouterEntry entry;
    entry.address = *AddressRange::parse("192.0.2.7");
    entry.name = std::string("core-") + name;
    entry.sys_name = name;
    options.rules.entries.push_back(entry);
  }
  ShardHarness h(options);
  PeerSpec peer;
  peer.address = ip("10.0.0.1");
  for (const char* name : {"a", "b"}) {
    const SessionId s = h.open("192.0.2.7");
    h.send(s, initiation(name, "d"));
    h.send(s, peer_up(peer));
    UpdateBuilder u;
    u.basics({64999}, ip("10.0.0.1")).announce("20.0.0.0/24");
    h.send(s, route_monitoring(peer, u));
  }
  LookupQuery q = query("20.0.0.1/32");
  q.router = ip("192.0.2.7");
  EXPECT_EQ(look_up(h, q).routes.size(), 2U);
  q.router_name = "core-b";
  const Answer one = look_up(h, q);
  ASSERT_EQ(one.routes.size(), 1U);
  EXPECT_EQ(one.routes.front().router_id, "core-b");
  q.router_name = "core-c";
  EXPECT_TRUE(look_up(h, q).routes.empty());
}

}  // namespace
}  // namespace arancini::testing
