#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace arancini {

// "a, b, c": the members of `range`, or the text that `text_of` makes of each. (fmt::join makes GCC 12 warn
// falsely.)
template <class Range, class TextOf = std::identity>
std::string joined(const Range& range, std::string_view between = ", ", TextOf text_of = {}) {
  std::string out;
  bool first = true;
  for (const auto& member : range) {
    if (!first) out += between;
    first = false;
    out += std::invoke(text_of, member);
  }
  return out;
}

}  // namespace arancini
