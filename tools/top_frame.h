#pragma once

#include <control.pb.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

// What `aranctl top` shows: rates from two samples. No clock, no terminal.
namespace arancini::tools {

enum class TopSort : std::uint8_t { Updates, Bytes, Routes, Malformed, Lag };

struct TopSample {
  std::uint64_t monotonic_ns = 0;
  std::uint64_t realtime_ns = 0;
  control::v1::Status status;
  control::v1::ListRoutersResponse routers;
};

// Per second; what a counter that began anew did meanwhile is not known, and 0.
struct TopRates {
  double updates = 0, messages = 0, bytes = 0, suppressed = 0, malformed = 0;
};
struct TopRouter {
  control::v1::Router router;
  TopRates rates;
  std::uint64_t silent_ns = 0;  // since its last message; UINT64_MAX: there was none
};
struct TopShard {
  control::v1::ShardStatus shard;
  TopRates rates;
};
struct TopFrame {
  double interval_s = 0;
  std::uint64_t realtime_ns = 0;
  control::v1::Status status;
  std::vector<TopShard> shards;
  std::vector<TopRouter> routers;  // sorted, the most first
};

// A router is its address, name and shard; one that was not in `before` has no rates yet.
TopFrame top_frame(const TopSample& before, const TopSample& now, TopSort sort);

// Lines of 80 columns; of routers the first `rows`.
std::string top_text(const TopFrame& frame, std::size_t rows);
nlohmann::ordered_json top_json(const TopFrame& frame, std::size_t rows);

}  // namespace arancini::tools
