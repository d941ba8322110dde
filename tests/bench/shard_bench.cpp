#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>

#include "common/ring/ring_reader.h"
#include "ingestd/shard.h"
#include "tests/ingestd/bmp_builder.h"

// What one shard costs between a whole BMP message and a ring record: decode, curate, encode. No sockets; the
// reader only releases. Nanoseconds of CPU per route, one thread.
namespace arancini::testing {
namespace {

using ingestd::SessionId;
using ingestd::Shard;

struct Setup {
  explicit Setup(const std::string& directory, std::uint64_t ring_bytes)
      : log("bench", LogLevel::Error),
        writer(take(RingFile::create_or_attach(directory + "/ring", {.capacity_bytes = ring_bytes}))),
        reader(take(RingFile::attach(directory + "/ring", RingSide::Reader))),
        stats(take(StatsWriter::create(directory + "/stats", {.routers = 16, .peers = 64}))),
        shard(config, writer, stats, log, clock) {}

  template <class T, class E>
  static T take(Result<T, E> result) {
    if (!result) throw std::runtime_error("setup failed");
    return std::move(result.value());
  }

  void drain() {
    shard.publish();
    RingRecord record;
    while (reader.next(record) == RingReader::Status::Record) ++records;
    reader.release(reader.cursor());
  }

  Config config;
  SystemClock clock;
  Logger log;
  RingWriter writer;
  RingReader reader;
  StatsWriter stats;
  Shard shard;
  std::uint64_t records = 0;
};

struct Load {
  unsigned routes = 1'000'000, peers = 4, per_message = 1, attribute_sets = 1000;
};

// Messages as they lie in a receive buffer.
struct Messages {
  Buffer bytes;
  std::vector<std::size_t> ends;
};
Messages dump(const Load& load, unsigned version) {
  Messages out;
  const unsigned per_peer = load.routes / load.peers;
  for (unsigned p = 0; p < load.peers; ++p) {
    PeerSpec peer;
    peer.address = IpAddress::from_v4(0x0a000001U + p);
    peer.asn = 65001 + p;
    for (unsigned i = 0; i < per_peer;) {
      const unsigned set = (i * 7919U + version) % load.attribute_sets;
      UpdateBuilder u;
      u.basics({65001 + p, 3356, 1299 + set % 50, 64512 + set}, ip("10.0.0.1"))
          .med(version)
          .communities({set, set + 1});
      for (unsigned k = 0; k < load.per_message && i < per_peer; ++k, ++i) {
        u.announce(Nlri(IpAddress::from_v4((0x01000000U + i * 256U * 13U) & 0xffffff00U), 24));
      }
      const Buffer message = route_monitoring(peer, u);
      out.bytes.insert(out.bytes.end(), message.begin(), message.end());
      out.ends.push_back(out.bytes.size());
    }
  }
  return out;
}

// CPU time: others may be using the machine.
double cpu_ns() {
  return static_cast<double>(clock_ns(CLOCK_THREAD_CPUTIME_ID));
}
void report(const char* what, double begin, double routes) {
  const double took = cpu_ns() - begin;
  fmt::print("{:<24} {:8.1f} ns/route {:8.2f} M routes/s\n", what, took / routes, routes / took * 1e3);
}

void run(const Load& load) {
  std::string directory = "/dev/shm/shard-bench-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) throw std::runtime_error("mkdtemp");
  {
    Setup setup(directory, 64ULL << 20);
    const SessionId session = setup.shard.open_session(ip("192.0.2.1"), 1);
    const auto play = [&](const Messages& messages) {
      unsigned n = 0;
      std::size_t at = 0;
      for (const std::size_t end : messages.ends) {
        const auto message = std::span(messages.bytes).subspan(at, end - at);
        at = end;
        while (setup.shard.apply(session, message) == Shard::Applied::NoRoom) setup.drain();
        if (++n % 256 == 0) {
          setup.shard.do_work();
          setup.drain();
        }
      }
      setup.drain();
    };
    fmt::print("{} routes, {} peers, {} a message, {} attribute sets\n", load.routes, load.peers,
               load.per_message, load.attribute_sets);
    const auto first = dump(load, 0);
    const auto changed = dump(load, 1);
    auto begin = cpu_ns();
    play(first);
    report("new", begin, load.routes);
    begin = cpu_ns();
    play(first);
    report("identical", begin, load.routes);
    begin = cpu_ns();
    play(changed);
    report("changed", begin, load.routes);
    for (unsigned p = 0; p < load.peers; ++p) {
      PeerSpec peer;
      peer.address = IpAddress::from_v4(0x0a000001U + p);
      while (setup.shard.apply(session, peer_down(peer)) == Shard::Applied::NoRoom) setup.drain();
    }
    begin = cpu_ns();
    double worst = 0;
    for (bool more = true; more;) {
      const double step = cpu_ns();
      more = setup.shard.do_work().more;
      worst = std::max(worst, (cpu_ns() - step) / 1e3);
      setup.drain();
    }
    report("swept (peer down)", begin, load.routes);
    fmt::print("longest do_work() of the sweep {:.0f} us, {} records\n", worst, setup.records);
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace arancini::testing

int main(int argc, char** argv) {
  arancini::testing::Load load;
  CLI::App app("Cost of one shard, from a BMP message to a ring record");
  app.add_option("--routes", load.routes);
  app.add_option("--peers", load.peers);
  app.add_option("--per-message", load.per_message);
  app.add_option("--attribute-sets", load.attribute_sets);
  CLI11_PARSE(app, argc, argv);
  arancini::testing::run(load);
  return 0;
}
