#include "publishd/own_stats.h"

#include <string>

namespace arancini::publishd {

void open_own_stats(const Config& config, const Clock& clock, Logger& log, std::optional<StatsWriter>& stats,
                    std::uint32_t& told) {
  const std::string path = config.publishd_stats_path();
  if (auto other = StatsReader::open(path); other && other->writer_alive()) {
    if (other->pid() != told)
      log.warn("another publishd (pid {}) works on {}; waiting", other->pid(), config.paths.runtime_dir);
    told = other->pid();
    return;
  }
  StatsWriter::Options o;
  o.kind = shm::ProcessKind::Publishd;
  o.now_realtime_ns = clock.realtime_ns();
  auto made = StatsWriter::create(path, o);
  if (made) {
    stats = std::move(made).value();
  } else if (told != 1) {
    log.error("{}", made.error());
    told = 1;  // said once
  }
}

}  // namespace arancini::publishd
