#include "ingestd/restart_state.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tests/ingestd/bmp_builder.h"

namespace arancini::testing {
namespace {

using namespace ingestd;

// Something in every field.
RestartState full_state() {
  RestartState s;
  s.version = "1.2.3";
  s.boot_id = "a boot";
  s.shard = 2;
  s.shard_count = 3;
  s.writer.bytes.fill(7);
  s.ring_tail = 1000;
  s.next_sequence = 2000;
  s.next_event_sequence = 30;
  s.last_read_ns = 4'000'000'000'000;
  s.sessions_closed = 5;
  RestartSession first;
  first.serial = 3;
  first.router = 0;
  first.source = ip("192.0.2.1");
  first.port = 30000;
  first.opened_realtime_ns = 1;
  first.messages = 2;
  first.bytes = 3;
  first.in_progress = true;
  first.field = 1;
  first.judged = first.path_ids = true;
  first.superseded = 4;
  first.offset_bytes = 5;
  first.stream_offset = 6;
  first.pending = {std::byte{1}, std::byte{2}, std::byte{3}};
  RestartSession second;
  second.serial = 9;
  second.source = ip("2001:db8::1");
  s.sessions = {first, second};
  RestartTable v4;
  v4.routes = 3;
  v4.negotiated = v4.mismatch_said = v4.without_ids = true;
  v4.learned = {true, true, true};
  v4.sync_active = true;
  v4.sync_deadline_ns = 1;
  v4.sync_end_of_rib_ns = 2;
  v4.sync_news_ns = 3;
  v4.sync_since_realtime_ns = 4;
  v4.old = RestartTable::Old::Others;
  v4.keys = {{0, kV4MappedLow | 0xc6000000U, 0, 24}, {0, kV4MappedLow, 0xffffffffU, 0}};
  v4.paths = {{{0, kV4MappedLow | 0xc6000100U, 0, 32}, 3}};
  RestartTable v6;
  v6.family = kIpv6Unicast;
  v6.old = RestartTable::Old::Keys;
  v6.keys = {{0x20010db800000000U, 1, 7, 128}};
  RestartView view;
  view.view = View::LocRib;
  view.state = 1;
  view.asn = 65001;
  view.bgp_id = 2;
  view.as_width_said = view.owned_before = true;
  view.told_asn = 65002;
  view.told_bgp_id = 3;
  view.owner = 0;
  view.superseded = {0};
  view.claimed_serial = 3;
  view.router_port = 4;
  view.published = 5;
  view.suppressed = 6;
  view.malformed = 7;
  view.synthetic = 8;
  view.changed_realtime_ns = 9;
  view.down_reason = 10;
  view.tables = {v4, v6};
  RestartView lost;
  lost.view = View::AdjInPost;
  lost.state = 3;
  lost.grace_active = true;
  lost.grace_deadline_ns = 11;
  RestartPeer peer;
  peer.type = 3;
  peer.distinguisher = 1;
  peer.address = ip("10.0.0.1");
  peer.up = peer.unknown_said = true;
  peer.up_session = 3;
  peer.addpath_in = 5;
  peer.addpath_out = 10;
  peer.views = {view, lost};
  RestartRouter router;
  router.address = ip("192.0.2.1");
  router.name = "ams";
  router.state = 2;
  router.port = 1;
  router.faults = 2;
  router.connected_realtime_ns = 3;
  router.last_message_realtime_ns = 4;
  router.messages = 5;
  router.bytes = 6;
  router.malformed = 7;
  router.published = 8;
  router.suppressed = 9;
  router.announcements_dropped = 10;
  router.withdraws_dropped = 11;
  router.last_error = 12;
  router.last_error_text = "text";
  router.sys_name = "name";
  router.sys_descr = "descr";
  router.limit_over = true;
  router.limit_skipped = 13;
  router.limit_said_ns = 14;
  router.limit_asked_ns = 15;
  router.limit_freed_ns = 16;
  router.peers = {peer};
  s.routers = {router};
  return s;
}

TEST(RestartState, ComesBackAsItWas) {
  const RestartState state = full_state();
  const auto back = decode_restart(encode_restart(state));
  ASSERT_TRUE(back) << back.error();
  EXPECT_EQ(*back, state);
  const auto empty = decode_restart(encode_restart({}));
  ASSERT_TRUE(empty) << empty.error();
  EXPECT_EQ(*empty, RestartState{});
}

TEST(RestartState, WhatBreaksItsRulesIsRefused) {
  const auto error = [](auto&& change) {
    RestartState state = full_state();
    change(state);
    const auto back = decode_restart(encode_restart(state));
    return back ? std::string("taken") : back.error();
  };
  EXPECT_EQ(error([](RestartState& s) { s.sessions[0].router = 1; }), "a session is of no router");
  EXPECT_EQ(error([](RestartState& s) { s.sessions[1].serial = 3; }), "sessions are not in their order");
  EXPECT_EQ(error([](RestartState& s) { s.sessions[0].serial = 0; }), "sessions are not in their order");
  EXPECT_EQ(error([](RestartState& s) { s.sessions[0].pending.clear(); }),
            "a message in progress is not there");
  const auto view = [&](auto&& change) {
    return error([&](RestartState& s) { change(s.routers[0].peers[0].views[0]); });
  };
  EXPECT_EQ(view([](RestartView& v) { v.owner = 2; }), "a view is told by no session");
  EXPECT_EQ(view([](RestartView& v) { v.owner = 1; }), "a view is told by another router's session");
  EXPECT_EQ(view([](RestartView& v) { v.superseded = {7}; }), "a view is told by no session");
  EXPECT_EQ(view([](RestartView& v) { v.view = View{5}; }), "a view is not known");
  EXPECT_EQ(view([](RestartView& v) { v.view = View::AdjInPost; }), "a view comes twice");
  EXPECT_EQ(view([](RestartView& v) { v.state = 4; }), "a view's state is not known");
  EXPECT_EQ(view([](RestartView& v) { v.grace_active = true; }), "a view is told, and is not");
  EXPECT_EQ(view([](RestartView& v) { v.tables[1] = v.tables[0]; }), "a table comes twice");
  EXPECT_EQ(view([](RestartView& v) { v.tables[0].family = {1, 128}; }), "a table has no known family");
  EXPECT_EQ(view([](RestartView& v) { v.tables[0].keys[0].length = 33; }), "a prefix is too long");
  EXPECT_EQ(view([](RestartView& v) { v.tables[1].keys[0].length = 129; }), "a prefix is too long");
  EXPECT_EQ(view([](RestartView& v) { v.tables[0].paths[0].count = 4; }),
            "a route stands for too many paths");
  EXPECT_EQ(error([](RestartState& s) { s.routers[0].state = 5; }), "a router's state is not known");
}

// Whatever the bytes are, the decoder comes to an end with a state or an error.
TEST(RestartState, DamagedBytesAreRefusedOrRead) {
  const std::vector<std::byte> good = encode_restart(full_state());
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(decode_restart(std::span(good).first(size))) << size;
  }
  std::mt19937_64 rng(1);
  unsigned refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes = good;
    for (unsigned n = 1 + rng() % 4; n > 0; --n) bytes[rng() % bytes.size()] = static_cast<std::byte>(rng());
    if (!decode_restart(bytes)) ++refused;
  }
  EXPECT_GT(refused, 1000U);
}

TEST(RestartState, AnotherFormatIsRefusedByName) {
  RestartState state;
  state.version = "9.9";
  std::vector<std::byte> bytes = encode_restart(state);
  // The root's first 32 bits, behind the segment table and the root pointer.
  bytes[16] = std::byte{2};
  const auto back = decode_restart(bytes);
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error(), "it has format 2, written by version 9.9");
}

TEST(RestartState, TheBootHasAName) {
  EXPECT_EQ(boot_id().size(), 36U);
  EXPECT_EQ(boot_id(), boot_id());
}

}  // namespace
}  // namespace arancini::testing
