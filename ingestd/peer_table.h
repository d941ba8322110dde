#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/error.h"
#include "common/base/types.h"
#include "common/schema/batch_encoder.h"
#include "common/wire/bgp_update.h"
#include "common/wire/bmp.h"
#include "ingestd/generations.h"
#include "ingestd/route_table.h"
#include "ingestd/shard.h"
#include "ingestd/shard_context.h"

// Who reports what: sessions, routers, peers, and a peer's views with their tables. Entries have stable
// addresses and are visited in order of creation, never of address, so that the same input gives the same
// output.
namespace arancini::ingestd {

struct Peer;
struct PeerView;
struct Router;

// The families that have tables, and their place in arrays.
inline constexpr std::array<Family, 4> kTableFamilies{kIpv4Unicast, kIpv4Multicast, kIpv6Unicast,
                                                      kIpv6Multicast};
inline constexpr std::size_t kNoTable = kTableFamilies.size();
constexpr std::size_t table_index(Family f) {
  if (!is_plain_prefix_family(f)) return kNoTable;
  return (f.afi == 2 ? 2U : 0U) + (f.safi == 2 ? 1U : 0U);
}

// Why a re-sync is over, or why a table is swept without one.
enum class SyncCause : std::uint8_t {
  EndOfRib,
  Timeout,
  PeerDown,
  SessionLost,
  GraceExpired,
  AsChanged,
  Operator,
};

// A walk that withdraws all routes of a table that are older than a moment. `waiting` follows when `running`
// is done. At its end stands an event, also where nothing was to withdraw.
struct SweepJob {
  bool active = false;
  std::uint16_t moment = 0;  // see Generations
  Reason reason = Reason::None;
  SyncCause cause = SyncCause::Timeout;
  std::uint64_t since_realtime_ns = 0;  // begin of the re-sync that it ends; 0: there was none
};
struct SweepState {
  SweepJob running, waiting;
  WalkCursor cursor;
  std::uint64_t withdrawn = 0;  // by `running`
};

// Between a Peer Up (or the like) and the moment at which what was not announced again is known to be gone.
struct ResyncState {
  bool active = false;
  bool listed = false;  // among the timers
  std::uint64_t deadline_ns = 0;
  std::uint64_t end_of_rib_ns = 0;      // 0: none yet
  std::uint64_t news_ns = 0;            // last NLRI of this table
  std::uint64_t since_realtime_ns = 0;  // when it began, until a sweep takes that over; 0: none is open
};

// The routes of one (peer, view, family), and what curation must know beside them.
struct RibTable {
  RibTable(PeerView& of, SegmentPool& pool, Family f, bool addpath)
      : view(of), family(f), routes(pool, f), negotiated(addpath), judge(addpath), untold(pool, f) {}

  PeerView& view;
  const Family family;
  RouteTable routes;
  Generations generations;
  SweepState sweep;
  ResyncState resync;
  bool negotiated;  // ADD-PATH, as of the last Peer Up
  bool mismatch_said = false;
  bool without_ids = false;  // routes came without path id
  bool has_untold = false;   // the reconciler looks at it: there may be entries in `untold`
  wire::AddPathJudge judge;
  RouteTable untold;         // what downstream knows of the routes that are dirty or gone (untold.h)
  WalkCursor untold_cursor;  // of the reconciler
};

struct Session {
  // How far the message that met a full ring was applied; the same message comes again.
  struct Progress {
    bool active = false;
    std::uint8_t field = 0;  // NLRI field, in the order of the application
    bool judged = false;     // `path_ids` holds for this field
    bool path_ids = false;
    std::uint32_t superseded = 0;    // so many of the next routes have replaced those without path id
    std::uint32_t offset_bytes = 0;  // in that field
  };

