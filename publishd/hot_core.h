#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/metrics/histogram_list.h"
#include "common/metrics/metric_list.h"
#include "common/ring/futex.h"

namespace arancini::publishd {

// What the hot thread drives, whatever the sink: from rings to where records are durable. Knows no clock and
// no thread.
class HotCore {
 public:
  virtual ~HotCore() = default;
  HotCore(const HotCore&) = delete;
  HotCore& operator=(const HotCore&) = delete;

  // One bounded round of all that there is to do; returns how much was done, 0 when there is nothing.
  // `now_ns` never goes back.
  virtual std::size_t do_work(std::uint64_t now_ns) noexcept = 0;
  // How long the caller may sleep after a round that did nothing, if nothing wakes it before.
  [[nodiscard]] virtual std::uint64_t idle_ns() const = 0;
  // Before sleeping: arms the doorbells and adds them to `waits`; false if a record has come meanwhile (do
  // not sleep then). disarm() after either.
  [[nodiscard]] virtual bool arm(std::vector<FutexWait>& waits) = 0;
  virtual void disarm() = 0;
  virtual void heartbeat(std::uint64_t boottime_ns) = 0;

  // No more reading; what was read is waited for (bounded).
  virtual void stop(std::uint64_t now_ns) = 0;
  [[nodiscard]] virtual bool stopped() const = 0;

  [[nodiscard]] virtual std::size_t rings_connected() const = 0;
  // Counters and gauges, by PublishMetric; the owner copies them into the stats page.
  [[nodiscard]] std::uint64_t metric(PublishMetric m) const { return metrics_[static_cast<std::size_t>(m)]; }
  [[nodiscard]] const HistogramCounts& histogram(PublishHistogram h) const {
    return histograms_[static_cast<std::size_t>(h)];
  }

 protected:
  HotCore() = default;

  void add(PublishMetric m, std::uint64_t n = 1) { metrics_[static_cast<std::size_t>(m)] += n; }
  void subtract(PublishMetric m, std::uint64_t n) { metrics_[static_cast<std::size_t>(m)] -= n; }
  void set(PublishMetric m, std::uint64_t v) { metrics_[static_cast<std::size_t>(m)] = v; }
  void observe(PublishHistogram h, std::uint64_t ns) {
    arancini::observe(histograms_[static_cast<std::size_t>(h)], bounds_of(h), ns);
  }
  [[nodiscard]] std::uint64_t since(std::uint64_t then_ns) const {
    return now_ns_ - std::min(now_ns_, then_ns);
  }

  std::uint64_t now_ns_ = 0;  // of the round

 private:
  std::array<std::uint64_t, static_cast<std::size_t>(PublishMetric::Count)> metrics_{};
  std::array<HistogramCounts, static_cast<std::size_t>(PublishHistogram::Count)> histograms_{};
};

}  // namespace arancini::publishd
