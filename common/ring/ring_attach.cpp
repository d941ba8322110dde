#include "common/ring/ring_attach.h"

#include <utility>
#include <vector>

namespace arancini {

void RingAttach::enter(State state, Reason reason, std::string text) {
  state_ = state;
  reason_ = reason;
  text_ = std::move(text);
}

std::optional<RingReader> RingAttach::poll() {
  if (state_ == State::Connected) return std::nullopt;
  std::vector<std::string> candidates = RingFile::moved_aside(path_);
  candidates.push_back(path_);
  for (const std::string& name : candidates) {
    const bool aside = name != path_;
    FileIdentity there;
    if (corrupt_ && identify(name, there) && there == *corrupt_) return std::nullopt;  // text() stands
    auto file = RingFile::attach(name, RingSide::Reader, path_);
    if (!file) {
      const RingFileError& error = file.error();
      switch (error.kind) {
        case RingFileError::Kind::Missing:
          if (aside) continue;
          enter(State::Waiting, Reason::NotThere, error.text);
          return std::nullopt;
        case RingFileError::Kind::Locked:
          enter(State::Waiting, Reason::LockedByOther, error.text);
          return std::nullopt;
        case RingFileError::Kind::Incompatible:
          // Its records come before those of its successor, so the successor has to wait (DESIGN 4.4).
          enter(State::Disconnected, Reason::Incompatible,
                aside ? error.text +
                            "; drain it with the version that wrote it, or delete it and lose its records"
                      : error.text);
          return std::nullopt;
        case RingFileError::Kind::NoHugepages:
        case RingFileError::Kind::System:
          enter(State::Disconnected, Reason::System, error.text);
          return std::nullopt;
      }
    }
    const shm::RingHeader& header = file->header();
    // Nobody writes to a ring that was moved aside (its writer's lock was held meanwhile): drained is
    // drained.
    if (aside && header.reader.head.load(std::memory_order_acquire) ==
                     header.writer.tail.load(std::memory_order_acquire)) {
      file->remove();
      continue;
    }
    corrupt_.reset();
    attached_path_ = name;
    identify(name, attached_);
    enter(State::Connected, Reason::None, "ring " + name + " attached");
    return RingReader(std::move(file).value());
  }
  return std::nullopt;
}

void RingAttach::disconnect(Reason reason, const std::string& detail) {
  const std::string suffix = detail.empty() ? "" : " (" + detail + ")";
  switch (reason) {
    case Reason::None:
    case Reason::NotThere:
    case Reason::LockedByOther:
    case Reason::Incompatible:
    case Reason::System:
      enter(State::Disconnected, reason, "ring " + attached_path_ + " given up" + suffix);
      break;
    case Reason::Corrupt:
      corrupt_ = attached_;
      enter(State::Disconnected, reason,
            "ring " + attached_path_ + " is corrupt" + suffix + "; stop its writer and move the file away");
      break;
    case Reason::Replaced:
      enter(State::Disconnected, reason, "ring " + attached_path_ + " is drained and replaced" + suffix);
      break;
  }
}

}  // namespace arancini