  bool open = false;
  bool throttled = false;   // told by the loop
  bool must_close = false;  // its feed has a hole: what it says is ignored until the router connects anew
  SessionId id{};
  // Which router it is depends on its Initiation; until then `router` is null.
  bool unidentified = false;
  IpAddress source;
  std::uint16_t port = 0;
  std::uint64_t serial = 0;  // order of opening; 0: never used
  std::uint64_t opened_realtime_ns = 0;
  std::uint64_t messages = 0, bytes = 0;
  ErrorCode end_error = ErrorCode::None;  // why it is about to be closed
  std::uint64_t resumed_ns = 0;           // when it last stopped waiting for room
  Router* router = nullptr;               // null: over a limit, everything is skipped
  std::array<Peer*, 32> recent{};         // peers that it told of, by PeerTable::recent_slot()
  Progress progress;

  [[nodiscard]] bool waiting() const { return throttled || progress.active; }
};

// What a router said and was not told since there was last nothing to tell (drop_report.h).
struct DropEpisode {
  bool active = false;
  std::uint64_t since_realtime_ns = 0, last_realtime_ns = 0;
  std::uint64_t last_ns = 0;                       // boot time of the last drop
  std::uint64_t announcements = 0, withdraws = 0;  // of the episode
  // What no event has told about yet.
  std::uint64_t new_since_realtime_ns = 0, new_since_ns = 0;
  std::uint64_t new_announcements = 0, new_withdraws = 0;
  std::uint64_t last_event_ns = 0;  // boot time, 0: none yet

  [[nodiscard]] bool has_news() const { return new_announcements + new_withdraws > 0; }
};

// How many routes a router may have, and what came of it (router_limits.h).
struct RouteLimit {
  std::uint64_t routes = ~std::uint64_t{0};  // no limit
  bool over = false;                         // some were skipped since it last told everything
  std::uint64_t skipped = 0;
  std::uint64_t said_ns = 0, asked_ns = 0;  // boot time of the last event, and of asking it; 0: never
  std::uint64_t freed_ns = 0;  // when a sweep last made room in spite of `over`; 0: not since it was asked
};

// A router is known by its address, and by its configured name where it has one: several routers may stand
// behind one address.
struct RouterKey {
  IpAddress address;
  std::string name;  // of [[router]]; empty: none
  friend auto operator<=>(const RouterKey&, const RouterKey&) = default;
};

// Row of the stats page and router_id of records: `row`.
struct Router {
  IpAddress address;
  std::string name;  // routerId of what is published; empty: the address is the name
  std::uint32_t row = 0;
  std::uint64_t serial = 0;  // order of creation: tells those apart that have the same row, one after another
  shm::RouterState state = shm::RouterState::Connected;
  std::uint16_t port = 0;  // of the newest session
  std::uint16_t sessions = 0;
  int waiting = 0;               // sessions that wait for room
  std::uint64_t resumed_ns = 0;  // when one of them last stopped waiting
  std::uint32_t peers_up = 0;
  std::uint64_t faults = 0;
  std::uint64_t connected_realtime_ns = 0, last_message_realtime_ns = 0;
  std::uint64_t messages = 0, bytes = 0, malformed = 0, published = 0, suppressed = 0, routes = 0;
  ErrorCode last_error = ErrorCode::None;
  std::array<char, shm::kStatsTextBytes> last_error_text{};
  std::array<char, shm::kStatsTextBytes> sys_name{}, sys_descr{};
  std::vector<Peer*> peers;
  bool dirty = false;    // the row is to be written
  bool dumping = false;  // its tables are being dumped
  std::uint64_t announcements_dropped = 0, withdraws_dropped = 0;
  UntoldCounts untold;
  DropEpisode drops;
  const RouterEntry* entry = nullptr;  // of the configuration, if any
  std::uint32_t max_sessions = 0;      // 0: no limit
  RouteLimit limit;
};

// AS number and BGP id are not part of it: GoBGP's Loc-RIB changes them to 0 at shutdown.
struct PeerKey {
  std::uint32_t router = 0;
  std::uint8_t type = 0;
  std::uint64_t distinguisher = 0;
  IpAddress address;
  friend bool operator==(const PeerKey&, const PeerKey&) = default;
};

struct Peer {
  PeerKey key;
  Router* router = nullptr;
  bool up = false;
  bool unknown_said = false;     // routes without Peer Up: counted once
  std::uint64_t up_session = 0;  // serial of the session that said so
  // ADD-PATH by family, from Peer Up: Adj-RIB-In, Adj-RIB-Out.
  std::array<bool, kTableFamilies.size()> addpath_in{}, addpath_out{};
  std::array<std::unique_ptr<PeerView>, kViewCount> views;

