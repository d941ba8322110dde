#include "curated/restarter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace arancini::curated {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000U;

// Two shards, publishd, and a clock that goes on by a second with every pause. Tests say what happens then.
class Restarts : public ::testing::Test {
 protected:
  Restarts() {
    view.nats_state = "connected";
    view.publish.assign(static_cast<std::size_t>(PublishMetric::Count), 0);
    int pid = 100;
    for (const char* name : {"curated", "publishd", "ingestd@0", "ingestd@1"}) {
      ProcessView& one = view.processes.emplace_back();
      one.name = name;
      one.pid = pid++;
      one.verdict = Verdict::Running;
    }
    for (const std::uint32_t k : {0U, 1U}) {
      ShardView shard{k, std::vector<std::uint64_t>(static_cast<std::size_t>(IngestMetric::Count)),
                      "connected"};
      shard.values[static_cast<std::size_t>(IngestMetric::SessionsOpen)] = 3;
      view.shards.push_back(shard);
    }
    shards.resize(2);
  }
  ProcessView& process(const std::string& name) {
    return *std::ranges::find(view.processes, name, &ProcessView::name);
  }
  void set_sessions(std::uint32_t shard, std::uint64_t n) {
    view.shards[shard].values[static_cast<std::size_t>(IngestMetric::SessionsOpen)] = n;
  }
  bool run(std::vector<std::string> names, bool needs_snapshot = true) {
    Restarter restarter({.view = [this] { return view; },
                         .shards = [this] { return shards; },
                         .config_problem = [this] { return config_problem; },
                         .snapshot = [this](std::uint32_t k) -> Result<SnapshotDone, std::string> {
                           calls.push_back("snapshot " + std::to_string(k));
                           on_snapshot();
                           if (!snapshot_error.empty()) return Err{snapshot_error};
                           return SnapshotDone{.shard = k, .name = "s"};
                         },
                         .restart = [this](const std::string& name) -> Result<std::monostate, std::string> {
                           calls.push_back("restart " + name);
                           on_restart(name);
                           return std::monostate{};
                         },
                         .now_ns = [this] { return now_ns; },
                         .gone = [this] { return gone; },
                         .pause =
                             [this] {
                               now_ns += kSecond;
                               on_pause();
                               return !gone;
                             }});
    return restarter.run({.processes = std::move(names),
                          .needs_snapshot = needs_snapshot,
                          .rolling = needs_snapshot,
                          .timeout_ns = 60 * kSecond,
                          .grace_ns = 30 * kSecond},
                         [this](const Restarter::Progress& p) { told.push_back(p); });
  }
  // The last word, of what went wrong.
  [[nodiscard]] std::string end() const { return told.back().text; }

  FleetView view;
  std::vector<ShardAnswer> shards;
  std::string snapshot_error, config_problem;
  std::uint64_t now_ns = 1000 * kSecond;
  bool gone = false;
  std::function<void(const std::string&)> on_restart = [this](const std::string& name) {
    process(name).pid += 1000;
  };
  std::function<void()> on_pause = [] {}, on_snapshot = [] {};
  std::vector<std::string> calls;
  std::vector<Restarter::Progress> told;
};

TEST_F(Restarts, RollingTakesEachShardWithItsSnapshotAndPublishdLast) {
  EXPECT_TRUE(run(Restarter::rolling(view)));
  EXPECT_EQ(calls, (std::vector<std::string>{"snapshot 0", "restart ingestd@0", "snapshot 1",
                                             "restart ingestd@1", "restart publishd"}));
  EXPECT_TRUE(told.back().ok);
  EXPECT_EQ(told.back().process, "");
}

TEST_F(Restarts, WaitsUntilAllIsAsItWas) {
  int step = 0;
  on_restart = [&](const std::string& name) { process(name).verdict = Verdict::Starting; };
  on_pause = [&] {
    switch (++step) {
      case 1: process("ingestd@0").pid = 900; break;
      case 2:
        process("ingestd@0").verdict = Verdict::Running;
        shards[0].restoring = true;
        break;
      case 3:
        shards[0].restoring = false;
        set_sessions(0, 1);
        break;
      case 4: set_sessions(0, 3); break;
      default: FAIL() << "waits for what?";
    }
  };
  EXPECT_TRUE(run({"ingestd@0"}));
  std::vector<std::string> waits;
  for (const auto& p : told)
    if (p.step == Restarter::Step::Wait) waits.push_back(p.text);
  EXPECT_EQ(waits, (std::vector<std::string>{"its former process 102 has not ended", "it is starting",
                                             "it restores its tables: ", "1 of 3 sessions are back"}));
}

