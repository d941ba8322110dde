#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ingestd/shard.h"
#include "tests/ingestd/bmp_builder.h"
#include "tests/ingestd/shard_harness.h"

// Random histories of routers against the simplest model: what the routers have now. A router has two feeds
// (sessions at a time): the one tells Adj-RIB-In pre-policy and Loc-RIB, the other Adj-RIB-In post-policy.
// Now and then a feed has a second session that says the same, and goes again. Messages queue per session and
// meet a tiny ring whose reader comes at random. After each quiescence the folded ring equals the routers'
// tables.
namespace arancini::testing {

inline constexpr unsigned kRoutes = 24;  // prefixes of a table
inline constexpr std::array<Family, 2> kFamilies{kIpv4Unicast, kIpv6Unicast};

struct PathKey {
  unsigned prefix = 0;
  std::uint32_t path_id = 0;  // 0: none
  friend auto operator<=>(const PathKey&, const PathKey&) = default;
};
using Table = std::map<PathKey, std::uint32_t>;  // to the version of the attributes

struct SimPeer {
  PeerSpec spec;
  bool addpath = false;
  bool says_up = true;  // GoBGP's Loc-RIB never does
  bool up = false;
  bool loc_rib = false;
  // [post][family]; Loc-RIB has the first only.
  std::array<std::array<Table, kFamilies.size()>, 2> tables;
};

struct Feed {
  bool connected = false;
  SessionId session{};
  std::deque<Buffer> queue;
  struct HalfOpen {
    SessionId session;
    std::deque<Buffer> queue;  // was under way
  };
  std::vector<HalfOpen> half_open;
  // A second, newer session that is told the same, for a while.
  std::optional<HalfOpen> twin;
};

struct SimRouter {
  std::string address;
  std::vector<SimPeer> peers;
  std::array<Feed, 2> feeds;
};

class Simulation {
 public:
  virtual ~Simulation() = default;
  explicit Simulation(std::uint64_t seed, bool drop_newest = false, bool record = false,
                      bool keep_log = false)
      : rng_(seed),
        drop_newest_(drop_newest),
        reader_comes_(seed % 2 == 0),
        h_({.ring_bytes = 64 * 1024,
            .routers = 4,
            .peers = 32,
            .grace_s = seed % 5 == 0 ? 0.0 : 60.0,
            .resync_timeout_s = 100,
            .resync_settle_s = 5,
            .keep_updates = false,
            .keep_log = keep_log,
            .drop_newest = drop_newest,
            .record = record}) {
    for (unsigned r = 0; r < 2; ++r) {
      SimRouter router;
      router.address = r == 0 ? "192.0.2.1" : "2001:db8::9";
      for (unsigned p = 0; p < 4; ++p) {
        SimPeer peer;
        peer.spec.asn = 65000 + p;
        if (p < 2) {
          peer.spec.address = p == 0 ? ip("10.0.0.1") : ip("2001:db8::2");
          peer.addpath = p == 1;
        } else {
          peer.spec.type = 3;
          peer.spec.address = ip("0.0.0.0");
          peer.spec.distinguisher = p;
          peer.loc_rib = true;
          peer.says_up = p == 3;
          peer.up = true;
        }
        router.peers.push_back(peer);
      }
      routers_.push_back(std::move(router));
    }
  }

  [[nodiscard]] std::uint64_t metric(IngestMetric m) const { return h_.metric(m); }
  [[nodiscard]] ShardHarness& harness() { return h_; }

  void run(unsigned rounds) {
    for (unsigned round = 0; round < rounds && !::testing::Test::HasFatalFailure(); ++round) {
      const unsigned events = 10 + pick(120);
      for (unsigned i = 0; i < events; ++i) event();
      quiesce();
      compare();
      if (drop_newest_ && counts_hold()) compare_counts();
    }
  }

 protected:
  // Something that happens beside what routers do. Called now and then.
  virtual void extra_event() {}
  // What the shard counts is of the whole history.
  [[nodiscard]] virtual bool counts_hold() const { return true; }

  unsigned pick(unsigned n) { return static_cast<unsigned>(rng_() % n); }
  bool chance(unsigned percent) { return pick(100) < percent; }

