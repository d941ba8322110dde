// Route table and attribute store at table-dump sizes. A run of ten million needs about 1 GiB.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "ingestd/attribute_store.h"
#include "ingestd/route_table.h"
#include "tests/bench/figures.h"

namespace arancini::ingestd {
namespace {

constexpr HashSeed kSeed{0x0123456789abcdefULL, 0xfedcba9876543210ULL};
constexpr std::size_t kAhead = 16;

std::vector<Prefix> prefixes(std::size_t count, Family family) {
  std::vector<Prefix> all;
  all.reserve(count);
  for (std::uint32_t n = 0; n < count; ++n) {
    // A bijection, so that all differ, over the whole address space.
    const std::uint32_t scattered = n * 2654435761U;
    if (family.afi == 1) {
      all.push_back({0, kV4MappedLow | scattered, 0, 32});
    } else {
      all.push_back({0x2000'0000'0000'0000ULL | (std::uint64_t{scattered} << 16), 0, 0, 48});
    }
  }
  std::shuffle(all.begin(), all.end(), std::mt19937_64(1));
  return all;
}

struct Input {
  Family family;
  std::size_t count;
  bool huge;
  explicit Input(const benchmark::State& state)
      : family(state.range(1) == 4 ? kIpv4Unicast : kIpv6Unicast),
        count(static_cast<std::size_t>(state.range(0))),
        huge(state.range(2) != 0) {}
  [[nodiscard]] SegmentPool::Options options() const { return {UINT64_MAX, huge, kSeed}; }
};

void per_route(benchmark::State& state, std::size_t routes) {
  state.SetItemsProcessed(static_cast<std::int64_t>(routes) * state.iterations());
  state.counters["ns/route"] =
      benchmark::Counter(static_cast<double>(routes) * static_cast<double>(state.iterations()) * 1e-9,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void insert(benchmark::State& state) {
  const Input in(state);
  const auto all = prefixes(in.count, in.family);
  const bool ahead = state.range(3) != 0;
  std::size_t bytes = 0;
  for ([[maybe_unused]] auto _ : state) {
    state.PauseTiming();
    {
      SegmentPool pool(in.options());
      RouteTable table(pool, in.family);
      state.ResumeTiming();
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (ahead && i + kAhead < all.size()) table.prefetch(all[i + kAhead]);
        table.insert(all[i]).first->attr = AttrId{1};
      }
      state.PauseTiming();
      bytes = pool.memory_bytes();
      table.clear();
    }
    state.ResumeTiming();
  }
  per_route(state, all.size());
  state.counters["bytes/route"] = static_cast<double>(bytes) / static_cast<double>(all.size());
}

// Each insert timed alone; the clock costs about 25 ns and is in. All repetitions do the same, so the least
// of an insert's times is its own, without what the machine did besides.
void worst_insert(benchmark::State& state) {
  const Input in(state);
  const auto all = prefixes(in.count, in.family);
  std::vector<std::uint32_t> took(all.size(), UINT32_MAX);
  for ([[maybe_unused]] auto _ : state) {
    for (int repetition = 0; repetition < 4; ++repetition) {
      SegmentPool pool(in.options());
      RouteTable table(pool, in.family);
      for (std::size_t i = 0; i < all.size(); ++i) {
        const auto start = std::chrono::steady_clock::now();
        benchmark::DoNotOptimize(table.insert(all[i]));
        const auto ns = (std::chrono::steady_clock::now() - start).count();
        took[i] = std::min(took[i], static_cast<std::uint32_t>(ns));
      }
    }
  }
  std::sort(took.begin(), took.end());
  const auto at = [&](double q) {
    return took[static_cast<std::size_t>(q * static_cast<double>(took.size() - 1))];
  };
  state.counters["p50_ns"] = at(0.5);
  state.counters["p999_ns"] = at(0.999);
  state.counters["p99999_ns"] = at(0.99999);
  state.counters["max_ns"] = at(1.0);
}

struct Filled {
  explicit Filled(const Input& in)
      : all(prefixes(in.count, in.family)), pool(in.options()), table(pool, in.family) {
    for (const Prefix& p : all) table.insert(p).first->attr = AttrId{1};
    std::shuffle(all.begin(), all.end(), std::mt19937_64(2));
  }
  std::vector<Prefix> all;
  SegmentPool pool;
  RouteTable table;
};

void find(benchmark::State& state) {
  const Input in(state);
  Filled filled(in);
  const bool ahead = state.range(3) != 0;
  std::uint64_t sum = 0;
  for ([[maybe_unused]] auto _ : state) {
    for (std::size_t i = 0; i < filled.all.size(); ++i) {
      if (ahead && i + kAhead < filled.all.size()) filled.table.prefetch(filled.all[i + kAhead]);
      sum += raw(std::as_const(filled.table).find(filled.all[i])->attr);
    }
  }
  benchmark::DoNotOptimize(sum);
  per_route(state, filled.all.size());
}

void update(benchmark::State& state) {
  const Input in(state);
  Filled filled(in);
  const bool ahead = state.range(3) != 0;
  for ([[maybe_unused]] auto _ : state) {
    for (std::size_t i = 0; i < filled.all.size(); ++i) {
      if (ahead && i + kAhead < filled.all.size()) filled.table.prefetch(filled.all[i + kAhead]);
      RouteState* const route = filled.table.insert(filled.all[i]).first;
      route->attr = AttrId{raw(route->attr) + 1};
      route->generation = 7;
    }
  }
  per_route(state, filled.all.size());
}

void erase_and_insert(benchmark::State& state) {
  const Input in(state);
  Filled filled(in);
  const bool ahead = state.range(3) != 0;
  for ([[maybe_unused]] auto _ : state) {
    for (std::size_t i = 0; i < filled.all.size(); ++i) {
      if (ahead && i + kAhead < filled.all.size()) filled.table.prefetch(filled.all[i + kAhead]);
      filled.table.erase(filled.all[i]);
      filled.table.insert(filled.all[i]).first->attr = AttrId{1};
    }
  }
  per_route(state, filled.all.size());
}

void walk(benchmark::State& state) {
  const Input in(state);
  Filled filled(in);
  const auto slice = static_cast<std::size_t>(state.range(3));
  std::uint64_t worst = 0;
  for ([[maybe_unused]] auto _ : state) {
    WalkCursor cursor;
    std::uint64_t sum = 0;
    while (!cursor.done) {
      const auto start = std::chrono::steady_clock::now();
      filled.table.walk(cursor, slice, [&](const Prefix& p, RouteState& s) {
        sum += p.low + raw(s.attr);
        return WalkAction::Keep;
      });
      worst = std::max(worst, static_cast<std::uint64_t>((std::chrono::steady_clock::now() - start).count()));
    }
    benchmark::DoNotOptimize(sum);
  }
  per_route(state, filled.all.size());
  state.counters["worst_slice_ns"] = static_cast<double>(worst);
}

// 100 bytes of attributes, as an average path has; each set is used `uses` times in a row of UPDATEs.
void intern(benchmark::State& state) {
  const auto sets = static_cast<std::uint32_t>(state.range(0));
  const auto uses = static_cast<std::uint32_t>(state.range(1));
  std::array<std::byte, 100> attributes{};
  constexpr std::array<std::byte, 4> kNextHop{};
  constexpr std::array<std::byte, 1> kFlags{};
  std::vector<AttrId> ids;
  ids.reserve(std::size_t{sets} * uses);
  std::size_t bytes = 0;
  for ([[maybe_unused]] auto _ : state) {
    state.PauseTiming();
    {
      SegmentPool pool({UINT64_MAX, false, kSeed});
      AttributeStore store(pool);
      ids.clear();
      state.ResumeTiming();
      for (std::uint32_t use = 0; use < uses; ++use) {
        for (std::uint32_t n = 0; n < sets; ++n) {
          std::memcpy(attributes.data() + 20, &n, sizeof n);
          ids.push_back(store.intern({kNextHop, kFlags, attributes}));
        }
      }
      bytes = store.memory_bytes();
      for (const AttrId id : ids) store.unref(id);
      state.PauseTiming();
    }
    state.ResumeTiming();
  }
  per_route(state, std::size_t{sets} * uses);
  state.counters["bytes/set"] = static_cast<double>(bytes) / sets;
}
// What tools/bench takes, or the whole matrix (--all: huge pages too, and walks).
void add_all(const bench::CommonOptions& common, bool all) {
  using Function = void (*)(benchmark::State&);
  const std::map<const char*, Function> ops = {
      {"insert", insert}, {"replace", update}, {"lookup", find}, {"erase_insert", erase_and_insert}};
  std::vector<std::int64_t> sizes{1'000'000, 5'000'000, 10'000'000};
  if (common.quick) sizes = {100'000};
  const auto slow = [&](benchmark::internal::Benchmark* b) {
    b->Unit(benchmark::kMillisecond)->MinTime(0.2)->Repetitions(static_cast<int>(common.repeat));
    return b->ReportAggregatesOnly(false);
  };
  for (const auto& [name, function] : ops) {
    if (function == erase_and_insert && !all) continue;
    auto* b = slow(benchmark::RegisterBenchmark(name, function));
    b->ArgNames({"routes", "ip", "huge", "prefetch"});
    for (const std::int64_t huge : {0, 1}) {
      if (huge == 1 && !all) continue;
      for (const std::int64_t ahead : {0, 1}) {
        for (const std::int64_t routes : sizes) b->Args({routes, 4, huge, ahead});
        b->Args({sizes.front(), 6, huge, ahead});
      }
    }
  }
  auto* worst = benchmark::RegisterBenchmark("worst_insert", worst_insert);
  worst->ArgNames({"routes", "ip", "huge"})->Unit(benchmark::kMillisecond)->Iterations(1);
  for (const std::int64_t routes : sizes) {
    worst->Args({routes, 4, 0});
    if (all) worst->Args({routes, 4, 1});
  }
  auto* sets = slow(benchmark::RegisterBenchmark("intern", intern))->ArgNames({"sets", "uses"});
  for (const std::int64_t count : {std::int64_t{100'000}, std::int64_t{1'000'000}}) {
    if (count > 100'000 && common.quick) break;
    sets->Args({count, 1})->Args({count, 4});
  }
  if (!all) return;
  auto* slices = slow(benchmark::RegisterBenchmark("walk", walk));
  slices->ArgNames({"routes", "ip", "huge", "slice"});
  for (const std::int64_t slice : {1, 64, 256, 4096}) slices->Args({sizes.front(), 4, 0, slice});
}

// The console's table, and the figures.
class Reporter : public benchmark::ConsoleReporter {
 public:
  explicit Reporter(bench::Figures& figures) : ConsoleReporter(OO_Tabular), figures_(figures) {}
  void ReportRuns(const std::vector<Run>& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (const Run& run : runs) {
      failed_ |= run.error_occurred;
      if (run.run_type == Run::RT_Iteration && !run.error_occurred) add(run);
    }
  }
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  // From "routes:1000000/ip:4/huge:0/prefetch:1".
  static std::map<std::string, std::uint64_t> arguments(std::string_view text) {
    std::map<std::string, std::uint64_t> out;
    while (!text.empty()) {
      const std::string_view one = text.substr(0, text.find('/'));
      text.remove_prefix(std::min(one.size() + 1, text.size()));
      if (const auto colon = one.find(':'); colon != std::string_view::npos)
        out.emplace(one.substr(0, colon), std::stoull(std::string(one.substr(colon + 1))));
    }
    return out;
  }
  static std::string size_text(std::uint64_t n) {
    return n % 1'000'000 == 0 ? fmt::format("{}m", n / 1'000'000) : fmt::format("{}k", n / 1000);
  }
  void add(const Run& run) {
    const std::string& name = run.run_name.function_name;
    auto args = arguments(run.run_name.args);
    if (name == "intern") {
      const std::string where = fmt::format("rib.sets_{}.", size_text(args["sets"]));
      const bool is_new = args["uses"] == 1;
      figures_.add(where + (is_new ? "intern_new_ns" : "intern_new_or_known_3_of_4_ns"),
                   run.counters.at("ns/route"));
      if (is_new) figures_.add(where + "bytes_per_set_of_100", run.counters.at("bytes/set"));
      return;
    }
    const std::string where = fmt::format("rib.v{}_{}{}.", args["ip"], size_text(args["routes"]),
                                          args["huge"] != 0 ? ".huge_pages" : "");
    if (name == "worst_insert") {
      figures_.add(where + "worst_insert_ns_p99999", run.counters.at("p99999_ns"));
      figures_.add(where + "worst_insert_ns_max", run.counters.at("max_ns"));
      return;
    }
    if (name == "walk") return;
    figures_.add(where + name + (args["prefetch"] != 0 ? "_ns" : "_ns_no_prefetch"),
                 run.counters.at("ns/route"));
    if (name == "insert" && args["prefetch"] != 0)
      figures_.add(where + "bytes_per_route", run.counters.at("bytes/route"));
  }

  bench::Figures& figures_;
  bool failed_ = false;
};

constexpr const char* kMethod =
    "The route table and the attribute store alone, at sizes of table dumps. Ten million routes need about "
    "1 GiB.\n\n"
    "METHOD. Prefixes that all differ, spread over the whole address space, in random order (worse than any "
    "router sends\n"
    "them). insert: into an empty table that grows; replace: finds each route, in another order, and changes "
    "its attribute;\n"
    "lookup: finds it. Nanoseconds of CPU time per route, with the slot of the 16th next route prefetched, "
    "as for UPDATEs of\n"
    "many prefixes, or without (*_no_prefetch: one prefix per UPDATE). bytes_per_route is what the pool has "
    "touched after the\n"
    "inserts, attributes not in. worst_insert: each insert timed alone, the least of its times in four "
    "equal runs; the\n"
    "clock's 25 ns are in. intern: attribute sets of 100 bytes, each a new one, or used four times. "
    "Medians over runs.\n"
    "What is not an option here goes to Google Benchmark (--benchmark_filter=...).";

}  // namespace
}  // namespace arancini::ingestd

int main(int argc, char** argv) {
  using namespace arancini;
  CLI::App app(ingestd::kMethod);
  bench::CommonOptions common;
  bool all = false;
  bench::add_common_options(app, common);
  app.add_flag("--all", all, "with huge pages, erasing and walks as well");
  app.allow_extras();
  CLI11_PARSE(app, argc, argv);
  if (common.quick && app.count("--repeat") == 0) common.repeat = 1;

  std::vector<std::string> rest = app.remaining();
  std::vector<char*> arguments{argv[0]};
  for (std::string& one : rest) arguments.push_back(one.data());
  auto count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 64;  // EX_USAGE
  ingestd::add_all(common, all);
  bench::Figures figures;
  ingestd::Reporter reporter(figures);
  benchmark::RunSpecifiedBenchmarks(&reporter);
  figures.write_json(common.json);
  return reporter.failed() ? 1 : 0;
}
