#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/base/config.h"
#include "common/base/types.h"
#include "common/nats/nats_settings.h"
#include "publishd/drain.h"
#include "publishd/journal_store.h"
#include "shm-layout/record.h"

// What was told about the routers of a shard, from where the caller has it (DESIGN 4.5,
// common/proto/log.proto). Cold: on a thread of the caller's, with a NATS connection of its own; all that it
// takes from the hot thread are atomics. Knows no gRPC.
namespace arancini::publishd {

// Where the log is. All of it outlives the readers.
struct LogPlace {
  std::string runtime_dir;
  SinkKind sink = SinkKind::Nats;
  NatsSettings nats;
  std::string updates_stream;
  std::string subject_prefix;
  const Journal* journal = nullptr;  // null: none, the sink is NATS
  const LogEnd* end = nullptr;       // of the drain; null: the sink is the journal
  const std::atomic<bool>* stop = nullptr;
};

struct LogRequest {
  ShardId shard{};
  std::uint32_t shard_count = 1;
  WriterId writer;  // the caller's ring
  std::uint64_t log_sequence = 0;
  std::uint64_t log_identity = 0;  // 0: the caller has nothing
  RingPosition ring_position{};    // not 0: see ReadRequest
};

struct LogBegin {
  bool local = false;
  std::uint64_t log_identity = 0;
  std::uint64_t from_sequence = 0;
  std::uint64_t first_sequence = 0;
  std::uint64_t last_sequence = 0;
  bool other_log = false;
};

// Takes the parts in order; false: nobody wants more. Views are valid during the call.
class LogSink {
 public:
  virtual ~LogSink() = default;
  [[nodiscard]] virtual bool begin(const LogBegin& begin) = 0;
  [[nodiscard]] virtual bool message(std::uint64_t log_sequence, std::string_view format,
                                     std::span<const std::byte> payload) = 0;
  [[nodiscard]] virtual bool record(const WriterId& writer, RingPosition position,
                                    const shm::RecordHeader& header, std::span<const std::byte> payload) = 0;
  [[nodiscard]] virtual bool waiting(const std::string& text) = 0;
  [[nodiscard]] virtual bool done(RingPosition ring_position, std::uint64_t log_identity,
                                  std::uint64_t log_sequence) = 0;
  [[nodiscard]] virtual bool cancelled() = 0;
};

// Returns when all is told, when the sink wants no more, or when `stop` is set; takes as long as it takes.
void read_log(const LogPlace& place, const LogRequest& request, LogSink& sink);

// The router of "<prefix>.updates.<router>.…"; nullopt: of another form.
std::optional<IpAddress> router_of_subject(std::string_view prefix, std::string_view subject);

}  // namespace arancini::publishd
