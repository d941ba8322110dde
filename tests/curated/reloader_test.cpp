#include "curated/reloader.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>

namespace arancini::curated {
namespace {

// A file that tests change, and two daemons that validate as the real ones do.
class Reloads : public ::testing::Test {
 protected:
  Reloads() {
    for (const char* name : {"curated", "nats-server", "publishd", "ingestd@0"}) {
      ProcessView& process = view.processes.emplace_back();
      process.name = name;
      process.verdict = Verdict::Running;
    }
    make();
  }
  void make() {
    reloader = std::make_unique<Reloader>(
        load(),
        Reloader::World{.load = [this] { return load(); },
                        .view = [this] { return view; },
                        .prepare = [this](const std::string& process,
                                          const Config& next) -> Result<PreparedSettings, std::string> {
                          prepared.push_back(process);
                          if (process == refuses) return Err{std::string("f.toml:1: no")};
                          const Daemon daemon = process == "publishd" ? Daemon::Publishd : Daemon::Ingestd;
                          ConfigPlan plan = plan_change(Config(), next, daemon);
                          return PreparedSettings{text_hash(next.text), plan.live, plan.start};
                        },
                        .commit =
                            [this](const std::string& process, const std::string&) {
                              committed.push_back(process);
                              return process == fails ? std::string("is ending") : std::string();
                            },
                        .take = [this](const Config& next) { level = next.log.level; }});
  }
  Config load() const {
    Config config = parse_config(text, "f.toml");
    config.text = text;
    return config;
  }

  std::string text;
  FleetView view;
  std::string refuses, fails;
  std::vector<std::string> prepared, committed;
  std::string level = "untouched";
  std::unique_ptr<Reloader> reloader;
};

using Names = std::vector<std::string>;

TEST_F(Reloads, AppliesWhatIsLiveAndSaysWhatIsNot) {
  text =
      "[log]\nlevel = 'debug'\n[ring]\nsize_bytes = 33554432\n[metrics]\nmax_routers = 3\nlisten = "
      "'127.0.0.1:1'\n";
  const auto out = reloader->reload(false);
  EXPECT_TRUE(out.ok);
  EXPECT_EQ(out.applied, (Names{"log.level", "metrics.max_routers"}));
  EXPECT_EQ(out.needs_restart.size(), 2U);
  EXPECT_EQ(out.needs_restart.at("ring.size_bytes"), Names{"ingestd@0"});
  EXPECT_EQ(out.needs_restart.at("metrics.listen"), Names{"curated"});
  EXPECT_EQ(committed, (Names{"publishd", "ingestd@0"}));
  EXPECT_EQ(level, "debug");
}

TEST_F(Reloads, ARefusalAnywhereMeansNowhere) {
  text = "[log]\nlevel = 'debug'\n";
  refuses = "ingestd@0";
  const auto out = reloader->reload(false);
  EXPECT_FALSE(out.ok);
  ASSERT_EQ(out.problems.size(), 1U);
  EXPECT_EQ(out.problems[0], std::pair(std::string("ingestd@0"), std::string("f.toml:1: no")));
  EXPECT_TRUE(committed.empty());
  EXPECT_TRUE(out.applied.empty());
  EXPECT_EQ(level, "untouched");
}

TEST_F(Reloads, AnInvalidFileReachesNobody) {
  text = "[bmp]\nbacklog = -1\n";
  const auto out = reloader->reload(false);
  EXPECT_FALSE(out.ok);
  EXPECT_NE(out.problems[0].second.find("f.toml:2: bmp.backlog"), std::string::npos);
  EXPECT_TRUE(prepared.empty());
}

TEST_F(Reloads, CheckOnlyChangesNothing) {
  text = "[log]\nlevel = 'debug'\n";
  const auto out = reloader->reload(true);
  EXPECT_TRUE(out.ok);
  EXPECT_EQ(out.applied, Names{"log.level"});
  EXPECT_TRUE(committed.empty());
  EXPECT_EQ(level, "untouched");
}

TEST_F(Reloads, WhatDoesNotRunReadsItWhenItStartsAndWhatStartsIsWaitedFor) {
  view.processes[3].verdict = Verdict::Dead;
  const auto out = reloader->reload(false);
  EXPECT_TRUE(out.ok);
  EXPECT_EQ(out.notes, Names{"ingestd@0 does not run: it reads the file when it starts"});
  view.processes[3].verdict = Verdict::Starting;
  EXPECT_FALSE(reloader->reload(false).ok);
  EXPECT_EQ(committed, Names{"publishd"});
}

TEST_F(Reloads, AFailureAfterAllHaveAgreedIsSaidWithWhatToDo) {
  text = "[log]\nlevel = 'debug'\n";
  fails = "publishd";
  const auto out = reloader->reload(false);
  EXPECT_FALSE(out.ok);
  EXPECT_NE(out.problems[0].second.find("aranctl restart publishd"), std::string::npos);
  EXPECT_EQ(committed, (Names{"publishd", "ingestd@0"}));
}

TEST(ConfigEffects, LiveKeysAreTakenOverAndNoOthers) {
  const Config before = parse_config("", "f");
  const Config next = parse_config(
      "[log]\nlevel = 'warn'\n[[router]]\naddress = '192.0.2.1'\ntags = ['x']\n[bmp]\nallow = "
      "['10.0.0.0/8']\n"
      "max_sessions_per_router = 3\nmax_routes_per_router = 4\nmax_sessions = 5\n[curation]\nsession_grace_s "
      "= 6\n"
      "resync_timeout_s = 7\nresync_settle_s = 8\n[dump]\ninterval_s = 9\n[snapshot]\ninterval_s = 10\n"
      "store = 'none'\n[metrics]\nmax_routers = 11\n[ring]\nsize_bytes = 33554432\n",
      "f");
  const Config merged = with_live_keys(before, next);
  for (const std::string& key : changed_keys(before, next)) {
    bool live = false;
    for (const Daemon d : {Daemon::Ingestd, Daemon::Publishd, Daemon::Curated})
      live = live || effect_of(key, d) == Effect::Live;
    const auto left = changed_keys(merged, next);
    EXPECT_EQ(std::find(left.begin(), left.end(), key) == left.end(), live) << key;
  }
}

}  // namespace
}  // namespace arancini::curated
