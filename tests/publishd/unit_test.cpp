#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <random>

#include "publishd/ack_window.h"
#include "publishd/group.h"
#include "publishd/subject.h"
#include "publishd/tail.h"

namespace arancini::publishd {
namespace {

Ack stored(std::uint64_t index, std::uint64_t sequence) {
  Ack a;
  a.index = index;
  a.stream_sequence = sequence;
  return a;
}

InFlight message(std::uint64_t end, std::uint32_t bytes = 100, std::uint64_t sent_ns = 0) {
  InFlight m;
  m.end = RingPosition{end};
  m.bytes = bytes;
  m.sent_ns = sent_ns;
  return m;
}

TEST(HoldQueue, FrontIsTheOldestThatIsNotDone) {
  HoldQueue q;
  EXPECT_FALSE(q.front());
  const HoldId a = q.add(RingPosition{10});
  const HoldId b = q.add(RingPosition{20});
  const HoldId c = q.add(RingPosition{20});
  q.done(b);
  EXPECT_EQ(raw(*q.front()), 10U);
  q.done(a);
  EXPECT_EQ(raw(*q.front()), 20U);
  q.done(c);
  EXPECT_FALSE(q.front());
  const HoldId d = q.add(RingPosition{30});
  q.clear();
  q.add(RingPosition{40});
  q.done(d);  // of before
  EXPECT_EQ(raw(*q.front()), 40U);
}

TEST(AckWindow, PredictsAndChecksTheStreamSequence) {
  AckWindow w({4, 1000});
  w.reset(50);
  InFlight m;
  EXPECT_EQ(w.expected_last(), 50U);
  w.push(message(1));
  w.push(message(2));
  EXPECT_EQ(w.expected_last(), 52U);
  EXPECT_EQ(w.ack(stored(1, 52), m), AckWindow::Verdict::Stored);
  EXPECT_EQ(raw(m.end), 2U);
  EXPECT_EQ(w.ack(stored(1, 52), m), AckWindow::Verdict::Unknown);  // answered before
  EXPECT_EQ(w.ack(stored(2, 53), m), AckWindow::Verdict::Unknown);  // never sent
  EXPECT_EQ(w.ack(stored(0, 52), m), AckWindow::Verdict::Failed);   // elsewhere
  w.push(message(3));
  Ack duplicate = stored(2, 53);
  duplicate.duplicate = true;
  EXPECT_EQ(w.ack(duplicate, m), AckWindow::Verdict::Failed);
  EXPECT_EQ(w.pending(), 0U);
}

TEST(AckWindow, RoomIsLimitedByMessagesAndBytesButOneAlwaysFits) {
  AckWindow w({2, 1000});
  w.reset(0);
  EXPECT_TRUE(w.has_room(5000));
  w.push(message(1, 5000));
  EXPECT_FALSE(w.has_room(1));
  InFlight m;
  EXPECT_EQ(w.ack(stored(0, 1), m), AckWindow::Verdict::Stored);
  w.push(message(2, 400));
  EXPECT_TRUE(w.has_room(600));
  EXPECT_FALSE(w.has_room(601));
  w.push(message(3, 10));
  EXPECT_FALSE(w.has_room(1));
}

TEST(AckWindow, OldestPendingSkipsWhatIsAnswered) {
  AckWindow w({10, 10000});
  w.reset(0);
  InFlight m;
  EXPECT_FALSE(w.oldest_pending_ns());
  for (std::uint64_t i = 0; i < 4; ++i) w.push(message(i, 1, 100 + i));
  EXPECT_EQ(w.oldest_pending_ns(), 100U);
  EXPECT_EQ(w.ack(stored(1, 2), m), AckWindow::Verdict::Stored);
  EXPECT_EQ(w.oldest_pending_ns(), 100U);
  EXPECT_EQ(w.ack(stored(0, 1), m), AckWindow::Verdict::Stored);
  EXPECT_EQ(w.oldest_pending_ns(), 102U);
}

TEST(AckWindow, FloorFollowsHeadsAndContiguousAcks) {
  AckWindow w({10, 10000});
  w.reset(7);
  RingPosition head{0};
  const auto head_of = [&](std::uint32_t) { return head; };
  InFlight m;
  for (std::uint64_t i = 0; i < 3; ++i) w.push(message(10 * (i + 1)));
  EXPECT_FALSE(w.retire(head_of));  // the base is open
  w.base_passed();
  EXPECT_EQ(w.retire(head_of), 7U);
  EXPECT_EQ(w.ack(stored(1, 9), m), AckWindow::Verdict::Stored);
  head = RingPosition{30};
  EXPECT_EQ(w.retire(head_of), 7U);
  EXPECT_EQ(w.ack(stored(0, 8), m), AckWindow::Verdict::Stored);
  head = RingPosition{15};
  EXPECT_EQ(w.retire(head_of), 8U);  // the second one is acked, but the head is not past it
  head = RingPosition{20};
  EXPECT_EQ(w.retire(head_of), 9U);
}

// Acks in any order: the head never passes what is not acked, and gets everywhere in the end.
TEST(AckWindow, RandomAckOrder) {
  for (std::uint32_t seed = 1; seed <= 2000; ++seed) {
    std::minstd_rand random(seed);
    AckWindow w({64, 1 << 20});
    w.reset(seed);
    w.base_passed();
    HoldQueue holds;
    const std::size_t n = 1 + random() % 40;
    std::vector<std::uint64_t> order(n);
    std::iota(order.begin(), order.end(), 0U);
    for (std::size_t i = 0; i < n; ++i) {
      InFlight m = message(10 * (i + 1));
      m.hold = holds.add(RingPosition{10 * i});
      w.push(m);
    }
    std::shuffle(order.begin(), order.end(), random);
    std::vector<bool> acked(n);
    for (const std::uint64_t i : order) {
      InFlight m;
      ASSERT_EQ(w.ack(stored(i, seed + i + 1), m), AckWindow::Verdict::Stored);
      holds.done(m.hold);
      acked[i] = true;
      const auto prefix =
          static_cast<std::uint64_t>(std::find(acked.begin(), acked.end(), false) - acked.begin());
      const RingPosition head = holds.front().value_or(RingPosition{10 * n});
      ASSERT_EQ(raw(head), 10 * prefix);
      ASSERT_EQ(w.retire([&](std::uint32_t) { return head; }), seed + prefix);
    }
  }
}

TEST(GroupTable, OnePerRingAndSubjectInOrderOfOpening) {
  GroupTable t;
  EXPECT_EQ(t.find(0, SubjectId{3}), nullptr);
  EXPECT_EQ(t.oldest(0), nullptr);
  Group& a = t.open(0, SubjectId{3});
  Group& b = t.open(0, SubjectId{1});
  Group& c = t.open(2, SubjectId{3});
  EXPECT_EQ(t.find(0, SubjectId{3}), &a);
  EXPECT_EQ(t.find(2, SubjectId{3}), &c);
  EXPECT_EQ(t.oldest(0), &a);
  EXPECT_EQ(a.next, &b);
  std::memset(t.extend(b, 5000), 1, 5000);
  std::memset(t.extend(b, 5000), 2, 5000);
  EXPECT_EQ(b.payload().size(), 10000U);
  EXPECT_EQ(b.payload()[4999], std::byte{1});
  EXPECT_EQ(b.payload()[5000], std::byte{2});
  EXPECT_EQ(t.open_bytes(), 10000U);
  t.close(a);
  EXPECT_EQ(t.oldest(0), &b);
  EXPECT_EQ(t.find(0, SubjectId{3}), nullptr);
  t.close_all();
  EXPECT_EQ(t.open_groups(), 0U);
  EXPECT_EQ(t.open_bytes(), 0U);
  EXPECT_EQ(t.open(0, SubjectId{1}).bytes, 0U);
}

TEST(SubjectTable, VerifiesWhatTheKeyFinds) {
  SubjectTable t("site");
  const IpAddress v4 = *IpAddress::parse("192.0.2.1");
  const IpAddress v6 = *IpAddress::parse("2001:db8::1");
  const SubjectId a = t.find_or_add(1, v4, 65001, kIpv4Unicast);
  EXPECT_EQ(t.name(a), "site.updates.v4_192_0_2_1.65001.1_1");
  const SubjectId b = t.find_or_add(1, v6, 4200000000U, kIpv6Unicast);  // same key
  EXPECT_EQ(t.name(b), "site.updates.v6_2001_db8_0_0_0_0_0_1.4200000000.2_1");
  EXPECT_EQ(t.find_or_add(1, v4, 65001, kIpv4Unicast), a);
  EXPECT_EQ(t.find_or_add(1, v6, 4200000000U, kIpv6Unicast), b);
  EXPECT_NE(t.find_or_add(1, v4, 65002, kIpv4Unicast), a);
  EXPECT_EQ(t.size(), 3U);
}

class FakeTail final : public TailSource {
 public:
  std::optional<State> state() override { return state_; }
  Get get(std::uint64_t sequence, Message& out) override {
    asked.push_back(sequence);
    const auto it = messages.find(sequence);
    if (it == messages.end()) return Get::Missing;
    out = it->second;
    return Get::Message;
  }
  State state_{1, 10, 77};
  std::map<std::uint64_t, Message> messages;
  std::vector<std::uint64_t> asked;
};

TEST(Tail, ReadsAboveTheLowestFloor) {
  FakeTail source;
  const WriterId w{{1}};
  source.messages[8] = {"s.1", w, Sequence{40}};
  source.messages[9] = {"s.1", w, Sequence{44}};
  source.messages[10] = {"s.2", std::nullopt, Sequence{0}};  // somebody else's
  const Floor floors[] = {{9, 77}, {7, 77}};
  const auto tail = read_tail(source, floors);
  ASSERT_TRUE(tail);
  EXPECT_EQ(source.asked, (std::vector<std::uint64_t>{8, 9, 10}));
  EXPECT_EQ(tail->last_sequence, 10U);
  EXPECT_EQ(tail->messages_read, 3U);
  ASSERT_EQ(tail->stored.size(), 1U);
  EXPECT_EQ(tail->stored[0].subject, "s.1");
  EXPECT_EQ(raw(tail->stored[0].last), 44U);
}

TEST(Tail, AnotherStreamIsReadFromItsStart) {
  FakeTail source;
  const Floor floors[] = {{9, 76}};
  const auto tail = read_tail(source, floors);
  ASSERT_TRUE(tail);
  EXPECT_EQ(source.asked.front(), 1U);
  EXPECT_EQ(tail->missing, 10U);
}

TEST(Tail, NothingIsReadWithoutFloors) {
  FakeTail source;
  ASSERT_TRUE(read_tail(source, {}));
  EXPECT_TRUE(source.asked.empty());
}

TEST(Tail, WhatLimitsHaveEatenIsCounted) {
  FakeTail source;
  source.state_ = {9, 10, 77};
  source.messages[9] = {"s", WriterId{{1}}, Sequence{4}};
  source.messages[10] = {"s", WriterId{{1}}, Sequence{5}};
  const Floor floors[] = {{4, 77}};
  const auto tail = read_tail(source, floors);
  ASSERT_TRUE(tail);
  EXPECT_EQ(tail->missing, 4U);
  EXPECT_EQ(source.asked, (std::vector<std::uint64_t>{9, 10}));
}

TEST(Tail, EmptyStreamAndStreamThatWentBack) {
  FakeTail source;
  source.state_ = {0, 0, 77};
  const Floor floors[] = {{9, 77}};
  const auto tail = read_tail(source, floors);
  ASSERT_TRUE(tail);
  EXPECT_EQ(tail->missing, 0U);
  EXPECT_TRUE(source.asked.empty());
}

}  // namespace
}  // namespace arancini::publishd
