#pragma once

// Replaces malloc in the program that includes this (in one file of it): every allocation of the calling
// thread is counted, operator new included. For tests that show that something does not allocate.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ARANCINI_COUNTS_MALLOC 0  // a sanitizer owns malloc
#else
#define ARANCINI_COUNTS_MALLOC 1
#endif

namespace {
// Volatile: the compiler believes that malloc changes nothing that it can see.
thread_local volatile std::uint64_t g_allocations = 0;
}  // namespace

#if ARANCINI_COUNTS_MALLOC
// glibc keeps these names for replacements like this one.
extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the names are glibc's
void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* block, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);
// NOLINTEND(bugprone-reserved-identifier)

void* malloc(std::size_t bytes) {
  g_allocations = g_allocations + 1;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  g_allocations = g_allocations + 1;
  return __libc_calloc(count, bytes);
}
void* realloc(void* block, std::size_t bytes) {
  g_allocations = g_allocations + 1;
  return __libc_realloc(block, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  g_allocations = g_allocations + 1;
  return __libc_memalign(alignment, bytes);
}
}
#endif