  static Nlri nlri(Family f, const PathKey& k, bool addpath) {
    const std::optional<std::uint32_t> id = addpath ? std::optional(k.path_id) : std::nullopt;
    if (f == kIpv4Unicast) return {IpAddress::from_v4(0xc6000000U + (k.prefix << 8)), 24U, id};
    IpAddress a = ip("2001:db8::");
    a.bytes[5] = static_cast<std::uint8_t>(k.prefix);
    return {a, 48U, id};
  }
  static PeerSpec spec(const SimPeer& peer, unsigned post) {
    return peer.spec.with_flags(post != 0 ? PeerSpec::kPostPolicy : std::uint8_t{0});
  }
  static unsigned feed_of(const SimPeer& peer, unsigned post) { return peer.loc_rib ? 0 : post; }
  static unsigned views(const SimPeer& peer) { return peer.loc_rib ? 1 : 2; }

  // Announcements of one version and withdrawals of one table, in one UPDATE.
  Buffer update(const SimPeer& peer, unsigned post, unsigned family, const std::vector<PathKey>& withdrawn,
                std::uint32_t version, const std::vector<PathKey>& announced) {
    UpdateBuilder u;
    const Family f = kFamilies[family];
    std::vector<Nlri> gone, there;
    for (const PathKey& k : withdrawn) gone.push_back(nlri(f, k, peer.addpath));
    for (const PathKey& k : announced) there.push_back(nlri(f, k, peer.addpath));
    if (!there.empty()) {
      u.origin(0).as_path({peer.spec.asn, version});
      if (f == kIpv4Unicast) u.next_hop(ip("10.9.9.9"));
      u.med(version);
    }
    if (f == kIpv4Unicast) {
      for (const Nlri& n : gone) u.withdraw(n);
      for (const Nlri& n : there) u.announce(n);
    } else {
      if (!gone.empty()) u.mp_withdraw(f, gone);
      if (!there.empty()) u.mp_announce(f, ip("2001:db8::99"), there);
    }
    return route_monitoring(spec(peer, post), u);
  }

  void say(SimRouter& router, unsigned feed, Buffer message) {
    Feed& f = router.feeds[feed];
    if (f.twin) f.twin->queue.push_back(message);
    if (f.connected) f.queue.push_back(std::move(message));
  }

  void say_peer_up(SimRouter& router, const SimPeer& peer, unsigned feed) {
    if (!peer.says_up) return;
    OpenSpec sent, received;
    received.asn = peer.spec.asn;
    if (peer.addpath) {
      for (const Family f : kFamilies) {
        sent.addpath.push_back({f, 3});
        received.addpath.push_back({f, 3});
      }
    }
    say(router, feed, peer_up(peer.spec, sent, received));
  }

  // The peer's tables of that feed, in UPDATEs of random size and order.
  void say_dump(SimRouter& router, const SimPeer& peer, unsigned feed) {
    const unsigned end_of_rib_when = pick(3);  // never, before, after
    for (unsigned post = 0; post < views(peer); ++post) {
      if (feed_of(peer, post) != feed) continue;
      for (unsigned f = 0; f < kFamilies.size(); ++f) {
        if (end_of_rib_when == 1) say(router, feed, end_of_rib(spec(peer, post), kFamilies[f]));
        std::map<std::uint32_t, std::vector<PathKey>> by_version;
        for (const auto& [key, version] : peer.tables[post][f]) by_version[version].push_back(key);
        for (auto& [version, keys] : by_version) {
          std::shuffle(keys.begin(), keys.end(), rng_);
          while (!keys.empty()) {
            const std::size_t n = std::min<std::size_t>(keys.size(), 1 + pick(10));
            const std::vector<PathKey> part(keys.end() - static_cast<std::ptrdiff_t>(n), keys.end());
            keys.resize(keys.size() - n);
            say(router, feed, update(peer, post, f, {}, version, part));
          }
        }
        if (end_of_rib_when == 2) say(router, feed, end_of_rib(spec(peer, post), kFamilies[f]));
      }
    }
  }

  PathKey random_key(const SimPeer& peer) { return {pick(kRoutes), peer.addpath ? 1 + pick(3) : 0}; }

  // Changes the tables without telling anybody.
  void mutate(SimPeer& peer) {
    for (unsigned post = 0; post < views(peer); ++post) {
      for (auto& table : peer.tables[post]) {
        if (chance(20)) table.clear();
        for (unsigned n = pick(20); n > 0; --n) {
          if (chance(60)) {
            table[random_key(peer)] = 1 + pick(4);
          } else {
            table.erase(random_key(peer));
          }
        }
      }
    }
  }

