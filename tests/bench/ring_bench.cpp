// Measures a ring between two pinned processes: records per second for several ways to publish, and what a
// cache line costs from core to core, since that decides the rest (MEASURED: cores of a virtual machine can
// be "near" or "far").
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/ring/futex.h"
#include "common/ring/ring_reader.h"
#include "common/ring/ring_writer.h"
#include "tests/bench/figures.h"

namespace arancini {
namespace {

std::vector<int> cores() {
  std::vector<int> found;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ::sched_getaffinity(0, sizeof allowed, &allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) found.push_back(cpu);
  }
  return found;
}

void pin(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  ::sched_setaffinity(0, sizeof one, &one);
}

// Runs `child` on one core and `parent` on another; the child ends with us.
void run_pair(const std::vector<int>& cpus, const std::function<void()>& child,
              const std::function<void()>& parent) {
  const pid_t pid = ::fork();
  if (pid < 0) throw std::runtime_error("fork failed");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(cpus.front());
    child();
    ::_exit(0);
  }
  pin(cpus.back());
  parent();
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

struct Lines {
  alignas(shm::kLineBytes) std::atomic<std::uint64_t> ping;
  alignas(shm::kLineBytes) std::atomic<std::uint64_t> pong;
};

// One way: a line is written here and seen there. Of the blocks the one that a tenth were faster than: what
// others did on these cores meanwhile is no latency.
double core_to_core_ns(const std::vector<int>& cpus) {
  constexpr std::uint64_t kBlocks = 40;
  constexpr std::uint64_t kRounds = 5000;
  void* page = ::mmap(nullptr, sizeof(Lines), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) throw std::runtime_error("mmap failed");
  auto* lines = new (page) Lines{};
  std::vector<double> blocks;
  run_pair(
      cpus,
      [&] {
        for (std::uint64_t i = 1; i <= kBlocks * kRounds; ++i) {
          while (lines->ping.load(std::memory_order_acquire) != i) {
          }
          lines->pong.store(i, std::memory_order_release);
        }
      },
      [&] {
        for (std::uint64_t block = 0; block < kBlocks; ++block) {
          const std::uint64_t begin = clock_ns(CLOCK_MONOTONIC);
          for (std::uint64_t i = 1; i <= kRounds; ++i) {
            lines->ping.store(block * kRounds + i, std::memory_order_release);
            while (lines->pong.load(std::memory_order_acquire) != block * kRounds + i) {
            }
          }
          blocks.push_back(static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begin) / kRounds / 2);
        }
      });
  ::munmap(page, sizeof(Lines));
  std::nth_element(blocks.begin(), blocks.begin() + kBlocks / 10, blocks.end());
  return blocks[kBlocks / 10];
}

struct Setting {
  std::uint64_t ring_bytes;
  std::uint64_t publish_every;
  HugepageMode hugepages;
};

struct Measured {
  double records_per_s = 0;
  bool on_hugepages = false;
};

constexpr std::uint32_t kRecordBytes = 350;

// Makes one record after the other; write() is false when the ring has no room.
struct Source {
  explicit Source(RingWriter& to) : writer(to) {
    payload.fill(std::byte{0x5a});
    header.size_bytes = (kRecordBytes + 7) / 8 * 8;
    header.kind = static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch);
    header.format = shm::kRecordFormat;
    header.count = 1;
    header.payload_bytes = static_cast<std::uint32_t>(payload.size());
  }
  bool write() {
    const std::span<std::byte> at = writer.claim(header.size_bytes);
    if (at.empty()) return false;
    std::memcpy(at.data() + sizeof header, payload.data(), payload.size());
    header.first_sequence = raw(writer.next_sequence());
    writer.append(header);
    return true;
  }
  RingWriter& writer;
  shm::RecordHeader header{};
  std::array<std::byte, kRecordBytes - sizeof(shm::RecordHeader)> payload{};
};

std::uint64_t sum_of(const RingRecord& record) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at + 8 <= record.payload.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, record.payload.data() + at, sizeof word);
    sum += word;
  }
  return sum;
}

RingFile made_or_throw(Result<RingFile, RingFileError> file) {
  if (!file) throw std::runtime_error(file.error().text);
  return std::move(file).value();
}

