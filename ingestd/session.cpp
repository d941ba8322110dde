#include "ingestd/session.h"

#include <cstring>

namespace arancini::ingestd {

void Framer::keep(std::span<const std::byte> bytes) {
  const std::size_t size = pending_bytes();
  if (size == 0) begin_ = end_ = 0;
  if (bytes.empty()) return;
  const std::size_t wanted = size + bytes.size();
  if (begin_ + wanted > capacity_) {
    if (wanted > capacity_) {
      // Grows with what has arrived, not with what a header promises.
      const std::size_t capacity = std::max({wanted, capacity_ * 2, std::size_t{4096}});
      auto larger = std::make_unique_for_overwrite<std::byte[]>(capacity);
      if (size > 0) std::memcpy(larger.get(), buffer_.get() + begin_, size);
      buffer_ = std::move(larger);
      capacity_ = capacity;
    } else {
      std::memmove(buffer_.get(), buffer_.get() + begin_, size);
    }
    begin_ = 0;
    end_ = size;
  }
  std::memcpy(buffer_.get() + end_, bytes.data(), bytes.size());
  end_ += bytes.size();
  high_water_ = std::max(high_water_, wanted);
}

void Framer::trim() {
  const std::size_t used = std::exchange(high_water_, pending_bytes());
  if (capacity_ <= kSmallBytes || used > capacity_ / 4) return;
  const std::size_t size = pending_bytes();
  const std::size_t capacity = std::max(kSmallBytes, used * 2);
  auto smaller = std::make_unique_for_overwrite<std::byte[]>(capacity);
  if (size > 0) std::memcpy(smaller.get(), buffer_.get() + begin_, size);
  buffer_ = std::move(smaller);
  capacity_ = capacity;
  begin_ = 0;
  end_ = size;
}

}  // namespace arancini::ingestd
