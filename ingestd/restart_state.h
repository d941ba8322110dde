#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/base/types.h"
#include "common/wire/bgp_update.h"

// What an ingestd leaves to its successor at a planned restart
// (docs/decisions/0014-restart-without-drops.md), as plain data: restart_export.h fills it from a shard,
// restart_adopt.h gives it to another one.
namespace arancini::ingestd {

struct RestartSession {
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  std::uint64_t serial = 0;
  std::uint32_t router = kNone;  // index in RestartState::routers; kNone: it has not said who it is
  IpAddress source;
  std::uint16_t port = 0;
  std::uint64_t opened_realtime_ns = 0;
  std::uint64_t messages = 0, bytes = 0;
  // As Session::Progress; `pending` begins with that message.
  bool in_progress = false;
  std::uint8_t field = 0;
  bool judged = false, path_ids = false;
  std::uint32_t superseded = 0, offset_bytes = 0;
  // The loop's part.
  std::uint64_t stream_offset = 0;
  std::vector<std::byte> pending;
  friend bool operator==(const RestartSession&, const RestartSession&) = default;
};

struct RestartTable {
  enum class Old : std::uint16_t { None, All, Keys, Others };
  struct Paths {
    Prefix prefix;
    std::uint8_t count = 0;
    friend bool operator==(const Paths&, const Paths&) = default;
  };

  Family family = kIpv4Unicast;
  std::uint64_t routes = 0;
  bool negotiated = false, mismatch_said = false, without_ids = false;
  wire::AddPathJudge::Learned learned;
  bool sync_active = false;
  std::uint64_t sync_deadline_ns = 0, sync_end_of_rib_ns = 0, sync_news_ns = 0, sync_since_realtime_ns = 0;
  Old old = Old::None;
  std::vector<Prefix> keys;
  std::vector<Paths> paths;
  friend bool operator==(const RestartTable&, const RestartTable&) = default;
};

struct RestartView {
  View view = View::AdjInPre;
  std::uint32_t state = 0, asn = 0, bgp_id = 0;
  bool as_width_said = false;
  std::optional<std::uint32_t> told_asn;
  std::uint32_t told_bgp_id = 0;
  std::uint32_t owner = RestartSession::kNone;  // index in RestartState::sessions
  std::vector<std::uint32_t> superseded;
  bool owned_before = false;
  std::uint64_t claimed_serial = 0;
  std::uint16_t router_port = 0;
  bool grace_active = false;
  std::uint64_t grace_deadline_ns = 0;
  std::uint64_t published = 0, suppressed = 0, malformed = 0, synthetic = 0, changed_realtime_ns = 0;
  std::uint32_t down_reason = 0;
  std::vector<RestartTable> tables;
  friend bool operator==(const RestartView&, const RestartView&) = default;
};

struct RestartPeer {
  std::uint8_t type = 0;
  std::uint64_t distinguisher = 0;
  IpAddress address;
  bool up = false, unknown_said = false;
  std::uint64_t up_session = 0;                   // serial
  std::uint32_t addpath_in = 0, addpath_out = 0;  // a bit for each of kTableFamilies
  std::vector<RestartView> views;
  friend bool operator==(const RestartPeer&, const RestartPeer&) = default;
};

struct RestartRouter {
  IpAddress address;
  std::string name;
  std::uint32_t state = 0;
  std::uint16_t port = 0;
  std::uint64_t faults = 0, connected_realtime_ns = 0, last_message_realtime_ns = 0;
  std::uint64_t messages = 0, bytes = 0, malformed = 0, published = 0, suppressed = 0;
  std::uint64_t announcements_dropped = 0, withdraws_dropped = 0;
  std::uint32_t last_error = 0;
  std::string last_error_text, sys_name, sys_descr;
  bool limit_over = false;
  std::uint64_t limit_skipped = 0, limit_said_ns = 0, limit_asked_ns = 0, limit_freed_ns = 0;
  std::vector<RestartPeer> peers;
  friend bool operator==(const RestartRouter&, const RestartRouter&) = default;
};

struct RestartState {
  std::string version;
  std::string boot_id;
  std::uint32_t shard = 0, shard_count = 0;
  WriterId writer;
  std::uint64_t ring_tail = 0, next_sequence = 0, next_event_sequence = 0;
  std::uint64_t last_read_ns = 0;  // boot time
  std::uint32_t sessions_closed = 0;
  std::vector<RestartSession> sessions;  // by serial
  std::vector<RestartRouter> routers;
  friend bool operator==(const RestartState&, const RestartState&) = default;
};

// One flat Cap'n Proto message (common/schema/restart.capnp).
[[nodiscard]] std::vector<std::byte> encode_restart(const RestartState& state);
// Checked: indexes, families, lengths of prefixes. The error is one line.
[[nodiscard]] Result<RestartState, std::string> decode_restart(std::span<const std::byte> bytes);

// /proc/sys/kernel/random/boot_id; empty if it cannot be read.
[[nodiscard]] std::string boot_id();

}  // namespace arancini::ingestd
