#include "common/metrics/stats_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "common/base/clock.h"
#include "common/base/types.h"

namespace arancini {
namespace {

struct StatsFile : testing::Test {
  StatsFile() {
    std::string name = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
    name += "/arancini-stats-XXXXXX";
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

// A process changes whole rows without pause; no reader ever sees a mixture.
TEST_F(StatsFile, RowsAreNeverTorn) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    StatsWriter writer = make(2, 2);
    static_cast<void>(!::write(ready[1], "x", 1));
    for (std::uint64_t n = 1;; ++n) {
      const auto letter = static_cast<char>('a' + n % 26);
      const std::string text(1 + n % 120, letter);
      writer.update_router(1, [&](shm::RouterRow& r) {
        r.in_use = 1;
        r.messages = n;
        r.routes = n * 3;
        copy_text(r.name, text);
        copy_text(r.sys_name, text);
        r.updates_published = n * 5;
        copy_text(r.last_error_text, text);
      });
      writer.update_peer(0, [&](shm::PeerRow& p) {
        p.in_use = 1;
        p.routes = n;
        p.changed_realtime_ns = n * 7;
        p.synthetic_withdraws = ~n;
      });
      // Leaves the reader a chance, at changing distances.
      for (std::uint64_t spin = n * 7919 % 20000; spin > 0; --spin) asm volatile("" ::: "memory");
    }
  }
  char x = 0;
  ASSERT_EQ(::read(ready[0], &x, 1), 1);
  auto reader = StatsReader::open(path());
  ASSERT_TRUE(reader.ok());
  std::uint64_t seen = 0;
  std::uint64_t last = 0;
  std::uint64_t changes = 0;
  const std::uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + 5'000'000'000U;
  while (changes < 5'000 && clock_ns(CLOCK_MONOTONIC) < deadline) {
    for (const StatsReader::Router& r : reader->routers()) {
      ++seen;
      ASSERT_EQ(r.routes, r.messages * 3);
      ASSERT_EQ(r.updates_published, r.messages * 5);
      ASSERT_EQ(r.sys_name, std::string(1 + r.messages % 120, static_cast<char>('a' + r.messages % 26)));
      ASSERT_EQ(r.last_error_text, r.sys_name);
      ASSERT_EQ(r.name, r.sys_name);
      ASSERT_GE(r.messages, last);
      if (r.messages != last) ++changes;
      last = r.messages;
    }
    for (const StatsReader::Peer& p : reader->peers()) {
      ASSERT_EQ(p.changed_realtime_ns, p.routes * 7);
      ASSERT_EQ(p.synthetic_withdraws, ~p.routes);
    }
  }
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ::close(ready[0]);
  ::close(ready[1]);
  EXPECT_GT(changes, 20U) << seen;
  EXPECT_FALSE(reader->writer_alive());
}

TEST_F(StatsFile, RefusesWhatIsNoStatsPage) {
  const auto refused = [&](const std::function<void()>& damage, const std::string& part) {
    { const StatsWriter writer = make(); }
    damage();
    const auto reader = StatsReader::open(path());
    ASSERT_FALSE(reader.ok()) << part;
    EXPECT_NE(reader.error().find(part), std::string::npos) << reader.error();
    EXPECT_NE(reader.error().find(path()), std::string::npos) << reader.error();
  };
  const auto poke = [&](std::size_t offset, auto value) {
    const Fd fd(::open(path().c_str(), O_WRONLY));
    ASSERT_EQ(::pwrite(fd.get(), &value, sizeof value, static_cast<off_t>(offset)), ssize_t{sizeof value});
  };
  using H = shm::StatsHeader;
  refused([&] { std::filesystem::remove(path()); }, "cannot open");
  refused([&] { std::filesystem::resize_file(path(), 100); }, "is not a stats page");
  refused([&] { std::filesystem::resize_file(path(), sizeof(shm::StatsPage)); }, "shorter than its rows");
  refused([&] { poke(offsetof(H, magic), std::uint64_t{0}); }, "magic");
  refused([&] { poke(offsetof(H, abi_version), shm::kStatsAbiVersion + 1); }, "ABI version");
  refused([&] { poke(offsetof(H, layout_hash), std::uint64_t{0}); }, "layout hash");
  refused([&] { poke(offsetof(H, router_capacity), ~std::uint32_t{0}); }, "rows");
  refused([&] { poke(offsetof(H, peer_capacity), std::uint32_t{1} << 20); }, "rows");
}

TEST_F(StatsFile, SurvivesRandomContents) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 60; ++round) {
    { const StatsWriter writer = make(); }
    {
      std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(sizeof(shm::StatsHeader)));
      for (std::size_t i = sizeof(shm::StatsHeader); i < std::filesystem::file_size(path()); ++i) {
        file.put(static_cast<char>(random()));
      }
      const std::uint32_t guard = 2;  // else most rows are skipped as being changed
      for (int row = 0; row < 4; ++row) {
        file.seekp(static_cast<std::streamoff>(sizeof(shm::StatsPage) + row * sizeof(shm::RouterRow)));
        file.write(reinterpret_cast<const char*>(&guard), sizeof guard);
      }
    }
    const auto reader = StatsReader::open(path());
    ASSERT_TRUE(reader.ok()) << reader.error();
    const auto routers = reader->routers();
    EXPECT_GE(routers.size(), 3U);
    for (const auto& r : routers) {
      EXPECT_LT(r.sys_name.size(), shm::kStatsTextBytes);
      std::array<char, shm::kStatsTextBytes> again{};
      copy_text(again, r.sys_name);
      EXPECT_STREQ(again.data(), r.sys_name.c_str()) << "clean already";
    }
    static_cast<void>(reader->peers());
  }
}

std::string copied(std::string_view text, std::size_t size = 16) {
  std::vector<char> field(size, 'X');
  copy_text(field, text);
  EXPECT_EQ(field.back(), '\0');
  return field.data();
}

TEST(CopyText, CutsAtCharactersAndCleans) {
  EXPECT_EQ(copied("router-1"), "router-1");
  EXPECT_EQ(copied(""), "");
  EXPECT_EQ(copied("0123456789abcdefgh"), "0123456789abcde");
  EXPECT_EQ(copied("a\tb\nc\x7f"
                   "d"),
            "a?b?c?d");
  EXPECT_EQ(copied(std::string_view("a\0b", 3)), "a?b");
  EXPECT_EQ(copied("z\u00fcrich", 4), "z\u00fc");
  EXPECT_EQ(copied("z\u00fcrich", 3), "z") << "never half a character";
  EXPECT_EQ(copied("\xf0\x9f\x8d\x9a"
                   "x"),
            "\xf0\x9f\x8d\x9a"
            "x");
  EXPECT_EQ(copied("\xc2\x85"
                   "x"),
            "?x")
      << "C1 control character";
  EXPECT_EQ(copied("a\xff"
                   "b"),
            "a?b");
  EXPECT_EQ(copied("\xc0\x80"), "??") << "overlong (RFC 3629 3)";
  EXPECT_EQ(copied("\xed\xa0\x80"), "???") << "surrogate";
  EXPECT_EQ(copied("\xf5\x80\x80\x80"), "????");
  EXPECT_EQ(copied("ab\xe2\x82"), "ab??") << "cut short by the sender";
  EXPECT_EQ(copied("abc", 1), "");
}

}  // namespace
}  // namespace arancini
