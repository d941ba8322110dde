#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "common/ring/ring_reader.h"
#include "common/schema/batch_expander.h"
#include "common/schema/update_decode.h"
#include "common/snapshot/file_store.h"
#include "ingestd/restore_feed.h"
#include "ingestd/restore_task.h"
#include "ingestd/shard_impl.h"
#include "ingestd/snapshot_worker.h"
#include "tests/bench/figures.h"
#include "tests/ingestd/bmp_builder.h"

// How long a shard needs for its restore, from a snapshot and from messages of the log, and how long it holds
// the hot thread. Without publishd: what its service reads and sends comes on top.
namespace arancini::testing {
namespace {

using namespace ingestd;
using schema::PayloadFormat;

struct Load {
  unsigned routes = 1'000'000, peers = 5, per_message = 5, attribute_sets = 0;
  std::string directory = "/var/tmp";
};

template <class T, class E>
T take(Result<T, E> result) {
  if (!result) throw std::runtime_error("setup failed");
  return std::move(result.value());
}

class Folder {
 public:
  explicit Folder(std::string name) : path_(std::move(name)) {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp " + path_);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string file(const char* name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Setup {
  Setup()
      : shared("/dev/shm/restore-bench-XXXXXX"),
        log("bench", LogLevel::Warn),
        writer(take(RingFile::create_or_attach(shared.file("ring"), {.capacity_bytes = 64ULL << 20}))),
        reader(take(RingFile::attach(shared.file("ring"), RingSide::Reader))),
        stats(take(StatsWriter::create(shared.file("stats"), {.routers = 4096, .peers = 16384}))),
        shard(config, writer, stats, log, clock) {}

  // `update`: for each record of updates.
  void drain(const std::function<void(const RingRecord&)>& update = {}) {
    shard.publish();
    RingRecord record;
    while (reader.next(record) == RingReader::Status::Record) {
      if (update && record.header.kind == static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch))
        update(record);
    }
    reader.release(reader.cursor());
  }

