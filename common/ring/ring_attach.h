#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/ring/ring_reader.h"
#include "common/shm/shared_file.h"

namespace arancini {

// Passive discovery of one ring for the reader (DESIGN 4.4): a state machine that is polled off the hot path.
// Rings that were moved aside (`path`.old-N) come first, oldest first; one that is drained is deleted and its
// successor is next. So the owner of a reader does, when the reader is Empty: `if
// (reader.file().replaced())`, look once more with next(), and when it is still Empty and head == cursor:
// destroy the reader, disconnect(Reason::Replaced), poll().
class RingAttach {
 public:
  enum class State : std::uint8_t { Waiting, Connected, Disconnected };
  enum class Reason : std::uint8_t {
    None,
    NotThere,       // Waiting: no file yet
    LockedByOther,  // Waiting: another reader lives
    Incompatible,   // Disconnected: text() says what differs; polled on, the file may be replaced
    Corrupt,        // Disconnected by disconnect(); stays so until another file has the name
    Replaced,       // the name leads to another ring
    System,
  };

  explicit RingAttach(std::string path) : path_(std::move(path)) {}

  // Tries to attach when not connected. Returns a reader at the moment of connecting, once.
  std::optional<RingReader> poll();
  // Told by the owner of the reader that it has given the reader up; `detail` (e.g.
  // RingReader::corrupt_text()) goes into text().
  void disconnect(Reason reason, const std::string& detail = {});

  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] Reason reason() const { return reason_; }
  [[nodiscard]] const std::string& text() const { return text_; }  // one line for the operator
  [[nodiscard]] const std::string& path() const { return path_; }
  // The file of the present or last reader: path() or one that was moved aside.
  [[nodiscard]] const std::string& attached_path() const { return attached_path_; }

 private:
  void enter(State state, Reason reason, std::string text);

  std::string path_;
  State state_ = State::Waiting;
  Reason reason_ = Reason::NotThere;
  std::string text_;
  std::string attached_path_;
  FileIdentity attached_{};
  std::optional<FileIdentity> corrupt_;
};

}  // namespace arancini
