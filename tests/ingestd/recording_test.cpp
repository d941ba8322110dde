#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/journal/crc32c.h"
#include "common/recording/recording_reader.h"
#include "ingestd/replay.h"
#include "ingestd/restore_task.h"
#include "tests/ingestd/bmp_builder.h"
#include "tests/ingestd/shard_harness.h"

// Recordings that are not as they should be. That replays write the same bytes is ShardReplay's
// (shard_model_test.cpp).
namespace arancini::testing {
namespace {

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

struct Replayed {
  Result<ingestd::ReplayResult, std::string> result;
  Buffer records;
};

Replayed replay(const std::string& path) {
  Logger log("replay", LogLevel::Error);
  Buffer records;
  auto result =
      ingestd::replay(path, log, [&](const shm::RecordHeader& header, std::span<const std::byte> payload) {
        const auto bytes = std::as_bytes(std::span(&header, 1));
        records.insert(records.end(), bytes.begin(), bytes.end());
        records.insert(records.end(), payload.begin(), payload.end());
      });
  return {std::move(result), std::move(records)};
}

Buffer announcement(const PeerSpec& peer, unsigned number, std::uint32_t med) {
  UpdateBuilder u;
  u.origin(0).as_path({65001}).next_hop(ip("10.9.9.9")).med(med);
  u.announce({IpAddress::from_v4(0xc6000000U + (number << 8)), 24U, std::nullopt});
  return route_monitoring(peer, u);
}

// One router that announces routes and goes.
std::string record_something(ShardHarness& h, unsigned routes = 20) {
  PeerSpec peer;
  peer.address = ip("10.0.0.1");
  peer.asn = 65001;
  const SessionId s = h.open();
  h.send(s, initiation("router", "text"));
  h.send(s, peer_up(peer));
  for (unsigned i = 0; i < routes; ++i) {
    h.send(s, announcement(peer, i, i));
    h.sink().publish();
  }
  h.sink().close_session(s);
  h.pass_time(400);
  return h.finish_recording();
}

TEST(Recording, ReplaysToTheSameBytes) {
  ShardHarness h({.record = true});
  const std::string path = record_something(h);
  const Replayed again = replay(path);
  ASSERT_TRUE(again.result.ok()) << again.result.error();
  EXPECT_TRUE(again.result->complete);
  EXPECT_GE(again.result->updates, 40U);  // announced, and withdrawn when the grace time was over
  EXPECT_TRUE(again.records == h.records());
}

TEST(Recording, LeavesAnOlderOneAlone) {
  TempDir dir;
  FakeClock clock;
  Logger log("test", LogLevel::Error);
  write_file(dir.file("r"), "precious");
  auto first = ingestd::Recorder::create(dir.file("r"), {}, clock, log, 1 << 16);
  auto second = ingestd::Recorder::create(dir.file("r"), {}, clock, log, 1 << 16);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first.value()->path(), dir.file("r.1"));
  EXPECT_EQ(second.value()->path(), dir.file("r.2"));
  EXPECT_EQ(contents(dir.file("r")), "precious");
  auto nowhere = ingestd::Recorder::create(dir.file("no/such/folder"), {}, clock, log, 1 << 16);
  ASSERT_FALSE(nowhere.ok());
  EXPECT_NE(nowhere.error().find("no/such/folder"), std::string::npos);
}

// A queue that takes not even one message: data flows, the recording ends and says so.
TEST(Recording, EndsLoudlyWhenTheDiskDoesNotKeepUp) {
  ShardHarness h({.record = true, .record_queue_bytes = 1024});
  PeerSpec peer;
  peer.address = ip("10.0.0.1");
  peer.asn = 65001;
  const SessionId s = h.open();
  h.send(s, initiation(std::string(2000, 'r'), "longer than the queue"));
  h.send(s, peer_up(peer));
  h.send(s, announcement(peer, 1, 1));
  EXPECT_FALSE(h.recorder()->running());
  const std::string path = h.finish_recording();
  EXPECT_EQ(h.table().size(), 1U);
  const Replayed again = replay(path);
  ASSERT_TRUE(again.result.ok()) << again.result.error();
  EXPECT_FALSE(again.result->complete);
  EXPECT_NE(again.result->end.find("does not keep up"), std::string::npos) << again.result->end;
  EXPECT_EQ(again.result->calls, 1U);  // the session's begin
}

// Cut anywhere, a recording replays up to there, and says that it was cut; it never writes other records.
TEST(Recording, CutAnywhereItReplaysWhatIsThere) {
  ShardHarness h({.record = true});
  const std::string path = record_something(h, 3);
  const std::string whole = contents(path);
  TempDir dir;
  std::size_t replayed = 0;
  for (std::size_t size = 0; size < whole.size(); size += size < 2000 ? 7 : 61) {
    write_file(dir.file("cut"), whole.substr(0, size));
    const Replayed again = replay(dir.file("cut"));
    if (!again.result.ok()) continue;  // nothing of the shard is in it
    ++replayed;
    EXPECT_FALSE(again.result->complete) << size;
    EXPECT_FALSE(again.result->end.empty());
    ASSERT_LE(again.records.size(), h.records().size());
    EXPECT_TRUE(std::equal(again.records.begin(), again.records.end(), h.records().begin())) << size;
  }
  EXPECT_GT(replayed, 0U);
}

TEST(Recording, AFlippedBitIsFound) {
  ShardHarness h({.record = true});
  const std::string path = record_something(h, 3);
  const std::string whole = contents(path);
  TempDir dir;
  for (std::size_t at = 0; at < whole.size(); at += 13) {
    // Four bytes behind the version mean nothing.
    if (at >= 12 && at < 16) continue;
    std::string bad = whole;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
    write_file(dir.file("bad"), bad);
    const Replayed again = replay(dir.file("bad"));
    EXPECT_FALSE(again.result.ok() && again.result->complete) << at;
    if (again.result.ok()) {
      ASSERT_LE(again.records.size(), h.records().size());
      EXPECT_TRUE(std::equal(again.records.begin(), again.records.end(), h.records().begin())) << at;
    }
  }
}

// Whether the restore was complete, and a dump is owed, is what the recording says.
TEST(Recording, OfARestoreThatOwesADump) {
  ingestd::RestoreTask restore;
  ShardHarness h({.grace_s = 100, .record = true});
  h.shard().set_restoring(true);
  ASSERT_TRUE(h.shard().tasks().post(restore));
  restore.end({}, false);
  h.settle();
  ASSERT_TRUE(restore.finished());
  const std::string path = record_something(h);
  EXPECT_EQ(h.events({schema::EventKind::DumpStart}).size(), 1U);
  const Replayed again = replay(path);
  ASSERT_TRUE(again.result.ok()) << again.result.error();
  EXPECT_TRUE(again.result->complete);
  EXPECT_TRUE(again.records == h.records());
}

// A shard that does something else than the recorded one is named with the call.
TEST(Recording, AnotherConfigurationIsNoticed) {
  ShardHarness h({.grace_s = 100, .record = true});
  const std::string path = record_something(h);
  auto reader = recording::Reader::open(path);
  ASSERT_TRUE(reader.ok()) << reader.error();
  // The same calls under another grace time.
  recording::Start start = reader->start();
  const auto at = start.config.find("session_grace_s = 100");
  ASSERT_NE(at, std::string::npos) << start.config;
  start.config.replace(at, 21, "session_grace_s = 900");
  TempDir dir;
  FakeClock clock;
  Logger log("test", LogLevel::Error);
  const auto before = recording::encode_start(reader->start());
  const auto after = recording::encode_start(start);
  ASSERT_EQ(before.size(), after.size());
  std::string bytes = contents(path);
  const auto found = bytes.find(reader->start().config);
  ASSERT_NE(found, std::string::npos);
  bytes.replace(found, start.config.size(), start.config);
  // Its block gets a good checksum again.
  recording::BlockHeader header{};
  std::memcpy(&header, bytes.data() + 16, sizeof header);
  header.crc = journal::crc32c(std::as_bytes(std::span(bytes).subspan(16 + sizeof header, header.bytes)));
  std::memcpy(bytes.data() + 16, &header, sizeof header);
  write_file(dir.file("other"), bytes);
  const Replayed again = replay(dir.file("other"));
  ASSERT_FALSE(again.result.ok());
  EXPECT_NE(again.result.error().find("(publish), after 22 messages"), std::string::npos)
      << again.result.error();
}

}  // namespace
}  // namespace arancini::testing
