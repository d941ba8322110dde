#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "shm-layout/stats_page.h"

// Histograms in a stats page: counters of fixed buckets in its `values`, behind those of metric_list.h, so
// that observing is two additions. curated exports them as Prometheus histograms; docs/metrics.md lists them.
namespace arancini {

inline constexpr std::size_t kHistogramBounds = 14;
// A value of a bucket counts what is above the bound before and not above its own; the last one has no bound.
// Then the sum of all that was observed.
inline constexpr std::size_t kHistogramSum = kHistogramBounds + 1;
inline constexpr std::size_t kHistogramValues = kHistogramSum + 1;
inline constexpr std::size_t kFirstHistogramValue = shm::kStatsValues / 2;

using HistogramBounds = std::array<std::uint64_t, kHistogramBounds>;

struct HistogramInfo {
  std::string_view name;  // "arancini_..._seconds"
  const HistogramBounds* bounds;
  double scale;  // exported value = observed value * scale
  std::string_view help;
};

// In this order in the page: add at the end, never re-use.
enum class IngestHistogram : std::size_t { ReceiveToRing, BmpLag, Count };
enum class PublishHistogram : std::size_t { RingToAck, AckLatency, Count };

inline constexpr HistogramBounds kRoundBoundsNs{5'000,      10'000,     25'000,      50'000,       100'000,
                                                250'000,    500'000,    1'000'000,   2'500'000,    5'000'000,
                                                10'000'000, 50'000'000, 250'000'000, 1'000'000'000};
inline constexpr HistogramBounds kAckBoundsNs{
    100'000,    250'000,    500'000,     1'000'000,   2'500'000,   5'000'000,     10'000'000,
    25'000'000, 50'000'000, 100'000'000, 250'000'000, 500'000'000, 1'000'000'000, 5'000'000'000};
// Milliseconds: tables that a router tells anew may be years old, and the sum of a million of them must fit.
inline constexpr HistogramBounds kLagBoundsMs{
    1, 5, 10, 50, 100, 500, 1'000, 5'000, 10'000, 60'000, 300'000, 1'800'000, 3'600'000, 86'400'000};

constexpr const HistogramBounds& bounds_of(IngestHistogram h) {
  return h == IngestHistogram::ReceiveToRing ? kRoundBoundsNs : kLagBoundsMs;
}
constexpr const HistogramBounds& bounds_of(PublishHistogram) {
  return kAckBoundsNs;
}

template <class Histogram>
constexpr std::size_t first_value(Histogram h) {
  return kFirstHistogramValue + static_cast<std::size_t>(h) * kHistogramValues;
}
static_assert(first_value(IngestHistogram::Count) <= shm::kStatsValues &&
              first_value(PublishHistogram::Count) <= shm::kStatsValues);

inline std::size_t bucket_of(const HistogramBounds& bounds, std::uint64_t value) {
  return static_cast<std::size_t>(std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin());
}

// One that is not in a page yet.
using HistogramCounts = std::array<std::uint64_t, kHistogramValues>;

inline void observe(HistogramCounts& counts, const HistogramBounds& bounds, std::uint64_t value) {
  ++counts[bucket_of(bounds, value)];
  counts[kHistogramSum] += value;
}

// By enumerator.
std::span<const HistogramInfo> ingest_histograms();
std::span<const HistogramInfo> publish_histograms();

}  // namespace arancini
