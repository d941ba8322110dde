// What one update costs on its way into a ring record, out of it, and into plain values.
#include <benchmark/benchmark.h>

#include <array>
#include <cstddef>
#include <vector>

#include "common/schema/batch_encoder.h"
#include "common/schema/batch_expander.h"
#include "common/schema/update_decode.h"

namespace arancini::schema {
namespace {

// The attributes of a usual Internet route: five ASes, two communities, MED and LOCAL_PREF.
class Sample {
 public:
  explicit Sample(std::uint32_t routes) : routes_(routes) {
    const std::array<std::uint8_t, 22> path{2, 5, 0,   0, 0xfd, 0xe9, 0,    0, 0x0d, 0x1c, 0,
                                            0, 0, 174, 0, 0,    0x0b, 0x62, 0, 0,    0x32, 0x11};
    const std::array<std::uint8_t, 8> communities{0xfd, 0xe9, 0, 100, 0xfd, 0xe9, 0, 200};
    path_.assign(path.begin(), path.end());
    communities_.assign(communities.begin(), communities.end());
    attributes_.present = 1U << 1 | 1U << 2 | 1U << 3 | 1U << 4 | 1U << 5 | 1U << 8;
    attributes_.origin = std::as_bytes(std::span(four_)).first(1);
    attributes_.as_path = std::as_bytes(std::span(path_));
    attributes_.med = std::as_bytes(std::span(four_));
    attributes_.local_pref = std::as_bytes(std::span(four_));
    attributes_.communities = std::as_bytes(std::span(communities_));
    meta_.router_address = IpAddress::from_v4(0xc0000201);
    meta_.peer_address = IpAddress::from_v4(0xc0000202);
    meta_.peer_asn = 65001;
    meta_.announced = true;
    memory_.resize(max_record_bytes(meta_, attributes(), routes) / 8);
  }

  shm::RecordHeader encode() {
    BatchEncoder encoder(std::as_writable_bytes(std::span(memory_)), meta_, attributes(), Sequence{1},
                         routes_);
    for (std::uint32_t i = 0; i < routes_; ++i) {
      encoder.add(
          Prefix{.high = 0, .low = kV4MappedLow | (0x0a000000U + (i << 8)), .path_id = 0, .length = 24});
    }
    return encoder.finish();
  }
  [[nodiscard]] BatchAttributes attributes() const { return {&attributes_, IpAddress::from_v4(0xc0000202)}; }
  [[nodiscard]] std::span<const std::byte> payload(const shm::RecordHeader& h) const {
    return std::as_bytes(std::span(memory_)).subspan(sizeof h, h.payload_bytes);
  }

 private:
  std::uint32_t routes_;
  std::array<std::uint8_t, 4> four_{};
  std::vector<std::uint8_t> path_;
  std::vector<std::uint8_t> communities_;
  wire::Attributes attributes_;
  BatchMeta meta_;
  std::vector<std::uint64_t> memory_;
};

void per_update(benchmark::State& state) {
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.counters["ns_per_update"] =
      benchmark::Counter(static_cast<double>(state.iterations() * state.range(0)),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void encode(benchmark::State& state) {
  Sample sample(static_cast<std::uint32_t>(state.range(0)));
  for ([[maybe_unused]] auto _ : state) benchmark::DoNotOptimize(sample.encode());
  per_update(state);
}
BENCHMARK(encode)->Arg(1)->Arg(4)->Arg(100);

void expand(benchmark::State& state) {
  Sample sample(static_cast<std::uint32_t>(state.range(0)));
  const shm::RecordHeader header = sample.encode();
  BatchExpander expander;
  if (!expander.open(header, sample.payload(header))) state.SkipWithError("record refused");
  std::vector<std::byte> out(expander.update_bytes() * expander.count());
  for ([[maybe_unused]] auto _ : state) {
    (void)expander.open(header, sample.payload(header));
    for (std::uint32_t i = 0; i < expander.count(); ++i) {
      expander.write_update(i, out.data() + i * expander.update_bytes());
    }
    benchmark::ClobberMemory();
  }
  per_update(state);
  state.counters["bytes_per_update"] = static_cast<double>(expander.update_bytes());
}
BENCHMARK(expand)->Arg(1)->Arg(4)->Arg(100);

void decode(benchmark::State& state) {
  Sample sample(static_cast<std::uint32_t>(state.range(0)));
  const shm::RecordHeader header = sample.encode();
  BatchExpander expander;
  if (!expander.open(header, sample.payload(header))) state.SkipWithError("record refused");
  std::vector<std::byte> out(expander.update_bytes() * expander.count());
  for (std::uint32_t i = 0; i < expander.count(); ++i)
    expander.write_update(i, &out[i * expander.update_bytes()]);
  for ([[maybe_unused]] auto _ : state) {
    const auto error = decode_payload(PayloadFormat::UpdateV1Concat, out,
                                      [](const DecodedUpdate& u) { benchmark::DoNotOptimize(u.sequence); });
    if (error) state.SkipWithError("payload refused");
  }
  per_update(state);
}
BENCHMARK(decode)->Arg(100);

}  // namespace
}  // namespace arancini::schema

BENCHMARK_MAIN();
