#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/types.h"
#include "common/metrics/stats_file.h"
#include "common/ring/ring_writer.h"
#include "ingestd/segment_pool.h"

// Everything of one shard between a whole BMP message and a ring record: routers, peers, tables, curation.
// One thread, no I/O, no locks; time comes in. (decode -> curate -> encode, DESIGN 3)
//
// Of IngestMetric the shard keeps all but SessionsAccepted, SessionsHandedOver, SessionsRefused,
// BytesReceived and LoopIterations, which are the loop's.
namespace arancini::ingestd {

enum class SessionId : std::uint32_t {};

class HotTasks;
class ShardWitness;

class Shard {
 public:
  // All borrowed; they outlive the shard. Routers and peers are limited by the rows of `stats`. Same seed,
  // input and times: same records (a sweep's order is that of the hash).
  Shard(const Config& config, RingWriter& ring, StatsWriter& stats, Logger& log, const Clock& clock,
        const HashSeed& seed = HashSeed::random());
  ~Shard();
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;

  // A session of the router at `source` begins. A router may have several at once. Over the limit of routers
  // the session is there, but everything it says is skipped.
  SessionId open_session(const IpAddress& source, std::uint16_t port);

  enum class Applied : std::uint8_t {
    Done,    // the message is applied, all its records are appended
    NoRoom,  // the ring is full: nothing, or a whole number of slices, was applied. Call again with the same
             // message (its bytes may have moved) before any other of the session, when there is room, or
             // after the next do_work(); the slices that are done are not done again. With drop-newest only
             // for want of memory, or while a peer's former routes are given up in slices
  };
  // One whole BMP message (wire::next_frame said Ready). Malformed content is counted and located, never
  // fatal. The clock is read at the first call after do_work(): all messages of a loop have the same receive
  // time.
  Applied apply(SessionId session, std::span<const std::byte> message);
  // `message`, of the same kind, will be given to apply() soon, after those that were shown before: at most
  // kLookAhead at a time, whose bytes stay where they are until then, or until apply() is given another
  // message than the first of them, answers NoRoom, or do_work() or close_session() is called. Changes
  // nothing but how fast that is.
  void look_ahead(SessionId session, std::span<const std::byte> message);
  static constexpr std::size_t kLookAhead = 8;

  // Counts a framing error or another reason for a session's end that the shard cannot see; kept in the
  // router's row.
  void session_error(SessionId session, ErrorCode code, std::string_view text);
  // The connection is gone. Its peers' tables are kept for the grace time, then withdrawn. The id may be
  // given to another.
  void close_session(SessionId session);
  // The loop does not read from the session for want of room. What is not read cannot be missed: re-syncs
  // wait.
  void set_throttled(SessionId session, bool throttled);
  // A session that the loop should close (and then close_session()): a newer one told its routes and is gone,
  // so what this one said meanwhile was ignored, and only a new dump makes it whole. Each is returned once.
  std::optional<SessionId> take_session_to_close();

  // While true, apply() answers NoRoom to everything: the tables are not yet what downstream was told.
  void set_restoring(bool restoring);
  void set_witness(ShardWitness* witness);  // borrowed; nullptr: none
  // What other threads want done here; do_work() does a slice of each, finish() ends them all. Call
  // tasks().clear_wake() when its wake_fd() was readable.
  [[nodiscard]] HotTasks& tasks();

  struct Work {
    bool more = false;                   // call again soon: sweeps are running
    std::uint64_t next_deadline_ns = 0;  // boot time of the next timer, 0 if none
  };
  // Timers and a bounded slice of sweeps. Call once per loop.
  Work do_work();

  // The process ends: says what was dropped and not told yet, as far as there is room. publish() follows.
  void finish();

  // Makes all appended records visible to the reader. Call once per loop, after apply() and do_work().
  void publish() { ring_.publish(); }

  struct Impl;
  [[nodiscard]] Impl& impl() { return *impl_; }  // for tests: what the tables hold

 private:
  RingWriter& ring_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace arancini::ingestd
