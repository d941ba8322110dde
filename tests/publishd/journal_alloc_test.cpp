// Alone in its program: it replaces malloc.
#include "tests/ingestd/counting_malloc.h"
#include "tests/publishd/journal_harness.h"

namespace arancini::publishd::test {
namespace {

// The hot thread's side of the journal copies and stores; everything else is other threads' work.
TEST(JournalHotThread, DoesNotAllocate) {
  const TempTree tree;
  JournalOptions options;
  options.directory = tree.path() + "/journal";
  options.segment_bytes = 1 << 20;
  options.frame_bytes = 64 << 10;
  JournalHost host(options);
  ASSERT_TRUE(host.journal->wait_ready(20'000'000'000));
  auto store = host.journal->open(writer_id(1), ShardId{1}, 1);
  Feed feed;
  constexpr std::uint64_t kRecords = 20'000;
  std::vector<TestRecord> records;
  for (std::uint64_t n = 0; n < kRecords; ++n) records.push_back(feed.at(n + 1));
  for (auto& r : records) r.record.payload = r.bytes;
  store->restart(records[0].record.begin, 1, 88);
  store->seek(store->begin());

  [[maybe_unused]] const std::uint64_t before = g_allocations;
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  std::uint64_t written = 0;
  std::uint64_t read = 0;
  std::uint64_t wrong = 0;
  RingRecord r;
  while (read < kRecords && std::chrono::steady_clock::now() < deadline) {
    while (written < kRecords && store->append(records[written].record)) ++written;
    store->flush();
    while (store->next(r) == RingReader::Status::Record) {
      wrong += records[read].same(r) ? 0 : 1;
      ++read;
      store->set_published(r.end, read, 88);
    }
    wrong += store->trouble() == ErrorCode::None ? 0 : 1;
    std::this_thread::yield();
  }
#if ARANCINI_COUNTS_MALLOC
  EXPECT_EQ(g_allocations - before, 0U);
#endif
  EXPECT_EQ(read, kRecords);
  EXPECT_EQ(wrong, 0U);
}

}  // namespace
}  // namespace arancini::publishd::test