  void change_routes(SimRouter& router) {
    SimPeer& peer = router.peers[pick(static_cast<unsigned>(router.peers.size()))];
    if (!peer.up) return;
    const unsigned post = pick(views(peer));
    const unsigned family = pick(kFamilies.size());
    Table& table = peer.tables[post][family];
    std::vector<PathKey> withdrawn, announced;
    const std::uint32_t version = 1 + pick(4);
    for (unsigned n = pick(6); n > 0; --n) withdrawn.push_back(random_key(peer));
    for (unsigned n = pick(12); n > 0; --n) announced.push_back(random_key(peer));
    if (withdrawn.empty() && announced.empty()) return;
    for (const PathKey& k : withdrawn) table.erase(k);
    for (const PathKey& k : announced) table[k] = version;
    say(router, feed_of(peer, post), update(peer, post, family, withdrawn, version, announced));
  }

  void connect(SimRouter& router, unsigned feed) {
    Feed& f = router.feeds[feed];
    f.session = h_.open(router.address, static_cast<std::uint16_t>(20000 + pick(1000)));
    f.connected = true;
    f.queue.clear();
    std::optional<Feed::HalfOpen> twin = std::exchange(f.twin, std::nullopt);  // it was told already
    say_everything(router, feed);
    f.twin = std::move(twin);
  }

  void connect_twin(SimRouter& router, unsigned feed) {
    Feed& f = router.feeds[feed];
    f.twin = Feed::HalfOpen{h_.open(router.address, static_cast<std::uint16_t>(21000 + pick(1000))), {}};
    f.connected = false;  // say() to the new one only
    say_everything(router, feed);
    f.connected = true;
  }
  void close_twin(Feed& f) {
    if (!f.twin) return;
    h_.sink().close_session(f.twin->session);
    f.twin.reset();
  }

  void say_everything(SimRouter& router, unsigned feed) {
    say(router, feed, initiation("router", "simulated"));
    for (SimPeer& peer : router.peers) {
      if (!peer.up) {
        if (chance(50)) say(router, feed, peer_down(peer.spec, 2));  // FRR
        continue;
      }
      say_peer_up(router, peer, feed);
      if (peer.loc_rib && chance(50)) say_peer_up(router, peer, feed);  // one for each family (FRR 10)
    }
    for (SimPeer& peer : router.peers) {
      if (peer.up) say_dump(router, peer, feed);
    }
  }

  void disconnect(SimRouter& router, unsigned feed) {
    Feed& f = router.feeds[feed];
    close_twin(f);
    f.connected = false;
    if (chance(30)) {
      f.half_open.push_back({f.session, std::move(f.queue)});  // nobody notices yet
    } else {
      if (chance(50)) flush(f);
      h_.sink().close_session(f.session);
    }
    f.queue.clear();
  }

  void flap(SimRouter& router) {
    SimPeer& peer = router.peers[pick(2)];
    if (peer.up) {
      peer.up = false;
      for (unsigned post = 0; post < 2; ++post) {
        if (chance(30)) {  // GoBGP
          for (unsigned f = 0; f < kFamilies.size(); ++f) {
            std::vector<PathKey> keys;
            for (const auto& entry : peer.tables[post][f]) keys.push_back(entry.first);
            if (!keys.empty()) say(router, post, update(peer, post, f, keys, 0, {}));
          }
        }
        for (auto& table : peer.tables[post]) table.clear();
      }
      for (unsigned feed = 0; feed < 2; ++feed) say(router, feed, peer_down(peer.spec, 1));
      return;
    }
    peer.up = true;
    if (chance(20)) peer.spec.asn = 65000 + pick(4);
    mutate(peer);
    for (unsigned feed = 0; feed < 2; ++feed) {
      say_peer_up(router, peer, feed);
      say_dump(router, peer, feed);
    }
  }

  void repeat_peer_up(SimRouter& router) {
    SimPeer& peer = router.peers[pick(2)];
    if (!peer.up) return;
    mutate(peer);
    for (unsigned feed = 0; feed < 2; ++feed) {
      say_peer_up(router, peer, feed);
      say_dump(router, peer, feed);
    }
  }

