// Stages of one shard, one core: see kMethod.
#include <fmt/format.h>
#include <sysexits.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/ring/ring_reader.h"
#include "common/wire/bgp_update.h"
#include "common/wire/bmp.h"
#include "ingestd/session.h"
#include "ingestd/shard.h"
#include "tests/bench/counters.h"
#include "tests/bench/figures.h"
#include "tests/ingestd/counting_malloc.h"
#include "tools/bmp_load.h"

// Everything that is measured happens inside this function: what callgrind collects begins and ends with it.
extern "C" __attribute__((noipa)) void arancini_stage_step(void (*step)(void*), void* context) {
  step(context);
  asm volatile("" ::: "memory");
}
// Called when a row is done: callgrind writes what it has collected, and begins anew.
extern "C" __attribute__((noipa)) void arancini_stage_row_done() {
  asm volatile("" ::: "memory");
}

namespace arancini::bench {
namespace {

using ingestd::Shard;

constexpr const char* kMethod =
    "What one update costs on its way from received bytes into the ring, stage by stage, on one core.\n\n"
    "METHOD. One thread; no sockets. The bytes are those of bmpgen --peers 4 --prefixes 250000 --churn "
    "1000000, in memory:\n"
    "  table_dump  1M routes of 4 peers, 1 to 8 prefixes per UPDATE, cut where the family changes (2.7 on "
    "average), Internet-like\n"
    "              prefix lengths, 10 % IPv6, 35 % of the UPDATEs with attributes that an earlier one had\n"
    "  churn       then 1M UPDATEs of one prefix each with new attributes, 20 % of them withdrawals\n"
    "An update is one prefix announced or withdrawn. The bytes go in portions of 64 KiB, as from a socket, "
    "through the product's\n"
    "framer; as in the event loop, after 256 KiB timers run and records are published. Then, outside of "
    "what is measured, a reader\n"
    "in the same thread goes over the records' headers and releases them: the ring (64 MiB, prefaulted) "
    "never fills.\n\n"
    "Rows, each with all before it:\n"
    "  frame       messages are found (Framer, next_frame)\n"
    "  decode      + per-peer header, BGP PDU, parse_update, every prefix read; a checksum uses the values\n"
    "  attributes  + every AS number and community read, as a decoder into structures does (not part of what "
    "follows: the product\n"
    "              interns attributes as bytes)\n"
    "  forward     the shard with [curation] enabled = false: decode, who tells it (session, peer, view), "
    "encode, ring; no tables\n"
    "  curate      decode + what the tables add: (no_policy - forward) + decode. Not measured alone: the "
    "product does not change\n"
    "              a table whose record is not written. By difference, within one run\n"
    "  policy      curate + (full - no_policy). Policy is what there is of it: bmp.allow with one range, a "
    "[[router]] with a name,\n"
    "              two tags and max_routes\n"
    "  full        measured: frame, decode, curate, policy, encode into the ring. So full - policy is "
    "encoding with the\n"
    "              shard's bookkeeping of messages\n"
    "  no_policy   measured: full without policy\n"
    "  identical_dump.full  the same dump once more: curation alone says that nothing changed, nothing is "
    "encoded\n"
    "  changed_dump.full    the same prefixes with other attributes\n"
    "  peer_down.full       all peers go down: routes withdrawn in slices, per route; longest_step_us is the "
    "longest call\n"
    "A first dump touches new memory of the tables; that is in.\n\n"
    "Columns: updates/s and ns are CPU time of the thread (CLOCK_THREAD_CPUTIME_ID), wall ns besides; "
    "medians of --repeat runs,\n"
    "each with a new shard. Instructions: callgrind, in a child, smaller loads (--callgrind-prefixes), a "
    "fixed seed of the\n"
    "hash, a clock that stands still; user space only. Allocations: malloc and its kin, replaced by ones "
    "that count. System calls:\n"
    "a child under ptrace. Cache misses: perf_event_open, where there are counters. alloc.per_update is the "
    "greatest of\n"
    "identical, changed, churn and peer_down: the steady state; the first dump makes peers and tables.\n"
    "A bare decoder to compare with: libparsebgp -O2 did 20M prefixes/s on this dump and 9.5M on this "
    "churn, on another day and\n"
    "another machine (AMD EPYC, two virtual cores); quoted, not measured here.";

constexpr std::size_t kPortionBytes = std::size_t{64} * 1024;
constexpr std::size_t kRoundBytes = std::size_t{256} * 1024;
constexpr ingestd::HashSeed kSeed{0x0123456789abcdefULL, 0xfedcba9876543210ULL};
constexpr std::uint32_t kPeers = 4;
constexpr const char* kRouter = "192.0.2.1";
constexpr const char* kPolicy = R"(
[bmp]
allow = ["192.0.2.0/24"]
[[router]]
name = "core1.fra"
address = "192.0.2.1"
tags = ["core", "fra"]
max_routes = 100000000
)";

// Which load, and what of it.
struct Part {
  wire::Bytes bytes;
  std::uint64_t updates = 0;
};
struct Loads {
  tools::LoadSession first, other;  // `other`: the same prefixes, other attributes
  Part dump, changed, churn;

