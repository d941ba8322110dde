#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/fd.h"

// What the kernel counts of one piece of work.
namespace arancini::bench {

// Hardware events of this thread, user space only. Virtual machines often have none.
class CacheMisses {
 public:
  CacheMisses();
  // Empty if they are counted, else why not.
  [[nodiscard]] const std::string& why_not() const { return why_not_; }
  void start();
  [[nodiscard]] std::uint64_t stop();  // since start()

 private:
  Fd fd_;
  std::string why_not_;
};

// Runs `work` in a child, and counts the system calls that it makes after mark(N) under N (below `size`), and
// none after mark(kNotCounted). Empty if the child cannot be traced here, or ends badly.
inline constexpr std::size_t kNotCounted = SIZE_MAX;
std::vector<std::uint64_t> count_system_calls(
    std::size_t size, const std::function<void(const std::function<void(std::size_t)>& mark)>& work);

}  // namespace arancini::bench