  // Up to `n` messages; stops at a full ring.
  template <class Sender>
  void pump(Sender& feed, unsigned n) {
    const bool looks_ahead = chance(70);
    std::size_t shown = 0;
    for (; n > 0 && !feed.queue.empty(); --n) {
      const std::size_t next = std::min<std::size_t>({Shard::kLookAhead, n, feed.queue.size()});
      while (looks_ahead && shown < next) h_.sink().look_ahead(feed.session, feed.queue[shown++]);
      shown -= std::min<std::size_t>(shown, 1);
      if (h_.sink().apply(feed.session, feed.queue.front()) == Shard::Applied::NoRoom) {
        shown = 0;
        if (drop_newest_) {
          // Never for want of room.
          unsigned again = 0;
          do {
            ASSERT_LT(again++, 64U) << "waits for room";
            h_.sink().do_work();
          } while (h_.sink().apply(feed.session, feed.queue.front()) == Shard::Applied::NoRoom);
          feed.queue.pop_front();
          continue;
        }
        if (chance(50)) h_.sink().set_throttled(feed.session, true);
        return;
      }
      h_.sink().set_throttled(feed.session, false);
      feed.queue.pop_front();
    }
  }

  template <class Sender>
  void flush(Sender& feed) {
    while (!feed.queue.empty()) {
      h_.send(feed.session, feed.queue.front());
      feed.queue.pop_front();
    }
    h_.sink().set_throttled(feed.session, false);
  }

  void close_what_must_be_closed() {
    while (const auto id = h_.sink().take_session_to_close()) {
      h_.sink().close_session(*id);
      for (SimRouter& router : routers_) {
        for (Feed& f : router.feeds) {
          std::erase_if(f.half_open, [&](const Feed::HalfOpen& old) { return old.session == *id; });
          if (f.twin && f.twin->session == *id) f.twin.reset();
        }
      }
      for (SimRouter& router : routers_) {
        for (unsigned feed = 0; feed < 2; ++feed) {
          if (router.feeds[feed].connected && router.feeds[feed].session == *id) connect(router, feed);
        }
      }
    }
  }

  void event() {
    SimRouter& router = routers_[pick(2)];
    const unsigned feed = pick(2);
    Feed& f = router.feeds[feed];
    extra_event();
    switch (pick(22)) {
      case 20:
        if (!f.connected) break;
        if (!f.twin) {
          connect_twin(router, feed);
        } else if (chance(20)) {
          close_twin(f);
        }
        break;
      case 21:
        if (f.twin) pump(*f.twin, 1 + pick(80));
        break;
      case 0:
        if (f.connected) {
          disconnect(router, feed);
        } else {
          connect(router, feed);
        }
        break;
      case 1:
        if (!f.connected) connect(router, feed);
        break;
      case 2: flap(router); break;
      case 3: repeat_peer_up(router); break;
      case 4:
        if (!router.feeds[0].connected) mutate(router.peers[2 + pick(2)]);
        break;
      case 5: h_.clock().now_ns += (std::uint64_t{1} << pick(38)); break;
      case 6:
        if (!f.half_open.empty()) {
          h_.sink().close_session(f.half_open.back().session);
          f.half_open.pop_back();
        }
        break;
      case 15:
        if (!f.half_open.empty())
          pump(f.half_open[pick(static_cast<unsigned>(f.half_open.size()))], 1 + pick(40));
        break;
      case 7:
        if (reader_comes_) {
          h_.sink().publish();
          h_.drain(pick(60));
        }
        break;
      case 8:
      case 9:
      case 10: h_.sink().do_work(); break;
      case 11:
      case 12:
      case 13:
      case 14:
        if (f.connected) pump(f, 1 + pick(80));
        break;
      case 16:
        if (chance(20)) h_.expect_told_is_what_was_written();
        break;
      case 17:
        if (drop_newest_ && chance(30)) h_.fill(pick(4000));
        break;
      default: change_routes(router); break;
    }
    close_what_must_be_closed();
  }

