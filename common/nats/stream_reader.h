#pragma once

#include <atomic>
#include <chrono>
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

// Reads a stream in order: of JetStream (stream_reader.cpp), or in a journal (tools/journal_stream.cpp).
namespace arancini {

// What a tool ends with that could not read: of sysexits.h, or this one for what is not whole any more.
inline constexpr int kStreamIncomplete = 3;

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
    std::uint64_t created_ns = 0;  // names the stream among those that had its name; 0: not known
  };

  virtual ~StreamReader() = default;

  struct Options {
    std::string client = "aranctl";           // name of the connection
    std::chrono::seconds patience{60};        // of read(), without any answer from the server
    const std::atomic<bool>* stop = nullptr;  // true: read() ends soon, as unavailable
  };
  // `filter`: a subject filter, ">" for the whole stream. Fails when the stream is not there or cannot be
  // asked.
  static Result<std::unique_ptr<StreamReader>, StreamError> open(const NatsSettings& nats,
                                                                 const std::string& stream,
                                                                 const std::string& filter, Options options);
  // The same without asking: position() and read() connect where there is no connection.
  static std::unique_ptr<StreamReader> make(const NatsSettings& nats, const std::string& stream,
                                            const std::string& filter, Options options);

  [[nodiscard]] virtual Result<Position, StreamError> position() = 0;

  // Calls `each` for every message from stream sequence `from` to `to`, in order and once, until it returns
  // false. Connection hiccups are ridden out: reading goes on behind the last message seen. Nothing is acked,
  // and the consumer (in memory, ephemeral) is gone afterwards.
  [[nodiscard]] virtual std::optional<StreamError> read(
      std::uint64_t from, std::uint64_t to, const std::function<bool(const StreamMessage&)>& each) = 0;

  // Places where something was lost that had been stored; each was told on stderr.
  [[nodiscard]] virtual std::uint64_t damaged() const { return 0; }
};

}  // namespace arancini
