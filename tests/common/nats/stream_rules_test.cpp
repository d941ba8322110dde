#include "common/nats/stream_rules.h"

#include <gtest/gtest.h>

namespace arancini {
namespace {

struct StreamRules : testing::Test {
  StreamFacts stream{.subjects = {"arancini.updates.>"}};
  StreamWishes wishes{.subjects = "arancini.updates.>"};
  std::string warnings() {
    std::string all;
    for (const auto& w : stream_warnings(stream, wishes)) all += w + "\n";
    return all;
  }
};

TEST_F(StreamRules, WhatLosesDataIsRefused) {
  EXPECT_EQ(why_unusable(stream, wishes), "");
  const auto refused = [&](auto change) {
    StreamFacts s = stream;
    change(s);
    return why_unusable(s, wishes);
  };
  EXPECT_NE(refused([](StreamFacts& s) { s.subjects = {"arancini.updates.*"}; }), "");
  EXPECT_NE(refused([](StreamFacts& s) { s.sealed = true; }).find("sealed"), std::string::npos);
  EXPECT_NE(refused([](StreamFacts& s) { s.no_ack = true; }).find("no_ack"), std::string::npos);
  EXPECT_NE(refused([](StreamFacts& s) { s.keeps_until_limits = false; }).find("limits"), std::string::npos);
  EXPECT_NE(refused([](StreamFacts& s) { s.in_memory = true; }).find("memory"), std::string::npos);
  EXPECT_NE(refused([](StreamFacts& s) { s.mirrors_others = true; }).find("mirror"), std::string::npos);
  EXPECT_NE(refused([](StreamFacts& s) { s.max_messages_per_subject = 1; }), "");
}

TEST_F(StreamRules, SubjectsOfTheStreamMustCoverOurs) {
  EXPECT_TRUE(subject_covers("arancini.updates.>", "arancini.updates.>"));
  EXPECT_TRUE(subject_covers("arancini.>", "arancini.updates.>"));
  EXPECT_TRUE(subject_covers(">", "arancini.updates.>"));
  EXPECT_TRUE(subject_covers("*.updates.>", "arancini.updates.>"));
  EXPECT_FALSE(subject_covers("arancini.updates", "arancini.updates.>"));
  EXPECT_FALSE(subject_covers("arancini.updates.x.>", "arancini.updates.>"));
  EXPECT_FALSE(subject_covers("other.>", "arancini.updates.>"));
}

TEST_F(StreamRules, FullOnlyWhereItRefuses) {
  stream.max_messages = 10;
  stream.messages = 10;
  EXPECT_EQ(why_full(stream), "");  // discard: old
  stream.refuses_when_full = true;
  EXPECT_NE(why_full(stream).find("max_msgs 10"), std::string::npos);
  stream.messages = 9;
  EXPECT_EQ(why_full(stream), "");
  stream.max_bytes = 100;
  stream.bytes = 101;
  EXPECT_NE(why_full(stream).find("max_bytes 100"), std::string::npos);
}

TEST_F(StreamRules, LimitsAreToldUnlessTheyAreOurOwn) {
  EXPECT_EQ(warnings(), "");
  stream.max_bytes = 1000;
  stream.max_age_s = 3600;
  EXPECT_NE(warnings().find("max_bytes 1000, max_age 3600 s: the oldest"), std::string::npos) << warnings();
  wishes.max_bytes = 1000;
  wishes.max_age_s = 3600;
  EXPECT_EQ(warnings(), "");
  stream.max_messages = 5;
  stream.refuses_when_full = true;
  EXPECT_NE(warnings().find("max_msgs 5 with discard: new"), std::string::npos) << warnings();
  wishes.must_be_whole = false;  // events
  EXPECT_EQ(warnings(), "");
}

TEST_F(StreamRules, OtherWarnings) {
  wishes.replicas = 3;
  EXPECT_NE(warnings().find("1 replica(s), nats.replicas says 3"), std::string::npos) << warnings();
  stream.replicas = 3;
  EXPECT_EQ(warnings(), "");
  stream.duplicate_window_s = 120;
  EXPECT_EQ(warnings(), "");
  stream.duplicate_window_s = 600;
  EXPECT_NE(warnings().find("600 s"), std::string::npos) << warnings();
  stream.duplicate_window_s = 0;
  stream.rollup_allowed = true;
  EXPECT_NE(warnings().find("allow_rollup_hdrs"), std::string::npos) << warnings();
}

}  // namespace
}  // namespace arancini
