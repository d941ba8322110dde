#pragma once

#include <string>
#include <vector>

#include "common/base/config.h"

namespace arancini::curated {

// Keys ("bmp.backlog") whose values differ between two configurations.
std::vector<std::string> changed_keys(const Config& before, const Config& after);

}  // namespace arancini::curated