  Folder shared;
  Config config;
  SystemClock clock;
  Logger log;
  RingWriter writer;
  RingReader reader;
  StatsWriter stats;
  Shard shard;
};

Buffer message(const Load& load, unsigned p, unsigned first) {
  PeerSpec peer;
  peer.address = IpAddress::from_v4(0x0a000001U + p);
  peer.asn = 65001 + p;
  const unsigned sets = load.attribute_sets / load.peers;
  const unsigned set = p * sets + (first / load.per_message) * 7919U % sets;
  UpdateBuilder u;
  u.basics({65001 + p, 3356, 1299 + set % 50, 64512 + set, 70000}, ip("10.0.0.1"))
      .med(set)
      .communities({set, set + 1, set + 2});
  for (unsigned k = first; k < first + load.per_message; ++k)
    u.announce(Nlri(IpAddress::from_v4((0x01000000U + k * 256U * 13U) & 0xffffff00U), 24, std::nullopt));
  return route_monitoring(peer, u);
}

// Payloads one behind the other: millions of small vectors would measure the allocator.
struct Payloads {
  Buffer bytes;
  std::vector<std::size_t> ends;
  void add(std::span<const std::byte> payload) {
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    ends.push_back(bytes.size());
  }
};

// What the routers said, as a shard wrote it.
struct Told {
  std::uint64_t routes = 0;
  Payloads batches, singles;  // batch-v2, update-v1-concat
};

Told tell(const Load& load, const std::string& files) {
  Told told;
  Setup s;
  SnapshotWorker worker({}, std::make_unique<snapshot::FileStore>(files), s.shard.tasks(), s.writer, s.stats,
                        s.log, s.clock);
  schema::BatchExpander expander;
  const auto keep = [&](const RingRecord& record) {
    told.batches.add(record.payload);
    if (!expander.open(record.header, record.payload)) throw std::runtime_error("a record is not valid");
    Buffer& bytes = told.singles.bytes;
    for (std::uint32_t i = 0; i < expander.count(); ++i) {
      const std::size_t at = bytes.size();
      bytes.resize(at + expander.update_bytes());
      expander.write_update(i, bytes.data() + at);
    }
    told.singles.ends.push_back(bytes.size());
  };
  const SessionId session = s.shard.open_session(ip("192.0.2.1"), 1);
  const unsigned per_peer = load.routes / load.peers;
  for (unsigned p = 0; p < load.peers; ++p) {
    PeerSpec peer;
    peer.address = IpAddress::from_v4(0x0a000001U + p);
    peer.asn = 65001 + p;
    (void)s.shard.apply(session, peer_up(peer));
    for (unsigned i = 0; i < per_peer; i += load.per_message) {
      const Buffer m = message(load, p, i);
      while (s.shard.apply(session, m) == Shard::Applied::NoRoom) s.drain(keep);
      if (i % 1000 == 0) s.drain(keep);
    }
  }
  s.drain(keep);
  told.routes = s.shard.impl().context.routes;
  worker.start();
  std::atomic<bool> done{false};
  std::optional<std::string> error;
  std::thread asks([&] {
    if (const auto taken = worker.take(600'000'000'000); !taken) error = taken.error();
    done.store(true);
  });
  while (!done.load()) {
    s.shard.do_work();
    s.drain();
  }
  asks.join();
  s.shard.tasks().finish(s.shard.impl());
  worker.stop();
  if (error) throw std::runtime_error(*error);
  return told;
}

// Batches to the shard's hot thread.
class TaskSink final : public BatchSink {
 public:
  TaskSink(RestoreTask& task, HotTasks& tasks) : task_(task), tasks_(tasks) {}
  RestoreBatch* batch() override {
    for (;;) {
      if (RestoreBatch* free = task_.free_batch()) return free;
      std::this_thread::sleep_for(std::chrono::microseconds(200));  // as the Restorer does
    }
  }
  void give() override {
    task_.give();
    tasks_.wake();
  }

 private:
  RestoreTask& task_;
  HotTasks& tasks_;
};

// Batches to nobody: what the cold side alone costs.
class NoSink final : public BatchSink {
 public:
  RestoreBatch* batch() override { return &batch_; }
  void give() override { batch_.clear(); }

 private:
  RestoreBatch batch_;
};

// One source of a restore: fills the feed with all of it.
using Source = std::function<void(RestoreFeed&)>;

struct Run {
  double wall_ms = 0, cold_cpu_ms = 0, hot_cpu_ms = 0, slice_p999_ms = 0, slice_max_ms = 0;
};

double ms(std::uint64_t ns) {
  return static_cast<double>(ns) / 1e6;
}

Run restore(const Source& source, std::uint64_t expected) {
  Setup s;
  RestoreTask task;
  TaskSink sink(task, s.shard.tasks());
  s.shard.set_restoring(true);
  (void)s.shard.tasks().post(task);
  Run run;
  std::string error;
  const std::uint64_t began = clock_ns(CLOCK_MONOTONIC);
  std::thread cold([&] {
    const std::uint64_t before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    RestoreFeed feed(sink, 0, 1);
    try {
      source(feed);
      (void)feed.flush();
    } catch (const std::exception& e) {
      error = e.what();
    }
    task.end({}, true);
    run.cold_cpu_ms = ms(clock_ns(CLOCK_THREAD_CPUTIME_ID) - before);
  });
  std::vector<std::uint64_t> slices;
  while (!task.finished()) {
    const std::uint64_t before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    const Shard::Work work = s.shard.do_work();
    const std::uint64_t took = clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
    if (work.more || task.finished()) {
      slices.push_back(took);
      run.hot_cpu_ms += ms(took);
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));  // the loop would wait for the wake-up
    }
  }
  run.wall_ms = ms(clock_ns(CLOCK_MONOTONIC) - began);
  cold.join();
  if (!error.empty()) throw std::runtime_error(error);
  if (s.shard.impl().context.routes != expected)
    throw std::runtime_error(
        fmt::format("restored {} routes instead of {}", s.shard.impl().context.routes, expected));
  std::sort(slices.begin(), slices.end());
  run.slice_max_ms = ms(slices.back());
  run.slice_p999_ms = ms(slices[static_cast<std::size_t>(0.999 * static_cast<double>(slices.size() - 1))]);
  return run;
}

void measure(const char* what, const std::string& key, unsigned runs, std::uint64_t routes,
             const Source& source, bench::Figures& figures) {
  const double million = static_cast<double>(routes) / 1e6;
  for (unsigned i = 0; i < runs; ++i) {
    const Run run = restore(source, routes);
    figures.add(key + "ms_per_million_routes", run.wall_ms / million);
    figures.add(key + "cold_cpu_ms_per_million_routes", run.cold_cpu_ms / million);
    figures.add(key + "hot_cpu_ms_per_million_routes", run.hot_cpu_ms / million);
    figures.add(key + "slice_ms_p999", run.slice_p999_ms);
    figures.add(key + "slice_ms_max", run.slice_max_ms);
  }
  fmt::print(
      "{}: {} ms in all per million routes; CPU: cold thread {} ms, hot thread {} ms, its slices p99.9 {}, "
      "max "
      "{} ms\n",
      what, figures.text(key + "ms_per_million_routes", 0),
      figures.text(key + "cold_cpu_ms_per_million_routes", 0),
      figures.text(key + "hot_cpu_ms_per_million_routes", 0), figures.text(key + "slice_ms_p999", 3),
      figures.text(key + "slice_ms_max", 3));
  std::fflush(stdout);
}

void each(const Payloads& payloads, PayloadFormat format, RestoreFeed& feed) {
  std::size_t begin = 0;
  std::optional<std::string> problem;
  for (const std::size_t end : payloads.ends) {
    (void)feed.payload(format, std::span(payloads.bytes).subspan(begin, end - begin), problem);
    if (problem) throw std::runtime_error(*problem);
    begin = end;
  }
}

void run(const Load& load, unsigned runs, bench::Figures& figures) {
  const Folder files(load.directory + "/restore-bench-XXXXXX");
  const Told told = tell(load, files.path());
  snapshot::FileStore store(files.path());
  const auto names = take(store.list());
  const auto open = [&] { return take(store.open(names.at(0))); };
  fmt::print(
      "{} routes, {} peers, {} attribute sets; {} messages: batch-v2 {:.0f} MB, update-v1-concat {:.0f} MB; "
      "{} runs\n",
      told.routes, load.peers, load.attribute_sets, told.batches.ends.size(),
      static_cast<double>(told.batches.bytes.size()) / 1e6,
      static_cast<double>(told.singles.bytes.size()) / 1e6, runs);
  const double million = static_cast<double>(told.routes) / 1e6;
  for (unsigned i = 0; i < runs; ++i) {
    std::uint64_t before = clock_ns(CLOCK_MONOTONIC);
    if (!snapshot::check_snapshot(*open())) throw std::runtime_error("the snapshot is corrupt");
    figures.add("restore.check_ms_per_million_routes", ms(clock_ns(CLOCK_MONOTONIC) - before) / million);
    before = clock_ns(CLOCK_MONOTONIC);
    NoSink nobody;
    RestoreFeed feed(nobody, 0, 1);
    if (feed.read(*open(), [](const IpAddress&) { return true; }).error)
      throw std::runtime_error("the snapshot cannot be read");
    figures.add("restore.read_ms_per_million_routes", ms(clock_ns(CLOCK_MONOTONIC) - before) / million);
  }
  fmt::print("snapshot: checking {} ms, reading {} ms per million routes\n",
             figures.text("restore.check_ms_per_million_routes", 0),
             figures.text("restore.read_ms_per_million_routes", 0));
  measure(
      "snapshot, checked, read and applied", "restore.", runs, told.routes,
      [&](RestoreFeed& feed) {
        if (!snapshot::check_snapshot(*open())) throw std::runtime_error("the snapshot is corrupt");
        if (feed.read(*open(), [](const IpAddress&) { return true; }).error)
          throw std::runtime_error("the snapshot cannot be read");
      },
      figures);
  measure(
      "log, batch-v2", "restore.batch_v2.", runs, told.routes,
      [&](RestoreFeed& feed) { each(told.batches, PayloadFormat::BatchV2, feed); }, figures);
  measure(
      "log, update-v1-concat", "restore.v1_concat.", runs, told.routes,
      [&](RestoreFeed& feed) { each(told.singles, PayloadFormat::UpdateV1Concat, feed); }, figures);
}

}  // namespace
}  // namespace arancini::testing