  void quiesce() {
    for (SimRouter& router : routers_) {
      for (Feed& f : router.feeds) {
        if (f.connected) flush(f);
        if (f.twin && chance(70)) flush(*f.twin);
        if (chance(50)) {
          close_twin(f);
        } else if (f.twin) {
          flush(*f.twin);
        }
        for (const Feed::HalfOpen& old : f.half_open) h_.sink().close_session(old.session);
        f.half_open.clear();
      }
    }
    // A session that has to connect anew says everything again.
    for (bool again = true; again;) {
      close_what_must_be_closed();
      again = false;
      for (SimRouter& router : routers_) {
        for (Feed& f : router.feeds) {
          again = again || (f.connected && !f.queue.empty()) || (f.twin && !f.twin->queue.empty());
          if (f.connected) flush(f);
          if (f.twin) flush(*f.twin);
        }
      }
    }
    for (int i = 0; i < 8; ++i) h_.pass_time(50);
  }

  void compare() {
    std::map<RouteKey, std::uint32_t> expected;
    for (const SimRouter& router : routers_) {
      for (const SimPeer& peer : router.peers) {
        for (unsigned post = 0; post < views(peer); ++post) {
          if (!router.feeds[feed_of(peer, post)].connected) continue;
          for (unsigned f = 0; f < kFamilies.size(); ++f) {
            for (const auto& [key, version] : peer.tables[post][f]) {
              const Nlri n = nlri(kFamilies[f], key, false);
              const View view = peer.loc_rib ? View::LocRib : (post != 0 ? View::AdjInPost : View::AdjInPre);
              expected[{ip(router.address), peer.spec.address, peer.spec.type, peer.spec.distinguisher, view,
                        kFamilies[f], n.address, n.length, key.path_id}] = version;
            }
          }
        }
      }
    }
    std::map<RouteKey, std::uint32_t> told;
    for (const auto& [key, route] : h_.table()) told[key] = route.med;
    if (told == expected) return;
    for (const auto& [key, version] : expected) {
      const auto found = told.find(key);
      if (found == told.end()) {
        ADD_FAILURE() << "not told: " << describe(key) << " version " << version;
      } else if (found->second != version) {
        ADD_FAILURE() << "told " << found->second << " instead of " << version << ": " << describe(key);
      }
    }
    for (const auto& [key, version] : told) {
      if (!expected.contains(key)) ADD_FAILURE() << "not there: " << describe(key) << " version " << version;
    }
    FAIL();
  }

  // Every drop is told by exactly one event, and by the router's row.
  void compare_counts() {
    h_.expect_told_is_what_was_written();
    std::map<IpAddress, std::pair<std::uint64_t, std::uint64_t>> dropped, reconciled;
    std::map<IpAddress, bool> last;
    for (const schema::EventFields& e :
         h_.events({schema::EventKind::Dropped, schema::EventKind::Reconciled})) {
      ASSERT_LE(e.since_ns, e.until_ns);
      auto& sum = (e.kind == schema::EventKind::Dropped ? dropped : reconciled)[e.router];
      sum.first += e.counters.at(0).value;
      sum.second += e.counters.at(1).value;
      last[e.router] = e.kind == schema::EventKind::Reconciled;
    }
    EXPECT_EQ(dropped, reconciled);
    std::pair<std::uint64_t, std::uint64_t> all;
    for (const auto& [router, sum] : dropped) {
      EXPECT_TRUE(last[router]);
      all.first += sum.first;
      all.second += sum.second;
    }
    EXPECT_EQ(all.first, h_.metric(IngestMetric::AnnouncementsDropped));
    EXPECT_EQ(all.second, h_.metric(IngestMetric::WithdrawsDropped));
    const StatsReader stats = h_.rows();
    for (const auto& row : stats.routers()) {
      const auto sum = dropped[*IpAddress::parse(row.address)];
      EXPECT_EQ(row.announcements_dropped, sum.first);
      EXPECT_EQ(row.withdraws_dropped, sum.second);
      EXPECT_EQ(row.routes_untold, 0U);
    }
  }

  static std::string describe(const RouteKey& k) {
    return k.router.to_string() + " peer " + k.peer.to_string() + "/" + std::to_string(k.distinguisher) +
           " " + std::string(to_string(k.view)) + " " + k.prefix.to_string() + " id " +
           std::to_string(k.path_id);
  }

  std::mt19937_64 rng_;
  const bool drop_newest_;
  const bool reader_comes_;  // between quiescences
  ShardHarness h_;
  std::vector<SimRouter> routers_;
};

}  // namespace arancini::testing
