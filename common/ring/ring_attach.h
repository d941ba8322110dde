#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/ring/ring_reader.h"

namespace arancini {

// Passive discovery of one ring for the reader (DESIGN 4.4): a state machine that is polled off the hot path.
class RingAttach {
 public:
  enum class State : std::uint8_t { Waiting, Connected, Disconnected };
  enum class Reason : std::uint8_t {
    None,
    NotThere,      // Waiting: no file yet
    LockedByOther, // Waiting: another reader lives
    Incompatible,  // Disconnected: text() says what differs; polled on, the file may be replaced
    Corrupt,       // Disconnected by disconnect()
    Replaced,      // the name leads to another ring
    System,
  };

  explicit RingAttach(std::string path) : path_(std::move(path)) {}

  // Tries to attach when not connected. Returns a reader at the moment of connecting, once.
  std::optional<RingReader> poll();
  // Told by the owner of the reader that it has given the reader up.
  void disconnect(Reason reason);

  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] Reason reason() const { return reason_; }
  [[nodiscard]] const std::string& text() const { return text_; }  // one line for the operator
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  State state_ = State::Waiting;
  Reason reason_ = Reason::NotThere;
  std::string text_;
};

}  // namespace arancini
