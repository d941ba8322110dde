#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/base/config.h"
#include "common/base/config_changes.h"
#include "common/base/result.h"
#include "curated/fleet.h"
#include "curated/settings_client.h"

namespace arancini::curated {

// Reads the configuration again. It is valid for all daemons that run before it is put in force in any; what
// does not run reads it when it starts. Any thread; one at a time.
class Reloader {
 public:
  struct Outcome {
    bool ok = false;  // valid everywhere; unless it was only checked: in force everywhere
    std::string hash;
    std::vector<std::string> applied;                               // keys
    std::map<std::string, std::vector<std::string>> needs_restart;  // processes by key
    std::vector<std::pair<std::string, std::string>> problems;      // process, text
    std::vector<std::string> notes;
  };
  // What it sees and does; a test has its own.
  struct World {
    std::function<Config()> load;  // throws ConfigError
    std::function<FleetView()> view;
    std::function<Result<PreparedSettings, std::string>(const std::string& process, const Config& next)>
        prepare;
    std::function<std::string(const std::string& process, const std::string& hash)> commit;
    std::function<void(const Config& next)> take;  // the live keys of curated itself
  };

  // `started`: what curated runs with, as the operator wrote it.
  Reloader(Config started, World world) : now_(std::move(started)), world_(std::move(world)) {}

  Outcome reload(bool check_only);

 private:
  std::mutex one_at_a_time_;
  Config now_;  // the start's, with the live keys in force
  const World world_;
};

}  // namespace arancini::curated