int main(int argc, char** argv) {
  arancini::testing::Load load;
  arancini::bench::CommonOptions common;
  CLI::App app(
      "What the restore of one shard costs.\n\nMETHOD. A shard is told routes by peers; its records are kept "
      "in memory "
      "as "
      "messages of the log, its snapshot in a file. Then, for each source, a new shard is restored: one "
      "thread "
      "reads, checks and decodes, the hot thread applies, as in ingestd; wall time of all of it, CPU time of "
      "both threads, CPU time of one call of the shard's work. The number of routes is checked. Median and "
      "range of --repeat. The snapshot's file is in the page cache; publishd and the broker are not part of "
      "it.");
  arancini::bench::add_common_options(app, common);
  app.add_option("--routes", load.routes);
  app.add_option("--peers", load.peers);
  app.add_option("--per-message", load.per_message, "routes of one UPDATE");
  app.add_option("--attribute-sets", load.attribute_sets, "default: a seventh of the routes");
  app.add_option("--directory", load.directory, "where the snapshot goes");
  CLI11_PARSE(app, argc, argv);
  if (common.quick) {
    load.routes = std::min(load.routes, 100'000U);
    if (app.count("--repeat") == 0) common.repeat = 1;
  }
  if (load.attribute_sets == 0) load.attribute_sets = std::max(load.routes / 7, load.peers);
  arancini::bench::Figures figures;
  arancini::testing::run(load, common.repeat, figures);
  figures.write_json(common.json);
  return 0;
}
