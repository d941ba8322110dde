#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/snapshot/snapshot_writer.h"
#include "ingestd/restart_adopt.h"
#include "ingestd/restart_export.h"
#include "ingestd/restore_feed.h"
#include "tests/ingestd/shard_simulation.h"

// The histories of shard_simulation.h, with kill -9 of the shard at any moment between two calls. Its
// successor is restored from a snapshot that was taken at some moment, or from none, what was read of the
// ring since, and what is left in the ring. At once it believes to have told exactly what the records say,
// and after each quiescence the fold is what the routers have; nothing is told twice, nothing unknown is
// withdrawn, no subject overtakes another (the harness looks at every record). Planned restarts stand
// between: then sessions go on, in whatever state, and the successor knows all that its predecessor knew.
// ARANCINI_HISTORIES=N, ARANCINI_LONG=1: a million, ARANCINI_MODEL_SEED=N: that one only.
namespace arancini::testing {
namespace {

using ingestd::RestoreBatch;

// Applies batches where they are filled.
class DirectBatches final : public ingestd::BatchSink {
 public:
  explicit DirectBatches(Shard& shard) : shard_(shard) {}
  RestoreBatch* batch() override { return &batch_; }
  void give() override {
    ingestd::Restore::Cursor cursor;
    while (shard_.impl().restore.apply(batch_, cursor) == ingestd::Restore::Outcome::More) {
    }
    batch_.clear();
  }

 private:
  Shard& shard_;
  RestoreBatch batch_;
};

class Memory final : public snapshot::ByteSink {
 public:
  std::string write(std::span<const std::byte> bytes) override {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return {};
  }
  [[nodiscard]] const Buffer& bytes() const { return bytes_; }

 private:
  Buffer bytes_;
};

class Crashes final : public Simulation {
 public:
  explicit Crashes(std::uint64_t seed, bool drop_newest) : Simulation(seed, drop_newest, false, true) {}

  [[nodiscard]] unsigned crashes() const { return crashes_; }
  [[nodiscard]] unsigned from_snapshots() const { return from_snapshots_; }
  [[nodiscard]] unsigned lost_logs() const { return lost_logs_; }
  // What planned restarts have met.
  struct Restarts {
    unsigned all = 0, kept = 0, closed = 0, in_progress = 0, syncs = 0, lists = 0, all_old = 0,
             superseded = 0, graces = 0, down = 0;
  };
  [[nodiscard]] const Restarts& restarts() const { return restarts_; }

 private:
  struct Snapshot {
    Buffer bytes;
    std::size_t log_at = 0;      // of what was read as it began
    RingPosition complete_at{};  // it holds when this much of the ring is published
  };

  // Counters begin anew with each shard.
  [[nodiscard]] bool counts_hold() const override { return crashes_ == 0 && restarts_.all == 0; }

  void extra_event() override {
    switch (pick(100)) {
      case 0:
      case 1: crash(); break;
      case 2:
      case 3: take_snapshot(); break;
      case 4:
        if (chance(15)) {
          lose_log();
          crash();
        }
        break;
      case 5:
      case 6: restart(); break;
      default: break;
    }
  }

