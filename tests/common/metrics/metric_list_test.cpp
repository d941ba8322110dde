#include "common/metrics/metric_list.h"
#include "common/metrics/histogram_list.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string>

namespace arancini {
namespace {

// Prometheus: names of [a-zA-Z0-9_:], counters end in _total, base units.
TEST(MetricList, NamesFollowThePrometheusConvention) {
  std::set<std::string_view> names;
  const auto check = [&](std::span<const MetricInfo> list, std::string_view prefix) {
    for (const MetricInfo& m : list) {
      EXPECT_TRUE(m.name.starts_with(prefix)) << m.name;
      EXPECT_TRUE(names.insert(m.name).second) << "twice: " << m.name;
      EXPECT_EQ(m.name.ends_with("_total"), m.type == MetricType::Counter) << m.name;
      EXPECT_EQ(m.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"), std::string_view::npos)
          << m.name;
      for (const std::string_view wrong : {"_ns", "_ms", "_us", "_kb", "_mb"})
        EXPECT_FALSE(m.name.ends_with(wrong)) << m.name;
      EXPECT_EQ(m.scale != 1, m.name.ends_with("_seconds")) << m.name;
      EXPECT_TRUE(m.help.ends_with(".")) << m.name;
    }
  };
  check(ingest_metrics(), "arancini_ingest_");
  check(publish_metrics(), "arancini_publish_");
  EXPECT_EQ(ingest_metrics().size(), static_cast<std::size_t>(IngestMetric::Count));
  EXPECT_EQ(publish_metrics().size(), static_cast<std::size_t>(PublishMetric::Count));
}

TEST(HistogramList, BucketsHoldWhatIsNotAboveTheirBound) {
  for (const auto list : {ingest_histograms(), publish_histograms()}) {
    for (const HistogramInfo& h : list) {
      EXPECT_TRUE(h.name.ends_with("_seconds")) << h.name;
      EXPECT_TRUE(h.help.ends_with(".")) << h.name;
      std::uint64_t below = 0;
      for (std::size_t i = 0; i < kHistogramBounds; ++i) {
        const std::uint64_t bound = (*h.bounds)[i];
        EXPECT_LT(below, bound) << h.name;
        EXPECT_EQ(bucket_of(*h.bounds, below + 1), i) << h.name;
        EXPECT_EQ(bucket_of(*h.bounds, bound), i) << h.name;
        below = bound;
      }
      EXPECT_EQ(bucket_of(*h.bounds, 0), 0U);
      EXPECT_EQ(bucket_of(*h.bounds, std::numeric_limits<std::uint64_t>::max()), kHistogramBounds);
    }
  }
  HistogramCounts counts{};
  observe(counts, kLagBoundsMs, 5);
  observe(counts, kLagBoundsMs, 7);
  EXPECT_EQ(counts[1], 1U);
  EXPECT_EQ(counts[2], 1U);
  EXPECT_EQ(counts[kHistogramSum], 12U);
}

}  // namespace
}  // namespace arancini
