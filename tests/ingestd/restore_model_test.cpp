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
#include "ingestd/restore_feed.h"
#include "tests/ingestd/shard_simulation.h"

// The histories of shard_simulation.h, with kill -9 of the shard at any moment between two calls. Its
// successor is restored from a snapshot that was taken at some moment, or from none, what was read of the
// ring since, and what is left in the ring. At once it believes to have told exactly what the records say,
// and after each quiescence the fold is what the routers have; nothing is told twice, nothing unknown is
// withdrawn, no subject overtakes another (the harness looks at every record). ARANCINI_HISTORIES=N,
// ARANCINI_LONG=1: a million, ARANCINI_MODEL_SEED=N: that one only.
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

 private:
  struct Snapshot {
    Buffer bytes;
    std::size_t log_at = 0;      // of what was read as it began
    RingPosition complete_at{};  // it holds when this much of the ring is published
  };

  // Counters begin anew with each shard.
  [[nodiscard]] bool counts_hold() const override { return crashes_ == 0; }

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
      default: break;
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
    h_.shard().impl().restore.finish();
    h_.shard().set_restoring(false);
    // What is not published is gone with the ring's writer.
    std::erase_if(snapshots_,
                  [&](const Snapshot& s) { return raw(s.complete_at) > raw(h_.writer().tail()); });
  }

  std::vector<Snapshot> snapshots_;
  std::uint64_t number_ = 0;
  unsigned crashes_ = 0, from_snapshots_ = 0, lost_logs_ = 0;
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
  for (std::uint64_t seed = only != 0 ? only : 1; seed <= (only != 0 ? only : histories); ++seed) {
    SCOPED_TRACE("ARANCINI_MODEL_SEED=" + std::to_string(seed));
    Crashes history(seed, drop_newest);
    history.run(2);
    if (::testing::Test::HasFailure()) return;
    crashes += history.crashes();
    from_snapshots += history.from_snapshots();
    lost_logs += history.lost_logs();
    duplicates += history.metric(IngestMetric::UpdatesSuppressedDuplicate);
  }
  if (only != 0) return;
  // What the histories must have been through, or they prove little.
  EXPECT_GT(crashes, histories);
  EXPECT_GT(from_snapshots, histories / 4);
  EXPECT_GT(lost_logs, histories / 100);
  EXPECT_GT(duplicates, histories);
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
