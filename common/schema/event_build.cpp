#include "common/schema/event_build.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <cstring>

#include "event.capnp.h"

namespace arancini::schema {

namespace {

template <std::size_t N>
capnp::Data::Reader data(const std::array<std::uint8_t, N>& bytes) {
  return {bytes.data(), bytes.size()};
}

capnp::Text::Reader text(const std::string& s) {
  return {s.c_str(), s.size()};
}

}  // namespace

std::vector<std::byte> build_event(const EventFields& e) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<Event>();
  out.setWriterId(data(e.writer.bytes));
  out.setSequence(e.sequence);
  out.setTimeNs(e.time_ns);
  out.setKind(static_cast<Event::Kind>(e.kind));
  out.setScope(static_cast<Event::Scope>(e.scope));
  if (e.has_router) out.setRouterAddr(data(e.router.bytes));
  if (!e.router_id.empty()) out.setRouterId(text(e.router_id));
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
  if (!e.text.empty()) out.setText(text(e.text));
  if (!e.counters.empty()) {
    auto list = out.initCounters(static_cast<unsigned>(e.counters.size()));
    for (unsigned i = 0; i < list.size(); ++i) {
      list[i].setName(text(e.counters[i].name));
      list[i].setValue(e.counters[i].value);
    }
  }
  if (!e.details.empty()) {
    auto list = out.initDetails(static_cast<unsigned>(e.details.size()));
    for (unsigned i = 0; i < list.size(); ++i) {
      list[i].setName(text(e.details[i].name));
      list[i].setValue(text(e.details[i].value));
    }
  }
  out.setSinceNs(e.since_ns);
  out.setUntilNs(e.until_ns);
  out.setLastUpdateSequence(e.last_update_sequence);
  if (!e.raw.empty()) {
    out.setRaw({reinterpret_cast<const kj::byte*>(e.raw.data()), e.raw.size()});
  }
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(message);
  std::vector<std::byte> bytes(words.size() * sizeof(capnp::word));
  std::memcpy(bytes.data(), words.begin(), bytes.size());
  return bytes;
}

}  // namespace arancini::schema
