#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "publishd/broker.h"

// Events into their stream: each once, in order per subject. They are few, so they go one by one; what is
// there already is asked of the stream, and the place behind it is claimed (docs/decisions/0002). No NATS and
// no clock in here.
namespace arancini::publishd {

// What the sender asks of the events stream; calls may block.
class EventStore {
 public:
  virtual ~EventStore() = default;
  struct Last {
    std::uint64_t stream_sequence = 0;  // 0: no message on that subject
    WriterId writer;                    // zeros: not one of ours
    std::uint64_t sequence = 0;         // of the event
  };
  // Nullopt: failed, nothing is known.
  virtual std::optional<Last> last_on(const std::string& subject) = 0;
  // Stores it if the last message on its subject is the one with stream sequence `after` (0: none). The
  // stream sequence, or nullopt: refused or failed, it may or may not be there.
  virtual std::optional<std::uint64_t> put(const OutgoingEvent& event, std::uint64_t after) = 0;
};

class EventSender {
 public:
  // True: the event is in the stream, now or from before. False: failed, the same event comes again.
  [[nodiscard]] bool send(EventStore& store, const OutgoingEvent& event);

 private:
  std::unordered_map<std::string, EventStore::Last> last_;  // by subject; what is not here is asked
};

}  // namespace arancini::publishd