TEST_F(Restarts, RoutersThatStayAwayAreWaitedForTheGraceTime) {
  on_restart = [&](const std::string& name) {
    process(name).pid = 900;
    set_sessions(0, 2);
  };
  const std::uint64_t before = now_ns;
  EXPECT_TRUE(run({"ingestd@0"}));
  EXPECT_EQ(now_ns - before, 30 * kSecond);
}

TEST_F(Restarts, EndsAtTheFirstThatDoesNotComeBack) {
  on_restart = [&](const std::string& name) {
    process(name).verdict = Verdict::Dead;
    process(name).pid = 0;
  };
  EXPECT_FALSE(run(Restarter::rolling(view)));
  EXPECT_EQ(std::ranges::count(calls, "restart ingestd@1"), 0);
  EXPECT_FALSE(told.back().ok);
  EXPECT_EQ(end(),
            "ingestd@0: not back after 60 s: it does not run; nothing more is restarted; see its log and: "
            "aranctl status (903)");
}

TEST_F(Restarts, NothingGoesWhileSomethingElseIsNotWell) {
  const auto refused = [&](const std::string& name, const std::string& why) {
    calls.clear();
    EXPECT_FALSE(run({name}));
    EXPECT_TRUE(calls.empty()) << calls.front();
    EXPECT_NE(end().find("not restarted: " + why), std::string::npos) << end();
  };
  process("ingestd@1").verdict = Verdict::Stuck;
  refused("ingestd@0", "ingestd@1 is stuck");
  process("ingestd@1").verdict = Verdict::Running;
  shards[1].restoring = true;
  refused("ingestd@0", "shard 1 restores its tables");
  refused("publishd", "shard 1 restores its tables");
  shards[1].restoring = false;
  view.shards[1].ring_state = "waiting";
  refused("ingestd@0", "the ring of shard 1 is waiting");
  view.shards[1].ring_state = "connected";
  view.nats_state = "disconnected";
  refused("ingestd@0", "NATS is disconnected");
}

TEST_F(Restarts, WhatIsWrongWithItselfIsNoReasonNotToRestartIt) {
  process("publishd").verdict = Verdict::Stuck;
  for (ShardView& s : view.shards) s.ring_state = "disconnected: no publishd reads this ring";
  on_restart = [&](const std::string& name) {
    process(name).pid = 900;
    process(name).verdict = Verdict::Running;
    for (ShardView& s : view.shards) s.ring_state = "connected";
  };
  EXPECT_TRUE(run({"publishd"}));
}

TEST_F(Restarts, PublishdIsBackWhenWhatIsInFlightIsAcked) {
  view.publish[static_cast<std::size_t>(PublishMetric::StreamLastSequence)] = 70;
  on_restart = [&](const std::string& name) {
    process(name).pid = 900;
    view.publish[static_cast<std::size_t>(PublishMetric::MessagesInFlight)] = 9;
  };
  int pauses = 0;
  on_pause = [&] {
    if (++pauses == 5) view.publish[static_cast<std::size_t>(PublishMetric::StreamLastSequence)] = 71;
  };
  EXPECT_TRUE(run({"publishd"}));
  EXPECT_EQ(pauses, 5);
}

TEST_F(Restarts, WithoutASnapshotARollingOneEndsAndANamedOneGoesOn) {
  snapshot_error = "the disk is full";
  EXPECT_FALSE(run({"ingestd@0"}, true));
  EXPECT_NE(
      end().find("no snapshot of it: the disk is full; mend that, or restart it without: aranctl restart "
                 "ingestd@0"),
      std::string::npos)
      << end();
  EXPECT_TRUE(run({"ingestd@0"}, false));
}

TEST_F(Restarts, EndsWhenNobodyWaits) {
  on_restart = [this](const std::string&) { gone = true; };
  EXPECT_FALSE(run(Restarter::rolling(view)));
  EXPECT_EQ(calls, (std::vector<std::string>{"snapshot 0", "restart ingestd@0"}));
  EXPECT_EQ(
      end(),
      "ingestd@0: the caller is gone, it was told to end before; nothing more is restarted; see: aranctl "
      "status (903)");
}

