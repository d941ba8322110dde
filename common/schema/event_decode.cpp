#include "common/schema/event_decode.h"

#include <capnp/serialize.h>

#include <cstring>
#include <exception>
#include <vector>

#include "common/schema/bytes.h"
#include "event.capnp.h"

namespace arancini::schema {

namespace {

// Event as of its first version: the least that a producer writes. Updates have more pointers.
constexpr std::uint16_t kEventDataWords = 10;
constexpr std::uint16_t kEventPointers = 8;
constexpr std::uint16_t kUpdatePointersAtLeast = 10;

// A payload that breaks the contract although it is good Cap'n Proto.
struct BadField : std::exception {
  explicit BadField(const char* what) : text(what) {}
  [[nodiscard]] const char* what() const noexcept override { return text; }
  const char* text;
};

std::array<std::uint8_t, 16> sixteen(capnp::Data::Reader data, const char* what) {
  std::array<std::uint8_t, 16> out{};
  if (data.size() == 0) return out;
  if (data.size() != out.size()) throw BadField(what);
  std::memcpy(out.data(), data.begin(), out.size());
  return out;
}

std::string text_of(capnp::Text::Reader text) {
  return {text.begin(), text.size()};
}

template <class F>
std::optional<std::string> with_event(std::span<const std::byte> payload, F&& f) {
  if (payload.empty() || payload.size() % sizeof(capnp::word) != 0) {
    return "payload of " + std::to_string(payload.size()) + " bytes is no message";
  }
  std::vector<capnp::word> words(payload.size() / sizeof(capnp::word));
  std::memcpy(words.data(), payload.data(), payload.size());
  try {
    capnp::FlatArrayMessageReader reader(kj::arrayPtr(words.data(), words.size()));
    f(reader.getRoot<Event>());
    if (reader.getEnd() != words.data() + words.size()) return "bytes behind the event";
  } catch (const kj::Exception& e) {
    return std::string(e.getDescription().begin(), e.getDescription().size());
  } catch (const std::exception& e) {
    return e.what();
  }
  return std::nullopt;
}

}  // namespace

std::string_view to_string(EventKind kind) {
  switch (kind) {
    case EventKind::Unspecified: return "unspecified";
    case EventKind::SessionUp: return "session_up";
    case EventKind::SessionDown: return "session_down";
    case EventKind::SessionSuperseded: return "session_superseded";
    case EventKind::Initiation: return "initiation";
    case EventKind::Termination: return "termination";
    case EventKind::PeerUp: return "peer_up";
    case EventKind::PeerDown: return "peer_down";
    case EventKind::Statistics: return "statistics";
    case EventKind::SyncStart: return "sync_start";
    case EventKind::SyncEnd: return "sync_end";
    case EventKind::Dropped: return "dropped";
    case EventKind::Reconciled: return "reconciled";
    case EventKind::StreamEpoch: return "stream_epoch";
    case EventKind::RetentionGap: return "retention_gap";
    case EventKind::DumpStart: return "dump_start";
    case EventKind::DumpEnd: return "dump_end";
    case EventKind::Limit: return "limit";
    case EventKind::Released: return "released";
    case EventKind::Acquired: return "acquired";
  }
  return "unspecified";
}

std::string_view to_string(EventScope scope) {
  switch (scope) {
    case EventScope::Collector: return "collector";
    case EventScope::Router: return "router";
    case EventScope::Session: return "session";
    case EventScope::Peer: return "peer";
    case EventScope::View: return "view";
    case EventScope::Table: return "table";
  }
  return "unknown";
}

std::optional<EventView> event_view(std::span<const std::byte> payload) noexcept {
  try {
    EventView view;
    const auto error = with_event(payload, [&view](Event::Reader in) {
      view.writer.bytes = sixteen(in.getWriterId(), "writerId is not 16 bytes");
      view.sequence = in.getSequence();
      view.kind = static_cast<EventKind>(in.getKind());
      view.has_router = in.getRouterAddr().size() != 0;
      view.router.bytes = sixteen(in.getRouterAddr(), "routerAddr is not 16 bytes");
      view.peer_asn = in.getPeerAsn();
    });
    if (error) return std::nullopt;
    return view;
  } catch (const std::exception&) {  // no memory
    return std::nullopt;
  }
}

std::optional<std::string> decode_event(std::span<const std::byte> payload, EventFields& out) {
  return with_event(payload, [&out](Event::Reader in) {
    out = EventFields{};
    out.writer.bytes = sixteen(in.getWriterId(), "writerId is not 16 bytes");
    out.sequence = in.getSequence();
    out.time_ns = in.getTimeNs();
    out.kind = static_cast<EventKind>(in.getKind());
    out.scope = static_cast<EventScope>(in.getScope());
    out.has_router = in.getRouterAddr().size() != 0;
    out.router.bytes = sixteen(in.getRouterAddr(), "routerAddr is not 16 bytes");
    out.router_id = text_of(in.getRouterId());
    out.router_port = in.getRouterPort();
    out.peer.bytes = sixteen(in.getPeerAddr(), "peerAddr is not 16 bytes");
    out.peer_asn = in.getPeerAsn();
    out.peer_bgp_id = in.getPeerBgpId();
    out.peer_type = in.getPeerType();
    out.peer_distinguisher = in.getPeerDistinguisher();
    const auto view = static_cast<std::uint16_t>(in.getView());
    if (view >= kViewCount) throw BadField("view is not known");
    out.view = static_cast<arancini::View>(view);
    out.family = {in.getAfi(), in.getSafi()};
    out.reason = static_cast<arancini::Reason>(in.getReason());
    out.reason_code = in.getReasonCode();
    out.error_code = in.getErrorCode();
    out.text = text_of(in.getText());
    for (const auto c : in.getCounters()) out.counters.push_back({text_of(c.getName()), c.getValue()});
    for (const auto d : in.getDetails()) out.details.push_back({text_of(d.getName()), text_of(d.getValue())});
    out.since_ns = in.getSinceNs();
    out.until_ns = in.getUntilNs();
    out.last_update_sequence = in.getLastUpdateSequence();
    const capnp::Data::Reader raw = in.getRaw();
    const auto* const bytes = reinterpret_cast<const std::byte*>(raw.begin());
    out.raw.assign(bytes, bytes + raw.size());
  });
}

bool looks_like_event(std::span<const std::byte> payload) {
  // Events are one segment unless they are large: then the root pointer is not where it is looked for.
  if (payload.size() < 16) return false;
  const std::uint64_t segments = std::uint64_t{load_u32(payload.data())} + 1;
  if (segments > 512) return false;
  const std::uint64_t table_bytes = (4 + 4 * segments + 7) / 8 * 8;
  if (payload.size() < table_bytes + 8) return false;
  const std::uint64_t root = load_u64(payload.data() + table_bytes);
  if ((root & 3) != 0) return false;
  const auto data_words = static_cast<std::uint16_t>(root >> 32);
  const auto pointers = static_cast<std::uint16_t>(root >> 48);
  return data_words >= kEventDataWords && pointers >= kEventPointers && pointers < kUpdatePointersAtLeast;
}

}  // namespace arancini::schema
