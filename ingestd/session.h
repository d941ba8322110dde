#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "common/base/error.h"
#include "common/wire/bmp.h"

// BMP framing of one session (RFC 7854 4.1). A frame that lies whole in what was received is handed on where
// it lies; only one that straddles two reads is copied.
namespace arancini::ingestd {

class Framer {
 public:
  explicit Framer(std::uint32_t max_message_bytes) : max_message_bytes_(max_message_bytes) {}

  enum class Status : std::uint8_t {
    NeedMore,  // all whole messages were taken
    Blocked,   // a message was refused: it and everything after it are kept; retry() when there may be room
    Bad,       // framing is lost at offset(), error() says why: nothing more is taken
  };

  // `deliver(span of one whole message)` returns false to refuse it; the span is valid during the call.
  // `ahead` gets the messages that lie whole in `bytes` as well, each up to kAhead messages before it is
  // delivered; what is not delivered then, since one was refused, was shown in vain.
  template <class Deliver, class Ahead>
  Status feed(std::span<const std::byte> bytes, Deliver&& deliver, Ahead&& ahead);
  template <class Deliver>
  Status feed(std::span<const std::byte> bytes, Deliver&& deliver) {
    return feed(bytes, std::forward<Deliver>(deliver), [](std::span<const std::byte>) {});
  }
  static constexpr std::size_t kAhead = 8;
  // Goes on with what is kept after Blocked.
  template <class Deliver>
  Status retry(Deliver&& deliver);

  // Bytes of the stream before the first message that was not delivered.
  [[nodiscard]] std::uint64_t offset() const { return offset_; }
  [[nodiscard]] ErrorCode error() const { return error_; }
  [[nodiscard]] bool blocked() const { return blocked_; }
  // Kept bytes: a part of a message, or more while blocked. They begin at offset().
  [[nodiscard]] std::span<const std::byte> pending() const { return {buffer_.get() + begin_, end_ - begin_}; }
  [[nodiscard]] std::size_t pending_bytes() const { return end_ - begin_; }
  // Before the first byte: the stream was begun elsewhere.
  void begin_at(std::uint64_t offset) { offset_ = offset; }
  [[nodiscard]] std::size_t capacity_bytes() const { return capacity_; }
  // Gives memory back that was not needed since the last call. Not on the data path.
  void trim();

 private:
  static constexpr std::size_t kSmallBytes = 16 * 1024;

  void keep(std::span<const std::byte> bytes);
  Status fail(ErrorCode error) {
    error_ = error;
    blocked_ = false;
    return Status::Bad;
  }

  std::uint32_t max_message_bytes_;
  bool blocked_ = false;
  ErrorCode error_ = ErrorCode::None;
  std::uint64_t offset_ = 0;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t high_water_ = 0;
};

template <class Deliver, class Ahead>
Framer::Status Framer::feed(std::span<const std::byte> bytes, Deliver&& deliver, Ahead&& ahead) {
  if (error_ != ErrorCode::None) return Status::Bad;
  if (blocked_) {
    keep(bytes);
    return Status::Blocked;
  }
  while (end_ > begin_) {
    // The size is known as soon as the common header is there; nothing beyond this one message is copied.
    const wire::Frame start = wire::next_frame(pending(), max_message_bytes_);
    const std::size_t need =
        pending_bytes() < wire::kBmpCommonHeaderBytes ? wire::kBmpCommonHeaderBytes : start.size_bytes;
    const std::size_t take = std::min(need - pending_bytes(), bytes.size());
    keep(bytes.first(take));
    bytes = bytes.subspan(take);
    const wire::Frame frame = wire::next_frame(pending(), max_message_bytes_);
    if (frame.status == wire::Frame::Status::Bad) return fail(frame.error);
    if (frame.status == wire::Frame::Status::NeedMore) {
      if (bytes.empty()) return Status::NeedMore;
      continue;
    }
    if (!std::forward<Deliver>(deliver)(pending())) {
      keep(bytes);
      blocked_ = true;
      return Status::Blocked;
    }
    offset_ += frame.size_bytes;
    begin_ = end_ = 0;
  }
  // Sizes of the messages that were shown and not delivered yet: they are at the start of `bytes`.
  std::array<std::uint32_t, kAhead> shown{};
  std::size_t first = 0;
  std::size_t count = 0;
  std::span<const std::byte> rest = bytes;  // behind them
  wire::Frame frame;
  for (;;) {
    while (count < kAhead) {
      frame = wire::next_frame(rest, max_message_bytes_);
      if (frame.status != wire::Frame::Status::Ready) break;
      std::forward<Ahead>(ahead)(rest.first(frame.size_bytes));
      shown[(first + count++) % kAhead] = frame.size_bytes;
      rest = rest.subspan(frame.size_bytes);
    }
    if (count == 0) break;
    const std::uint32_t size = shown[first];
    if (!std::forward<Deliver>(deliver)(bytes.first(size))) {
      keep(bytes);
      blocked_ = true;
      return Status::Blocked;
    }
    first = (first + 1) % kAhead;
    --count;
    offset_ += size;
    bytes = bytes.subspan(size);
  }
  if (frame.status == wire::Frame::Status::Bad) return fail(frame.error);
  keep(bytes);
  return Status::NeedMore;
}

template <class Deliver>
Framer::Status Framer::retry(Deliver&& deliver) {
  if (error_ != ErrorCode::None) return Status::Bad;
  for (;;) {
    const wire::Frame frame = wire::next_frame(pending(), max_message_bytes_);
    switch (frame.status) {
      case wire::Frame::Status::NeedMore: blocked_ = false; return Status::NeedMore;
      case wire::Frame::Status::Bad: return fail(frame.error);
      case wire::Frame::Status::Ready: break;
    }
    if (!std::forward<Deliver>(deliver)(pending().first(frame.size_bytes))) {
      blocked_ = true;
      return Status::Blocked;
    }
    offset_ += frame.size_bytes;
    begin_ += frame.size_bytes;
  }
}

}  // namespace arancini::ingestd
