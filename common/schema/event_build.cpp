#include "common/schema/event_build.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/schema/bytes.h"
#include "event.capnp.h"

namespace arancini::schema {

namespace {

constexpr std::size_t kWordBytes = sizeof(capnp::word);
constexpr std::size_t kFrameBytes = 8;            // segment count - 1, words of the only segment
constexpr std::size_t kStructWords = 1 + 10 + 8;  // root pointer, data, pointers

constexpr std::size_t words(std::size_t bytes) {
  return (bytes + kWordBytes - 1) / kWordBytes;
}

template <std::size_t N>
capnp::Data::Reader data(const std::array<std::uint8_t, N>& bytes) {
  return {bytes.data(), bytes.size()};
}

// Texts of events need no terminator of their own.
template <class Init>
void put_text(std::string_view s, Init&& init) {
  if (s.empty()) return;
  auto out = init(static_cast<unsigned>(s.size()));
  std::memcpy(out.begin(), s.data(), s.size());
}

template <class E>
std::uint32_t bound(const E& e) {
  std::size_t n = kStructWords + 3 * 2;  // writer, router, peer
  n += words(e.router_id.size() + 1) + words(e.text.size() + 1) + words(e.raw.size()) + 2;
  for (const auto& c : e.counters) n += 2 + words(c.name.size() + 1);
  for (const auto& d : e.details) n += 2 + words(d.name.size() + 1) + words(d.value.size() + 1);
  return static_cast<std::uint32_t>(kFrameBytes + n * kWordBytes);
}

template <class E>
void fill(Event::Builder out, const E& e) {
  out.setWriterId(data(e.writer.bytes));
  out.setSequence(e.sequence);
  out.setTimeNs(e.time_ns);
  out.setKind(static_cast<Event::Kind>(e.kind));
  out.setScope(static_cast<Event::Scope>(e.scope));
  if (e.has_router) out.setRouterAddr(data(e.router.bytes));
  put_text(e.router_id, [&](unsigned n) { return out.initRouterId(n); });
  out.setRouterPort(e.router_port);
  if (e.scope >= EventScope::Peer) out.setPeerAddr(data(e.peer.bytes));
  out.setPeerAsn(e.peer_asn);
  out.setPeerBgpId(e.peer_bgp_id);
  out.setPeerType(e.peer_type);
  out.setPeerDistinguisher(e.peer_distinguisher);
  out.setView(static_cast<View>(e.view));
  out.setAfi(e.family.afi);
  out.setSafi(e.family.safi);
  out.setReason(static_cast<Reason>(e.reason));
  out.setReasonCode(e.reason_code);
  out.setErrorCode(e.error_code);
  put_text(e.text, [&](unsigned n) { return out.initText(n); });
  if (!e.counters.empty()) {
    auto list = out.initCounters(static_cast<unsigned>(e.counters.size()));
    for (unsigned i = 0; i < list.size(); ++i) {
      put_text(e.counters[i].name, [&](unsigned n) { return list[i].initName(n); });
      list[i].setValue(e.counters[i].value);
    }
  }
  if (!e.details.empty()) {
    auto list = out.initDetails(static_cast<unsigned>(e.details.size()));
    for (unsigned i = 0; i < list.size(); ++i) {
      put_text(e.details[i].name, [&](unsigned n) { return list[i].initName(n); });
      put_text(e.details[i].value, [&](unsigned n) { return list[i].initValue(n); });
    }
  }
  out.setSinceNs(e.since_ns);
  out.setUntilNs(e.until_ns);
  out.setLastUpdateSequence(e.last_update_sequence);
  if (!e.raw.empty()) {
    out.setRaw({reinterpret_cast<const kj::byte*>(e.raw.data()), e.raw.size()});
  }
}

template <class E>
std::uint32_t build(const E& e, std::span<std::byte> out) {
  const std::uint32_t most = bound(e);
  if (out.size() < most) {
    std::fprintf(stderr, "event_build: %zu bytes for an event of up to %u\n", out.size(), most);
    std::abort();
  }
  std::memset(out.data(), 0, most);
  auto* const segment = reinterpret_cast<capnp::word*>(out.data() + kFrameBytes);
  capnp::FlatMessageBuilder message(kj::arrayPtr(segment, (most - kFrameBytes) / kWordBytes));
  fill(message.initRoot<Event>(), e);
  const std::size_t used = message.getSegmentsForOutput()[0].size();
  store_u64(out.data(), std::uint64_t{used} << 32);
  return static_cast<std::uint32_t>(kFrameBytes + used * kWordBytes);
}

}  // namespace

EventFields fields_of(const EventParts& e) {
  EventFields f;
  f.writer = e.writer;
  f.sequence = e.sequence;
  f.time_ns = e.time_ns;
  f.kind = e.kind;
  f.scope = e.scope;
  f.has_router = e.has_router;
  f.router = e.router;
  f.router_id = e.router_id;
  f.router_port = e.router_port;
  f.peer = e.peer;
  f.peer_asn = e.peer_asn;
  f.peer_bgp_id = e.peer_bgp_id;
  f.peer_type = e.peer_type;
  f.peer_distinguisher = e.peer_distinguisher;
  f.view = e.view;
  f.family = e.family;
  f.reason = e.reason;
  f.reason_code = e.reason_code;
  f.error_code = e.error_code;
  f.text = e.text;
  for (const auto& c : e.counters) f.counters.push_back({std::string(c.name), c.value});
  for (const auto& d : e.details) f.details.push_back({std::string(d.name), std::string(d.value)});
  f.since_ns = e.since_ns;
  f.until_ns = e.until_ns;
  f.last_update_sequence = e.last_update_sequence;
  f.raw.assign(e.raw.begin(), e.raw.end());
  return f;
}

std::uint32_t max_event_bytes(const EventParts& event) {
  return bound(event);
}

std::uint32_t max_event_bytes(const EventFields& event) {
  return bound(event);
}

std::uint32_t build_event(const EventParts& event, std::span<std::byte> out) {
  return build(event, out);
}

std::uint32_t build_event(const EventFields& event, std::span<std::byte> out) {
  return build(event, out);
}

std::vector<std::byte> build_event(const EventFields& event) {
  std::vector<std::byte> bytes(bound(event));
  bytes.resize(build(event, bytes));
  return bytes;
}

}  // namespace arancini::schema
