#pragma once

#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace arancini::ingestd {

// A broken invariant: says which on stderr and aborts. Formats and allocates nothing.
[[noreturn]] inline void broken(const char* what) noexcept {
  constexpr char kStart[] = "fatal: broken invariant: ";
  [[maybe_unused]] ssize_t n = write(STDERR_FILENO, kStart, sizeof kStart - 1);
  n = write(STDERR_FILENO, what, std::strlen(what));
  n = write(STDERR_FILENO, "\n", 1);
  std::abort();
}

}  // namespace arancini::ingestd
