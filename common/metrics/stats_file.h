#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/fd.h"
#include "common/base/result.h"
#include "common/metrics/histogram_list.h"
#include "common/metrics/metric_list.h"
#include "shm-layout/stats_page.h"

namespace arancini {

class SharedMapping;

// The daemon's side of its stats page: made anew at each start (temporary name, then rename), one writing
// thread. Holds an OFD lock on byte 0 of the file as a sign of life.
class StatsWriter {
 public:
  struct Options {
    shm::ProcessKind kind = shm::ProcessKind::Ingestd;
    std::uint32_t shard = 0;
    std::uint32_t routers = 0;  // rows
    std::uint32_t peers = 0;
    std::uint64_t now_realtime_ns = 0;
  };
  static Result<StatsWriter, std::string> create(const std::string& path, const Options& options);

  StatsWriter(StatsWriter&&) noexcept;
  StatsWriter& operator=(StatsWriter&&) noexcept;
  ~StatsWriter();

  void set_state(shm::ProcessState state);
  void heartbeat(std::uint64_t boottime_ns);

  // Relaxed, single writer: a load, an add, a store.
  template <class Metric>
  void add(Metric m, std::uint64_t n = 1) {
    auto& v = page_->values[static_cast<std::size_t>(m)];
    v.store(v.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  template <class Metric>
  void set(Metric m, std::uint64_t value) {
    page_->values[static_cast<std::size_t>(m)].store(value, std::memory_order_relaxed);
  }
  template <class Metric>
  [[nodiscard]] std::uint64_t get(Metric m) const {
    return page_->values[static_cast<std::size_t>(m)].load(std::memory_order_relaxed);
  }

  template <class Histogram>
  void observe(Histogram h, std::uint64_t value) {
    add(first_value(h) + bucket_of(bounds_of(h), value), 1);
    add(first_value(h) + kHistogramSum, value);
  }
  template <class Histogram>
  void set_histogram(Histogram h, const HistogramCounts& counts) {
    for (std::size_t i = 0; i < counts.size(); ++i) set(first_value(h) + i, counts[i]);
  }

  // Changes a row under its seqlock: `change` gets the row by reference. An index beyond the capacity changes
  // nothing: what the page cannot show is not worth a crash.
  template <class F>
  void update_router(std::uint32_t index, F&& change) {
    if (index < router_capacity_) write_row(routers_[index], std::forward<F>(change));
  }
  template <class F>
  void update_peer(std::uint32_t index, F&& change) {
    if (index < peer_capacity_) write_row(peers_[index], std::forward<F>(change));
  }
  [[nodiscard]] std::uint32_t router_capacity() const { return router_capacity_; }
  [[nodiscard]] std::uint32_t peer_capacity() const { return peer_capacity_; }

 private:
  StatsWriter(std::unique_ptr<SharedMapping> mapping, Fd fd, const Options& options);
  template <class Row, class F>
  static void write_row(Row& row, F&& change) {
    const std::uint32_t g = row.guard.load(std::memory_order_relaxed);
    row.guard.store(g + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(
        std::memory_order_release);  // pairs with the acquire fence in StatsReader's copy_row()
    change(row);
    row.guard.store(g + 2,
                    std::memory_order_release);  // pairs with the acquire load in StatsReader's copy_row()
  }

  Fd fd_;  // holds the lock
  std::unique_ptr<SharedMapping> mapping_;
  shm::StatsPage* page_ = nullptr;
  shm::RouterRow* routers_ = nullptr;
  shm::PeerRow* peers_ = nullptr;
  std::uint32_t router_capacity_ = 0;
  std::uint32_t peer_capacity_ = 0;
};

// Copies a string into a fixed, zero-terminated field, cut at a UTF-8 boundary; control characters and bytes
// that are not UTF-8 (RFC 3629) become '?'. What is left of the field is zeroed.
void copy_text(std::span<char> field, std::string_view text);

// curated's side: read-only, never disturbs the writer; contents are untrusted.
class StatsReader {
 public:
  static Result<StatsReader, std::string> open(const std::string& path);
  StatsReader(StatsReader&&) noexcept;
  StatsReader& operator=(StatsReader&&) noexcept;
  ~StatsReader();

  [[nodiscard]] shm::ProcessKind kind() const;
  [[nodiscard]] std::uint32_t shard() const;
  [[nodiscard]] std::uint32_t pid() const;
  [[nodiscard]] std::uint64_t started_realtime_ns() const;
  [[nodiscard]] std::uint64_t heartbeat_boottime_ns() const;
  [[nodiscard]] shm::ProcessState state() const;
  [[nodiscard]] std::string version() const;
  [[nodiscard]] bool writer_alive() const;  // lock held
  [[nodiscard]] bool replaced() const;      // the name leads to another file: open again
  [[nodiscard]] std::uint64_t value(std::size_t index) const;

  // Plain copies of rows in use; a row that is being changed is tried a few times, then skipped.
  struct Router {
    std::uint32_t index = 0;
    std::string address;
    std::uint16_t port = 0, sessions = 0;
    shm::RouterState state{};
    std::uint32_t peers_up = 0, last_error = 0;
    std::uint64_t connected_realtime_ns = 0, last_message_realtime_ns = 0, messages = 0, bytes = 0,
                  malformed = 0, updates_published = 0, updates_suppressed = 0, routes = 0,
                  announcements_dropped = 0, withdraws_dropped = 0;
    std::uint32_t routes_untold = 0;
    bool throttled = false;
    std::string name, sys_name, sys_descr, last_error_text;
  };
  struct Peer {
    std::uint32_t router = 0;
    std::uint8_t peer_type = 0, view = 0;
    shm::PeerState state{};
    std::string address;
    std::uint64_t distinguisher = 0;
    std::uint32_t asn = 0, bgp_id = 0, down_reason = 0;
    std::uint64_t changed_realtime_ns = 0, routes = 0, updates_published = 0, updates_suppressed = 0,
                  updates_malformed = 0, synthetic_withdraws = 0;
  };
  [[nodiscard]] std::vector<Router> routers() const;
  [[nodiscard]] std::vector<Peer> peers() const;

 private:
  struct State;
  explicit StatsReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace arancini
