// Route table and attribute store at table-dump sizes. A run of ten million needs about 1 GiB.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <vector>

#include "ingestd/attribute_store.h"
#include "ingestd/route_table.h"

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

void all_sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"routes", "ip", "huge", "prefetch"})->Unit(benchmark::kMillisecond)->MinTime(0.2);
  for (const int routes : {1'000'000, 5'000'000, 10'000'000}) {
    for (const int huge : {0, 1}) {
      for (const int ahead : {0, 1}) b->Args({routes, 4, huge, ahead});
    }
  }
  for (const int huge : {0, 1}) {
    for (const int ahead : {0, 1}) b->Args({1'000'000, 6, huge, ahead});
  }
}
void worst_sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"routes", "ip", "huge"})->Unit(benchmark::kMillisecond)->Iterations(1);
  for (const int routes : {1'000'000, 5'000'000, 10'000'000}) b->Args({routes, 4, 0})->Args({routes, 4, 1});
}
void slices(benchmark::internal::Benchmark* b) {
  b->ArgNames({"routes", "ip", "huge", "slice"})->Unit(benchmark::kMillisecond)->MinTime(0.2);
  for (const int slice : {1, 64, 256, 4096}) b->Args({1'000'000, 4, 0, slice});
}

BENCHMARK(insert)->Apply(all_sizes);
BENCHMARK(update)->Apply(all_sizes);
BENCHMARK(find)->Apply(all_sizes);
BENCHMARK(erase_and_insert)->Apply(all_sizes);
BENCHMARK(worst_insert)->Apply(worst_sizes);
BENCHMARK(walk)->Apply(slices);

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
BENCHMARK(intern)
    ->ArgNames({"sets", "uses"})
    ->Unit(benchmark::kMillisecond)
    ->MinTime(0.2)
    ->Args({100'000, 1})
    ->Args({100'000, 10})
    ->Args({1'000'000, 1})
    ->Args({1'000'000, 4});

}  // namespace
}  // namespace arancini::ingestd

BENCHMARK_MAIN();