  // In order of their keys: rows and hashes are each process's own.
  static ingestd::RestartState in_order(ingestd::RestartState s) {
    using namespace ingestd;
    std::vector<std::uint32_t> order(s.routers.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::sort(order, {}, [&](std::uint32_t i) { return s.routers[i].address; });
    std::vector<RestartRouter> routers;
    for (RestartSession& session : s.sessions) {
      session.router = 0;  // its source says the same
      session.pending.clear();
    }
    for (const std::uint32_t i : order) routers.push_back(std::move(s.routers[i]));
    s.routers = std::move(routers);
    for (RestartRouter& router : s.routers) {
      for (RestartPeer& peer : router.peers) {
        for (RestartView& view : peer.views) {
          // The log may know of one that was emptied.
          std::erase_if(view.tables, [](const RestartTable& t) { return t.routes == 0 && !t.sync_active; });
          for (RestartTable& table : view.tables) {
            std::ranges::sort(table.keys);
            std::ranges::sort(table.paths, {}, &RestartTable::Paths::prefix);
          }
        }
      }
      std::ranges::sort(router.peers, {},
                        [](const RestartPeer& p) { return std::tuple(p.type, p.distinguisher, p.address); });
    }
    return s;
  }

  static void expect_same(ingestd::RestartState is, const ingestd::RestartState& was) {
    // Others were not kept.
    std::erase_if(is.routers, [&](const ingestd::RestartRouter& router) {
      return std::ranges::find(was.routers, router.address, &ingestd::RestartRouter::address) ==
             was.routers.end();
    });
    if (is == was) return;
    EXPECT_EQ(is.sessions, was.sessions);
    ASSERT_EQ(is.routers.size(), was.routers.size());
    for (std::size_t r = 0; r < is.routers.size(); ++r) {
      ASSERT_EQ(is.routers[r].peers.size(), was.routers[r].peers.size());
      for (std::size_t p = 0; p < is.routers[r].peers.size(); ++p) {
        const auto& views = is.routers[r].peers[p].views;
        const auto& views_were = was.routers[r].peers[p].views;
        ASSERT_EQ(views.size(), views_were.size());
        for (std::size_t v = 0; v < views.size(); ++v) {
          EXPECT_EQ(views[v].tables, views_were[v].tables);
          EXPECT_EQ(views[v].told_asn, views_were[v].told_asn);
          EXPECT_EQ(views[v].told_bgp_id, views_were[v].told_bgp_id);
          EXPECT_EQ(views[v].bgp_id, views_were[v].bgp_id);
          EXPECT_TRUE(views[v] == views_were[v]) << "view " << to_string(views[v].view);
        }
        EXPECT_TRUE(is.routers[r].peers[p] == was.routers[r].peers[p]) << "peer";
      }
      EXPECT_TRUE(is.routers[r] == was.routers[r]) << "router " << is.routers[r].address.to_string();
    }
    FAIL();
  }

  void count(const ingestd::RestartState& state) {
    using ingestd::RestartTable;
    restarts_.kept += static_cast<unsigned>(state.sessions.size());
    for (const auto& session : state.sessions) restarts_.in_progress += session.in_progress ? 1 : 0;
    for (const auto& router : state.routers) {
      for (const auto& peer : router.peers) {
        for (const auto& view : peer.views) {
          restarts_.superseded += view.superseded.empty() ? 0 : 1;
          restarts_.graces += view.grace_active ? 1 : 0;
          restarts_.down += view.state == static_cast<std::uint32_t>(shm::PeerState::Down) ? 1 : 0;
          for (const auto& table : view.tables) {
            restarts_.syncs += table.sync_active ? 1 : 0;
            restarts_.lists += table.keys.empty() ? 0 : 1;
            restarts_.all_old += table.old == RestartTable::Old::All ? 1 : 0;
          }
        }
      }
    }
  }

  // As EventLoop::hand_on() and its successor.
  void restart() {
    ++restarts_.all;
    close_what_must_be_closed();
    for (unsigned n = pick(6); n > 0; --n) h_.sink().do_work();
    close_what_must_be_closed();
    h_.sink().publish();
    ingestd::RestartExport left = ingestd::export_restart(h_.shard().impl());
    for (const auto& closed : left.closed) {
      h_.sink().close_session(closed.session);
      ++restarts_.closed;
      for_each_session([&](SessionId& id, const auto& drop) {
        if (id == closed.session) drop();
      });
    }
    h_.sink().finish();
    h_.sink().publish();
    count(left.state);
    for (auto& session : left.state.sessions) {
      if (session.in_progress) session.pending.resize(1);
    }
    const std::uint64_t events = h_.writer().next_event_sequence();
    const RingPosition tail = h_.writer().tail();
    ingestd::RestartAdoption adoption;
    auto decoded = ingestd::decode_restart(ingestd::encode_restart(left.state));
    ASSERT_TRUE(decoded) << decoded.error();
    ASSERT_EQ(*decoded, left.state);
    adoption.state = std::move(*decoded);
    if (chance(50)) h_.drain(pick(60));

    h_.crash();
    h_.shard().set_restoring(true);
    Feed& first = routers_[0].feeds[0];
    const bool early = chance(30) && first.connected && !first.twin;
    SessionId waits{};
    if (early) {
      waits = h_.open(routers_[0].address, 40000);
      ASSERT_EQ(h_.sink().apply(waits, initiation("router", "simulated")), Shard::Applied::NoRoom);
    }
    restore_tables();
    ingestd::Shard::Impl& shard = h_.shard().impl();
    shard.context.read_clock();
    const ingestd::RestartCheck check(shard, adoption.state, {});
    for (const std::string_view why : check.why_not()) ASSERT_EQ(why, "");
    shard.restore.finish(check.go_on());
    ingestd::adopt_restart(shard, adoption, check, {});
    std::map<SessionId, SessionId> ids;
    for (std::size_t i = 0; i < left.sessions.size(); ++i) {
      ASSERT_TRUE(adoption.sessions[i].id.has_value()) << adoption.sessions[i].why;
      ids[left.sessions[i]] = *adoption.sessions[i].id;
    }
    for_each_session([&](SessionId& id, const auto&) { id = ids.at(id); });
    if (!early) {
      ASSERT_EQ(h_.writer().next_event_sequence(), events) << "something happened";
      ASSERT_EQ(h_.writer().tail(), tail);
    }
    h_.shard().set_restoring(false);
    ASSERT_NO_FATAL_FAILURE(h_.expect_told_is_what_was_written()) << "behind restart " << restarts_.all;
    if (!early) {
      // Nothing was lost on the way.
      expect_same(in_order(ingestd::export_restart(shard).state), in_order(left.state));
    } else {
      first.twin = Feed::HalfOpen{waits, {}};
      first.connected = false;  // say() to the new one only
      say_everything(routers_[0], 0);
      first.connected = true;
    }
    for (SimRouter& router : routers_) {
      for (unsigned feed = 0; feed < 2; ++feed) {
        if (!router.feeds[feed].connected && chance(60)) connect(router, feed);
      }
    }
  }

  // Calls f(SessionId&, drop) for all sessions of the routers; drop(): the router has noticed its end.
  template <class F>
  void for_each_session(F&& f) {
    for (SimRouter& router : routers_) {
      for (Feed& feed : router.feeds) {
        if (feed.connected) {
          f(feed.session, [&] {
            feed.connected = false;
            feed.queue.clear();
          });
        }
        for (std::size_t i = feed.half_open.size(); i-- > 0;) {
          f(feed.half_open[i].session,
            [&] { feed.half_open.erase(feed.half_open.begin() + static_cast<std::ptrdiff_t>(i)); });
        }
        if (feed.twin) f(feed.twin->session, [&] { feed.twin.reset(); });
      }
    }
  }

  // The tables as they are told now. A crash may come before that is published: then it does not hold.
  void take_snapshot() {
    ingestd::Shard::Impl& s = h_.shard().impl();
    Memory memory;
    snapshot::SnapshotWriter writer(memory);
    snapshot::Header header;
    header.shard_count = 1;
    header.number = ++number_;
    writer.begin(header);
    std::uint32_t router_id = 0, view_id = 0, table_id = 0;
    std::map<const ingestd::Router*, std::uint32_t> routers;
    std::set<std::uint32_t> attributes;
    std::uint64_t routes = 0;
    s.peers.each_view([&](ingestd::PeerView& view) {
      if (!view.told_asn) return;
      const ingestd::Router* router = view.peer.router;
      if (routers.try_emplace(router, router_id).second) {
        writer.router(
            {.id = router_id++, .address = router->address, .name = {}, .sys_name = {}, .sys_descr = {}});
      }
      writer.view({.id = view_id,
                   .router = routers[router],
                   .peer_type = view.peer.key.type,
                   .view = view.view,
                   .distinguisher = view.peer.key.distinguisher,
                   .address = view.peer.key.address,
                   .told = true,
                   .asn = *view.told_asn,
                   .bgp_id = view.told_bgp_id,
                   .router_port = view.router_port});
      view.each_table([&](ingestd::RibTable& table) {
        writer.table(
            {.id = table_id, .view = view_id, .family = table.family, .without_ids = table.without_ids});
        const auto told = [&](const Prefix& prefix, ingestd::AttrId attr, std::uint8_t flags) {
          const ingestd::AttrKey key = s.context.attributes.parts(attr);
          if (attributes.insert(raw(attr)).second) {
            writer.attributes({.id = raw(attr),
                               .next_hop = key.next_hop,
                               .flags = key.flags,
                               .attributes = key.attributes});
          }
          ++routes;
          writer.route(
              table_id, table.family,
              {.prefix = prefix, .attributes = raw(attr), .paths = static_cast<std::uint8_t>(flags >> 6)});
        };
        for (ingestd::WalkCursor cursor; !cursor.done;) {
          table.routes.walk(cursor, 1000, [&](const Prefix& prefix, ingestd::RouteState& route) {
            if ((route.flags & ingestd::kRouteDirty) == 0) told(prefix, route.attr, route.flags);
            return ingestd::WalkAction::Keep;
          });
        }
        for (ingestd::WalkCursor cursor; !cursor.done;) {
          table.untold.walk(cursor, 1000, [&](const Prefix& prefix, ingestd::RouteState& entry) {
            if ((entry.flags & ingestd::kRouteTold) != 0) told(prefix, entry.attr, 0);
            return ingestd::WalkAction::Keep;
          });
        }
        ++table_id;
      });
      ++view_id;
    });
    ASSERT_EQ(writer.finish({.routes = routes}), "");
    // Reading may begin earlier than it must.
    const std::size_t at = h_.log().size();
    snapshots_.push_back(
        {memory.bytes(), at - std::min<std::size_t>(at, pick(4) == 0 ? pick(30) : 0), h_.writer().tail()});
    if (snapshots_.size() > 2) snapshots_.erase(snapshots_.begin());
  }

  // Another stream has taken the place of the one that consumers read.
  void lose_log() {
    h_.sink().publish();
    h_.drain();
    h_.lose_log();
    snapshots_.clear();
    ++lost_logs_;
  }

  void crash() {
    ++crashes_;
    if (chance(50)) h_.sink().publish();
    if (chance(50)) h_.peek();
    for (SimRouter& router : routers_) {
      for (Feed& f : router.feeds) {
        f.connected = false;
        f.queue.clear();
        f.half_open.clear();
        f.twin.reset();
      }
    }
    h_.crash();
    h_.shard().set_restoring(true);
    // A router that is back at once has to wait.
    const bool early = chance(30);
    SessionId waits{};
    if (early) {
      waits = h_.open(routers_[0].address, 40000);
      ASSERT_EQ(h_.sink().apply(waits, initiation("router", "simulated")), Shard::Applied::NoRoom);
    }
    restore();
    if (early) h_.sink().close_session(waits);
    ASSERT_NO_FATAL_FAILURE(h_.expect_told_is_what_was_written()) << "behind restore " << crashes_;
    // Some are gone for good, or changed meanwhile.
    for (SimRouter& router : routers_) {
      SimPeer& peer = router.peers[pick(4)];
      if (peer.up && chance(40)) mutate(peer);
      for (unsigned feed = 0; feed < 2; ++feed) {
        if (chance(60)) connect(router, feed);
      }
    }
  }

  void restore() {
    restore_tables();
    h_.shard().impl().restore.finish();
    h_.shard().set_restoring(false);
  }

  void restore_tables() {
    DirectBatches sink(h_.shard());
    ingestd::RestoreFeed feed(sink, 0, 1);
    const Snapshot* from = nullptr;
    for (const Snapshot& s : snapshots_) {
      if (raw(s.complete_at) <= raw(h_.writer().tail())) from = &s;
    }
    std::size_t at = 0;
    if (from != nullptr && chance(80)) {
      ++from_snapshots_;
      snapshot::MemorySource source(from->bytes);
      const auto read = feed.read(source, [](const IpAddress&) { return true; });
      ASSERT_FALSE(read.error.has_value()) << read.error->text;
      at = from->log_at;
    }
    for (std::size_t i = at; i < h_.log().size(); ++i) {
      std::optional<std::string> problem;
      ASSERT_TRUE(feed.payload(schema::PayloadFormat::BatchV2, h_.log()[i], problem));
      ASSERT_EQ(problem, std::nullopt);
    }
    ASSERT_TRUE(h_.writer().scan(
        h_.read_to(), [&](const shm::RecordHeader& header, std::span<const std::byte> payload, RingPosition) {
          if (header.kind != static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch)) return true;
          std::optional<std::string> problem;
          return feed.payload(schema::PayloadFormat::BatchV2, payload, problem) && !problem;
        }));
    ASSERT_TRUE(feed.flush());
    // What is not published is gone with the ring's writer.
    std::erase_if(snapshots_,
                  [&](const Snapshot& s) { return raw(s.complete_at) > raw(h_.writer().tail()); });
  }