  [[nodiscard]] bool is_loc_rib() const { return key.type == 3; }
  [[nodiscard]] bool addpath(View view, std::size_t table) const;
};

// One table of the router (RFC 7854, 8671, 9069), all families of it. Told by one session at a time.
struct PeerView {
  PeerView(Peer& of, View v, std::uint32_t stats_row) : peer(of), view(v), row(stats_row) {}

  Peer& peer;
  const View view;
  const std::uint32_t row;
  shm::PeerState state = shm::PeerState::Unknown;
  // What is published; fixed while anything is told under it, since subjects are made of it.
  std::uint32_t asn = 0;
  std::uint32_t bgp_id = 0;
  bool as_width_said = false;
  std::uint32_t next_asn = 0, next_bgp_id = 0;
  bool identity_changes = false;  // what is told must be withdrawn before the peer's new AS number is used
  std::optional<std::uint32_t> told_asn;  // that of the last records
  std::uint32_t told_bgp_id = 0;          // as it was with the first of them

  Session* owner = nullptr;  // the open session that tells it
  // Open sessions that have told it as well, or tried to, and are not heard about it.
  std::vector<Session*> superseded;
  bool owned_before = false;
  std::uint64_t claimed_serial =
      0;  // newest session that sent routes of it; 0 after a Peer Up that found it without owner
  std::uint16_t router_port = 0;  // of the last session

  bool grace_active = false;
  bool grace_listed = false;  // among the timers
  std::uint64_t grace_deadline_ns = 0;

  std::uint64_t routes = 0, published = 0, suppressed = 0, malformed = 0, synthetic = 0;
  std::uint64_t changed_realtime_ns = 0;
  std::uint32_t down_reason = 0;
  std::array<std::unique_ptr<RibTable>, kTableFamilies.size()> tables;
  bool dirty = false;
  UntoldCounts untold;
  mutable schema::BatchSource source;  // what its records begin with, see batch_meta()
  schema::BatchMeta meta;              // see message_meta()

  // Calls f(RibTable&) for the tables that exist.
  template <class F>
  void each_table(F&& f) {
    for (auto& table : tables) {
      if (table) f(*table);
    }
  }
};

class PeerTable {
 public:
  explicit PeerTable(ShardContext& context);

  // The router's entry, made if needed. Null: there are as many routers as rows, and none can be given up.
  Router* router(const IpAddress& address, std::string_view name = {});
  // The same, but nothing is given up for it.
  Router* router_if_room(const IpAddress& address, std::string_view name);
  // A session of nobody yet.
  Session& open_session(std::uint16_t port, SessionId& id);
  // Calls f(Session&) for the open sessions of the router.
  template <class F>
  void each_session(const Router& router, F&& f) {
    for (Session& session : sessions_) {
      if (session.open && session.router == &router) f(session);
    }
  }
  // Calls f(Session&) for all open sessions.
  template <class F>
  void each_session(F&& f) {
    for (Session& session : sessions_) {
      if (session.open) f(session);
    }
  }
  // Sessions with serials up to `last` are older than those that are open, and than all that will be.
  void leave_serials(std::uint64_t last);
  [[nodiscard]] Session& session(SessionId id) { return sessions_.at(static_cast<std::size_t>(id)); }
  // Only when nothing points to it any more.
  void free_session(SessionId id);

