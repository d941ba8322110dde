#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/types.h"

// The tail of the stream decides what is already there (DESIGN 4.3). No NATS and no clock in here.
namespace arancini::publishd {

// Up to where one ring knows the stream (RingReaderLine::floor_stream_sequence). A fresh ring has none.
struct Floor {
  std::uint64_t stream_sequence = 0;
  std::uint64_t stream_created_ns = 0;
  friend bool operator==(const Floor&, const Floor&) = default;
};

// Updates of `writer` on `subject` up to and including `last` are in the stream.
struct Stored {
  WriterId writer;
  std::string subject;
  Sequence last{};
};

struct Tail {
  std::uint64_t last_sequence = 0;  // of the stream, when the tail was read
  std::uint64_t created_ns = 0;
  std::uint64_t messages_read = 0;
  std::uint64_t missing =
      0;  // messages above the floor that the stream does not hold any more (limits, deletion)
  std::vector<Stored> stored;  // one per (writer, subject)
};

// What read_tail() asks the broker; calls may block.
class TailSource {
 public:
  virtual ~TailSource() = default;
  struct State {
    std::uint64_t first_sequence = 0;
    std::uint64_t last_sequence = 0;
    std::uint64_t created_ns = 0;
  };
  virtual std::optional<State> state() = 0;  // nullopt: failed, try the whole again
  enum class Get : std::uint8_t { Message, Missing, Failed };
  struct Message {
    std::string subject;
    std::optional<WriterId> writer;  // none: not one of ours
    Sequence last{};
  };
  virtual Get get(std::uint64_t stream_sequence, Message& out) = 0;
};

// Where reading must start: above the lowest floor; at 0 where a floor is about another stream of that name.
std::uint64_t tail_start(const TailSource::State& state, std::span<const Floor> floors);

// Reads (floor, last]. Nullopt when the source failed.
std::optional<Tail> read_tail(TailSource& source, std::span<const Floor> floors);

}  // namespace arancini::publishd
