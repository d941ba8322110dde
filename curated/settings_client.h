#pragma once

#include <string>
#include <vector>

#include "common/base/result.h"

// How curated asks a daemon to take another configuration (common/proto/settings.proto). Any thread.
namespace arancini::curated {

struct PreparedSettings {
  std::string hash;
  std::vector<std::string> live, start;  // changed keys: in force when it is committed, at the next start
};
// `socket` is that of the daemon's service. The error is one line.
Result<PreparedSettings, std::string> prepare_settings(const std::string& socket, const std::string& file,
                                                       const std::string& text);
// Why it is not in force; empty: it is.
std::string commit_settings(const std::string& socket, const std::string& hash);

}  // namespace arancini::curated
