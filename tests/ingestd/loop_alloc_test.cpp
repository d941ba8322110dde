// From the socket to the ring the steady state calls no allocator: malloc is replaced by one that counts.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "common/base/reuseport.h"
#include "ingestd/shard_sink.h"
#include "tests/ingestd/counting_malloc.h"
#include "tests/ingestd/shard_harness.h"

namespace arancini::ingestd {
namespace {

using testing::Buffer;

class LoopAllocations : public ::testing::TestWithParam<IoBackendKind> {};

TEST_P(LoopAllocations, NoneInSteadyStateFromSocketToRing) {
  if (ARANCINI_COUNTS_MALLOC == 0) GTEST_SKIP() << "a sanitizer owns malloc";
  testing::TempDir dir;
  const SystemClock clock;
  Logger log("test", LogLevel::Error);
  auto file = RingFile::create_or_attach(
      dir.file("ring"),
      {.capacity_bytes = 4U << 20, .hugepages = HugepageMode::Never, .created_realtime_ns = 1});
  ASSERT_TRUE(file.ok()) << file.error().text;
  RingWriter ring(std::move(file).value());
  auto attached = RingFile::attach(dir.file("ring"), RingSide::Reader);
  ASSERT_TRUE(attached.ok()) << attached.error().text;
  RingReader reader(std::move(attached).value());
  auto page = StatsWriter::create(dir.file("stats"), {.routers = 16, .peers = 64});
  ASSERT_TRUE(page.ok()) << page.error();
  StatsWriter stats(std::move(page).value());
  Config config;
  Shard shard(config, ring, stats, log, clock);
  ShardSink sink(shard, ring, stats, false);
  EventLoop loop({.io = GetParam()}, sink, stats, log, clock);
  std::string note;
  if (!loop.start(note)) GTEST_SKIP() << note;
  auto listener = make_bmp_listener({"127.0.0.1", 0}, 4, 0);
  ASSERT_TRUE(listener.ok()) << listener.error();
  loop.add_listener(listener->get());
  sockaddr_in address{};
  socklen_t n = sizeof address;
  ::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&address), &n);
  const Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);

  // A stream that changes each route's path in turn; sent in odd pieces, so that messages straddle.
  const testing::PeerSpec peer{.address = testing::ip("10.1.1.1")};
  Buffer greeting = testing::initiation("r1", "test");
  const Buffer up = testing::peer_up(peer);
  greeting.insert(greeting.end(), up.begin(), up.end());
  Buffer stream;
  for (std::uint32_t i = 0; i < 4000; ++i) {
    const auto update = testing::UpdateBuilder()
                            .basics({65001, 100 + i % 50 + (i / 1000) * 7}, testing::ip("10.1.1.1"))
                            .announce(testing::Nlri(IpAddress::from_v4(0x14000000U + ((i % 1000) << 8)), 24));
    const Buffer m = testing::route_monitoring(peer, update);
    stream.insert(stream.end(), m.begin(), m.end());
  }
  std::size_t sent = 0;
  std::uint64_t records = 0;
  const auto play = [&](const Buffer& bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
      const ssize_t put =
          ::send(client.get(), bytes.data() + at, std::min<std::size_t>(30'011, bytes.size() - at), 0);
      if (put <= 0) return false;
      at += static_cast<std::size_t>(put);
      sent += static_cast<std::size_t>(put);
      for (int i = 0; stats.get(IngestMetric::BytesReceived) < sent; ++i) {
        if (i > 10'000) return false;
        loop.run_once();
      }
      RingRecord record;
      while (reader.next(record) == RingReader::Status::Record) ++records;
      reader.release(reader.cursor());
    }
    return true;
  };
  ASSERT_TRUE(play(greeting));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(play(stream));
  const std::uint64_t records_before = records;
  const std::uint64_t before = g_allocations;
  ASSERT_GT(before, 0U) << "the counter does not count";
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(play(stream));
  EXPECT_EQ(g_allocations, before);
  EXPECT_GE(records - records_before, 30'000U);
}

INSTANTIATE_TEST_SUITE_P(Backends, LoopAllocations,
                         ::testing::Values(IoBackendKind::Uring, IoBackendKind::Epoll),
                         [](const auto& which) {
                           return which.param == IoBackendKind::Uring ? "Uring" : "Epoll";
                         });

}  // namespace
}  // namespace arancini::ingestd
