#pragma once

#include <string>
#include <vector>

#include "common/base/config.h"

namespace arancini::curated {

// Keys ("bmp.backlog") whose values differ between two configurations.
std::vector<std::string> changed_keys(const Config& before, const Config& after);

// An URL (or a comma-separated list) fit for logs and status: passwords and tokens are replaced by "***".
std::string without_secrets(const std::string& nats_url);

}  // namespace arancini::curated
