#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/metrics/histogram_list.h"
#include "common/metrics/metric_list.h"
#include "common/ring/futex.h"
#include "publishd/journal_store.h"
#include "publishd/record_source.h"

namespace arancini {
class Logger;
}

namespace arancini::publishd {

// From rings to the journal, where that is the sink ([sink] kind = "journal"): every record is appended, and
// leaves its ring when it is durable. Stands where the Drain stands otherwise, and is driven likewise; knows
// no clock and no thread.
class JournalSink {
 public:
  // `log` may be null.
  JournalSink(Journal& journal, Logger* log);
  ~JournalSink();
  JournalSink(const JournalSink&) = delete;
  JournalSink& operator=(const JournalSink&) = delete;

  // `name` comes back in Detached and stands in logs. May come before the journal is ready: it waits.
  void add_ring(std::unique_ptr<RecordSource> source, std::string name, std::uint64_t created_realtime_ns);
  struct Detached {
    std::string name;
    bool corrupt = false;  // else: drained
  };
  // Rings that were given up since the last call.
  std::optional<Detached> poll_detached();

  // One bounded round; returns how much was done. `now_ns` never goes back.
  std::size_t do_work(std::uint64_t now_ns) noexcept;
  [[nodiscard]] std::uint64_t idle_ns() const;
  // See Drain::arm().
  [[nodiscard]] bool arm(std::vector<FutexWait>& waits);
  void disarm();
  void heartbeat(std::uint64_t boottime_ns);

  // No more reading; what was read is waited for (bounded).
  void stop(std::uint64_t now_ns);
  [[nodiscard]] bool stopped() const { return stopped_; }

  // Why records wait; None while they flow.
  [[nodiscard]] ErrorCode trouble() const;
  [[nodiscard]] std::uint64_t metric(PublishMetric m) const { return metrics_[static_cast<std::size_t>(m)]; }
  [[nodiscard]] const HistogramCounts& histogram(PublishHistogram h) const {
    return histograms_[static_cast<std::size_t>(h)];
  }
  [[nodiscard]] std::size_t rings_connected() const { return rings_.size(); }

 private:
  struct Ring;
  void begin(Ring& ring);
  std::size_t read(Ring& ring);
  bool load_record(Ring& ring);
  void settle(Ring& ring);
  void run_detach();
  void mark_corrupt(Ring& ring, std::string_view why);
  void add(PublishMetric m, std::uint64_t n = 1) { metrics_[static_cast<std::size_t>(m)] += n; }
  void set(PublishMetric m, std::uint64_t v) { metrics_[static_cast<std::size_t>(m)] = v; }
  void observe(PublishHistogram h, std::uint64_t ns) {
    arancini::observe(histograms_[static_cast<std::size_t>(h)], bounds_of(h), ns);
  }
  [[nodiscard]] std::uint64_t since(std::uint64_t then_ns) const {
    return now_ns_ - std::min(now_ns_, then_ns);
  }

  Journal& journal_;
  Logger* log_;
  std::vector<std::unique_ptr<Ring>> rings_;
  std::vector<Detached> detached_;
  std::size_t first_ring_ = 0;  // whose turn it is
  std::uint64_t now_ns_ = 0;
  std::uint64_t detach_check_ns_ = 0;
  std::uint64_t stop_deadline_ns_ = 0;
  bool stopping_ = false;
  bool stopped_ = false;
  std::array<std::uint64_t, static_cast<std::size_t>(PublishMetric::Count)> metrics_{};
  std::array<HistogramCounts, static_cast<std::size_t>(PublishHistogram::Count)> histograms_{};
};

}  // namespace arancini::publishd
