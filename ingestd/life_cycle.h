#pragma once

#include <cstdint>
#include <string_view>

#include "common/wire/bmp.h"
#include "ingestd/events.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"

// Events of the life of sessions, peers and tables (docs/stream.md lists their fields).
namespace arancini::ingestd {

class LifeCycle {
 public:
  LifeCycle(ShardContext& context, Events& events) : context_(context), events_(events) {}

  // Sessions: these cannot wait for room, and are kept if need be.
  void session_up(const Session& session);
  void session_down(const Session& session);

  // Room for the event of that message, and for the start of a re-sync of so many tables. False: the message
  // has to wait.
  [[nodiscard]] bool room_for(wire::Bytes message, std::size_t tables = 0);
  // Room for so many events of the small ones: superseded(), sync_start(), sync_end().
  [[nodiscard]] bool room_for_small(std::size_t events) {
    return events_.reserve(static_cast<std::uint32_t>(events) * kSmallEventBytes);
  }

  // After room_for(): what a message said.
  void initiation(const Session& session, wire::Bytes message);
  void termination(const Session& session, wire::Bytes message);
  void peer_up(const Session& session, const wire::PerPeerHeader& header, const wire::PeerUp& up,
               wire::Bytes message);
  // `heard`: it counts; else it is late news of a session that does not tell the peer any more.
  void peer_down(const Session& session, const wire::PerPeerHeader& header, const wire::PeerDown& down,
                 bool heard, wire::Bytes message);
  void statistics(const Session& session, const wire::PerPeerHeader& header, wire::Bytes message);

  // After room_for_small(). What `older` told of the view is told by `newer` now.
  void superseded(const Session& older, const Session& newer, const PeerView& view);
  // The router tells the table, perhaps anew.
  void sync_start(const RibTable& table);
  // It is told, or given up, and what had to be withdrawn is.
  void sync_end(const RibTable& table, const SweepJob& job, std::uint64_t withdrawn);

 private:
  ShardContext& context_;
  Events& events_;
};

// "end_of_rib", "timeout", …: detail `cause` of sync_end.
std::string_view to_string(SyncCause cause);

}  // namespace arancini::ingestd
