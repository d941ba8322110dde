#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace arancini::ingestd {

// A bounded queue between two threads: one pushes, one pops. No lock, no allocation.
template <class T, std::size_t Capacity>
class SpscSlots {
  static_assert(std::has_single_bit(Capacity));

 public:
  // False: full.
  bool push(const T& value) noexcept {
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_.load(std::memory_order_acquire) == Capacity) return false;
    slots_[tail % Capacity] = value;
    tail_.store(tail + 1, std::memory_order_release);  // pairs with the acquire in pop()
    return true;
  }
  std::optional<T> pop() noexcept {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_.load(std::memory_order_acquire)) return std::nullopt;
    const T value = slots_[head % Capacity];
    head_.store(head + 1, std::memory_order_release);  // pairs with the acquire in push()
    return value;
  }
  // Neither side may be at it.
  void clear() noexcept {
    head_.store(0, std::memory_order_relaxed);
    tail_.store(0, std::memory_order_release);
  }

 private:
  alignas(128) std::atomic<std::uint64_t> head_{0};
  alignas(128) std::atomic<std::uint64_t> tail_{0};
  std::array<T, Capacity> slots_{};
};

}  // namespace arancini::ingestd
