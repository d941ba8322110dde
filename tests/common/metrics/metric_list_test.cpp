#include "common/metrics/metric_list.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace arancini
