#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/config.h"
#include "common/base/result.h"
#include "common/metrics/metric_list.h"
#include "curated/fleet.h"

namespace arancini::curated {

// One metric as Prometheus sees it; what docs/metrics.md lists.
struct ExportedMetric {
  std::string_view name;
  MetricType type;
  std::string_view labels;  // "shard", "router, shard", empty if none
  std::string_view help;
};

// All that /metrics can hold, in its order.
std::vector<ExportedMetric> exported_metrics();
// The table of docs/metrics.md.
std::string metrics_markdown();

// The page /metrics in Prometheus text format 0.0.4, from the fleet's pages.
std::string metrics_page(const Config& config, Fleet& fleet);

// HTTP, read-only: /metrics for Prometheus, /healthz for health checks (200 when all daemons run, else 503,
// one line of text), and / for people (status_page.h).
class Exporter {
 public:
  // Why it could never listen there, for the operator; empty: it can.
  static std::string unusable(const SocketAddress& address);
  // Listens at config.metrics.listen; port 0 lets the kernel choose. Borrows both. The error is one line for
  // the operator.
  static Result<std::unique_ptr<Exporter>, std::string> start(const Config& config, Fleet& fleet);
  ~Exporter();
  Exporter(const Exporter&) = delete;
  Exporter& operator=(const Exporter&) = delete;

  [[nodiscard]] const SocketAddress& address() const;  // with the port in force

 private:
  struct State;
  explicit Exporter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace arancini::curated
