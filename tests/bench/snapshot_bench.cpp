#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <vector>

#include "common/ring/ring_reader.h"
#include "common/snapshot/file_store.h"
#include "ingestd/shard_impl.h"
#include "ingestd/snapshot_worker.h"
#include "tests/bench/figures.h"
#include "tests/ingestd/bmp_builder.h"

// What a snapshot costs the hot thread, how long it takes, and how large it is; also what a route takes in
// the RIB. One shard without sockets; this thread is the hot one, the worker writes files.
namespace arancini::testing {
namespace {

using ingestd::SessionId;
using ingestd::Shard;

struct Load {
  unsigned routes = 1'000'000, peers = 5, per_message = 5, attribute_sets = 0;
  unsigned snapshots = 5, churn = 0;  // messages in each round while one is taken
  std::string directory = "/var/tmp";
};

template <class T, class E>
T take(Result<T, E> result) {
  if (!result) throw std::runtime_error("setup failed");
  return std::move(result.value());
}

struct Setup {
  explicit Setup(const std::string& shared, const std::string& files)
      : log("bench", LogLevel::Info),
        writer(take(RingFile::create_or_attach(shared + "/ring", {.capacity_bytes = 64ULL << 20}))),
        reader(take(RingFile::attach(shared + "/ring", RingSide::Reader))),
        stats(take(StatsWriter::create(shared + "/stats", {.routers = 4096, .peers = 16384}))),
        shard(config, writer, stats, log, clock),
        worker({}, std::make_unique<snapshot::FileStore>(files), shard.tasks(), writer, stats, log, clock) {}

  void drain() {
    shard.publish();
    RingRecord record;
    while (reader.next(record) == RingReader::Status::Record) {
    }
    reader.release(reader.cursor());
  }