void remove_ring(const std::string& path) {
  std::error_code ec;
  const auto target = std::filesystem::is_symlink(path, ec) ? std::filesystem::read_symlink(path, ec) : "";
  std::filesystem::remove(path, ec);
  if (!target.empty()) std::filesystem::remove(target, ec);
}

// What the code alone costs, in CPU time: both sides on one core, in the cache, 512 records in turn.
struct OneCore {
  double write_ns = 0;
  double read_ns = 0;
};
OneCore one_core(const std::string& directory, std::uint64_t records) {
  const std::string path = directory + "/ring";
  RingFile::CreateOptions options;
  options.capacity_bytes = 256 * 1024;
  options.hugepages = HugepageMode::Never;
  RingWriter writer(made_or_throw(RingFile::create_or_attach(path, options)));
  RingReader reader(made_or_throw(RingFile::attach(path, RingSide::Reader)));
  Source source(writer);
  RingRecord record;
  std::uint64_t sum = 0;
  std::uint64_t write_ns = 0;
  std::uint64_t read_ns = 0;
  std::uint64_t done = 0;
  for (; done < records; done += 512) {
    const std::uint64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < 512; ++i) static_cast<void>(source.write());
    writer.publish();
    const std::uint64_t written = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    while (reader.next(record) == RingReader::Status::Record) sum += sum_of(record);
    reader.release(reader.cursor());
    write_ns += written - begin;
    read_ns += clock_ns(CLOCK_THREAD_CPUTIME_ID) - written;
  }
  asm volatile("" : : "r"(sum));
  remove_ring(path);
  return {static_cast<double>(write_ns) / static_cast<double>(done),
          static_cast<double>(read_ns) / static_cast<double>(done)};
}

Measured throughput(const std::vector<int>& cpus, const std::string& directory, const Setting& setting,
                    std::uint64_t records) {
  const std::string path = directory + "/ring";
  RingFile::CreateOptions options;
  options.capacity_bytes = setting.ring_bytes;
  options.hugepages = setting.hugepages;
  Measured result;
  { result.on_hugepages = made_or_throw(RingFile::create_or_attach(path, options)).on_hugepages(); }
  run_pair(
      cpus,
      [&] {
        auto file = RingFile::attach(path, RingSide::Writer);
        if (!file) ::_exit(1);
        RingWriter writer(std::move(file).value());
        Source source(writer);
        for (std::uint64_t i = 1; i <= records;) {
          if (!source.write()) {
            writer.publish();
            continue;
          }
          if (i++ % setting.publish_every == 0) writer.publish();
        }
        writer.publish();
        // The reader's mapping keeps the file; this process only has to stay until all is read.
        while (writer.used_bytes() != 0) {
        }
      },
      [&] {
        RingReader reader(made_or_throw(RingFile::attach(path, RingSide::Reader)));
        RingRecord record;
        std::uint64_t sum = 0;
        std::uint64_t begin = 0;
        for (std::uint64_t i = 0; i < records;) {
          const RingReader::Status status = reader.next(record);
          if (status == RingReader::Status::Corrupt) throw std::runtime_error(reader.corrupt_text());
          if (status == RingReader::Status::Empty) {
            reader.release(reader.cursor());
            continue;
          }
          if (i++ == 0) begin = clock_ns(CLOCK_MONOTONIC);
          sum += sum_of(record);
          if (i % 32 == 0) reader.release(record.end);
        }
        reader.release(reader.cursor());
        const std::uint64_t ns = clock_ns(CLOCK_MONOTONIC) - begin;
        asm volatile("" : : "r"(sum));
        result.records_per_s = static_cast<double>(records) * 1e9 / static_cast<double>(ns);
      });
  remove_ring(path);
  return result;
}