  Loads(std::uint32_t prefixes, std::uint64_t churn_updates) {
    tools::LoadOptions options;
    options.peers = kPeers;
    options.prefixes = prefixes;
    options.churn = churn_updates;
    const tools::LoadTable table = tools::make_load_table(options);
    first = tools::make_load_session(options, table, 0);
    options.churn = 0;
    options.version = 1;
    other = tools::make_load_session(options, table, 0);
    const auto all = std::as_bytes(std::span(first.bytes));
    dump = {all.first(first.dump_bytes), first.dump_updates};
    churn = {all.subspan(first.dump_bytes), first.updates - first.dump_updates};
    changed = {std::as_bytes(std::span(other.bytes)), other.dump_updates};
  }
};

struct Cost {
  std::uint64_t cpu_ns = 0, wall_ns = 0, longest_step_ns = 0, allocations = 0, cache_misses = 0;
};

// Runs steps, and measures them alone.
class Meter {
 public:
  explicit Meter(CacheMisses* misses) : misses_(misses) {}
  // Instead of measuring: only says when it would.
  explicit Meter(std::function<void(bool)> mark) : mark_(std::move(mark)) {}
  Meter() = default;  // neither: under callgrind

  // A part of the load that must come before what is measured.
  void not_measured() { silent_ = true; }
  void measured() { silent_ = false; }

  template <class F>
  void step(F&& f) {
    if (silent_) return f();
    const auto call = [](void* context) { (*static_cast<std::remove_reference_t<F>*>(context))(); };
    if (mark_) {
      mark_(true);
      arancini_stage_step(call, &f);
      mark_(false);
      return;
    }
    if (misses_ == nullptr) return arancini_stage_step(call, &f);
    const std::uint64_t allocations = g_allocations;
    misses_->start();
    const std::uint64_t wall = clock_ns(CLOCK_MONOTONIC);
    const std::uint64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    arancini_stage_step(call, &f);
    const std::uint64_t took = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    cost_.cpu_ns += took;
    cost_.longest_step_ns = std::max(cost_.longest_step_ns, took);
    cost_.wall_ns += clock_ns(CLOCK_MONOTONIC) - wall;
    cost_.cache_misses += misses_->stop();
    cost_.allocations += g_allocations - allocations;
  }
  // What the steps since the last call cost.
  Cost row_done() {
    arancini_stage_row_done();
    return std::exchange(cost_, {});
  }

