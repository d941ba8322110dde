#include "ingestd/life_cycle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "ingestd/router_event.h"

namespace arancini::ingestd {

namespace {

using schema::EventKind;
using schema::EventParts;
using schema::EventScope;

// Texts of one event, on the stack. What does not fit is cut.
template <std::size_t N>
class Scratch {
 public:
  template <class... T>
  std::string_view format(fmt::format_string<T...> text, T&&... values) {
    char* const begin = bytes_.data() + used_;
    const auto end = fmt::format_to_n(begin, N - used_, text, std::forward<T>(values)...);
    const std::size_t size = std::min(end.size, N - used_);
    used_ += size;
    return {begin, size};
  }
  // What a router says, for humans: at most `most` bytes, what is not printable ASCII as '?'. (The message
  // itself is in the event.)
  std::string_view printable(wire::Bytes from, std::size_t most = 255) {
    char* const begin = bytes_.data() + used_;
    const std::size_t size = std::min({from.size(), N - used_, most});
    for (std::size_t i = 0; i < size; ++i) {
      const auto c = static_cast<unsigned char>(from[i]);
      begin[i] = c >= 0x20 && c < 0x7f ? static_cast<char>(c) : '?';
    }
    used_ += size;
    return {begin, size};
  }

 private:
  std::array<char, N> bytes_;
  std::size_t used_ = 0;
};

template <class T, std::size_t N>
class List {
 public:
  void add(const T& value) {
    if (size_ < N) values_[size_++] = value;
  }
  [[nodiscard]] std::span<const T> all() const { return {values_.data(), size_}; }

