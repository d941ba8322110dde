#pragma once

#include <cstdint>
#include <optional>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/metrics/stats_file.h"

namespace arancini::publishd {

// Makes this process' stats page, unless another publishd lives in the runtime directory: then the page is
// its own, and this is called again. `told` remembers what was logged, 0 at first.
void open_own_stats(const Config& config, const Clock& clock, Logger& log, std::optional<StatsWriter>& stats,
                    std::uint32_t& told);

}  // namespace arancini::publishd
