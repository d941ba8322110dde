#include <gtest/gtest.h>

#include <numeric>

#include "tests/publishd/sim.h"

// The drain step by step in a world where nothing goes wrong by chance.
namespace arancini::publishd::sim {
namespace {

class DrainTest : public testing::Test {
 protected:
  RingMemory& ring() {
    auto r = std::make_unique<RingMemory>();
    r->shard = static_cast<std::uint32_t>(rings_.size());
    r->writer.bytes[0] = static_cast<std::uint8_t>(rings_.size() + 1);
    rings_.push_back(std::move(r));
    return *rings_.back();
  }
  Drain& make() {
    options_.subject_prefix = "p";
    drain_ = std::make_unique<Drain>(options_, broker_, nullptr);
    for (const auto& r : rings_)
      drain_->add_ring(std::make_unique<SimSource>(*r, life_), "ring" + std::to_string(r->shard));
    for (int i = 0; i < 100 && drain_->phase() != Drain::Phase::Publishing; ++i) round();
    EXPECT_EQ(drain_->phase(), Drain::Phase::Publishing);
    return *drain_;
  }
  // The first message of a session goes alone; this one makes way.
  void prime() {
    rings_.front()->write(7, 1);
    settle(3);
    ASSERT_EQ(broker_.sent, 1U);
    broker_.sent = 0;
  }
  // One round, a microsecond later; acks arrive only by settle().
  void round(std::uint64_t later_ns = 1000) {
    now_ += later_ns;
    drain_->do_work(now_);
  }
  void settle(int rounds = 200) {
    for (int i = 0; i < rounds; ++i) {
      round(1'000'000);
      world_.deliver_all();
    }
  }
  std::string verdict() {
    world_.deliver_all();
    return check(world_.stream, rings_);
  }

