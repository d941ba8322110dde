#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/config.h"
#include "common/base/error.h"
#include "common/base/types.h"
#include "publishd/tail.h"

// What the drain needs from a broker. jetstream.h is the real one; tests and the simulator have theirs.
namespace arancini::publishd {

// One message to be stored. Views are valid during send() only.
struct Outgoing {
  std::uint64_t index = 0;   // within the session; comes back in the ack
  const char* subject = "";  // zero-terminated
  PublishFormat format = PublishFormat::UpdateV1Concat;
  const char* writer_hex = "";  // zero-terminated
  ShardId shard{};
  Sequence first{};
  Sequence last{};
  std::uint32_t count = 0;
  // The stream must end with exactly this message, or this one is not stored (docs/decisions/0002).
  std::uint64_t expected_last_sequence = 0;
  const char* message_id = "";  // names the record set
  // Of the message before; empty for the first one of a session, and in a stream with replicas.
  const char* previous_message_id = "";
  std::span<const std::byte> payload;
};

enum class AckError : std::uint32_t {
  None = 0,
  WrongLast = 1,
  Rejected = 2,
  NoResponders = 3,
  Malformed = 4
};

struct Ack {
  std::uint64_t index = 0;
  std::uint64_t stream_sequence = 0;
  bool duplicate = false;
  AckError error = AckError::None;
  std::uint32_t server_code = 0;                 // JetStream's err_code, for the log
  ErrorCode cause = ErrorCode::PublishRejected;  // of Rejected: what the server's code means
};

// One event to be stored in the events stream (docs/stream.md), in order per subject and once.
struct OutgoingEvent {
  std::uint64_t token = 0;  // comes back when it is stored
  std::string subject;
  WriterId writer;
  std::uint64_t sequence = 0;  // of the event, rising within the writer
  ShardId shard{};
  // The updates stream's sequence of the last message that was acked before: what the event comes after is at
  // or below.
  std::uint64_t after_stream_sequence = 0;
  std::vector<std::byte> payload;
};

// A connection to a stream that was found usable, with what the tail of the stream already holds.
struct Session {
  Tail tail;
  std::size_t max_message_bytes = 0;  // headers and payload of one message
  // More than one replica: they cannot be relied on to know the last message's id (docs/decisions/0002).
  bool replicated = false;
};

struct SessionRequest {
  bool reconnect = false;  // do not trust the present connection
  std::vector<Floor> floors;
};

class Broker {
 public:
  virtual ~Broker() = default;

  // Ends the present session: none of its acks is delivered any more. Asks for a new one; poll_session()
  // delivers it, once, after however many attempts it takes. Never blocks.
  virtual void begin_session(const SessionRequest& request) = 0;
  virtual std::optional<Session> poll_session() = 0;
  // False once the connection under the session is gone; open acks will not come then.
  [[nodiscard]] virtual bool session_alive() const = 0;
  // The server is about to go, open acks still come: send nothing more, wait for them, begin a new session.
  [[nodiscard]] virtual bool session_leaving() const { return false; }

  // Hands a message over; false: it may or may not have left, the session must be given up.
  [[nodiscard]] virtual bool send(const Outgoing& message) = 0;
  // The next ack of this session, in order of arrival.
  [[nodiscard]] virtual bool poll_ack(Ack& out) = 0;

  // Stores it, trying as long as this session lasts; false: too many wait already, come again. Never blocks.
  [[nodiscard]] virtual bool send_event(const OutgoingEvent& event) = 0;
  // The token of an event of this session that is stored, now or by a former session.
  [[nodiscard]] virtual std::optional<std::uint64_t> poll_event() = 0;
};

}  // namespace arancini::publishd
