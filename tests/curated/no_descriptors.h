#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <vector>

#include "common/base/fd.h"

namespace arancini::curated {

// While it lives, all descriptors that there may be are in use but for those that are given back.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit low = before_;
    low.rlim_cur = 64;
    ::setrlimit(RLIMIT_NOFILE, &low);
    for (int fd = ::dup(0); fd >= 0; fd = ::dup(0)) used_.emplace_back(fd);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;
  void give_back(std::size_t n) { used_.resize(used_.size() - n); }

 private:
  rlimit before_{};
  std::vector<Fd> used_;
};

}  // namespace arancini::curated
