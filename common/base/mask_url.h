#pragma once

#include <string>

namespace arancini {

// An URL (or a comma-separated list) fit for logs and status: passwords and tokens are replaced by "***".
std::string mask_url(const std::string& url);

}  // namespace arancini
