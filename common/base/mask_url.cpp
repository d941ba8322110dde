#include "common/base/mask_url.h"

#include <algorithm>
#include <cstddef>

namespace arancini {

std::string mask_url(const std::string& url) {
  std::string out;
  std::size_t at = 0;
  while (at < url.size()) {
    const std::size_t comma = std::min(url.find(',', at), url.size());
    std::string part = url.substr(at, comma - at);
    const std::size_t scheme = part.find("://");
    const std::size_t begin = scheme == std::string::npos ? 0 : scheme + 3;
    const std::size_t end = part.rfind('@');
    if (end != std::string::npos && end > begin) {
      const std::size_t colon = part.find(':', begin);
      const std::size_t secret = colon < end ? colon + 1 : begin;  // "user:password@" or "token@"
      part.replace(secret, end - secret, "***");
    }
    out += part;
    if (comma < url.size()) out += ',';
    at = comma + 1;
  }
  return out;
}

}  // namespace arancini
