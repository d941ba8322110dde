#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/config.h"
#include "common/base/error.h"
#include "common/schema/batch_expander.h"
#include "common/schema/batch_writer.h"
#include "publishd/ack_window.h"
#include "publishd/broker.h"
#include "publishd/group.h"
#include "publishd/hot_core.h"
#include "publishd/lane.h"
#include "publishd/record_source.h"
#include "publishd/subject.h"

namespace arancini {
class Logger;
}

// From rings to stream, exactly once and in order (docs/decisions/0002). Knows no NATS, no clock and no
// thread: whoever calls do_work() drives it, the simulator included.
namespace arancini::publishd {

struct DrainOptions {
  std::string subject_prefix = "arancini";
  PublishFormat format = PublishFormat::UpdateV1Concat;
  std::uint32_t batch_bytes = 64 * 1024;
  std::uint32_t batch_count = 1024;
  // In a stream with replicas messages go one by one, and are larger for it: at least this.
  std::uint32_t replicated_batch_bytes = 512 * 1024;
  AckWindow::Limits in_flight;
  std::uint64_t ack_timeout_ns = 10'000'000'000;
  // A group is sent at the latest after this: while rings have more to read, and when they are empty but many
  // messages are under way (with few, it is sent at once).
  std::uint64_t linger_busy_ns = 20'000'000;
  std::uint64_t linger_dry_ns = 1'000'000;
  std::size_t eager_messages = 4;
  std::size_t round_bytes = 256 * 1024;           // read from one ring before the next has its turn
  std::size_t ahead_bytes = 4 * 1024 * 1024;      // looked at per ring and round while the window is full
  std::uint64_t spill_after_ns = 250'000'000;     // no progress in that time: rings that fill up spill
  std::size_t open_bytes = 64 * 1024 * 1024;      // in open groups; above, the oldest are sent
  std::uint64_t stop_timeout_ns = 5'000'000'000;  // for acks, at stop
  std::uint64_t id_nonce = 0;                     // of this life: no other life's messages have these ids
  std::uint64_t (*realtime_ns)() = nullptr;       // for events; null: they have no time
  static DrainOptions from(const Config& config);
};

// The log that consumers read, as far as this life of publishd knows it; for other threads. `identity` is
// stored last.
struct LogEnd {
  std::atomic<std::uint64_t> identity{0};  // as in the rings' headers; 0: not known yet, or just changing
  std::atomic<std::uint64_t> sequence{0};  // what lies below the rings' `published` is at or below this
};

// Room that headers and subject take in a message at most; the rest of the broker's maximum is payload.
inline constexpr std::size_t kHeaderReserveBytes = 1024;

class Drain final : public HotCore {
 public:
  // `log` may be null.
  Drain(DrainOptions options, Broker& broker, Logger* log);
  ~Drain() override;

  // `name` comes back in Detached and stands in logs. Nothing of the ring is published before the stream was
  // asked what it has of it. `first`: what another life left; it is published before anything of a ring that
  // is added without (or later).
  void add_ring(std::unique_ptr<RecordSource> source, std::string name, bool first = false);

  enum class Leave : std::uint8_t { Corrupt, Drained };
  struct Detached {
    std::string name;
    Leave reason = Leave::Drained;
  };
  // Rings that were given up since the last call.
  std::optional<Detached> poll_detached();

  std::size_t do_work(std::uint64_t now_ns) noexcept override;
  [[nodiscard]] std::uint64_t idle_ns() const override;
  [[nodiscard]] bool arm(std::vector<FutexWait>& waits) override;
  void disarm() override;
  void heartbeat(std::uint64_t boottime_ns) override;

  // Open groups are sent, acks waited for, heads released.
  void stop(std::uint64_t now_ns) override;
  [[nodiscard]] bool stopped() const override { return phase_ == Phase::Stopped; }
  [[nodiscard]] std::size_t rings_connected() const override;

  enum class Phase : std::uint8_t {
    Opening,  // waits for a session of the broker
    Publishing,
    Quiescing,   // something went wrong, or a ring came: waits for the open acks
    BackingOff,  // before the next session, after one that brought nothing
    Stopped,
  };
  [[nodiscard]] Phase phase() const { return phase_; }
  // Why publishing stopped last; None once something is stored again, or nothing is left to be.
  [[nodiscard]] ErrorCode trouble() const { return trouble_; }

  [[nodiscard]] std::uint64_t floor() const { return floor_; }
  [[nodiscard]] const LogEnd& log_end() const { return log_end_; }

 private:
  struct Ring;
  // Blocked: no room in the window, or the session ended. Failed: the ring is corrupt there.
  enum class Step : std::uint8_t { Done, Blocked, Failed };

  std::size_t run_acks();
  std::size_t run_records();
  std::size_t run_flush(bool aged_only);
  std::size_t run_spill();
  std::size_t run_events();
  void run_release();
  void run_detach();
  void check_session();
  [[nodiscard]] bool events_stuck(std::uint64_t for_ns) const;

