#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/aranctl.h"

namespace CLI {
class App;
}

namespace arancini::tools {

// Adds `status`, `routers`, `peers`, `lookup` and `snapshot`, which ask curated over its unix socket. A
// command sets `exit_code`: 0, or 2 when curated gave no answer (one line on stderr says why and what to do).
void add_control_commands(CLI::App& app, const GlobalOptions& options, int& exit_code);

// What one shard has dumped.
struct DumpedShard {
  std::uint32_t shard = 0;
  std::uint64_t routers = 0, routes = 0;
  std::string writer;                            // 32 hex digits
  std::uint64_t start_event = 0, end_event = 0;  // first dump_start, last dump_end
};
// Has the tables of a router (address; empty: all) published again and waits for the end, `patience_s` at
// most. False, and `exit_code`, when there was no answer; shards that are missing are said and make it 3.
bool request_dump(const GlobalOptions& options, const std::string& router, std::uint64_t patience_s,
                  std::vector<DumpedShard>& done, int& exit_code);

}  // namespace arancini::tools
