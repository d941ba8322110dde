#pragma once

#include <atomic>
#include <cstdint>

namespace arancini::curated {

// Of the control API, for /metrics. Any thread.
struct ControlCounters {
  std::atomic<std::uint64_t> refused{0};       // calls of certificates that may not make them
  std::atomic<std::uint64_t> audit_errors{0};  // lines that are not in the audit file
};

}  // namespace arancini::curated