  // Null if there is none. Remembers some of the session.
  Peer* find(Session& session, const wire::PerPeerHeader& header) {
    const PeerKey key{session.router->row, header.peer_type, header.distinguisher, header.address};
    Peer*& recent = session.recent[recent_slot(key)];
    if (recent != nullptr && recent->key == key) [[likely]]
      return recent;
    Peer* const found = find(key);
    if (found != nullptr) recent = found;
    return found;
  }
  // The view, with its peer, made if needed. Null: no row is left.
  PeerView* view(Session& session, const wire::PerPeerHeader& header) {
    const View which = header.view();
    const Peer* peer = find(session, header);
    if (peer != nullptr && peer->views[static_cast<std::size_t>(which)]) [[likely]]
      return peer->views[static_cast<std::size_t>(which)].get();
    return view(*session.router,
                {session.router->row, header.peer_type, header.distinguisher, header.address}, which);
  }
  // The same, if it is there.
  PeerView* find_view(Session& session, const wire::PerPeerHeader& header) {
    const Peer* peer = find(session, header);
    return peer == nullptr ? nullptr : peer->views[static_cast<std::size_t>(header.view())].get();
  }
  // The same without a session; `key.router` is the router's row.
  PeerView* view(Router& router, const PeerKey& key, View view);
  RibTable& table(PeerView& view, std::size_t index);

  // Calls f(PeerView&) for all views.
  template <class F>
  void each_view(F&& f) {
    for (PeerView* view : view_rows_) {
      if (view != nullptr) f(*view);
    }
  }

  // Calls f(Router&) for all routers, in the order of their rows.
  template <class F>
  void each_router(F&& f) {
    for (Router* router : router_rows_) {
      if (router != nullptr) f(*router);
    }
  }
  // The rules are new: the router's entry, limits and tags are theirs.
  void apply_rules(Router& router) const;
  // For those who visit routers and sessions in slices: rows and ids keep what they stand for while it is
  // there.
  [[nodiscard]] std::size_t router_rows() const { return router_rows_.size(); }
  [[nodiscard]] Router* router_at(std::size_t row) const { return router_rows_[row]; }
  [[nodiscard]] std::size_t session_ids() const { return sessions_.size(); }
  // Null: it is not there (any more).
  [[nodiscard]] Router* find_router(const RouterKey& key);
  // For those who visit the views in slices: a view keeps its row while it is there, and row numbers may be
  // given to others.
  [[nodiscard]] std::size_t view_rows() const { return view_rows_.size(); }
  [[nodiscard]] PeerView* view_at(std::size_t row) const { return view_rows_[row]; }

  void touch(Router& router);
  void touch(PeerView& view);
  // Removes views without routes that nobody tells, and routers without sessions and views; who was
  // refused stays to be seen.
  void forget_idle();
  // Writes the rows that changed.
  void write_rows();

  // Changes whenever a view goes: what was found before may not be there.
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }

  // Records in the ring may be about a view that is not remembered with its AS number.
  [[nodiscard]] bool forgotten() const { return forgotten_; }
  void set_forgotten(bool forgotten) { forgotten_ = forgotten; }

  [[nodiscard]] std::size_t routers() const { return routers_.size(); }
  [[nodiscard]] std::uint32_t open_sessions() const { return open_sessions_; }

 private:
  struct KeyHash {
    std::size_t operator()(const PeerKey& key) const;
    HashSeed seed;
  };
  static std::size_t recent_slot(const PeerKey& key) {
    const std::uint64_t mixed = key.address.bytes[15] ^ key.address.bytes[7] ^ key.distinguisher ^ key.type;
    return (mixed ^ mixed >> 5) % std::tuple_size_v<decltype(Session::recent)>;
  }
  [[nodiscard]] Peer* find(const PeerKey& key) const;
  // A free row, if need be that of an entry that nothing is told under; the number of rows if there is none.
  std::uint32_t take_router_row();
  std::uint32_t take_view_row();
  void remove(Router& router);
  void remove(PeerView& view);

  ShardContext& context_;
  std::deque<Session> sessions_;
  std::vector<std::uint32_t> free_sessions_;
  std::uint64_t next_serial_ = 1;
  std::uint64_t next_router_serial_ = 1;
  std::uint32_t open_sessions_ = 0;
  std::map<RouterKey, std::unique_ptr<Router>> routers_;
  std::unordered_map<PeerKey, std::unique_ptr<Peer>, KeyHash> peers_;
  std::vector<Router*> router_rows_;  // by row, null: free
  std::vector<PeerView*> view_rows_;
  std::vector<Router*> dirty_routers_;
  std::vector<PeerView*> dirty_views_;
  bool forgotten_ = false;
  std::uint64_t epoch_ = 0;
};

}  // namespace arancini::ingestd
