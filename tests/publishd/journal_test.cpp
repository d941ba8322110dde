#include "tests/publishd/journal_harness.h"

// The journal against a real file system: what was acknowledged is there, whatever happens to the process.
namespace arancini::publishd::test {
namespace {

class JournalTest : public testing::Test {
 protected:
  void start() {
    host_.reset();
    host_ = std::make_unique<JournalHost>(options_);
    ASSERT_TRUE(host_->journal->wait_ready(20'000'000'000));
  }
  std::unique_ptr<SpillStore> open(std::uint8_t n = 1) {
    return host_->journal->open(writer_id(n), ShardId{n}, 1000 + n);
  }
  static void expect_records(SpillStore& store, Feed& feed, std::uint64_t from, std::uint64_t to) {
    RingRecord r;
    for (std::uint64_t n = from; n < to; ++n) {
      ASSERT_EQ(read_one(store, r), RingReader::Status::Record) << n;
      ASSERT_TRUE(feed.at(n).same(r)) << n;
      ASSERT_EQ(store.cursor(), r.end);
    }
  }

  TempTree tree_;
  JournalOptions options_ = [this] {
    JournalOptions o;
    o.directory = tree_.path() + "/state/journal";
    o.segment_bytes = 256 * 1024;
    o.frame_bytes = 16 * 1024;
    o.retry_ns = 20'000'000;
    o.drop_empty_ns = 0;
    return o;
  }();
  std::unique_ptr<JournalHost> host_;
};

TEST_F(JournalTest, GivesBackWhatWasAppendedAcrossSegmentsAndPadding) {
  start();
  auto store = open();
  Feed feed;
  store->restart(feed.at(1).record.begin, 77, 88);
  EXPECT_EQ(store->begin(), store->end());
  feed.append_all(*store, 3000);  // 1.5 MB
  store->seek(store->begin());
  expect_records(*store, feed, 1, 3000);
  RingRecord r;
  EXPECT_EQ(store->next(r), RingReader::Status::Empty);
  // From the middle of a frame.
  const auto middle = feed.at(1234).record.begin;
  store->seek(middle);
  EXPECT_EQ(store->cursor(), middle);
  expect_records(*store, feed, 1234, 3000);
  EXPECT_GT(host_->journal->metric(PublishMetric::JournalSegments), 5U);
  EXPECT_EQ(host_->journal->metric(PublishMetric::JournalTrouble), 0U);
}

TEST_F(JournalTest, AllIsThereAfterARestart) {
  start();
  Feed feed;
  {
    auto store = open();
    store->restart(feed.at(1).record.begin, 77, 88);
    feed.append_all(*store, 1000);
    store->set_published(feed.at(300).record.begin, 99, 88);
  }
  start();
  const auto orphans = host_->journal->orphans({});
  ASSERT_EQ(orphans.size(), 1U);
  EXPECT_EQ(orphans[0].writer, writer_id(1));
  EXPECT_EQ(orphans[0].shard, ShardId{1});
  EXPECT_EQ(orphans[0].created_realtime_ns, 1001U);
  EXPECT_EQ(orphans[0].begin, feed.at(300).record.begin);
  EXPECT_TRUE(host_->journal->orphans({writer_id(1)}).empty());
  auto store = open();
  EXPECT_EQ(store->begin(), feed.at(300).record.begin);
  EXPECT_EQ(store->end(), feed.at(999).record.end);
  EXPECT_EQ(store->floor_stream_sequence(), 99U);
  EXPECT_EQ(store->floor_created_ns(), 88U);
  feed.append_all(*store, 2000);
  store->seek(store->begin());
  expect_records(*store, feed, 300, 2000);
}

}  // namespace
}  // namespace arancini::publishd::test