  // Records into lanes (drain_records.cpp).
  std::size_t read_ring(Ring& ring);
  [[nodiscard]] bool has_turn(const Ring& ring) const;
  [[nodiscard]] bool read_record(Ring& ring);
  Step place(Ring& ring);
  Step pass_barrier_for_all(Ring& ring);
  void pop_queued(Lane& lane);
  Lane* lane_of(Ring& ring, const RingRecord& record);
  Lane& lane(Ring& ring, std::uint32_t index);
  void note_base(Ring& ring, const RingRecord& record);
  std::size_t serve_lanes();
  // Lanes into groups, groups into messages.
  Step take(Ring& ring, Lane& lane, const RingRecord& record);
  bool begin_record(Ring& ring, Lane& lane, const RingRecord& record);
  Step take_barrier(const Lane& lane);
  Step take_event(Ring& ring, Lane& lane, const RingRecord& record);
  Lane* lane_of_event(Ring& ring, const RingRecord& record);
  Step take_batch(Ring& ring, Lane& lane, const RingRecord& record);
  Step take_expanded(Ring& ring, Lane& lane, const RingRecord& record);
  Group* room_in_group(Ring& ring, Lane& lane, const RingRecord& record, PublishFormat format,
                       std::size_t bytes, std::uint32_t updates);
  [[nodiscard]] bool is_full(const Group& group) const;
  [[nodiscard]] bool is_again(const Group& group) const;
  [[nodiscard]] bool waits_for_again(const Lane& lane) const;
  void send_if_full(Group& group);
  std::size_t send_full();
  bool send(Group& group);
  void mark_corrupt(Ring& ring, std::string_view why, RingPosition at);

  void give_up(ErrorCode why, bool reconnect, std::string_view text);
  void begin_session();
  std::size_t run_opening();
  // What is wrong with the stream as a continuation of the one that was published to; empty: nothing.
  [[nodiscard]] std::string epoch_reason(const Tail& tail) const;
  void tell_epoch(const Tail& tail, std::string why);
  void adopt(const Session& session);
  // Names the stream as a log: created then, and gone back so many times since.
  [[nodiscard]] std::uint64_t log_identity(const Tail& tail) const;
  void adopt_ring(Ring& ring, const Tail& tail);
  [[nodiscard]] std::size_t batch_limit() const;
  [[nodiscard]] std::uint32_t count_limit(PublishFormat format) const;

  DrainOptions options_;
  Broker& broker_;
  Logger* log_;

  std::vector<std::unique_ptr<Ring>>
      rings_;                   // slots are never re-used: messages name them; null once detached
  std::size_t first_ring_ = 0;  // whose turn it is
  LaneTurn turn_;
  struct FullGroup {
    std::uint32_t ring = 0;
    SubjectId subject{};
    Sequence first{};
  };
  // An event waits until everything of its router that was written before is acked.
  struct WaitingEvent {
    std::uint32_t ring = 0;
    std::uint32_t lane = 0;
    HoldId hold{};
    bool sent = false;
    OutgoingEvent event;
  };
  std::optional<Session> epoch_;  // found, and adopted once the event that says so is stored
  std::deque<WaitingEvent> events_;
  std::uint64_t event_token_ = 0;      // of events_.front()
  std::uint64_t events_since_ns_ = 0;  // since when an event waits without any being stored; 0: none
  std::deque<FullGroup> full_;         // groups that wait for room in the window alone
  schema::BatchExpander
      expander_;  // the record at work: of this ring (slot), beginning there, on this subject
  schema::BatchWriter batch_writer_;
  std::optional<std::uint32_t> expanded_ring_;
  RingPosition expanded_begin_{};
  SubjectId subject_{};
  SubjectTable subjects_;
  GroupTable groups_;
  AckWindow window_;
  std::vector<Detached> detached_;

  Phase phase_ = Phase::Opening;
  ErrorCode trouble_ = ErrorCode::None;
  bool session_requested_ = false;
  bool session_wanted_ = false;  // a ring came that the present session does not know
  bool reconnect_ = false;
  bool stopping_ = false;
  bool release_due_ = false;
  bool dry_ = false;               // the last round found all rings empty
  bool blocked_ = false;           // the last round ended because the window was full
  std::uint64_t deadline_ns_ = 0;  // of Quiescing and BackingOff
  std::uint64_t stop_deadline_ns_ = 0;
  std::uint64_t detach_check_ns_ = 0;
  std::uint32_t fruitless_sessions_ = 0;  // in a row without a stored message
  std::uint64_t stored_in_session_ = 0;
  std::uint64_t session_began_ns_ = 0;
  std::uint64_t progress_ns_ = 0;  // when an ack came last, or there was nothing to wait for
  std::uint64_t session_number_ = 0;
  bool replicated_ = false;  // the present stream
  // In a stream with replicas: the message under way, and after its session the one of which nobody knows
  // whether some replica has stored it. Who was cut off may keep it, whatever the others store in its place
  // (decision 0002): so the same goes there again.
  struct Unanswered {
    std::uint32_t ring = 0;
    SubjectId subject{};
    std::uint32_t lane = 0;
    Sequence first{};
    Sequence last{};
    std::uint64_t expected_last_sequence = 0;
  };
  std::optional<Unanswered> unanswered_;
  bool again_ = false;  // nothing is sent before it

  std::uint64_t created_ns_ = 0;  // of the stream
  std::uint64_t identity_ = 0;    // of the log
  LogEnd log_end_;
  std::uint64_t floor_ = 0;
  std::size_t max_payload_bytes_ = 0;
  std::array<char, 160> message_id_{};
  std::array<char, 160> previous_id_{};
};

std::string_view to_string(Drain::Phase phase);

}  // namespace arancini::publishd