constexpr const char* kMethod =
    "A ring between two pinned processes of this machine, and what it rests on.\n\n"
    "METHOD. Core to core: a cache line is written on one core and seen on the other, and back; half of "
    "that, in "
    "40 blocks\n"
    "of 5,000, of which a tenth were faster (what else runs on the cores is no latency). Above 120 ns the "
    "cores are \"far\", and everything that crosses them is slower.\n"
    "One core: both sides in one thread, 512 records of 350 bytes in turn in a ring of 256 KiB; CPU time.\n"
    "Two processes: the writer copies records of 350 bytes into the ring as fast as there is room and "
    "publishes every N-th;\n"
    "the reader sums all bytes and releases by 32. Records per second of wall-clock time from the first to "
    "the last one\n"
    "read. ring.records_per_s is the ring of 64 MiB, published by 32, on huge pages where there are any.";

int run(int argc, char** argv) {
  CLI::App app{kMethod};
  bench::CommonOptions common;
  std::uint64_t records = 8'000'000;
  bool latency_only = false;
  std::string directory = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
  bench::add_common_options(app, common);
  app.add_option("--records", records, "of 350 bytes, in each run")->check(CLI::PositiveNumber);
  app.add_option("--dir", directory, "where the ring is made");
  app.add_flag("--latency-only", latency_only, "only from core to core");
  CLI11_PARSE(app, argc, argv);
  if (common.quick) {
    records = std::min<std::uint64_t>(records, 1'000'000);
    if (app.count("--repeat") == 0) common.repeat = 1;
  }
  if (latency_only && app.count("--repeat") == 0) common.repeat = 1;

  const std::vector<int> cpus = cores();
  if (cpus.size() < 2) {
    fmt::print(stderr, "ring_bench: needs two cores\n");
    return 77;
  }
  bench::Figures figures;
  for (unsigned i = 0; i < common.repeat; ++i) figures.add("c2c_latency_ns", core_to_core_ns(cpus));
  fmt::print("core to core, one way: {} ns ({})\n", figures.text("c2c_latency_ns", 0),
             figures.median("c2c_latency_ns") < 120 ? "near" : "far");
  if (latency_only) {
    figures.write_json(common.json);
    return 0;
  }
  std::string own = directory + "/arancini-ring-bench-XXXXXX";
  if (::mkdtemp(own.data()) == nullptr) throw std::runtime_error("cannot make a directory in " + directory);
  for (unsigned i = 0; i < common.repeat; ++i) {
    const OneCore cost = one_core(own, records);
    figures.add("ring.one_core.write_ns", cost.write_ns);
    figures.add("ring.one_core.read_ns", cost.read_ns);
  }
  fmt::print("one core, in the cache: {} ns to write, {} ns to read a record of {} bytes\n",
             figures.text("ring.one_core.write_ns", 1), figures.text("ring.one_core.read_ns", 1),
             kRecordBytes);
  constexpr std::uint64_t kMiB = 1024 * 1024;
  struct Row {
    const char* key;
    Setting setting;
  };
  constexpr std::array<Row, 4> kRows{{
      {"ring.8_mib.by_32.records_per_s", {8 * kMiB, 32, HugepageMode::Never}},
      {"ring.8_mib.by_1.records_per_s", {8 * kMiB, 1, HugepageMode::Never}},
      {"ring.64_mib.by_32.normal_pages.records_per_s", {64 * kMiB, 32, HugepageMode::Never}},
      {"ring.records_per_s", {64 * kMiB, 32, HugepageMode::Auto}},
  }};
  // In turn, so that a bad moment does not hit one row alone.
  std::array<bool, kRows.size()> huge{};
  for (unsigned n = 0; n < common.repeat; ++n) {
    for (std::size_t i = 0; i < kRows.size(); ++i) {
      const Measured m = throughput(cpus, own, kRows[i].setting, records);
      huge[i] = m.on_hugepages;
      figures.add(kRows[i].key, m.records_per_s);
    }
  }
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    fmt::print("{:3} MiB ring, {}, published by {:2}: {} M records/s\n", kRows[i].setting.ring_bytes / kMiB,
               huge[i] ? "huge pages  " : "normal pages", kRows[i].setting.publish_every,
               figures.text(kRows[i].key, 2, 1e6));
  }
  std::error_code ec;
  std::filesystem::remove_all(own, ec);
  figures.write_json(common.json);
  return 0;
}

}  // namespace
}  // namespace arancini

int main(int argc, char** argv) {
  try {
    return arancini::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "ring_bench: {}\n", e.what());
    return 70;  // EX_SOFTWARE
  }
}
