#pragma once

#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <string>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/types.h"
#include "common/metrics/stats_file.h"
#include "curated/process_manager.h"

namespace arancini::curated {

// A runtime directory with pages that a test fills, and a clock that stands still.
struct TestFleet {
  TestFleet() {
    char pattern[] = "/tmp/arancini-fleet-XXXXXX";
    config.paths.runtime_dir = ::mkdtemp(pattern);
    config.paths.state_dir = config.paths.runtime_dir + "/state";
    config.shards.count = 2;
    config.bmp.listen = {"127.0.0.1", 4000};
    config.metrics.listen = {"127.0.0.1", 0};
    clock.now_ns = 1000 * kSecond;
  }
  ~TestFleet() { std::filesystem::remove_all(config.paths.runtime_dir); }
  TestFleet(const TestFleet&) = delete;
  TestFleet& operator=(const TestFleet&) = delete;

  StatsWriter page(const std::string& path, shm::ProcessKind kind, std::uint32_t shard) {
    StatsWriter::Options options;
    options.kind = kind;
    options.shard = shard;
    options.routers = 16;
    options.peers = 16;
    options.now_realtime_ns = clock.realtime_ns() - 90 * kSecond;
    auto made = StatsWriter::create(path, options);
    if (!made) throw std::runtime_error(made.error());
    made->heartbeat(clock.boottime_ns());
    made->set_state(shm::ProcessState::Running);
    return std::move(made).value();
  }
  StatsWriter ingestd(std::uint32_t k) {
    return page(config.ingestd_stats_path(k), shm::ProcessKind::Ingestd, k);
  }
  StatsWriter publishd() { return page(config.publishd_stats_path(), shm::ProcessKind::Publishd, 0); }

  static void add_router(StatsWriter& to, std::uint32_t index, const char* address, const char* sys_name,
                         const char* name = "") {
    to.update_router(index, [&](shm::RouterRow& row) {
      row.in_use = 1;
      std::memcpy(row.address, IpAddress::parse(address)->bytes.data(), 16);
      row.state = static_cast<std::uint32_t>(shm::RouterState::Initiated);
      row.sessions = 1;
      row.peers_up = 2;
      row.port = 31000;
      row.routes = 700;
      row.messages = 9;
      row.throttled = 1;
      row.last_error = 205;
      row.last_message_realtime_ns = 1'700'000'000'500'000'000U;
      copy_text(row.name, name);
      copy_text(row.sys_name, sys_name);
      copy_text(row.last_error_text, "attribute 2 at byte 31");
    });
  }
  static void add_peer(StatsWriter& to, std::uint32_t index, std::uint32_t router, const char* address) {
    to.update_peer(index, [&](shm::PeerRow& row) {
      row.in_use = 1;
      row.router = router;
      row.view = static_cast<std::uint8_t>(View::AdjInPost);
      row.state = static_cast<std::uint8_t>(shm::PeerState::Up);
      std::memcpy(row.address, IpAddress::parse(address)->bytes.data(), 16);
      row.distinguisher = 0x0000'fde8'0000'0007U;
      row.asn = 65001;
      row.bgp_id = 0x0a000001;
      row.routes = 350;
    });
  }

  static constexpr std::uint64_t kSecond = 1'000'000'000U;
  Config config;
  FakeClock clock;
};

// A process manager of which a test says what it reports.
class FakeManager final : public ProcessManager {
 public:
  [[nodiscard]] std::vector<ManagedProcess> processes() const override { return all; }
  [[nodiscard]] int poll_fd() const override { return -1; }
  [[nodiscard]] std::uint64_t deadline_ns() const override { return 0; }
  void do_work() override {}
  Result<std::monostate, std::string> restart(const std::string& name) override {
    restarted.push_back(name);
    return std::monostate{};
  }
  void stop() override { stopped_ = true; }
  [[nodiscard]] bool stopped() const override { return stopped_; }
  std::vector<ManagedProcess> all;
  std::vector<std::string> restarted;

 private:
  bool stopped_ = false;
};

}  // namespace arancini::curated
