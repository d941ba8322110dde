#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/nats/nats_settings.h"

// Reads a stream in order, of JetStream (stream_reader.cpp, the only file of tools that sees nats.h) or in a
// journal (journal_stream.cpp).
namespace arancini::tools {

struct StreamError {
  int exit_code = 0;
  std::string text;  // what, where, what to do
};

// Valid within the callback only.
class StreamMessage {
 public:
  virtual ~StreamMessage() = default;
  [[nodiscard]] virtual std::uint64_t stream_sequence() const = 0;
  [[nodiscard]] virtual std::string_view subject() const = 0;
  [[nodiscard]] virtual std::span<const std::byte> payload() const = 0;
  // Empty when the message has no such header.
  [[nodiscard]] virtual std::string_view header(const char* name) const = 0;
};

class StreamReader {
 public:
  // No end for read(): it follows the stream.
  static constexpr std::uint64_t kFollow = UINT64_MAX;

  struct Position {
    std::uint64_t first_sequence = 0;  // of what the stream still has
    std::uint64_t last_sequence = 0;   // 0: nothing was ever written
    std::uint64_t messages = 0;
    std::uint64_t bytes = 0;
  };

  virtual ~StreamReader() = default;

  // `filter`: a subject filter, ">" for the whole stream.
  static Result<std::unique_ptr<StreamReader>, StreamError> open(const NatsSettings& nats,
                                                                 const std::string& stream,
                                                                 const std::string& filter);

  [[nodiscard]] virtual Result<Position, StreamError> position() = 0;

  // Calls `each` for every message from stream sequence `from` to `to`, in order and once, until it returns
  // false. Connection hiccups are ridden out: reading goes on behind the last message seen. Nothing is acked,
  // and the consumer (in memory, ephemeral) is gone afterwards.
  [[nodiscard]] virtual std::optional<StreamError> read(
      std::uint64_t from, std::uint64_t to, const std::function<bool(const StreamMessage&)>& each) = 0;

  // Places where something was lost that had been stored; each was told on stderr.
  [[nodiscard]] virtual std::uint64_t damaged() const { return 0; }
};

}  // namespace arancini::tools
