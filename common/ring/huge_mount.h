#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace arancini {

// A hugetlbfs mount that this process may write to.
struct HugeMount {
  std::string directory;
  std::uint64_t page_bytes = 0;
};

// From /proc/self/mounts, smallest pages first. Whether pages are free shows only when a file is filled.
std::vector<HugeMount> huge_mounts();

// Directory on `mount` for the files of the ring that is known as `path`; unique by the path's absolute form,
// so that independent instances on one machine do not meet.
std::string huge_directory(const HugeMount& mount, const std::string& path);

// What the operator can run so that a ring file of `bytes` fits, e.g. "run: sysctl vm.nr_hugepages=33".
std::string huge_advice(std::uint64_t bytes);

}  // namespace arancini