 private:
  std::array<T, N> values_{};
  std::size_t size_ = 0;
};
template <std::size_t N>
using Counters = List<EventParts::Counter, N>;
template <std::size_t N>
using Details = List<EventParts::Detail, N>;

EventParts about(const Session& session, EventKind kind) {
  EventParts event = about_router(*session.router, kind, EventScope::Session);
  event.router_port = session.port;
  return event;
}

EventParts about(const Session& session, const wire::PerPeerHeader& header, EventKind kind) {
  EventParts event = about_router(*session.router, kind, EventScope::Peer);
  event.router_port = session.port;
  event.peer = header.address;
  event.peer_asn = header.asn;
  event.peer_bgp_id = header.bgp_id;
  event.peer_type = header.peer_type;
  event.peer_distinguisher = header.distinguisher;
  event.view = header.view();
  return event;
}

EventParts about(const PeerView& view, EventKind kind, EventScope scope) {
  const Peer& peer = view.peer;
  EventParts event = about_router(*peer.router, kind, scope);
  event.router_port = view.router_port;
  event.peer = peer.key.address;
  event.peer_asn = view.asn;
  event.peer_bgp_id = view.bgp_id;
  event.peer_type = peer.key.type;
  event.peer_distinguisher = peer.key.distinguisher;
  event.view = view.view;
  return event;
}

// Enough for the lists of the largest event below.
constexpr std::uint32_t kMessageEventBytes = 16 * 1024;

// Names of statistics (RFC 7854 4.8, RFC 8671 6.2; IANA "BMP Statistics Types"), by type; those of one AFI
// and SAFI get them behind.
struct Statistic {
  std::string_view name;
  bool per_family = false;
};
constexpr std::array<Statistic, 18> kStatistics{{{"rejected_prefixes"},
                                                 {"duplicate_announcements"},
                                                 {"duplicate_withdraws"},
                                                 {"cluster_list_loops"},
                                                 {"as_path_loops"},
                                                 {"originator_id_loops"},
                                                 {"as_confed_loops"},
                                                 {"adj_rib_in_routes"},
                                                 {"loc_rib_routes"},
                                                 {"adj_rib_in_routes", true},
                                                 {"loc_rib_routes", true},
                                                 {"treat_as_withdraw_updates"},
                                                 {"treat_as_withdraw_prefixes"},
                                                 {"duplicate_updates"},
                                                 {"adj_rib_out_pre_routes"},
                                                 {"adj_rib_out_post_routes"},
                                                 {"adj_rib_out_pre_routes", true},
                                                 {"adj_rib_out_post_routes", true}}};
constexpr std::size_t kMostStatistics = 96;

std::uint64_t big_endian(wire::Bytes bytes) {
  std::uint64_t v = 0;
  for (const std::byte b : bytes) v = v << 8 | static_cast<std::uint64_t>(b);
  return v;
}

// "192.0.2.1" without the heap.
template <std::size_t N>
std::string_view dotted(Scratch<N>& text, std::uint32_t id) {
  return text.format("{}.{}.{}.{}", id >> 24, id >> 16 & 255, id >> 8 & 255, id & 255);
}

template <std::size_t N>
std::string_view address(Scratch<N>& text, const IpAddress& a) {
  return text.format("{}", a.to_string());
}

template <std::size_t N, std::size_t D, std::size_t C>
void describe_open(Scratch<N>& text, Details<D>& details, Counters<C>& counters, std::string_view who,
                   const wire::OpenInfo& open) {
  if (!open.valid) return;
  counters.add({text.format("{}_asn", who), open.asn});
  counters.add({text.format("{}_hold_time_s", who), open.hold_time});
  const std::string_view id_name = text.format("{}_bgp_id", who);
  details.add({id_name, dotted(text, open.bgp_id)});
  const std::string_view families_name = text.format("{}_families", who);
  std::array<char, 512> line;
  std::size_t size = 0;
  const auto put = [&line, &size]<class... T>(fmt::format_string<T...> f, T&&... values) {
    const auto end = fmt::format_to_n(line.data() + size, line.size() - size, f, std::forward<T>(values)...);
    size = std::min(size + end.size, line.size());
  };
  for (std::uint32_t i = 0; i < open.family_count; ++i) {
    put("{}{}/{}", i == 0 ? "" : " ", open.families[i].afi, open.families[i].safi);
  }
  if (size > 0) details.add({families_name, text.format("{}", std::string_view(line.data(), size))});
  size = 0;
  if (open.four_byte_as) put("four_byte_as");
  if (open.extended_message) put("{}extended_message", size == 0 ? "" : " ");
  if (open.enhanced_refresh) put("{}enhanced_refresh", size == 0 ? "" : " ");
  for (std::uint32_t i = 0; i < open.addpath_count; ++i) {
    const auto& path = open.addpath[i];
    put("{}add_path={}/{}:{}", size == 0 ? "" : " ", path.family.afi, path.family.safi, path.send_receive);
  }
  const std::string_view capabilities_name = text.format("{}_capabilities", who);
  if (size > 0) details.add({capabilities_name, text.format("{}", std::string_view(line.data(), size))});
}

}  // namespace

std::string_view to_string(SyncCause cause) {
  switch (cause) {
    case SyncCause::EndOfRib: return "end_of_rib";
    case SyncCause::Timeout: return "timeout";
    case SyncCause::PeerDown: return "peer_down";
    case SyncCause::SessionLost: return "session_lost";
    case SyncCause::GraceExpired: return "grace_expired";
    case SyncCause::AsChanged: return "as_changed";
    case SyncCause::Operator: return "operator";
  }
  return "unknown";
}

bool LifeCycle::room_for(wire::Bytes message, std::size_t tables) {
  return events_.reserve(kMessageEventBytes + static_cast<std::uint32_t>(Events::raw_of(message).size()) +
                         static_cast<std::uint32_t>(tables) * kSmallEventBytes);
}

void LifeCycle::session_up(const Session& session) {
  EventParts event = about(session, EventKind::SessionUp);
  Scratch<128> text;
  const std::array counters{EventParts::Counter{"sessions", session.router->sessions}};
  event.counters = counters;
  event.text = text.format("session from port {}, {} open", session.port, session.router->sessions);
  events_.write(session.router->row, event);
}

void LifeCycle::session_down(const Session& session) {
  const Router& router = *session.router;
  EventParts event = about(session, EventKind::SessionDown);
  Scratch<512> text;
  const std::array counters{EventParts::Counter{"sessions", router.sessions},
                            EventParts::Counter{"messages", session.messages},
                            EventParts::Counter{"bytes", session.bytes}};
  event.counters = counters;
  event.error_code = static_cast<std::uint32_t>(session.end_error);
  event.since_ns = session.opened_realtime_ns;
  event.until_ns = context_.realtime_ns;
  event.text = session.end_error == ErrorCode::None
                   ? text.format("session from port {} closed, {} open", session.port, router.sessions)
                   : text.format("session from port {} closed, {} open: {}", session.port, router.sessions,
                                 router.last_error_text.data());
  events_.write(router.row, event);
}

void LifeCycle::initiation(const Session& session, wire::Bytes message) {
  EventParts event = about(session, EventKind::Initiation);
  Scratch<2048> text;
  Details<8> details;
  wire::TlvReader tlvs(wire::information_tlvs(message));
  for (wire::Tlv tlv; tlvs.next(tlv);) {
    switch (tlv.type) {
      case wire::kInitiationSysName: details.add({"sys_name", text.printable(tlv.value)}); break;
      case wire::kInitiationSysDescr: details.add({"sys_descr", text.printable(tlv.value)}); break;
      case wire::kInitiationString: details.add({"string", text.printable(tlv.value)}); break;
      default: break;  // in `raw`
    }
  }
  event.details = details.all();
  event.text =
      text.format("{} says who it is",
                  session.router->sys_name.front() != 0 ? session.router->sys_name.data() : "the router");
  event.raw = Events::raw_of(message);
  events_.write(session.router->row, event);
}

void LifeCycle::termination(const Session& session, wire::Bytes message) {
  EventParts event = about(session, EventKind::Termination);
  Scratch<1024> text;
  Details<4> details;
  wire::TlvReader tlvs(wire::information_tlvs(message));
  for (wire::Tlv tlv; tlvs.next(tlv);) {
    if (tlv.type == wire::kTerminationString) details.add({"string", text.printable(tlv.value)});
    if (tlv.type == wire::kTerminationReason && tlv.value.size() == 2)
      event.reason_code = static_cast<std::uint32_t>(big_endian(tlv.value));
  }
  event.details = details.all();
  event.text =
      text.format("the router ends the session from port {}, reason {}", session.port, event.reason_code);
  event.raw = Events::raw_of(message);
  events_.write(session.router->row, event);
}

void LifeCycle::peer_up(const Session& session, const wire::PerPeerHeader& header, const wire::PeerUp& up,
                        wire::Bytes message) {
  EventParts event = about(session, header, EventKind::PeerUp);
  Scratch<6144> text;
  Details<16> details;
  Counters<16> counters;
  details.add({"local_address", address(text, up.local_address)});
  counters.add({"local_port", up.local_port});
  counters.add({"remote_port", up.remote_port});
  describe_open(text, details, counters, "sent", up.sent);
  describe_open(text, details, counters, "received", up.received);
  wire::TlvReader tlvs(up.tlvs);
  for (wire::Tlv tlv; tlvs.next(tlv);) {
    if (tlv.type == wire::kPeerUpString) details.add({"string", text.printable(tlv.value)});
    if (tlv.type == wire::kPeerUpTableName) details.add({"table_name", text.printable(tlv.value)});
  }
  event.counters = counters.all();
  event.details = details.all();
  event.text = text.format("peer {} AS {} up", header.address.to_string(), header.asn);
  event.raw = Events::raw_of(message);
  events_.write(session.router->row, event);
}

void LifeCycle::peer_down(const Session& session, const wire::PerPeerHeader& header,
                          const wire::PeerDown& down, bool heard, wire::Bytes message) {
  EventParts event = about(session, header, EventKind::PeerDown);
  Scratch<512> text;
  Counters<4> counters;
  // RFC 7854 4.9: a NOTIFICATION with its 19-byte header, or the code of an event of the FSM.
  constexpr std::size_t kBgpHeader = 19;
  if ((down.reason == 1 || down.reason == 3) && down.data.size() >= kBgpHeader + 2) {
    counters.add({"notification_code", big_endian(down.data.subspan(kBgpHeader, 1))});
    counters.add({"notification_subcode", big_endian(down.data.subspan(kBgpHeader + 1, 1))});
  }
  if (down.reason == 2 && down.data.size() == 2) counters.add({"fsm_event", big_endian(down.data)});
  if (!heard) counters.add({"late", 1});
  event.reason = arancini::Reason::PeerDown;
  event.reason_code = down.reason;
  event.counters = counters.all();
  event.text = text.format("peer {} AS {} down, reason {}{}", header.address.to_string(), header.asn,
                           down.reason, heard ? "" : "; another session tells it");
  event.raw = Events::raw_of(message);
  events_.write(session.router->row, event);
}

void LifeCycle::statistics(const Session& session, const wire::PerPeerHeader& header, wire::Bytes message) {
  EventParts event = about(session, header, EventKind::Statistics);
  Scratch<kMostStatistics * 40> text;
  Counters<kMostStatistics> counters;
  std::uint32_t announced = 0;
  wire::TlvReader tlvs(wire::statistics_tlvs(message, announced));
  for (wire::Tlv tlv; tlvs.next(tlv);) {
    wire::Bytes value = tlv.value;
    const bool known = tlv.type < kStatistics.size();
    if (known && kStatistics[tlv.type].per_family && value.size() == 11) {
      const std::uint64_t afi = big_endian(value.first(2));
      const std::uint64_t safi = big_endian(value.subspan(2, 1));
      counters.add(
          {text.format("{}_{}_{}", kStatistics[tlv.type].name, afi, safi), big_endian(value.subspan(3))});
    } else if (value.size() == 4 || value.size() == 8) {
      counters.add({known && !kStatistics[tlv.type].per_family ? kStatistics[tlv.type].name
                                                               : text.format("type_{}", tlv.type),
                    big_endian(value)});
    }  // else in `raw` only
  }
  event.counters = counters.all();
  event.raw = Events::raw_of(message);
  events_.write(session.router->row, event);
}

void LifeCycle::superseded(const Session& older, const Session& newer, const PeerView& view) {
  EventParts event = about(view, EventKind::SessionSuperseded, EventScope::View);
  event.router_port = older.port;
  Scratch<256> text;
  const std::array counters{EventParts::Counter{"by_port", newer.port}};
  event.counters = counters;
  event.text = text.format("the session from port {} tells this table, that from port {} is not heard",
                           newer.port, older.port);
  events_.write(view.peer.router->row, event);
}

void LifeCycle::sync_start(const RibTable& table) {
  EventParts event = about(table.view, EventKind::SyncStart, EventScope::Table);
  event.family = table.family;
  const std::array counters{EventParts::Counter{"routes", table.routes.size()}};
  event.counters = counters;
  event.text = table.routes.size() == 0 ? "the router tells the table" : "the router tells the table anew";
  events_.write(table.view.peer.router->row, event);
}

void LifeCycle::sync_end(const RibTable& table, const SweepJob& job, std::uint64_t withdrawn) {
  EventParts event = about(table.view, EventKind::SyncEnd, EventScope::Table);
  event.family = table.family;
  event.reason = job.reason;
  event.since_ns = job.since_realtime_ns;
  event.until_ns = context_.realtime_ns;
  Scratch<128> text;
  const std::array counters{EventParts::Counter{"withdrawn", withdrawn},
                            EventParts::Counter{"routes", table.routes.size()}};
  const std::array details{EventParts::Detail{"cause", to_string(job.cause)}};
  event.counters = counters;
  event.details = details;
  event.text =
      text.format("{}: {} routes withdrawn, {} there", to_string(job.cause), withdrawn, table.routes.size());
  events_.write(table.view.peer.router->row, event);
}

}  // namespace arancini::ingestd
