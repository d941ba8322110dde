#include "tools/doctor.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

namespace arancini::tools {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMiB = 1024ULL * 1024;
constexpr std::uint64_t kGiB = 1024 * kMiB;

// A host that was made up: /proc and /sys below a directory of the test's own.
class Doctor : public testing::Test {
 protected:
  Doctor() {
    char name[] = "/tmp/arancini-doctor-XXXXXX";
    root_ = ::mkdtemp(name);
    config_.shards.count = 2;
    for (const auto& [path, text] : std::vector<std::pair<const char*, const char*>>{
             {"fs/file-max", "2097152"},
             {"net/core/rmem_max", "33554432"},
             {"net/core/wmem_max", "33554432"},
             {"net/ipv4/tcp_rmem", "4096\t87380\t33554432"},
             {"net/ipv4/tcp_wmem", "4096\t65536\t33554432"},
             {"net/ipv4/tcp_fin_timeout", "15"},
             {"net/core/netdev_max_backlog", "10000"},
             {"net/core/somaxconn", "4096"},
             {"net/ipv4/tcp_max_syn_backlog", "8192"},
         }) {
      put(std::string("/proc/sys/") + path, text);
    }
  }
  ~Doctor() override { fs::remove_all(root_); }

  void put(const std::string& path, const std::string& text) {
    fs::create_directories((root_ + path).substr(0, (root_ + path).rfind('/')));
    std::ofstream(root_ + path) << text << '\n';
  }
  [[nodiscard]] HostFiles host() const { return HostFiles(root_); }

  // The only finding that is not well.
  const Finding& only(Level level) {
    EXPECT_EQ(out_.count(Level::Warning) + out_.count(Level::Problem), 1U);
    for (const Finding& f : out_.all()) {
      if (f.level == Level::Ok) continue;
      EXPECT_EQ(f.level, level) << f.check << ": " << f.what;
      EXPECT_FALSE(f.why.empty());
      EXPECT_FALSE(f.mend.empty());
      return f;
    }
    static const Finding none;
    ADD_FAILURE() << "all is well";
    return none;
  }
  void expect_well(std::size_t at_least = 1) {
    for (const Finding& f : out_.all()) EXPECT_EQ(f.level, Level::Ok) << f.check << ": " << f.what;
    EXPECT_GE(out_.all().size(), at_least);
  }