  std::vector<Snapshot> snapshots_;
  std::uint64_t number_ = 0;
  unsigned crashes_ = 0, from_snapshots_ = 0, lost_logs_ = 0;
  Restarts restarts_;
};

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void run_histories(bool drop_newest, std::uint64_t share) {
  const std::uint64_t only = from_environment("ARANCINI_MODEL_SEED", 0);
  const bool all = from_environment("ARANCINI_LONG", 0) != 0;
  const std::uint64_t histories =
      from_environment("ARANCINI_HISTORIES", all ? 1'000'000 : 10'000) * share / 100;
  unsigned crashes = 0, from_snapshots = 0, lost_logs = 0;
  std::uint64_t duplicates = 0;
  Crashes::Restarts met;
  for (std::uint64_t seed = only != 0 ? only : 1; seed <= (only != 0 ? only : histories); ++seed) {
    SCOPED_TRACE("ARANCINI_MODEL_SEED=" + std::to_string(seed));
    Crashes history(seed, drop_newest);
    history.run(2);
    if (::testing::Test::HasFailure()) return;
    crashes += history.crashes();
    from_snapshots += history.from_snapshots();
    lost_logs += history.lost_logs();
    duplicates += history.metric(IngestMetric::UpdatesSuppressedDuplicate);
    const Crashes::Restarts& r = history.restarts();
    met.all += r.all;
    met.kept += r.kept;
    met.closed += r.closed;
    met.in_progress += r.in_progress;
    met.syncs += r.syncs;
    met.lists += r.lists;
    met.all_old += r.all_old;
    met.superseded += r.superseded;
    met.graces += r.graces;
    met.down += r.down;
  }
  if (only != 0) return;
  // What the histories must have been through, or they prove little.
  EXPECT_GT(crashes, histories);
  EXPECT_GT(from_snapshots, histories / 4);
  EXPECT_GT(lost_logs, histories / 100);
  EXPECT_GT(duplicates, histories);
  EXPECT_GT(met.all, histories);
  EXPECT_GT(met.kept, met.closed);
  if (!drop_newest) {  // there none waits for room
    EXPECT_GT(met.in_progress, histories / 50);
  }
  for (const unsigned n :
       {met.closed, met.syncs, met.lists, met.all_old, met.superseded, met.graces, met.down}) {
    EXPECT_GT(n, histories / 50);
  }
  std::printf(
      "%u planned restarts: %u sessions kept, %u closed, %u within a message; %u re-syncs (%u with a list, "
      "%u of "
      "which nothing was told yet), %u superseded, %u grace times, %u views down\n",
      met.all, met.kept, met.closed, met.in_progress, met.syncs, met.lists, met.all_old, met.superseded,
      met.graces, met.down);
  ::testing::Test::RecordProperty("crashes", std::to_string(crashes));
  ::testing::Test::RecordProperty("from_snapshots", std::to_string(from_snapshots));
  std::printf("%u crashes, %u restored from snapshots, %u logs lost\n", crashes, from_snapshots, lost_logs);
}

TEST(RestoreModel, FoldEqualsTheRoutersAcrossCrashes) {
  run_histories(false, 70);
}

TEST(RestoreModel, FoldEqualsTheRoutersAcrossCrashesWithDropNewest) {
  run_histories(true, 30);
}

}  // namespace
}  // namespace arancini::testing
