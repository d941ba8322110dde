#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/config.h"
#include "curated/fleet.h"
#include "curated/router_diagnosis.h"

// The page that curated shows to a browser, or to a text browser: read-only HTML that needs nothing else.
namespace arancini::curated {

struct StatusPageInput {
  FleetView view;
  std::vector<RouterView> routers;
  std::vector<PeerView> peers;
  std::uint64_t audit_errors = 0;
  std::uint64_t now_realtime_ns = 0;
};

// What an operator has to know or to act on.
struct Finding {
  Concern concern = Concern::Notice;
  std::string what;
  std::string advice;
};
// Problems first. Routers with the same trouble are one finding.
std::vector<Finding> findings(const Config& config, const StatusPageInput& input,
                              const std::vector<RouterDiagnosis>& routers);

// Rows of each table; what is left out is counted. Those that need attention come first.
inline constexpr std::size_t kMostRouterRows = 200;
inline constexpr std::size_t kMostShardRows = 64;
inline constexpr std::size_t kMostFindings = 50;

// Whatever the daemons and routers said is escaped.
std::string status_page(const Config& config, const StatusPageInput& input);

// For HTML text and quoted attributes; control characters become '?', what is beyond `most` bytes is cut.
std::string html_escaped(std::string_view text, std::size_t most = 512);

}  // namespace arancini::curated