  Random random_{1};
  World world_{random_, {}};
  Life life_;
  SimBroker broker_{world_, random_, life_};
  DrainOptions options_;
  std::vector<std::unique_ptr<RingMemory>> rings_;
  std::unique_ptr<Drain> drain_;
  std::uint64_t now_ = 1'000'000'000;
};

TEST_F(DrainTest, EachMessageIsInTheHistogramsOnce) {
  ring();
  make();
  for (std::uint32_t i = 0; i < 20; ++i) {
    rings_.front()->write(i % 3, 1);
    settle(3);
  }
  const auto count = [this](PublishHistogram h) {
    const HistogramCounts& counts = drain_->histogram(h);
    return std::accumulate(counts.begin(), counts.begin() + kHistogramSum, std::uint64_t{0});
  };
  const std::uint64_t acked = drain_->metric(PublishMetric::MessagesAcked);
  EXPECT_GE(acked, 10U);
  EXPECT_EQ(count(PublishHistogram::AckLatency), acked);
  EXPECT_EQ(count(PublishHistogram::RingToAck), acked);
  const auto sum = [this](PublishHistogram h) { return drain_->histogram(h)[kHistogramSum]; };
  EXPECT_GE(sum(PublishHistogram::AckLatency), acked * 1'000'000)
      << "acks come a round of a millisecond later";
  EXPECT_GE(sum(PublishHistogram::RingToAck), sum(PublishHistogram::AckLatency));
}

TEST_F(DrainTest, LoneUpdateLeavesAtOnce) {
  RingMemory& r = ring();
  make();
  r.write(0, 1);
  round();
  EXPECT_EQ(broker_.sent, 1U);
  EXPECT_EQ(r.head, 0U);  // not acked yet
  settle(2);
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(r.floor, 1U);
  EXPECT_EQ(verdict(), "");
}

TEST_F(DrainTest, FloodFillsBatches) {
  RingMemory& r = ring();
  options_.batch_count = 100;
  make();
  for (int i = 0; i < 100; ++i) r.write(static_cast<std::uint32_t>(i % 2), 10);
  settle();
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(broker_.sent, 10U);  // 1000 updates on two subjects
  EXPECT_EQ(verdict(), "");
}

TEST_F(DrainTest, GroupsLingerOnlySoLongWhileMessagesAreUnderWay) {
  RingMemory& r = ring();
  options_.eager_messages = 0;
  make();
  prime();
  r.write(0, 1);
  round();
  ASSERT_EQ(broker_.sent, 1U);
  r.write(0, 1);
  round();
  EXPECT_EQ(broker_.sent, 1U);  // waits for company
  EXPECT_EQ(drain_->idle_ns(), options_.linger_dry_ns);
  round(options_.linger_dry_ns);
  EXPECT_EQ(broker_.sent, 2U);
}

TEST_F(DrainTest, BarrierFlushesTheGroupsOfItsRouterOnly) {
  RingMemory& r = ring();
  options_.eager_messages = 0;
  make();
  prime();
  r.write(0, 1);
  round();
  ASSERT_EQ(broker_.sent, 1U);
  r.write(0, 1);  // router 0
  r.write(1, 1);  // router 1
  r.write(1, 0);  // barrier of router 1
  round();
  EXPECT_EQ(broker_.sent, 2U);
  r.write(0, 0);
  round();
  EXPECT_EQ(broker_.sent, 3U);
  settle();
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(verdict(), "");
}

TEST_F(DrainTest, BarrierSeparatesSubjectsOfARouterThatAreOpenAlready) {
  RingMemory& r = ring();
  options_.in_flight.messages = 2;  // the barrier meets a full window
  make();
  prime();
  // Subject 2 is open before subject 0 is, and would be sent first: with it what follows the barrier.
  r.write(4, 1);
  r.write(6, 1);
  r.write(2, 1);
  r.write(0, 5);
  r.write(4, 2);
  r.write(0, 0);
  r.write(2, 5);
  r.write(RingMemory::kForAll, 0);
  r.write(0, 5);
  r.write(1, 5);
  for (int i = 0; i < 5; ++i) round();
  EXPECT_EQ(broker_.sent, 2U);
  settle();
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(verdict(), "");
}

TEST_F(DrainTest, BarrierForAllFlushesEveryGroup) {
  RingMemory& r = ring();
  options_.eager_messages = 0;
  make();
  prime();
  r.write(0, 1);
  r.write(1, 1);
  r.write(3, 1);
  r.write(RingMemory::kForAll, 0);
  r.write(1, 1);
  round();
  EXPECT_EQ(broker_.sent, 3U);
  settle();
  EXPECT_EQ(verdict(), "");
}

// Router 0 (even subjects) has a hundred messages waiting when router 1 has one.
TEST_F(DrainTest, ALoneUpdateDoesNotWaitBehindAnotherRoutersFlood) {
  RingMemory& r = ring();
  options_.batch_count = 10;
  options_.in_flight.messages = 4;
  make();
  prime();
  for (int i = 0; i < 100; ++i) r.write(0, 10);
  round();
  EXPECT_EQ(broker_.sent, 4U);
  r.write(1, 1);
  r.write(0, 10);
  settle();
  EXPECT_EQ(verdict(), "");
  const auto& messages = world_.stream.messages;
  const auto at = std::find_if(messages.begin(), messages.end(),
                               [](const Message& m) {
                                 return m.subject.find("10_0_0_2") != std::string::npos && m.last > 1;
                               }) -
                  messages.begin();
  // What was under way, and what was sent while it lingered: a window's worth each millisecond here.
  EXPECT_LE(at, 1 + 4 + 4 + 4 * static_cast<long>(options_.linger_busy_ns / 1'000'000));
  EXPECT_GT(messages.size(), static_cast<std::size_t>(at) + 10);
}

TEST_F(DrainTest, EveryRouterThatWaitsHasItsTurn) {
  RingMemory& r = ring();
  RingMemory& other = ring();
  options_.batch_count = 10;
  options_.in_flight.messages = 2;
  make();
  prime();
  for (int i = 0; i < 50; ++i) r.write(0, 10);
  for (int i = 0; i < 20; ++i) r.write(1, 10);
  for (int i = 0; i < 20; ++i) other.write(0, 10);
  settle();
  EXPECT_EQ(verdict(), "");
  std::map<std::string, std::size_t> last_of;
  for (std::size_t i = 0; i < world_.stream.messages.size(); ++i)
    last_of[world_.stream.messages[i].subject] = i;
  ASSERT_EQ(last_of.size(), 4U);  // one of prime()
  // The two with twenty messages are through by the time that the third has sent about as many.
  for (const auto& [subject, i] : last_of) {
    if (subject.find("v4_10_0_0_1.") != std::string::npos) continue;
    EXPECT_LE(i, 65U) << subject;
  }
}

TEST_F(DrainTest, TheFirstMessageOfASessionGoesAlone) {
  RingMemory& r = ring();
  options_.format = PublishFormat::UpdateV1;
  make();
  r.write(0, 5);
  round();
  EXPECT_EQ(broker_.sent, 1U);
  settle(1);
  round();
  EXPECT_EQ(broker_.sent, 5U);
}

// ---- by way of the disk

class SpillTest : public DrainTest {
 protected:
  // As ring(), but with a disk.
  RingMemory& spilling_ring() {
    RingMemory& r = ring();
    disks_.push_back(std::make_unique<DiskMemory>());
    return r;
  }
  Drain& make_spilling() {
    options_.subject_prefix = "p";
    options_.spill_after_ns = 10'000'000;
    drain_ = std::make_unique<Drain>(options_, broker_, nullptr);
    for (std::size_t i = 0; i < rings_.size(); ++i) {
      drain_->add_ring(std::make_unique<SpillSource>(std::make_unique<SimSource>(*rings_[i], life_),
                                                     std::make_unique<SimStore>(*disks_[i], random_, life_),
                                                     rings_[i]->writer, ShardId{rings_[i]->shard}),
                       "ring");
    }
    for (int i = 0; i < 100 && drain_->phase() != Drain::Phase::Publishing; ++i) round();
    return *drain_;
  }
  void disk_rounds(int n, bool deliver) {
    for (int i = 0; i < n; ++i) {
      round(1'000'000);
      for (const auto& d : disks_) {
        while (!d->failing && !d->appended.empty()) d->persist_one();
      }
      if (deliver) world_.deliver_all();
    }
  }
  static std::uint64_t used(const RingMemory& r) { return r.tail - r.head; }
  std::vector<std::unique_ptr<DiskMemory>> disks_;
};

TEST_F(SpillTest, ABrokerThatDoesNotAnswerFillsTheDiskNotTheRing) {
  RingMemory& r = spilling_ring();
  Drain& d = make_spilling();
  std::uint64_t most = 0;
  for (int i = 0; i < 300; ++i) {
    r.write(static_cast<std::uint32_t>(i % 3), 10);
    disk_rounds(1, false);  // frozen: no ack, no error
    if (i > 30) most = std::max(most, used(r));
  }
  EXPECT_EQ(d.trouble(), ErrorCode::PublishStalled);
  EXPECT_LT(most, SimSource::capacity);
  EXPECT_GT(disks_[0]->end - disks_[0]->begin, 10 * SimSource::capacity);
  disk_rounds(2000, true);
  EXPECT_EQ(d.phase(), Drain::Phase::Publishing);
  EXPECT_EQ(used(r), 0U);
  EXPECT_EQ(disks_[0]->begin, disks_[0]->end);
  EXPECT_EQ(verdict(), "");
}

TEST_F(SpillTest, AFullDiskLeavesTheRingAsItIsAndNothingIsLost) {
  RingMemory& r = spilling_ring();
  make_spilling();
  for (int i = 0; i < 60; ++i) {
    disks_[0]->failing = i > 20;
    r.write(static_cast<std::uint32_t>(i % 3), 10);
    disk_rounds(1, false);
  }
  EXPECT_GT(used(r), SimSource::capacity / 2);
  EXPECT_GT(disks_[0]->end, disks_[0]->begin);
  disk_rounds(2000, true);  // still full: what is there is published all the same
  EXPECT_EQ(used(r), 0U);
  EXPECT_EQ(disks_[0]->begin, disks_[0]->end);
  EXPECT_EQ(verdict(), "");
}

TEST_F(SpillTest, ABrokerThatIsMerelySlowDoesNotSpill) {
  RingMemory& r = spilling_ring();
  Drain& d = make_spilling();
  for (int i = 0; i < 200; ++i) {
    r.write(0, 10);
    disk_rounds(1, i % 5 == 0);
  }
  disk_rounds(200, true);
  EXPECT_EQ(disks_[0]->end, 0U);
  EXPECT_EQ(d.metric(PublishMetric::Recoveries), 1U);
  EXPECT_EQ(verdict(), "");
}

TEST_F(SpillTest, WhatALostRingLeftOnTheDiskGoesFirst) {
  RingMemory& old = spilling_ring();
  make_spilling();
  for (int i = 0; i < 100; ++i) {
    old.write(0, 10);
    disk_rounds(1, false);
  }
  ASSERT_GT(disks_[0]->end, disks_[0]->begin);
  // The power went: the ring is gone, the disk is not.
  broker_.die();
  drain_.reset();
  disks_[0]->crash(random_, true);
  old.gone = true;
  for (const auto& record : old.records) {
    if (record.begin >= disks_[0]->end) {
      old.lost_from = record.first;
      break;
    }
  }
  RingMemory& fresh = ring();
  fresh.shard = 0;
  fresh.generation = 1;
  drain_ = std::make_unique<Drain>(options_, broker_, nullptr);
  drain_->add_ring(
      std::make_unique<SpillSource>(nullptr, std::make_unique<SimStore>(*disks_[0], random_, life_),
                                    old.writer, ShardId{0}),
      "left", true);
  drain_->add_ring(std::make_unique<SimSource>(fresh, life_), "fresh");
  for (int i = 0; i < 20; ++i) fresh.write(0, 10);
  disk_rounds(1000, true);
  EXPECT_EQ(fresh.head, fresh.tail);
  const auto left = drain_->poll_detached();
  ASSERT_TRUE(left);
  EXPECT_EQ(left->name, "left");
  EXPECT_EQ(left->reason, Drain::Leave::Drained);
  EXPECT_EQ(verdict(), "");
}

TEST_F(DrainTest, AnEventFollowsTheUpdatesBeforeItAndHoldsTheHead) {
  RingMemory& r = ring();
  make();
  prime();
  r.write(0, 5);
  r.write_event(0);
  r.write(0, 5);
  round();
  EXPECT_TRUE(world_.events.messages.empty());  // what came before is not acked yet
  settle();
  EXPECT_EQ(drain_->metric(PublishMetric::RingsCorrupt), 0U);
  ASSERT_EQ(world_.events.messages.size(), 1U)
      << drain_->metric(PublishMetric::RecordsRead) << to_string(drain_->phase());
  EXPECT_EQ(world_.events.messages[0].subject, "p.events.v4_10_0_0_1.0.dropped");
  EXPECT_GE(world_.events.messages[0].after_stream_sequence, 2U);
  EXPECT_EQ(drain_->metric(PublishMetric::EventsPublished), 1U);
  EXPECT_EQ(drain_->metric(PublishMetric::RingsCorrupt), 0U);
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(verdict(), "");
}

TEST_F(DrainTest, UpdateV1HasOneUpdatePerMessage) {
  RingMemory& r = ring();
  options_.format = PublishFormat::UpdateV1;
  make();
  r.write(0, 30);
  settle();
  EXPECT_EQ(broker_.sent, 30U);
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(verdict(), "");
}

TEST_F(DrainTest, BatchV2NamesTheSourceOnceAMessageAndExpandsWhatIsTooLarge) {
  RingMemory& r = ring();
  options_.format = PublishFormat::BatchV2;
  options_.batch_bytes = 1024;
  broker_.max_message_bytes = kHeaderReserveBytes + 4096;
  make();
  for (int i = 0; i < 30; ++i) r.write(0, 10);
  r.write(0, 500);  // more than 4096 bytes
  r.write(0, 10);
  settle();
  ASSERT_GT(world_.stream.messages.size(), 5U);
  EXPECT_EQ(world_.stream.messages.front().format, PublishFormat::BatchV2);
  EXPECT_EQ(world_.stream.messages.back().format, PublishFormat::BatchV2);
  bool expanded = false;
  std::size_t batches = 0;
  for (const Message& m : world_.stream.messages) {
    EXPECT_LE(m.payload.size(), 4096U);
    if (m.format != PublishFormat::BatchV2) {
      expanded = true;
      continue;
    }
    std::vector<std::size_t> sizes;
    EXPECT_EQ(schema::decode_payload(
                  schema::PayloadFormat::BatchV2, m.payload, [](const schema::DecodedUpdate&) {},
                  [&](const schema::FramedMessage& f) { sizes.push_back(f.bytes); }),
              std::nullopt);
    for (std::size_t i = 1; i < sizes.size(); ++i) EXPECT_LT(sizes[i] + 64, sizes[0]);
    batches += sizes.size();
  }
  EXPECT_TRUE(expanded);
  EXPECT_EQ(batches, 31U);
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(verdict(), "");
}

TEST_F(DrainTest, WhatCannotFitIsCountedAndNoWedge) {
  RingMemory& r = ring();
  broker_.max_message_bytes = kHeaderReserveBytes + 128;  // below any Update
  make();
  r.write(0, 3);
  settle();
  EXPECT_EQ(drain_->metric(PublishMetric::PublishErrors), 3U);
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(broker_.sent, 0U);
}

TEST_F(DrainTest, CorruptRingIsGivenUpAndTheOthersGoOn) {
  RingMemory& bad = ring();
  RingMemory& good = ring();
  make();
  bad.write(0, 5);
  bad.write(0, 5);
  bad.write(1, 5);
  // The payload of the second record: what the expander must not trust.
  std::fill(bad.records[1].bytes.begin() + sizeof(shm::RecordHeader), bad.records[1].bytes.end(),
            std::byte{0xff});
  good.write(0, 5);
  settle();
  EXPECT_EQ(bad.head, bad.records[0].end);  // what came before is in the stream and released
  EXPECT_EQ(good.head, good.tail);
  EXPECT_EQ(drain_->metric(PublishMetric::RingsCorrupt), 1U);
  const auto left = drain_->poll_detached();
  ASSERT_TRUE(left);
  EXPECT_EQ(left->name, "ring0");
  EXPECT_EQ(left->reason, Drain::Leave::Corrupt);
  EXPECT_EQ(drain_->rings_connected(), 1U);
  good.write(1, 5);
  settle();
  EXPECT_EQ(good.head, good.tail);
  EXPECT_EQ(good.floor, world_.stream.last());  // the one that left does not hold the floor
  std::uint64_t from_bad = 0;
  for (const Message& m : world_.stream.messages) from_bad += m.writer == bad.writer;
  EXPECT_EQ(from_bad, 1U);
}

TEST_F(DrainTest, StopFlushesAndWaitsForAcks) {
  RingMemory& r = ring();
  options_.eager_messages = 0;
  make();
  prime();
  r.write(0, 1);
  round();
  r.write(1, 1);
  round();
  ASSERT_EQ(broker_.sent, 1U);  // the second group lingers
  drain_->stop(now_);
  round();
  EXPECT_EQ(broker_.sent, 2U);
  EXPECT_FALSE(drain_->stopped());
  world_.deliver_all();
  round();
  round();
  EXPECT_TRUE(drain_->stopped());
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(r.floor, 3U);
}

TEST_F(DrainTest, StopIsBounded) {
  RingMemory& r = ring();
  make();
  r.write(0, 1);
  round();
  drain_->stop(now_);
  round(options_.stop_timeout_ns + 1);
  EXPECT_TRUE(drain_->stopped());
  EXPECT_EQ(r.head, 0U);  // kept for the next start
}

TEST_F(DrainTest, AckTimeoutLeadsToTheTail) {
  RingMemory& r = ring();
  make();
  r.write(0, 1);
  round();
  round(options_.ack_timeout_ns + 1);
  EXPECT_EQ(drain_->metric(PublishMetric::AckTimeouts), 1U);
  EXPECT_EQ(drain_->trouble(), ErrorCode::PublishTimeout);
  for (int i = 0; i < 200 && drain_->phase() != Drain::Phase::Publishing; ++i) round(1'000'000);
  EXPECT_EQ(drain_->phase(), Drain::Phase::Publishing);
  EXPECT_EQ(drain_->trouble(), ErrorCode::PublishTimeout) << "a session alone proves nothing";
  settle();
  EXPECT_EQ(drain_->trouble(), ErrorCode::None);
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(verdict(), "");
}

// A replica that was cut off may have stored it, and may keep it in place of what the others store there.
TEST_F(DrainTest, WithReplicasWhatWasNotAnsweredGoesAgainAsItWas) {
  for (const PublishFormat format : {PublishFormat::UpdateV1Concat, PublishFormat::BatchV2}) {
    SCOPED_TRACE(static_cast<int>(format));
    options_.format = format;
    broker_.replicated = true;
    rings_.clear();
    world_.stream.create_anew();
    RingMemory& r = ring();
    make();
    r.write(1, 2);
    settle(3);
    const std::size_t before = world_.stream.messages.size();
    r.write(1, 3);  // 3 to 5
    round();
    world_.lose_all();
    // Much more comes before anybody knows that it is lost: of its subject, of others, before and behind
    // barriers.
    r.write(1, 20);
    r.write(0, 30);
    r.write(0, 0);
    r.write(RingMemory::kForAll, 0);
    for (int i = 0; i < 50; ++i) r.write(static_cast<std::uint32_t>(i) % 4, 7);
    round(options_.ack_timeout_ns + 1);
    settle();
    ASSERT_GT(world_.stream.messages.size(), before + 1);
    const Message& again = world_.stream.messages[before];
    EXPECT_EQ(again.first, 3U);
    EXPECT_EQ(again.last, 5U);
    EXPECT_GT(world_.stream.messages[before + 1].last - world_.stream.messages[before + 1].first, 5U)
        << "only that one is as it was";
    EXPECT_EQ(r.head, r.tail);
    EXPECT_EQ(verdict(), "");
  }
}

TEST_F(DrainTest, WhatCannotBeMadeAgainAsItWasHoldsNothingUpForLong) {
  RingMemory& r = ring();
  broker_.replicated = true;
  make();
  r.write(1, 2);
  settle(3);
  r.write(1, 3);
  round();
  world_.lose_all();
  broker_.max_message_bytes = 1400;  // the server's limit was lowered meanwhile
  r.write(0, 5);
  round(options_.ack_timeout_ns + 1);
  settle(3000);
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(verdict(), "");
}

TEST_F(DrainTest, StreamCreatedAnewGetsWhatTheRingStillHolds) {
  RingMemory& r = ring();
  make();
  r.write(0, 5);
  settle();
  ASSERT_EQ(r.head, r.tail);
  const std::uint64_t acked = r.next_sequence;
  r.write(0, 5);
  world_.stream = Stream{};
  world_.stream.created = 2000;
  settle();
  EXPECT_EQ(r.head, r.tail);
  EXPECT_EQ(r.floor_created, 2000U);
  ASSERT_FALSE(world_.stream.messages.empty());
  EXPECT_EQ(world_.stream.messages.front().first, acked);
  EXPECT_EQ(drain_->metric(PublishMetric::StreamEpochs), 1U);
  EXPECT_EQ(r.dumps, 1U);
  EXPECT_EQ(r.log_identity, 2000U);
  EXPECT_EQ(r.published, r.tail);
  settle();
  EXPECT_EQ(r.dumps, 1U) << "once";
  ASSERT_EQ(world_.events.messages.size(), 1U);
  EXPECT_EQ(world_.events.messages[0].subject, "p.events.collector.0.stream_epoch");
}

TEST_F(DrainTest, StreamThatHasGoneBackIsAnotherLog) {
  RingMemory& r = ring();
  make();
  r.write(0, 5);
  settle();
  r.write(0, 5);
  settle();
  ASSERT_EQ(world_.stream.last(), 2U);
  EXPECT_EQ(r.log_identity, world_.stream.created);
  EXPECT_EQ(r.log_sequence, 2U);
  EXPECT_EQ(drain_->log_end().identity.load(), world_.stream.created);
  EXPECT_EQ(drain_->log_end().sequence.load(), 2U);
  broker_.die();
  world_.stream.messages.pop_back();
  world_.stream.last_id.clear();
  // The broker of the simulator waits for a leader to catch up for ever; the real one for ten seconds.
  broker_.patient = false;
  settle();
  EXPECT_EQ(r.log_identity, world_.stream.created + 1) << "marks of before are not about it";
  EXPECT_EQ(r.log_sequence, 1U);
  EXPECT_EQ(r.dumps, 1U);
  EXPECT_EQ(drain_->log_end().identity.load(), world_.stream.created + 1);
}

TEST_F(DrainTest, DuplicateOfWhatIsNotStoredIsNoWedge) {
  RingMemory& r = ring();
  Drain& d = make();
  r.write(0, 5);
  round();
  world_.deliver_all();
  // Deleted by hand before the head moved; the id stays in the server's window.
  ASSERT_EQ(world_.stream.messages.size(), 1U);
  broker_.die();
  settle(3);
  world_.stream.messages.clear();
  world_.stream.first = 2;
  settle(400);
  EXPECT_EQ(d.phase(), Drain::Phase::Publishing);
  EXPECT_EQ(r.head, r.tail);
}

TEST_F(DrainTest, SleepsOnNothingToReadOnly) {
  RingMemory& r = ring();
  options_.in_flight.messages = 1;
  options_.format = PublishFormat::UpdateV1;
  make();
  std::vector<FutexWait> waits;
  EXPECT_TRUE(drain_->arm(waits));
  r.write(0, 2);
  EXPECT_FALSE(drain_->arm(waits));
  round();  // one is under way, the other waits for room: an ack wakes, not the ring
  r.write(0, 2);
  round();
  EXPECT_TRUE(drain_->arm(waits));
  settle();
  EXPECT_EQ(verdict(), "");
}

}  // namespace
}  // namespace arancini::publishd::sim