  std::string root_;
  Config config_;
  Findings out_;
};

TEST_F(Doctor, TheProfileInForceIsWell) {
  check_sysctls(host(), config_, out_);
  expect_well(9);
}

TEST_F(Doctor, EachSysctlThatIsTooSmallIsNamedWithItsCommand) {
  const std::vector<std::array<const char*, 3>> cases = {
      {"fs/file-max", "100000", "sysctl -w fs.file-max=2097152"},
      {"net/core/rmem_max", "212992", "sysctl -w net.core.rmem_max=33554432"},
      {"net/core/wmem_max", "212992", "sysctl -w net.core.wmem_max=33554432"},
      {"net/ipv4/tcp_rmem", "4096\t131072\t6291456", "sysctl -w net.ipv4.tcp_rmem=\"4096 131072 33554432\""},
      {"net/ipv4/tcp_wmem", "4096\t16384\t4194304", "sysctl -w net.ipv4.tcp_wmem=\"4096 16384 33554432\""},
      {"net/ipv4/tcp_fin_timeout", "60", "sysctl -w net.ipv4.tcp_fin_timeout=15"},
      {"net/core/netdev_max_backlog", "1000", "sysctl -w net.core.netdev_max_backlog=10000"},
      {"net/core/somaxconn", "128", "sysctl -w net.core.somaxconn=1024"},
      {"net/ipv4/tcp_max_syn_backlog", "512", "sysctl -w net.ipv4.tcp_max_syn_backlog=1024"},
  };
  for (const auto& [path, value, command] : cases) {
    const std::string file = std::string("/proc/sys/") + path;
    const std::string before = *host().text(file);
    put(file, value);
    out_ = {};
    check_sysctls(host(), config_, out_);
    EXPECT_EQ(only(Level::Warning).mend, command);
    put(file, before);
  }
}

TEST_F(Doctor, TheBacklogIsTheConfigurations) {
  config_.bmp.backlog = 5000;
  check_sysctls(host(), config_, out_);
  EXPECT_EQ(only(Level::Warning).mend, "sysctl -w net.core.somaxconn=5000");
}

TEST_F(Doctor, WhatAContainerDoesNotShowIsNoFault) {
  fs::remove_all(root_ + "/proc/sys/net/core");
  check_sysctls(host(), config_, out_);
  expect_well(9);
}

std::string limits(const char* files, const char* locked) {
  return std::string("Limit                     Soft Limit           Hard Limit           Units\n") +
         "Max open files            " + files + "                 524288               files\n" +
         "Max locked memory         " + locked + "              8388608              bytes\n";
}

TEST_F(Doctor, LimitsAreThoseOfTheProcessesThatRun) {
  put("/proc/self/limits", limits("1024", "1024"));
  put("/proc/71/limits", limits("1048576", "unlimited"));
  put("/proc/72/limits", limits("65536", "unlimited"));
  check_limits(host(), config_, {{"ingestd@0", 71}, {"publishd", 72}}, out_);
  expect_well(4);
}

TEST_F(Doctor, TooFewDescriptorsForTheSessionsAreAProblem) {
  put("/proc/71/limits", limits("1024", "unlimited"));
  check_limits(host(), config_, {{"ingestd@0", 71}}, out_);
  const Finding& f = only(Level::Problem);
  EXPECT_EQ(f.what, "ingestd@0 may open 1024 files, and needs 4352");
  EXPECT_NE(f.mend.find("systemctl edit ingestd@.service: [Service] LimitNOFILE=1048576"), std::string::npos);
}

TEST_F(Doctor, WithoutProcessesTheLimitsOfTheCallerCount) {
  put("/proc/self/limits", limits("20000", "65536"));
  check_limits(host(), config_, {}, out_);
  EXPECT_NE(only(Level::Warning).mend.find("LimitMEMLOCK=infinity"), std::string::npos);
}

TEST_F(Doctor, HugepagesAreCountedForTheRingsThatAreMissing) {
  put("/proc/self/mounts", "hugetlbfs /dev/hugepages hugetlbfs rw,relatime 0 0");
  put("/proc/meminfo",
      "MemTotal: 1 kB\nHugePages_Total:      40\nHugePages_Free:       40\nHugePages_Rsvd:        2\n"
      "Hugepagesize:       2048 kB");
  check_hugepages(host(), config_, 0, out_);
  // 33 pages a ring, one of 64 MiB and its header.
  EXPECT_EQ(only(Level::Warning).mend, "sysctl -w vm.nr_hugepages=68");
  out_ = {};
  check_hugepages(host(), config_, 1, out_);
  expect_well();
  out_ = {};
  put("/proc/self/mounts", "tmpfs /run tmpfs rw 0 0");
  check_hugepages(host(), config_, 1, out_);
  EXPECT_NE(only(Level::Warning).mend.find("mount -t hugetlbfs"), std::string::npos);
  out_ = {};
  config_.ring.hugepages = HugepageMode::Require;
  check_hugepages(host(), config_, 0, out_);
  EXPECT_EQ(only(Level::Problem).what, "38 of 2048 KiB are free, 2 rings need 66");
  out_ = {};
  config_.ring.hugepages = HugepageMode::Never;
  check_hugepages(host(), config_, 0, out_);
  expect_well();
}

TEST_F(Doctor, IoUringThatIsSwitchedOffIsAWarningOrWhereItIsRequiredAProblem) {
  put("/proc/sys/kernel/io_uring_disabled", "2");
  check_io_uring(host(), config_, EPERM, out_);
  EXPECT_EQ(only(Level::Warning).mend, "sysctl -w kernel.io_uring_disabled=0");
  out_ = {};
  config_.bmp.io = IoBackendKind::Uring;
  check_io_uring(host(), config_, EPERM, out_);
  EXPECT_NE(only(Level::Problem).mend.find("bmp.io"), std::string::npos);
  out_ = {};
  config_.bmp.io = IoBackendKind::Epoll;
  check_io_uring(host(), config_, EPERM, out_);
  expect_well();
}

TEST_F(Doctor, IoUringThatASeccompProfileDeniesIsToldApart) {
  put("/proc/sys/kernel/io_uring_disabled", "0");
  check_io_uring(host(), config_, EPERM, out_);
  EXPECT_NE(only(Level::Warning).mend.find("seccomp"), std::string::npos);
  out_ = {};
  check_io_uring(host(), config_, 0, out_);
  expect_well();
}

class PacketSpread : public Doctor {
 protected:
  PacketSpread() {
    put("/proc/net/route",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n"
        "eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF");
    for (const char* queue : {"rx-0", "rx-1"})
      put(std::string("/sys/class/net/eth0/queues/") + queue + "/rps_cpus", "00000000,00000000");
    put("/sys/class/net/eth0/device/msi_irqs/38", "msix");
    put("/sys/class/net/eth0/device/msi_irqs/39", "msix");
  }
  void interrupts(const char* first, const char* second) {
    put("/proc/interrupts",
        std::string("           CPU0       CPU1\n 24:   1000000  0  IO-APIC  ttyS0\n 38: ") + first +
            " PCI-MSIX eth0-rx-0\n 39: " + second + " PCI-MSIX eth0-rx-1\nERR:   0");
  }
};

TEST_F(PacketSpread, AllInterruptsOnOneCoreAreSaid) {
  interrupts("500000 10", "400000 0");
  check_packet_spread(host(), 2, out_);
  const Finding& f = only(Level::Warning);
  EXPECT_EQ(f.what, "eth0: 99% of the interrupts are on core 0");
  EXPECT_NE(f.mend.find("ethtool -L eth0 combined 2"), std::string::npos);
}

TEST_F(PacketSpread, SpreadInterruptsAreWell) {
  interrupts("500000 10", "0 400000");
  check_packet_spread(host(), 2, out_);
  expect_well();
}

TEST_F(PacketSpread, OneQueueNeedsRps) {
  fs::remove_all(root_ + "/sys/class/net/eth0/queues/rx-1");
  interrupts("5 1", "0 0");
  check_packet_spread(host(), 8, out_);
  const Finding& f = only(Level::Warning);
  EXPECT_EQ(f.what, "eth0 has one receive queue");
  EXPECT_EQ(f.mend, "for q in /sys/class/net/eth0/queues/rx-*; do echo ff > $q/rps_cpus; done");
  put("/sys/class/net/eth0/queues/rx-0/rps_cpus", "ff");
  out_ = {};
  check_packet_spread(host(), 8, out_);
  expect_well();
}

TEST_F(PacketSpread, InterfacesWithoutADefaultRouteDoNotMatter) {
  put("/proc/net/route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask");
  check_packet_spread(host(), 2, out_);
  expect_well();
  put("/proc/net/ipv6_route",
      std::string(32, '0') + " 00 " + std::string(32, '0') +
          " 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0");
  interrupts("500000 10", "400000 0");
  check_packet_spread(host(), 2, out_);
  only(Level::Warning);
}

TEST_F(Doctor, ClockAndItsSource) {
  put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc");
  put("/sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm");
  check_clock(host(), true, out_);
  expect_well(2);
  out_ = {};
  check_clock(host(), false, out_);
  EXPECT_NE(only(Level::Warning).mend.find("chrony"), std::string::npos);
  out_ = {};
  put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet");
  check_clock(host(), true, out_);
  EXPECT_EQ(only(Level::Warning).mend,
            "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource");
}

TEST_F(Doctor, Governor) {
  check_governor(host(), out_);
  expect_well();
  put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance");
  put("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave");
  out_ = {};
  check_governor(host(), out_);
  EXPECT_EQ(only(Level::Warning).what, "powersave");
}

Place place(const std::string& path, std::uint64_t free_bytes) {
  Place p;
  p.path = p.nearest = path;
  p.exists = true;
  p.free_bytes = free_bytes;
  p.device = 1;
  return p;
}

TEST_F(Doctor, RuntimeDirectory) {
  Place p = place("/run/arancini", kGiB);
  p.in_memory = true;
  check_runtime_dir(p, config_, 0, out_);
  expect_well();
  out_ = {};
  p.free_bytes = 100 * kMiB;
  check_runtime_dir(p, config_, 0, out_);
  EXPECT_NE(only(Level::Problem).mend.find("remount,size=162M"), std::string::npos)
      << only(Level::Problem).mend;
  out_ = {};
  check_runtime_dir(p, config_, 2, out_);
  expect_well();
  out_ = {};
  p.in_memory = false;
  check_runtime_dir(p, config_, 2, out_);
  EXPECT_EQ(only(Level::Warning).what, "/run/arancini is not on tmpfs");
  out_ = {};
  p.in_memory = true;
  p.open_to_others = "mode 0777";
  check_runtime_dir(p, config_, 2, out_);
  EXPECT_EQ(only(Level::Problem).mend, "chmod 0750 /run/arancini");
}

TEST_F(Doctor, StateDirectory) {
  config_.journal.max_bytes = 4 * kGiB;
  Place p = place("/var/lib/arancini", 10 * kGiB);
  check_state_dir(p, p, p, config_, {0, kGiB}, out_);
  expect_well();
  out_ = {};
  p.free_bytes = 4 * kGiB + kMiB;
  check_state_dir(p, p, p, config_, {0, kGiB}, out_);
  EXPECT_NE(
      only(Level::Warning).what.find("journal.max_bytes 4.0 GiB and the next snapshots may need 5.0 GiB"),
      std::string::npos)
      << only(Level::Warning).what;
  // What the journal has already needs no further room.
  out_ = {};
  check_state_dir(p, p, p, config_, {2 * kGiB, kGiB}, out_);
  expect_well();
  // Snapshots on a disk of their own do not count for the journal's.
  out_ = {};
  Place other = place("/snapshots", 2 * kGiB);
  other.device = 2;
  check_state_dir(p, p, other, config_, {0, kGiB}, out_);
  expect_well();
  out_ = {};
  p.free_bytes = 10 * kMiB;
  check_state_dir(p, p, p, config_, {}, out_);
  EXPECT_EQ(only(Level::Problem).what, "10 MiB are free at /var/lib/arancini");
  out_ = {};
  p = place("/var/lib/arancini", 10 * kGiB);
  p.read_only = true;
  check_state_dir(p, p, p, config_, {}, out_);
  EXPECT_NE(only(Level::Problem).mend.find("remount,rw"), std::string::npos);
}

TEST_F(Doctor, PlacesAreLookedAt) {
  const Place there = look_at(root_);
  EXPECT_TRUE(there.exists);
  EXPECT_FALSE(there.read_only);
  EXPECT_GT(there.free_bytes, 0U);
  EXPECT_EQ(there.open_to_others, "");
  const Place missing = look_at(root_ + "/a/b");
  EXPECT_FALSE(missing.exists);
  EXPECT_EQ(missing.nearest, root_);
  EXPECT_EQ(missing.device, there.device);
  ASSERT_EQ(::chmod(root_.c_str(), 0777), 0);
  EXPECT_NE(look_at(root_).open_to_others, "");
  EXPECT_FALSE(look_at("/proc").in_memory);
  std::ofstream(root_ + "/five") << "12345";
  const std::uint64_t before = bytes_below(root_ + "/proc");
  EXPECT_EQ(bytes_below(root_), before + 5);
  EXPECT_EQ(bytes_below(root_ + "/missing"), 0U);
}

TEST_F(Doctor, AConfigurationWithAPasswordThatAllMayRead) {
  config_.file = root_ + "/arancini.toml";
  std::ofstream(config_.file) << "[nats]\npassword = \"x\"\n";
  config_.file_holds_secrets = true;
  ASSERT_EQ(::chmod(config_.file.c_str(), 0644), 0);
  check_config_file(config_, out_);
  EXPECT_EQ(only(Level::Problem).mend, "chmod o-r " + config_.file);
  out_ = {};
  ASSERT_EQ(::chmod(config_.file.c_str(), 0640), 0);
  check_config_file(config_, out_);
  expect_well();
}

class Certificates : public Doctor {
 protected:
  // Valid for `days` from now on.
  std::string make(const std::string& days) {
    const std::string path = root_ + "/c.pem";
    const std::string command =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout " + root_ +
        "/k.pem -out " + path + " -subj /CN=x -days " + days + " 2>/dev/null";
    EXPECT_EQ(std::system(command.c_str()), 0);
    return path;
  }
  static constexpr std::int64_t kDay = 86'400;
};

TEST_F(Certificates, AreLookedAtBeforeTheyEnd) {
  const std::string path = make("100");
  const std::int64_t end = certificate_end(path).value();
  check_certificate("nats.tls_cert", path, end - 60 * kDay, out_);
  expect_well();
  out_ = {};
  check_certificate("nats.tls_cert", path, end - 12 * kDay - 1, out_);
  EXPECT_NE(only(Level::Warning).what.find("in 12 days"), std::string::npos);
  out_ = {};
  check_certificate("nats.tls_cert", path, end + 1, out_);
  EXPECT_NE(only(Level::Problem).what.find("expired on "), std::string::npos);
}

TEST_F(Certificates, TheFirstOfAChainThatEndsCounts) {
  std::string both;
  for (const char* days : {"100", "10"}) {
    std::ifstream file(make(days));
    both += std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::ofstream(root_ + "/both.pem") << both;
  EXPECT_EQ(certificate_end(root_ + "/both.pem"), certificate_end(root_ + "/c.pem"));
}

TEST_F(Certificates, WhatIsNoneIsAProblem) {
  check_certificate("nats.tls_ca", root_ + "/none.pem", 0, out_);
  EXPECT_NE(only(Level::Problem).what.find("holds no certificate"), std::string::npos);
}

class NatsChecks : public Doctor {
 protected:
  NatsChecks() {
    probe_.server = "127.0.0.1:4222";
    probe_.max_payload = kMiB;
    probe_.streams = {{"ARANCINI_UPDATES", false, std::nullopt, {.subjects = {"arancini.updates.>"}}},
                      {"ARANCINI_EVENTS", false, std::nullopt, {.subjects = {"arancini.events.>"}}}};
  }
  const Finding& found(Level level) {
    out_ = {};
    check_nats(probe_, config_, out_);
    return only(level);
  }
  StreamFacts& updates() { return probe_.streams[0].facts; }
  NatsProbe probe_;
};

TEST_F(NatsChecks, WellAndStreamsThatPublishdWillMake) {
  check_nats(probe_, config_, out_);
  expect_well(5);
  out_ = {};
  probe_.streams[0].missing = probe_.streams[1].missing = true;
  check_nats(probe_, config_, out_);
  expect_well(5);
}

TEST_F(NatsChecks, NoServerAndNoLoginAreToldApart) {
  probe_.failure = NatsFailure{ErrorCode::NatsUnreachable, "nats://x:4222: connection refused"};
  EXPECT_NE(found(Level::Problem).mend.find("systemctl status nats-server"), std::string::npos);
  probe_.failure->code = ErrorCode::NatsUnauthorized;
  EXPECT_NE(found(Level::Problem).mend.find("login"), std::string::npos);
}

TEST_F(NatsChecks, JetStreamMustBeThere) {
  probe_.jetstream = NatsFailure{ErrorCode::StreamUnusable, "JetStream is not enabled"};
  EXPECT_EQ(found(Level::Problem).check, "JetStream");
}

TEST_F(NatsChecks, MessagesMustFit) {
  probe_.max_payload = 32 * 1024;
  EXPECT_EQ(found(Level::Warning).check, "NATS max_payload");
  probe_.max_payload = 8 * 1024;
  EXPECT_EQ(found(Level::Problem).check, "NATS max_payload");
  probe_.max_payload = kMiB;
  updates().max_message_bytes = 16 * 1024;
  EXPECT_NE(found(Level::Warning).mend.find("--max-msg-size=-1"), std::string::npos);
}

TEST_F(NatsChecks, StreamsAreJudgedAsPublishdJudgesThem) {
  updates().in_memory = true;
  EXPECT_NE(found(Level::Problem).what.find("memory"), std::string::npos);
  updates().in_memory = false;
  updates().subjects = {"other.>"};
  EXPECT_NE(found(Level::Problem).what.find("arancini.updates.>"), std::string::npos);
  updates().subjects = {"arancini.>"};
  updates().refuses_when_full = true;
  updates().max_bytes = updates().bytes = 1000;
  EXPECT_NE(found(Level::Problem).what.find("discard: new"), std::string::npos);
  updates().refuses_when_full = false;
  EXPECT_NE(found(Level::Warning).what.find("the oldest updates are discarded"), std::string::npos);
  updates().max_bytes = 0;
  config_.nats.replicas = 3;
  probe_.streams[1].facts.replicas = 3;
  EXPECT_NE(found(Level::Warning).what.find("1 replica(s)"), std::string::npos);
}

}  // namespace
}  // namespace arancini::tools
