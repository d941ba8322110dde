#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/recording/entries.h"

namespace arancini::recording {

// One call of a recording. Spans lie in the reader and are valid until its next call.
struct Call {
  struct Learnt {
    Entry kind{};              // Time to Adopted
    std::uint64_t first = 0;   // boot time, position, field, or 1: all routers
    std::uint64_t second = 0;  // real time, or value
    IpAddress address;         // of DumpAsked
    std::span<const std::byte> bytes;
  };
  Entry kind{};
  std::uint32_t session = 0;
  IpAddress address;
  std::uint16_t port = 0;
  bool flag = false;  // throttled, restoring
  std::uint32_t code = 0;
  std::span<const std::byte> bytes;  // message, or text of an error
  std::vector<Learnt> learnt;
  std::uint32_t result = 0;
  // Of Publish.
  std::uint64_t tail = 0, next_sequence = 0;
  std::uint32_t record_bytes = 0, record_crc = 0;
};

// Reads a recording from its start to its end. Contents are untrusted: every length is checked.
class Reader {
 public:
  // The error is one line: what is wrong with which file.
  static Result<Reader, std::string> open(const std::string& path);
  Reader(Reader&&) noexcept;
  Reader& operator=(Reader&&) noexcept;
  ~Reader();

  [[nodiscard]] const Start& start() const;
  // The next whole call; false at the end, then end_text() says what kind of end it is.
  bool next(Call& call);
  // True: the recording was ended by who made it and all of it was read.
  [[nodiscard]] bool complete() const;
  [[nodiscard]] const std::string& end_text() const;

 private:
  struct State;
  explicit Reader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// `start` as the first bytes of a recording's data.
std::vector<std::byte> encode_start(const Start& start);

}  // namespace arancini::recording
