#include <capnp/schema.h>
#include <capnp/serialize.h>
#include <gtest/gtest.h>

#include <random>

#include "common/schema/event_build.h"
#include "common/schema/event_decode.h"
#include "common/schema/update_decode.h"
#include "event.capnp.h"
#include "tests/common/schema/random_messages.h"

namespace arancini::schema {
namespace {

EventFields full() {
  EventFields e;
  e.writer.bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  e.sequence = 77;
  e.time_ns = 1'700'000'000'000'000'001;
  e.kind = EventKind::PeerDown;
  e.scope = EventScope::Table;
  e.has_router = true;
  e.router = IpAddress::from_v4(0xc0000201);
  e.router_id = "edge-1";
  e.router_port = 40000;
  e.peer = *IpAddress::parse("2001:db8::1");
  e.peer_asn = 4'200'000'000;
  e.peer_bgp_id = 0x0a000001;
  e.peer_type = 1;
  e.peer_distinguisher = 0x0001000200030004;
  e.view = arancini::View::AdjOutPost;
  e.family = kIpv6Unicast;
  e.reason = arancini::Reason::PeerDown;
  e.reason_code = 2;
  e.error_code = 503;
  e.text = "peer down";
  e.counters = {{"announcements", 12}, {"withdraws", ~std::uint64_t{0}}};
  e.details = {{"sys_name", "edge-1"}, {"empty", ""}};
  e.since_ns = 5;
  e.until_ns = 6;
  e.last_update_sequence = 99;
  e.raw = {std::byte{3}, std::byte{0}, std::byte{255}};
  return e;
}

std::string snake(std::string_view camel) {
  std::string out;
  for (const char c : camel) {
    if (c >= 'A' && c <= 'Z') {
      out += '_';
      out += static_cast<char>(c - 'A' + 'a');
    } else {
      out += c;
    }
  }
  return out;
}

TEST(Event, ComesBackAsItWasBuilt) {
  const EventFields e = full();
  const std::vector<std::byte> payload = build_event(e);
  EXPECT_EQ(payload.size() % 8, 0U);
  EventFields back;
  EXPECT_EQ(decode_event(payload, back), std::nullopt);
  EXPECT_EQ(back, e);
  const auto view = event_view(payload);
  ASSERT_TRUE(view);
  EXPECT_TRUE(view->has_router);
  EXPECT_EQ(view->router, e.router);
  EXPECT_EQ(view->peer_asn, e.peer_asn);
  EXPECT_EQ(view->kind, e.kind);
  EXPECT_EQ(view->token(), "peer_down");
  EXPECT_EQ(view->sequence, 77U);
  EXPECT_EQ(view->writer, e.writer);
}

TEST(Event, LargeOnesToo) {
  EventFields e = full();
  e.raw.assign(60'000, std::byte{7});
  e.details.assign(300, {"name", "a value of some length"});
  EventFields back;
  const auto payload = build_event(e);
  EXPECT_EQ(decode_event(payload, back), std::nullopt);
  EXPECT_EQ(back, e);
  EXPECT_TRUE(looks_like_event(payload));
}

TEST(Event, WithoutRouterItIsAboutTheCollector) {
  EventFields e;
  e.kind = EventKind::StreamEpoch;
  EventFields back = full();
  const auto payload = build_event(e);
  EXPECT_EQ(decode_event(payload, back), std::nullopt);
  EXPECT_EQ(back, e);
  EXPECT_FALSE(event_view(payload)->has_router);
}

// Subjects are made of these names: they never change, and each kind of the schema has one.
TEST(Event, NamesOfKindsAreThoseOfTheSchema) {
  const auto kinds = capnp::Schema::from<Event::Kind>().getEnumerants();
  EXPECT_EQ(kinds.size(), 20U);
  for (const auto kind : kinds) {
    EXPECT_EQ(to_string(static_cast<EventKind>(kind.getOrdinal())), snake(kind.getProto().getName().cStr()));
  }
  EXPECT_EQ(to_string(static_cast<EventKind>(60'000)), "unspecified");
  const auto scopes = capnp::Schema::from<Event::Scope>().getEnumerants();
  EXPECT_EQ(scopes.size(), 6U);
  for (const auto scope : scopes) {
    EXPECT_EQ(to_string(static_cast<EventScope>(scope.getOrdinal())),
              snake(scope.getProto().getName().cStr()));
  }
}

// What readers of a later version rely on: ids and places of the fields.
TEST(Event, WireContract) {
  EXPECT_EQ(capnp::typeId<Event>(), 0xfdb2ef0f7ebfdbe9U);
  const auto fields = capnp::Schema::from<Event>().getFields();
  const std::vector<std::pair<std::string, unsigned>> expected{{"writerId", 0},
                                                               {"sequence", 0},
                                                               {"timeNs", 1},
                                                               {"kind", 8},
                                                               {"scope", 9},
                                                               {"routerAddr", 1},
                                                               {"routerId", 2},
                                                               {"routerPort", 10},
                                                               {"peerAddr", 3},
                                                               {"peerAsn", 6},
                                                               {"peerBgpId", 7},
                                                               {"peerType", 22},
                                                               {"peerDistinguisher", 4},
                                                               {"view", 20},
                                                               {"afi", 21},
                                                               {"safi", 23}};
  std::size_t i = 0;
  for (const auto& [name, offset] : expected) {
    const auto proto = fields[static_cast<unsigned>(i++)].getProto();
    EXPECT_EQ(std::string(proto.getName().cStr()), name);
    EXPECT_EQ(proto.getSlot().getOffset(), offset) << name;
  }
}

TEST(Event, IsToldFromUpdates) {
  const auto payload = build_event(full());
  EXPECT_TRUE(looks_like_event(payload));
  EXPECT_EQ(guess_format(payload), std::nullopt);
  test::Random random(3);
  for (int i = 0; i < 50; ++i) {
    const test::RandomMessage message(random);
    const test::EncodedRecord record = test::encode(message);
    EXPECT_FALSE(looks_like_event(record.payload()));
  }
}

TEST(Event, DamageIsFoundOrHarmless) {
  const std::vector<std::byte> good = build_event(full());
  EventFields out;
  for (std::size_t n = 0; n < good.size(); ++n) {
    EXPECT_TRUE(decode_event({good.data(), n}, out)) << n;
    EXPECT_FALSE(event_view({good.data(), n})) << n;
    (void)looks_like_event({good.data(), n});
  }
  std::vector<std::byte> longer = good;
  longer.resize(good.size() + 8);
  EXPECT_EQ(decode_event(longer, out), "bytes behind the event");
  std::mt19937_64 rng(1);
  std::size_t refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::vector<std::byte> bad = good;
    for (unsigned k = 1 + static_cast<unsigned>(rng() % 4); k > 0; --k) {
      bad[rng() % bad.size()] = static_cast<std::byte>(rng());
    }
    refused += decode_event(bad, out) ? 1 : 0;
    (void)event_view(bad);
    (void)looks_like_event(bad);
  }
  EXPECT_GT(refused, 1000U);
}

TEST(Event, AddressesOfAnotherSizeAreRefused) {
  capnp::MallocMessageBuilder message;
  auto event = message.initRoot<Event>();
  event.initRouterAddr(4);
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = std::as_bytes(std::span(words.begin(), words.size()));
  EventFields out;
  EXPECT_EQ(decode_event(bytes, out), "routerAddr is not 16 bytes");
  EXPECT_FALSE(event_view(bytes));
}

}  // namespace
}  // namespace arancini::schema
