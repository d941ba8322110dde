// Memory of a shard with many routes: see kMethod.
#include <fmt/format.h>
#include <malloc.h>
#include <sysexits.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/ring/ring_reader.h"
#include "ingestd/session.h"
#include "ingestd/shard.h"
#include "ingestd/shard_impl.h"
#include "tests/bench/figures.h"
#include "tools/bmp_load.h"

namespace arancini::bench {
namespace {

using ingestd::Shard;

constexpr const char* kMethod =
    "What ten million routes take in memory, all in all.\n\n"
    "METHOD. One shard without sockets is told the tables of --peers peers, each with --prefixes prefixes "
    "(the same ones, 15 % IPv6,\n"
    "Internet-like lengths) and attribute sets of its own: no peer shares with another, as their AS paths "
    "differ. UPDATEs and sets are\n"
    "those of bmpgen, but for --new-percent, the share of UPDATEs with attributes that none had before: by "
    "default a set is for about\n"
    "6 routes, as in a full table that was recorded from a router (707,572 IPv4 routes, 114,292 sets of "
    "114 bytes with index: --file\n"
    "measures such recordings). Then:\n"
    "  rib.bytes_per_route         slots of the IPv4 tables, per route, attributes not in; rib.v6.* "
    "likewise\n"
    "  rib.bytes_per_route_worst   the greatest of that while the tables grew, from 100,000 routes on\n"
    "  memory.attribute_bytes_per_route  interned attributes with their index and records, per route\n"
    "  memory.mb_per_10m_routes    what the process has more than before the first route (resident, of "
    "/proc/self/statm, freed\n"
    "                              memory given back), scaled to ten million routes, in MB; the ring's 64 "
    "MiB are not in\n"
    "Sizes move with the number of routes (segments split at 7/8); --file feeds recorded BMP instead of "
    "generated tables.";

struct Options {
  CommonOptions common;
  std::uint32_t peers = 10;
  std::uint32_t prefixes = 1'000'000;
  std::uint32_t new_percent = 29;
  std::vector<std::string> files;
};

double resident_bytes() {
  ::malloc_trim(0);
  std::ifstream in("/proc/self/statm");
  std::uint64_t all = 0, resident = 0, shared = 0;
  if (!(in >> all >> resident >> shared)) throw std::runtime_error("/proc/self/statm cannot be read");
  return static_cast<double>(resident - shared) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

class Folder {
 public:
  Folder() : path_("/dev/shm/arancini-memory-bench-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make a directory in /dev/shm");
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string file(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

template <class T, class E>
T take(Result<T, E> result) {
  if (!result) throw std::runtime_error("ring or page of counters cannot be made in /dev/shm");
  return std::move(result.value());
}

struct Tables {
  double routes = 0, bytes = 0;
  [[nodiscard]] double per_route() const { return routes == 0 ? 0 : bytes / routes; }
};

class Subject {
 public:
  Subject()
      : log_("memory_bench", LogLevel::Error),
        writer_(take(RingFile::create_or_attach(folder_.file("ring"), {.capacity_bytes = 64ULL << 20}))),
        reader_(take(RingFile::attach(folder_.file("ring"), RingSide::Reader))),
        stats_(take(StatsWriter::create(folder_.file("stats"), {.routers = 256, .peers = 4096}))),
        shard_(config_, writer_, stats_, log_, clock_, {0x0123456789abcdefULL, 0xfedcba9876543210ULL}) {}

  // A session of a router of its own.
  void play(std::string_view bytes) {
    const auto session = shard_.open_session(IpAddress::from_v4(0xc0000201U + routers_++), 40000);
    ingestd::Framer framer(config_.bmp.max_message_bytes);
    const auto all = std::as_bytes(std::span(bytes));
    for (std::size_t at = 0; at < all.size(); at += kRoundBytes) {
      const auto status =
          framer.feed(all.subspan(at, std::min(kRoundBytes, all.size() - at)), [&](auto message) {
            while (shard_.apply(session, message) == Shard::Applied::NoRoom) release();
            return true;
          });
      if (status == ingestd::Framer::Status::Bad) throw std::runtime_error("not BMP");
      shard_.do_work();
      release();
      worst_ = std::max(worst_, tables(1).routes >= 100'000 ? tables(1).per_route() : 0);
    }
  }
  [[nodiscard]] Tables tables(std::uint16_t afi) {
    Tables t;
    shard_.impl().peers.each_view([&](ingestd::PeerView& view) {
      view.each_table([&](ingestd::RibTable& table) {
        if (table.family.afi != afi) return;
        t.routes += static_cast<double>(table.routes.size());
        t.bytes += static_cast<double>(table.routes.memory_bytes());
      });
    });
    return t;
  }
  [[nodiscard]] double attribute_bytes() {
    return static_cast<double>(shard_.impl().context.attributes.memory_bytes());
  }
  [[nodiscard]] double attribute_sets() {
    return static_cast<double>(shard_.impl().context.attributes.size());
  }
  [[nodiscard]] double worst_bytes_per_route() const { return worst_; }

 private:
  static constexpr std::size_t kRoundBytes = std::size_t{256} * 1024;

  void release() {
    shard_.publish();
    RingRecord record;
    while (reader_.next(record) == RingReader::Status::Record) {
    }
    reader_.release(reader_.cursor());
  }

  Folder folder_;
  Config config_;
  SystemClock clock_;
  Logger log_;
  RingWriter writer_;
  RingReader reader_;
  StatsWriter stats_;
  Shard shard_;
  std::uint32_t routers_ = 0;
  double worst_ = 0;
};

std::string contents(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  if (!in) throw std::runtime_error(file + ": cannot be read");
  return bytes;
}

void measure(const Options& options, Figures& figures) {
  tools::LoadOptions load;
  load.prefixes = options.prefixes;
  load.v6_percent = 15;
  load.new_attributes_percent = options.new_percent;
  Subject subject;
  double before = 0;
  if (options.files.empty()) {
    const tools::LoadTable table = tools::make_load_table(load);
    before = resident_bytes();
    for (std::uint32_t peer = 0; peer < options.peers; ++peer)
      subject.play(tools::make_load_session(load, table, peer).bytes);
  } else {
    before = resident_bytes();
    for (const std::string& file : options.files) subject.play(contents(file));
  }
  const double resident = resident_bytes() - before;
  const Tables v4 = subject.tables(1), v6 = subject.tables(2);
  const double routes = v4.routes + v6.routes;
  if (routes == 0) throw std::runtime_error("no routes were told");
  figures.add("rib.bytes_per_route", v4.per_route());
  figures.add("rib.bytes_per_route_worst", subject.worst_bytes_per_route());
  figures.add("rib.v6.bytes_per_route", v6.per_route());
  figures.add("memory.routes", routes);
  figures.add("memory.routes_per_attribute_set", routes / subject.attribute_sets());
  figures.add("memory.bytes_per_attribute_set", subject.attribute_bytes() / subject.attribute_sets());
  figures.add("memory.attribute_bytes_per_route", subject.attribute_bytes() / routes);
  figures.add("memory.mb_per_10m_routes", resident / routes * 10);
  fmt::print(
      "{:.0f} IPv4 and {:.0f} IPv6 routes, {:.0f} attribute sets: {:.0f} MB resident; {:.1f} and {:.1f} "
      "bytes a route, attributes {:.1f} more "
      "({:.0f} a set)\n",
      v4.routes, v6.routes, subject.attribute_sets(), resident / 1e6, v4.per_route(), v6.per_route(),
      subject.attribute_bytes() / routes, subject.attribute_bytes() / subject.attribute_sets());
}

int run(int argc, char** argv) {
  CLI::App app(kMethod);
  Options o;
  o.common.repeat = 1;
  add_common_options(app, o.common);
  app.add_option("--peers", o.peers)->check(CLI::Range(1U, 250U))->capture_default_str();
  app.add_option("--prefixes", o.prefixes, "of each peer")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--new-percent", o.new_percent, "UPDATEs with attributes that none had before")
      ->check(CLI::Range(1U, 100U))
      ->capture_default_str();
  app.add_option("--file", o.files, "BMP of a router, recorded; several: a router each");
  CLI11_PARSE(app, argc, argv);
  if (o.common.quick) o.prefixes = std::min(o.prefixes, 50'000U);
  Figures figures;
  for (unsigned i = 0; i < o.common.repeat; ++i) measure(o, figures);
  figures.write_json(o.common.json);
  return 0;
}

}  // namespace
}  // namespace arancini::bench

int main(int argc, char** argv) {
  try {
    return arancini::bench::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "memory_bench: {}\n", e.what());
    return EX_SOFTWARE;
  }
}