TEST_F(Restarts, WhoGoesWhileASnapshotIsTakenEndsIt) {
  on_snapshot = [this] { gone = true; };
  for (const char* error : {"", "cancelled"}) {
    gone = false;
    calls.clear();
    snapshot_error = error;
    EXPECT_FALSE(run({"ingestd@0"}, false));
    EXPECT_EQ(calls, std::vector<std::string>{"snapshot 0"});
    EXPECT_NE(end().find("the caller is gone, it was not restarted"), std::string::npos) << end();
  }
}

TEST_F(Restarts, WhatGoesWrongWhileASnapshotIsTakenEndsIt) {
  on_snapshot = [this] { process("publishd").verdict = Verdict::Stuck; };
  EXPECT_FALSE(run({"ingestd@0"}));
  EXPECT_EQ(calls, std::vector<std::string>{"snapshot 0"});
  EXPECT_NE(end().find("not restarted: publishd is stuck"), std::string::npos) << end();
}

TEST_F(Restarts, NothingGoesThatWouldRefuseItsConfiguration) {
  config_problem = "bmp.lisen: unknown key";
  EXPECT_FALSE(run({"ingestd@0"}));
  EXPECT_TRUE(calls.empty());
  EXPECT_EQ(
      end(),
      "nothing is restarted: a process that starts now would refuse the configuration: bmp.lisen: unknown "
      "key; mend that first; see: aranctl reload --check (903)");
  // Nor when the file is changed meanwhile.
  config_problem.clear();
  on_restart = [this](const std::string& name) {
    process(name).pid += 1000;
    config_problem = "bmp.lisen: unknown key";
  };
  EXPECT_FALSE(run(Restarter::rolling(view)));
  EXPECT_EQ(calls, (std::vector<std::string>{"snapshot 0", "restart ingestd@0", "snapshot 1"}));
  EXPECT_NE(end().find("ingestd@1: not restarted: its successor would refuse the configuration: bmp.lisen"),
            std::string::npos)
      << end();
}

TEST_F(Restarts, ARollingOneEndsNoDrain) {
  process("ingestd@1").verdict = Verdict::Draining;
  EXPECT_FALSE(run(Restarter::rolling(view)));
  EXPECT_TRUE(calls.empty());
  EXPECT_NE(end().find("ingestd@1 is draining, and a restart would end that; first: aranctl drain --undo"),
            std::string::npos)
      << end();
}

TEST_F(Restarts, OnlyWhatDoesNotAnswerGoesWithoutASnapshotAndThatIsSaid) {
  const auto back = [this](const std::string& name) {
    process(name).pid = 900;
    process(name).verdict = Verdict::Running;
  };
  on_restart = back;
  process("ingestd@0").verdict = Verdict::Degraded;
  EXPECT_TRUE(run({"ingestd@0"}));
  EXPECT_EQ(calls, (std::vector<std::string>{"snapshot 0", "restart ingestd@0"}));
  calls.clear();
  process("ingestd@0").pid = 100;
  process("ingestd@0").verdict = Verdict::Stuck;
  EXPECT_TRUE(run({"ingestd@0"}));
  EXPECT_EQ(calls, std::vector<std::string>{"restart ingestd@0"});
  EXPECT_TRUE(std::ranges::any_of(told, [](const Restarter::Progress& p) {
    return p.step == Restarter::Step::Snapshot && p.text == "none, it will read more of the log: it is stuck";
  }));
}

TEST_F(Restarts, KnowsWhatCanBeRestarted) {
  EXPECT_EQ(Restarter::unusable({"ingestd@1", "publishd"}, view), "");
  EXPECT_EQ(Restarter::unusable({"ingestd@7"}, view),
            "there is no process 'ingestd@7'; there are: publishd, ingestd@0, ingestd@1");
  EXPECT_NE(Restarter::unusable({"curated"}, view).find("systemctl restart curated"), std::string::npos);
  EXPECT_NE(Restarter::unusable({"publishd", "publishd"}, view), "");
  EXPECT_NE(Restarter::unusable({}, view), "");
}

}  // namespace
}  // namespace arancini::curated
