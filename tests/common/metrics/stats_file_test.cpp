#include "common/metrics/stats_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "common/base/types.h"

namespace arancini {
namespace {

struct StatsFile : testing::Test {
  StatsFile() {
    std::string name = "/tmp/arancini-stats-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    dir = name;
  }
  ~StatsFile() override { std::filesystem::remove_all(dir); }
  StatsWriter make(std::uint32_t routers = 4, std::uint32_t peers = 8) {
    auto w = StatsWriter::create(path(), {shm::ProcessKind::Ingestd, 3, routers, peers, 77});
    if (!w) ADD_FAILURE() << w.error();
    return std::move(w).value();
  }
  [[nodiscard]] std::string path() const { return dir + "/ingestd@3.stats"; }
  std::string dir;
};

TEST_F(StatsFile, ReaderSeesWhatTheWriterStored) {
  StatsWriter writer = make();
  writer.set_state(shm::ProcessState::Running);
  writer.heartbeat(123);
  writer.add(IngestMetric::BytesReceived, 5);
  writer.add(IngestMetric::BytesReceived, 6);
  writer.set(IngestMetric::Routes, 9);
  writer.update_router(2, [](shm::RouterRow& r) {
    r.in_use = 1;
    const IpAddress a = IpAddress::parse("192.0.2.7").value();
    std::copy(a.bytes.begin(), a.bytes.end(), std::begin(r.address));
    copy_text(r.sys_name, "r1\n");
    r.state = static_cast<std::uint32_t>(shm::RouterState::Initiated);
  });
  writer.update_peer(7, [](shm::PeerRow& p) {
    p.in_use = 1;
    p.router = 2;
    p.asn = 65001;
    p.state = static_cast<std::uint8_t>(shm::PeerState::Up);
  });
  writer.update_router(4, [](shm::RouterRow&) { FAIL() << "there is no such row"; });

  auto opened = StatsReader::open(path());
  ASSERT_TRUE(opened.ok()) << opened.error();
  const StatsReader& reader = *opened;
  EXPECT_EQ(reader.kind(), shm::ProcessKind::Ingestd);
  EXPECT_EQ(reader.shard(), 3U);
  EXPECT_EQ(reader.pid(), static_cast<std::uint32_t>(::getpid()));
  EXPECT_EQ(reader.started_realtime_ns(), 77U);
  EXPECT_EQ(reader.heartbeat_boottime_ns(), 123U);
  EXPECT_EQ(reader.state(), shm::ProcessState::Running);
  EXPECT_EQ(reader.version(), ARANCINI_VERSION);
  EXPECT_TRUE(reader.writer_alive());
  EXPECT_FALSE(reader.replaced());
  EXPECT_EQ(reader.value(static_cast<std::size_t>(IngestMetric::BytesReceived)), 11U);
  EXPECT_EQ(reader.value(static_cast<std::size_t>(IngestMetric::Routes)), 9U);
  EXPECT_EQ(reader.value(shm::kStatsValues), 0U);
  const auto routers = reader.routers();
  ASSERT_EQ(routers.size(), 1U);
  EXPECT_EQ(routers[0].index, 2U);
  EXPECT_EQ(routers[0].address, "192.0.2.7");
  EXPECT_EQ(routers[0].sys_name, "r1?");
  const auto peers = reader.peers();
  ASSERT_EQ(peers.size(), 1U);
  EXPECT_EQ(peers[0].asn, 65001U);
  EXPECT_EQ(peers[0].state, shm::PeerState::Up);
}

TEST_F(StatsFile, TellsADeadWriterAndASuccessor) {
  auto first = std::make_unique<StatsWriter>(make());
  auto reader = StatsReader::open(path());
  ASSERT_TRUE(reader.ok());
  first.reset();
  EXPECT_FALSE(reader->writer_alive());
  EXPECT_FALSE(reader->replaced());
  const StatsWriter second = make();
  EXPECT_FALSE(reader->writer_alive());
  EXPECT_TRUE(reader->replaced());
}

}  // namespace
}  // namespace arancini