 private:
  CacheMisses* misses_ = nullptr;
  std::function<void(bool)> mark_;
  bool silent_ = false;
  Cost cost_;
};

[[noreturn]] void fail(const char* what) {
  throw std::runtime_error(what);
}

// Decoders: bytes in, a checksum out.
enum class Depth : std::uint8_t { Frame, Decode, Attributes };

std::uint64_t sum_of_prefixes(wire::Bytes nlri, Family family) {
  std::uint64_t sum = 0;
  wire::PrefixReader reader(nlri, family, false);
  for (Prefix p; reader.next(p);) sum += p.high + p.low + p.length;
  if (!reader.ok()) fail("a prefix does not parse");
  return sum;
}

std::uint64_t sum_of_attributes(const wire::Attributes& a) {
  std::uint64_t sum = 0;
  const unsigned as_bytes = a.as2 ? 2 : 4;
  wire::Bytes rest = a.as_path;
  for (wire::AsSegment s; wire::next_as_segment(rest, as_bytes, s);) {
    for (std::size_t at = 0; at < s.asns.size(); at += as_bytes)
      sum += a.as2 ? wire::load_be16(s.asns.data() + at) : wire::load_be32(s.asns.data() + at);
  }
  for (std::size_t at = 0; at < a.communities.size(); at += 4)
    sum += wire::load_be32(a.communities.data() + at);
  for (const wire::Bytes four : {a.next_hop, a.med, a.local_pref})
    if (four.size() == 4) sum += wire::load_be32(four.data());
  if (!a.origin.empty()) sum += static_cast<std::uint8_t>(a.origin[0]);
  return sum;
}

template <Depth depth>
std::uint64_t decoded(wire::Bytes message) {
  if constexpr (depth == Depth::Frame) return message.size();
  if (static_cast<wire::BmpType>(message[5]) != wire::BmpType::RouteMonitoring) return 0;
  wire::PerPeerHeader header;
  ErrorCode error = ErrorCode::None;
  if (!wire::parse_per_peer_header(message, header)) fail("a per-peer header does not parse");
  const wire::Bytes pdu = wire::route_monitoring_pdu(message, error);
  const wire::Update update = wire::parse_update(pdu, header.as2_format());
  if (update.disposition != wire::Update::Disposition::Good) fail("an UPDATE does not parse");
  std::uint64_t sum = header.asn + header.timestamp_ns + update.attributes.present;
  sum += sum_of_prefixes(update.withdrawn, kIpv4Unicast) + sum_of_prefixes(update.announced, kIpv4Unicast);
  if (update.has_mp_reach) sum += sum_of_prefixes(update.mp_reach.nlri, update.mp_reach.family);
  if (update.has_mp_unreach) sum += sum_of_prefixes(update.mp_unreach.nlri, update.mp_unreach.family);
  if constexpr (depth == Depth::Attributes) sum += sum_of_attributes(update.attributes);
  return sum;
}

// Calls `round(bytes)` for each 256 KiB.
template <class F>
void rounds(wire::Bytes bytes, F&& round) {
  for (std::size_t at = 0; at < bytes.size(); at += kRoundBytes)
    round(bytes.subspan(at, std::min(kRoundBytes, bytes.size() - at)));
}

template <class Deliver, class Ahead>
void feed(ingestd::Framer& framer, wire::Bytes round, Deliver&& deliver, Ahead&& ahead) {
  for (std::size_t at = 0; at < round.size(); at += kPortionBytes) {
    if (framer.feed(round.subspan(at, std::min(kPortionBytes, round.size() - at)), deliver, ahead) !=
        ingestd::Framer::Status::NeedMore)
      fail("framing");
  }
}

template <Depth depth>
void decode(const Part& part, Meter& meter) {
  ingestd::Framer framer(Config().bmp.max_message_bytes);
  std::uint64_t sum = 0;
  rounds(part.bytes, [&](wire::Bytes round) {
    meter.step([&] {
      feed(
          framer, round,
          [&](wire::Bytes message) {
            sum += decoded<depth>(message);
            return true;
          },
          [](wire::Bytes) {});
    });
  });
  asm volatile("" ::"r"(sum));
  if (sum == 0) fail("nothing was decoded");
}

class Folder {
 public:
  Folder() : path_("/dev/shm/arancini-stage-bench-XXXXXX") {
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

// A shard as ingestd has it, but for sockets.
class Stage {
 public:
  // `clock`: borrowed.
  Stage(Config config, const Clock& clock)
      : config_(std::move(config)),
        log_("stage_bench", LogLevel::Error),
        writer_(take(RingFile::create_or_attach(folder_.file("ring"), {.capacity_bytes = 64ULL << 20}))),
        reader_(take(RingFile::attach(folder_.file("ring"), RingSide::Reader))),
        stats_(take(StatsWriter::create(folder_.file("stats"), {.routers = 64, .peers = 256}))),
        shard_(config_, writer_, stats_, log_, clock, kSeed),
        session_(shard_.open_session(IpAddress::parse(kRouter).value(), 40000)),
        framer_(config_.bmp.max_message_bytes) {}

  void play(const Part& part, Meter& meter) {
    rounds(part.bytes, [&](wire::Bytes round) {
      meter.step([&] {
        const auto apply = [&](wire::Bytes message) {
          return shard_.apply(session_, message) == Shard::Applied::Done;
        };
        feed(framer_, round, apply, [&](wire::Bytes message) { shard_.look_ahead(session_, message); });
        shard_.do_work();
        shard_.publish();
      });
      drain();
    });
  }
  // A step for each call of the shard's work, until it has no more to do.
  void work_off(Meter& meter) {
    for (bool more = true; more;) {
      meter.step([&] {
        more = shard_.do_work().more;
        shard_.publish();
      });
      drain();
    }
  }
  [[nodiscard]] std::uint64_t updates() const { return updates_; }  // that were read from the ring

 private:
  void drain() {
    RingRecord record;
    RingReader::Status status{};
    while ((status = reader_.next(record)) == RingReader::Status::Record) {
      if (record.header.kind != static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch)) continue;
      updates_ += record.header.count;
    }
    if (status == RingReader::Status::Corrupt) throw std::runtime_error(reader_.corrupt_text());
    reader_.release(reader_.cursor());
  }

  Folder folder_;
  Config config_;
  Logger log_;
  RingWriter writer_;
  RingReader reader_;
  StatsWriter stats_;
  Shard shard_;
  ingestd::SessionId session_;
  ingestd::Framer framer_;
  std::uint64_t updates_ = 0;
};

void expect(bool what, const char* text) {
  if (!what) throw std::runtime_error(std::string("the shard did not write what it should: ") + text);
}

// What is measured, in the order of measuring.
struct Row {
  const char* load;  // key
  const char* stage;
  std::uint64_t updates;
};
using Done = std::function<void(const Row&, const Cost&)>;

void decode_rows(const Loads& loads, Meter& meter, const Done& done) {
  const auto all = [&](const char* name, const Part& part) {
    decode<Depth::Frame>(part, meter);
    done({name, "frame", part.updates}, meter.row_done());
    decode<Depth::Decode>(part, meter);
    done({name, "decode", part.updates}, meter.row_done());
    decode<Depth::Attributes>(part, meter);
    done({name, "attributes", part.updates}, meter.row_done());
  };
  all("table_dump", loads.dump);
  all("churn", loads.churn);
}

// `only`: forward, no_policy or full, on the dump and the churn; changes: what comes after a dump. Empty:
// all.
void shard_rows(const Loads& loads, const Clock& clock, Meter& meter, const Done& done,
                std::string_view only = {}) {
  const Config plain = parse_config("", "defaults");
  const Config with_policy = parse_config(kPolicy, "policy");
  Config forward = plain;
  forward.curation.enabled = false;
  const auto dump_and_churn = [&](const Config& config, const char* name) {
    if (!only.empty() && only != name) return;
    Stage stage(config, clock);
    stage.play(loads.dump, meter);
    done({"table_dump", name, loads.dump.updates}, meter.row_done());
    expect(stage.updates() == loads.dump.updates, "the dump");
    stage.play(loads.churn, meter);
    done({"churn", name, loads.churn.updates}, meter.row_done());
    expect(stage.updates() == loads.dump.updates + loads.churn.updates, "the churn");
  };
  dump_and_churn(forward, "forward");
  dump_and_churn(plain, "no_policy");
  dump_and_churn(with_policy, "full");
  if (!only.empty() && only != "changes") return;
  Stage stage(with_policy, clock);
  meter.not_measured();
  stage.play(loads.dump, meter);
  meter.measured();
  const std::uint64_t before = stage.updates();
  stage.play(loads.dump, meter);
  done({"identical_dump", "full", loads.dump.updates}, meter.row_done());
  expect(stage.updates() == before, "nothing for an identical dump");
  stage.play(loads.changed, meter);
  done({"changed_dump", "full", loads.changed.updates}, meter.row_done());
  expect(stage.updates() == before + loads.changed.updates, "the changed dump");
  std::string downs;
  for (std::uint32_t peer = 0; peer < kPeers; ++peer)
    tools::append_peer_down(downs, tools::load_peer(0, peer), 0, 1);
  meter.not_measured();
  stage.play({std::as_bytes(std::span(downs)), 0}, meter);
  meter.measured();
  const std::uint64_t swept = before + 2 * loads.changed.updates - stage.updates();
  stage.work_off(meter);
  done({"peer_down", "full", swept}, meter.row_done());
  expect(stage.updates() == before + 2 * loads.changed.updates, "the withdraws of peers that are down");
}

std::string key_of(const Row& row, const char* what) {
  return fmt::format("stage.{}.{}.{}", row.load, row.stage, what);
}

struct Options {
  CommonOptions common;
  std::uint32_t prefixes = 250'000;
  std::uint64_t churn = 1'000'000;
  std::uint32_t callgrind_prefixes = 25'000;
  std::uint64_t callgrind_churn = 100'000;
  bool instructions_only = false;
  bool under_callgrind = false;
  std::string only;
};

// Values of one run or, with `figures`, the derived ones of it, by load and stage.
using Values = std::map<std::pair<std::string, std::string>, double>;

// In the order of the table; curate and policy are derived.
constexpr std::array<std::pair<const char*, const char*>, 19> kTable{{{"table_dump", "frame"},
                                                                      {"table_dump", "decode"},
                                                                      {"table_dump", "attributes"},
                                                                      {"table_dump", "curate"},
                                                                      {"table_dump", "policy"},
                                                                      {"table_dump", "full"},
                                                                      {"table_dump", "forward"},
                                                                      {"table_dump", "no_policy"},
                                                                      {"identical_dump", "full"},
                                                                      {"changed_dump", "full"},
                                                                      {"peer_down", "full"},
                                                                      {"churn", "frame"},
                                                                      {"churn", "decode"},
                                                                      {"churn", "attributes"},
                                                                      {"churn", "curate"},
                                                                      {"churn", "policy"},
                                                                      {"churn", "full"},
                                                                      {"churn", "forward"},
                                                                      {"churn", "no_policy"}}};

void derive(Values& v) {
  for (const char* load : {"table_dump", "churn"}) {
    const auto at = [&](const char* stage) { return v.at({load, stage}); };
    const double curate = at("decode") + at("no_policy") - at("forward");
    v[{load, "policy"}] = curate + at("full") - at("no_policy");
    v[{load, "curate"}] = curate;
  }
}

void measure_time(const Options& options, Figures& figures, CacheMisses& misses) {
  const Loads loads(options.prefixes, options.churn);
  const SystemClock clock;
  double allocations_steady = 0;
  for (unsigned run = 0; run < options.common.repeat; ++run) {
    Values cpu, wall, allocations, cache_misses;
    double longest_step_us = 0;
    const auto done = [&](const Row& row, const Cost& cost) {
      const auto per_update = [&](std::uint64_t n) {
        return static_cast<double>(n) / static_cast<double>(row.updates);
      };
      const std::pair<std::string, std::string> at{row.load, row.stage};
      cpu[at] = per_update(cost.cpu_ns);
      wall[at] = per_update(cost.wall_ns);
      allocations[at] = per_update(cost.allocations);
      cache_misses[at] = per_update(cost.cache_misses);
      longest_step_us = static_cast<double>(cost.longest_step_ns) / 1e3;  // of the last row: peer_down
      if (at.second == "full" && at.first != "table_dump")
        allocations_steady = std::max(allocations_steady, allocations[at]);
    };
    Meter meter(&misses);
    decode_rows(loads, meter, done);
    shard_rows(loads, clock, meter, done);
    derive(cpu);
    derive(wall);
    for (const auto& row : kTable) {
      const double ns = cpu.at(row);
      const std::string where = fmt::format("stage.{}.{}.", row.first, row.second);
      figures.add(where + "ns_per_update", ns);
      figures.add(where + "updates_per_s", 1e9 / ns);
      figures.add(where + "wall_ns_per_update", wall.at(row));
      if (allocations.contains(row)) figures.add(where + "allocations_per_update", allocations[row]);
      if (misses.why_not().empty() && cache_misses.contains(row))
        figures.add(where + "cache_misses_per_update", cache_misses[row]);
    }
    figures.add("stage.peer_down.longest_step_us", longest_step_us);
    fmt::print(stderr, "run {} of {}\n", run + 1, options.common.repeat);
  }
  figures.add("alloc.per_update", allocations_steady);
}

// One part again and again, for a profiler; prints what it took.
void run_for_profiler(const Options& options) {
  const Loads loads(options.prefixes, options.churn);
  const SystemClock clock;
  CacheMisses misses;
  Meter meter(&misses);
  const auto print = [](const Row& row, const Cost& cost) {
    fmt::print("{} {}: {:.1f} ns of CPU per update\n", row.load, row.stage,
               static_cast<double>(cost.cpu_ns) / static_cast<double>(row.updates));
  };
  for (unsigned run = 0; run < options.common.repeat; ++run) {
    if (options.only == "decode") {
      decode_rows(loads, meter, print);
    } else {
      shard_rows(loads, clock, meter, print, options.only);
    }
  }
}

// False: not possible here.
bool measure_system_calls(const Options& options, Figures& figures) {
  const Loads loads(options.prefixes, options.churn);
  const SystemClock clock;
  const auto all = [&](Meter& meter, const Done& done) {
    decode_rows(loads, meter, done);
    shard_rows(loads, clock, meter, done);
  };
  std::vector<Row> rows;
  {
    Meter meter;
    all(meter, [&](const Row& row, const Cost&) { rows.push_back(row); });
  }
  const auto calls = count_system_calls(rows.size(), [&](const std::function<void(std::size_t)>& mark) {
    std::size_t at = 0;
    Meter meter{[&](bool on) { mark(on ? at : kNotCounted); }};
    all(meter, [&](const Row&, const Cost&) { ++at; });
  });
  for (std::size_t i = 0; i < calls.size(); ++i) {
    figures.add(key_of(rows[i], "syscalls_per_million_updates"),
                static_cast<double>(calls[i]) * 1e6 / static_cast<double>(rows[i].updates));
  }
  return !calls.empty();
}

// What runs under callgrind.
void run_for_callgrind(const Options& options) {
  const Loads loads(options.callgrind_prefixes, options.callgrind_churn);
  const FakeClock clock;
  Meter meter;
  const auto print = [](const Row& row, const Cost&) {
    fmt::print("row {} {} {}\n", row.load, row.stage, row.updates);
  };
  decode_rows(loads, meter, print);
  shard_rows(loads, clock, meter, print);
}

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

// Empty if all went well, else why there are no counts.
std::string measure_instructions(const Options& options, const std::string& self, Figures& figures) {
  if (std::system("command -v valgrind >/dev/null 2>&1") != 0) return "valgrind is not installed";
  const Folder folder;
  const std::string rows_file = folder.file("rows");
  // Without the widest vector instructions of this very CPU: the same library code everywhere.
  const std::string command = fmt::format(
      "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2_Usable,-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM,-EVEX "
      "setarch -R valgrind -q --tool=callgrind --collect-atstart=no --toggle-collect=arancini_stage_step "
      "--dump-after=arancini_stage_row_done --callgrind-out-file={} '{}' --under-callgrind "
      "--callgrind-prefixes {} --callgrind-churn {} >'{}'",
      folder.file("out"), self, options.callgrind_prefixes, options.callgrind_churn, rows_file);
  if (std::system(command.c_str()) != 0) return "valgrind failed";
  Values counts;
  unsigned dump = 0;
  for (const std::string& line : lines_of(rows_file)) {
    char load[64], stage[64];
    unsigned long updates = 0;
    if (std::sscanf(line.c_str(), "row %63s %63s %lu", load, stage, &updates) != 3) continue;
    ++dump;
    double total = -1;
    for (const std::string& text : lines_of(fmt::format("{}.{}", folder.file("out"), dump))) {
      if (text.starts_with("totals: ")) total = std::stod(text.substr(8));
    }
    if (total < 0) return fmt::format("callgrind wrote nothing for {} {}", load, stage);
    counts[{load, stage}] = total / static_cast<double>(updates);
  }
  if (counts.empty()) return "callgrind wrote nothing";
  derive(counts);
  for (const auto& row : kTable)
    figures.add(fmt::format("stage.{}.{}.instructions_per_update", row.first, row.second), counts.at(row));
  return {};
}

void print_table(const Figures& figures) {
  fmt::print("{:<26} {:>28} {:>26} {:>9} {:>8} {:>12} {:>12}\n", "", "M updates/s", "CPU ns", "wall ns",
             "instr.", "allocations", "syscalls/M");
  for (const auto& [load, stage] : kTable) {
    const std::string where = fmt::format("stage.{}.{}.", load, stage);
    fmt::print("{:<26} {:>28} {:>26} {:>9} {:>8} {:>12} {:>12}\n", fmt::format("{} {}", load, stage),
               figures.text(where + "updates_per_s", 2, 1e6), figures.text(where + "ns_per_update", 1),
               fmt::format("{:.1f}", figures.median(where + "wall_ns_per_update")),
               fmt::format("{:.0f}", figures.median(where + "instructions_per_update")),
               figures.text(where + "allocations_per_update", 5),
               figures.text(where + "syscalls_per_million_updates", 0));
  }
  fmt::print("longest call of the shard's work while peers are down: {} us of CPU\n",
             figures.text("stage.peer_down.longest_step_us", 0));
}

int run(int argc, char** argv) {
  CLI::App app(kMethod);
  Options o;
#ifdef __clang__
  app.set_version_flag("--version", __VERSION__);
#else
  app.set_version_flag("--version", "gcc " __VERSION__);
#endif
  add_common_options(app, o.common);
  app.add_option("--prefixes", o.prefixes, "of each of the 4 peers")->check(CLI::PositiveNumber);
  app.add_option("--churn", o.churn, "updates of the churn")->check(CLI::PositiveNumber);
  app.add_option("--callgrind-prefixes", o.callgrind_prefixes, "the same, to count instructions and calls")
      ->check(CLI::PositiveNumber);
  app.add_option("--callgrind-churn", o.callgrind_churn)->check(CLI::PositiveNumber);
  app.add_flag("--instructions-only", o.instructions_only, "only what callgrind counts");
  app.add_option("--only", o.only, "nothing but this part, --repeat times, for a profiler")
      ->check(CLI::IsMember({"decode", "forward", "no_policy", "full", "changes"}));
  app.add_flag("--under-callgrind", o.under_callgrind)->group("");
  CLI11_PARSE(app, argc, argv);
  if (o.under_callgrind) {
    run_for_callgrind(o);
    return 0;
  }
  if (o.common.quick) {
    o.prefixes = std::min(o.prefixes, 25'000U);
    o.churn = std::min<std::uint64_t>(o.churn, 100'000);
    o.callgrind_prefixes = std::min(o.callgrind_prefixes, 5'000U);
    o.callgrind_churn = std::min<std::uint64_t>(o.callgrind_churn, 20'000);
    if (app.count("--repeat") == 0) o.common.repeat = 1;
  }
  if (!o.only.empty()) {
    run_for_profiler(o);
    return 0;
  }
  Figures figures;
  if (o.instructions_only) {
    const std::string no_instructions = measure_instructions(o, argv[0], figures);
    if (!no_instructions.empty()) {
      fmt::print(stderr, "stage_bench: {}\n", no_instructions);
      return 77;
    }
    figures.write_json(o.common.json);
    return 0;
  }
  CacheMisses misses;
  measure_time(o, figures, misses);
  const std::string no_instructions = measure_instructions(o, argv[0], figures);
  const bool calls = measure_system_calls(o, figures);
  print_table(figures);
  if (!no_instructions.empty()) fmt::print("instructions: not available here: {}\n", no_instructions);
  if (!calls) fmt::print("system calls: not available here: no child can be traced\n");
  if (!misses.why_not().empty()) fmt::print("cache misses: not available here: {}\n", misses.why_not());
  fmt::print(
      "libparsebgp -O2, decoding alone, another day and machine: 20M prefixes/s on the dump, 9.5M on the "
      "churn\n");
  figures.write_json(o.common.json);
  return 0;
}

}  // namespace
}  // namespace arancini::bench

int main(int argc, char** argv) {
  try {
    return arancini::bench::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "stage_bench: {}\n", e.what());
    return EX_SOFTWARE;
  }
}