  Config config;
  SystemClock clock;
  Logger log;
  RingWriter writer;
  RingReader reader;
  StatsWriter stats;
  Shard shard;
  ingestd::SnapshotWorker worker;
};

// Prefixes differ within a peer; attribute sets are spread over them as in a table of many paths.
Buffer message(const Load& load, unsigned p, unsigned first, unsigned version) {
  PeerSpec peer;
  peer.address = IpAddress::from_v4(0x0a000001U + p);
  peer.asn = 65001 + p;
  const unsigned sets = load.attribute_sets / load.peers;
  const unsigned set = p * sets + (first / load.per_message) * 7919U % sets;
  UpdateBuilder u;
  u.basics({65001 + p, 3356, 1299 + set % 50, 64512 + set, 70000 + version}, ip("10.0.0.1"))
      .med(set)
      .communities({set, set + 1, set + 2});
  for (unsigned k = first; k < first + load.per_message; ++k)
    u.announce(Nlri(IpAddress::from_v4((0x01000000U + k * 256U * 13U) & 0xffffff00U), 24, std::nullopt));
  return route_monitoring(peer, u);
}

struct Samples {
  std::vector<std::uint64_t> ns;
  [[nodiscard]] double ms(double part) {
    std::sort(ns.begin(), ns.end());
    const auto at = static_cast<std::size_t>(part * static_cast<double>(ns.size() - 1));
    return static_cast<double>(ns[at]) / 1e6;
  }
};

void run(const Load& load, bench::Figures& figures) {
  std::string shared = "/dev/shm/snapshot-bench-XXXXXX";
  std::string files = load.directory + "/snapshot-bench-XXXXXX";
  if (::mkdtemp(shared.data()) == nullptr || ::mkdtemp(files.data()) == nullptr)
    throw std::runtime_error("mkdtemp");
  {
    Setup s(shared, files);
    const SessionId session = s.shard.open_session(ip("192.0.2.1"), 1);
    const unsigned per_peer = load.routes / load.peers;
    const auto apply = [&](const Buffer& m) {
      while (s.shard.apply(session, m) == Shard::Applied::NoRoom) s.drain();
    };
    for (unsigned p = 0; p < load.peers; ++p) {
      for (unsigned i = 0; i < per_peer; i += load.per_message) {
        apply(message(load, p, i, 0));
        if (i % 1024 == 0) s.drain();
      }
    }
    s.drain();
    s.shard.do_work();
    const auto& context = s.shard.impl().context;
    std::size_t tables = 0;
    s.shard.impl().peers.each_view([&tables](ingestd::PeerView& view) {
      view.each_table([&tables](ingestd::RibTable& t) { tables += t.routes.memory_bytes(); });
    });
    const auto routes = static_cast<double>(context.routes);
    const double per_route = static_cast<double>(tables) / routes;
    fmt::print("{} routes, {} attribute sets: {:.1f} bytes a route, {:.0f} a set, {:.1f} MB in all\n",
               context.routes, context.attributes.size(), per_route,
               static_cast<double>(context.attributes.memory_bytes()) /
                   static_cast<double>(std::max<std::size_t>(context.attributes.size(), 1)),
               static_cast<double>(context.pool.memory_bytes()) / 1e6);

    s.worker.start();
    Samples cpu, wall;
    std::uint64_t worst_slice = 0, duration = 0, bytes = 0;
    double hot_cpu = 0;
    unsigned version = 0;
    for (unsigned n = 0; n < load.snapshots; ++n) {
      apply(message(load, 0, 0, ++version));  // one that is unchanged is not taken again
      s.drain();
      auto answer = std::async(std::launch::async, [&] { return s.worker.take(600'000'000'000); });
      unsigned at = 0;
      while (answer.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
        for (unsigned i = 0; i < load.churn; ++i, at = (at + load.per_message) % per_peer)
          apply(message(load, version % load.peers, at, version));
        const std::uint64_t cpu_before = clock_ns(CLOCK_THREAD_CPUTIME_ID),
                            before = clock_ns(CLOCK_MONOTONIC);
        const Shard::Work work = s.shard.do_work();
        const std::uint64_t after = clock_ns(CLOCK_MONOTONIC), cpu_after = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        s.drain();
        if (!work.more) continue;
        cpu.ns.push_back(cpu_after - cpu_before);
        wall.ns.push_back(after - before);
        hot_cpu += static_cast<double>(cpu_after - cpu_before) / 1e6;
      }
      const auto taken = answer.get();
      if (!taken) throw std::runtime_error(taken.error());
      worst_slice = std::max(worst_slice, taken->longest_pause_ns);
      duration += taken->duration_ns / load.snapshots;
      bytes = taken->bytes;
    }
    s.shard.tasks().finish(s.shard.impl());
    s.worker.stop();
    fmt::print(
        "snapshot: {:.1f} MB, {:.1f} bytes a route, {:.0f} ms until in force, {:.0f} ms of the hot thread\n",
        static_cast<double>(bytes) / 1e6, static_cast<double>(bytes) / routes,
        static_cast<double>(duration) / 1e6, hot_cpu / load.snapshots);
    fmt::print("pause (do_work() with a slice), {} of them: CPU p50 {:.3f} p99.9 {:.3f} max {:.3f} ms; ",
               cpu.ns.size(), cpu.ms(0.5), cpu.ms(0.999), cpu.ms(1));
    fmt::print("wall p50 {:.3f} p99.9 {:.3f} max {:.3f} ms; longest slice {:.3f} ms\n", wall.ms(0.5),
               wall.ms(0.999), wall.ms(1), static_cast<double>(worst_slice) / 1e6);
    figures.add("snapshot.pause_ms_p999", cpu.ms(0.999));
    figures.add("snapshot.pause_ms_max", cpu.ms(1));
    figures.add("snapshot.pause_wall_ms_p999", wall.ms(0.999));
    figures.add("snapshot.ms_per_million_routes", static_cast<double>(duration) / routes);
    figures.add("snapshot.hot_cpu_ms_per_million_routes", hot_cpu / load.snapshots / routes * 1e6);
    figures.add("snapshot.bytes_per_route", static_cast<double>(bytes) / routes);
  }
  std::filesystem::remove_all(shared);
  std::filesystem::remove_all(files);
}

}  // namespace
}  // namespace arancini::testing

int main(int argc, char** argv) {
  arancini::testing::Load load;
  arancini::bench::CommonOptions common;
  CLI::App app(
      "What a snapshot of one shard costs: how long it holds the hot thread, how long it takes, how large it "
      "is.\n\n"
      "METHOD. A shard without sockets is told routes by peers (a set of attributes for seven routes), then "
      "snapshots are\n"
      "taken into files, one after the other, after one route has changed; this thread is the hot one, "
      "another writes. A\n"
      "pause is one call of the shard's work that did a slice of the snapshot: CPU time of the thread "
      "(snapshot.pause_ms_*),\n"
      "and wall-clock time. --churn applies messages in between. Percentiles are of all slices of a run; "
      "medians are over\n"
      "runs, each with a new shard.");
  arancini::bench::add_common_options(app, common);
  app.add_option("--routes", load.routes);
  app.add_option("--peers", load.peers);
  app.add_option("--per-message", load.per_message);
  app.add_option("--attribute-sets", load.attribute_sets, "default: a seventh of the routes");
  app.add_option("--snapshots", load.snapshots);
  app.add_option("--churn", load.churn, "messages applied in each round while a snapshot is taken");
  app.add_option("--directory", load.directory, "where the files go");
  CLI11_PARSE(app, argc, argv);
  if (common.quick) {
    load.routes = std::min(load.routes, 100'000U);
    load.snapshots = 2;
    if (app.count("--repeat") == 0) common.repeat = 1;
  }
  if (load.attribute_sets == 0) load.attribute_sets = std::max(load.routes / 7, load.peers);
  arancini::bench::Figures figures;
  for (unsigned i = 0; i < common.repeat; ++i) arancini::testing::run(load, figures);
  figures.write_json(common.json);
  return 0;
}
