#include "tools/bmp_describe.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>

#include "common/schema/as_path.h"
#include "common/wire/bgp_update.h"
#include "common/wire/big_endian.h"

namespace arancini::tools {
namespace {

using Json = nlohmann::ordered_json;
using wire::AttrType;
using wire::Bytes;
using wire::load_be16;
using wire::load_be32;
using wire::load_be64;
using wire::load_u8;

constexpr std::size_t kMaxMessageBytes = 16U << 20;
constexpr std::size_t kPeerBodyOffset = wire::kBmpCommonHeaderBytes + wire::kBmpPerPeerHeaderBytes;

std::string hex(Bytes bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (std::byte b : bytes) fmt::format_to(std::back_inserter(out), "{:02x}", static_cast<unsigned>(b));
  return out;
}

// TLV strings are UTF-8 by RFC 7854 4.4, but routers send what they like: anything but printable ASCII is
// escaped.
std::string text(Bytes bytes) {
  std::string out;
  for (std::byte b : bytes) {
    const auto c = static_cast<char>(b);
    if (c >= 0x20 && c < 0x7f)
      out.push_back(c);
    else
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned>(b));
  }
  return out;
}

std::string family_name(Family f) {
  return fmt::format("{}/{}", f.afi, f.safi);
}
std::string bgp_id(std::uint32_t id) {
  return IpAddress::from_v4(id).to_string();
}

std::string_view disposition_name(wire::Update::Disposition d) {
  using enum wire::Update::Disposition;
  switch (d) {
    case Good: return "good";
    case AttributeDiscard: return "attribute discard";
    case TreatAsWithdraw: return "treat as withdraw";
    case Malformed: return "malformed";
  }
  return "unknown";
}

std::string_view statistic_name(std::uint16_t type) {
  // RFC 7854 4.8, RFC 8671 6.2.
  static constexpr std::string_view kNames[] = {
      "rejected by inbound policy",
      "duplicate prefix advertisements",
      "duplicate withdraws",
      "invalidated: cluster list loop",
      "invalidated: AS path loop",
      "invalidated: originator id",
      "invalidated: AS confederation loop",
      "routes in adj-rib-in",
      "routes in loc-rib",
      "routes in adj-rib-in per family",
      "routes in loc-rib per family",
      "updates treated as withdraw",
      "prefixes treated as withdraw",
      "duplicate updates",
      "routes in adj-rib-out pre-policy",
      "routes in adj-rib-out post-policy",
      "routes in adj-rib-out pre-policy per family",
      "routes in adj-rib-out post-policy per family",
  };
  return type < std::size(kNames) ? kNames[type] : "unknown";
}

std::string_view peer_down_reason(std::uint8_t reason) {
  static constexpr std::string_view kNames[] = {"reserved",
                                                "local system closed, notification",
                                                "local system closed, no notification",
                                                "remote system closed, notification",
                                                "remote system closed, no notification",
                                                "peer de-configured",
                                                "local system closed, TLV data"};
  return reason < std::size(kNames) ? kNames[reason] : "unknown";
}

template <class F>
Json list_of(Bytes value, std::size_t unit, F&& render) {
  Json out = Json::array();
  for (; value.size() >= unit; value = value.subspan(unit)) out.push_back(render(value.data()));
  return out;
}

Json as_path(const wire::Attributes& a, Json& out) {
  Json path = Json::array();
  Json segments = Json::array();
  bool only_sequences = true;
  schema::AsPathWalk walk(a);
  for (schema::PathSegment s; walk.next(s);) {
    static constexpr std::string_view kTypes[] = {"", "set", "sequence", "confed-sequence", "confed-set"};
    Json members = Json::array();
    for (std::uint32_t i = 0; i < s.count; ++i) members.push_back(s.member(i));
    if (s.type == 2)
      for (const auto& m : members) path.push_back(m);
    else
      only_sequences = false;
    segments.push_back({{"type", s.type < std::size(kTypes) ? kTypes[s.type] : ""}, {"members", members}});
  }
  if (!only_sequences) out["as_segments"] = segments;
  return path;
}

Json attributes(const wire::Update& u) {
  const wire::Attributes& a = u.attributes;
  Json out = Json::object();
  if (a.has(AttrType::Origin)) {
    static constexpr std::string_view kOrigins[] = {"IGP", "EGP", "INCOMPLETE"};
    out["origin"] = kOrigins[load_u8(a.origin.data())];
  }
  if (a.has(AttrType::AsPath)) {
    out["as_path"] = as_path(a, out);
    if (a.as2) out["as_path_width"] = 2;
  }
  if (u.has_mp_reach)
    out["next_hop"] = wire::next_hop_address(u.mp_reach.next_hop).to_string();
  else if (a.has(AttrType::NextHop))
    out["next_hop"] = wire::next_hop_address(a.next_hop).to_string();
  if (a.has(AttrType::Med)) out["med"] = load_be32(a.med.data());
  if (a.has(AttrType::LocalPref)) out["local_pref"] = load_be32(a.local_pref.data());
  if (a.has(AttrType::AtomicAggregate)) out["atomic_aggregate"] = true;
  if (a.has(AttrType::Aggregator)) {
    const schema::Aggregator g = schema::aggregator_of(a);
    out["aggregator"] = {{"asn", g.asn}, {"bgp_id", bgp_id(g.bgp_id)}};
  }
  if (a.has(AttrType::Communities))
    out["communities"] = list_of(a.communities, 4, [](const std::byte* p) {
      return fmt::format("{}:{}", load_be16(p), load_be16(p + 2));
    });
  if (a.has(AttrType::LargeCommunities))
    out["large_communities"] = list_of(a.large_communities, 12, [](const std::byte* p) {
      return fmt::format("{}:{}:{}", load_be32(p), load_be32(p + 4), load_be32(p + 8));
    });
  if (a.has(AttrType::ExtendedCommunities))
    out["ext_communities"] =
        list_of(a.extended_communities, 8, [](const std::byte* p) { return hex(Bytes(p, 8)); });
  if (a.has(AttrType::OriginatorId)) out["originator_id"] = bgp_id(load_be32(a.originator_id.data()));
  if (a.has(AttrType::ClusterList))
    out["cluster_list"] = list_of(a.cluster_list, 4, [](const std::byte* p) { return bgp_id(load_be32(p)); });
  if (a.has(AttrType::OnlyToCustomer)) out["only_to_customer"] = load_be32(a.only_to_customer.data());
  Bytes rest = a.all;
  for (wire::RawAttribute raw; wire::next_attribute(rest, raw);)
    if (!wire::has_update_field(raw.type))
      out["other"].push_back({{"type", raw.type}, {"flags", raw.flags}, {"value", hex(raw.value)}});
  return out;
}

Json open_json(const wire::OpenInfo& open) {
  if (!open.valid) return nullptr;
  Json out = {{"asn", open.asn},
              {"hold_time_s", open.hold_time},
              {"bgp_id", bgp_id(open.bgp_id)},
              {"four_byte_as", open.four_byte_as},
              {"extended_message", open.extended_message},
              {"enhanced_refresh", open.enhanced_refresh},
              {"complete", open.complete}};
  out["families"] = Json::array();
  for (std::uint32_t i = 0; i < open.family_count; ++i)
    out["families"].push_back(family_name(open.families[i]));
  out["addpath"] = Json::object();
  static constexpr std::string_view kModes[] = {"", "receive", "send", "both"};
  for (std::uint32_t i = 0; i < open.addpath_count; ++i)
    out["addpath"][family_name(open.addpath[i].family)] = kModes[open.addpath[i].send_receive & 3U];
  return out;
}

class Describer {
 public:
  // `base` is added to the offsets of errors.
  Json message(Bytes bytes, std::size_t base);
  [[nodiscard]] std::size_t errors() const { return errors_; }
  void error(Json& out, ErrorCode code, std::size_t offset);

 private:
  struct Peer {
    bool up = false;
    wire::PeerUp peer_up;
    std::map<std::pair<View, Family>, wire::AddPathJudge> judges;
  };
  // Spans in `peer_up` die with the message: only its numbers are used later.
  using PeerKey = std::tuple<std::uint8_t, std::uint64_t, IpAddress>;

  void peer_message(Bytes bytes, std::uint8_t type, Json& out);
  void information(Bytes bytes, std::uint8_t type, Json& out);
  void tlvs(Bytes bytes, Json& list, Json& out);
  void statistics(Bytes bytes, Json& out);
  void mirroring(Bytes bytes, const wire::PerPeerHeader& h, Peer& peer, Json& out);
  Json update(Bytes pdu, std::size_t at, const wire::PerPeerHeader& h, Peer& peer, Json& out);
  void nlri(Bytes bytes, std::size_t at, Family family, View view, Peer& peer, Json& list, Json& out);

  std::map<PeerKey, Peer> peers_;
  const std::byte* start_ = nullptr;
  std::size_t base_ = 0;
  std::size_t errors_ = 0;
};

void Describer::error(Json& out, ErrorCode code, std::size_t offset) {
  ++errors_;
  out["errors"].push_back(
      {{"code", number(code)}, {"text", std::string(to_string(code))}, {"offset", base_ + offset}});
}

void Describer::tlvs(Bytes bytes, Json& list, Json& out) {
  list = Json::array();
  wire::TlvReader reader(bytes);
  const std::byte* at = bytes.data();
  for (wire::Tlv t; reader.next(t);) {
    list.push_back({{"type", t.type}, {"value", text(t.value)}});
    at = t.value.data() + t.value.size();
  }
  if (!reader.ok()) error(out, ErrorCode::BmpMalformedTlv, static_cast<std::size_t>(at - start_));
}

void Describer::information(Bytes bytes, std::uint8_t type, Json& out) {
  Json list;
  tlvs(wire::information_tlvs(bytes), list, out);
  wire::TlvReader reader(wire::information_tlvs(bytes));
  for (wire::Tlv t; reader.next(t);) {
    if (type == 4 && t.type == wire::kInitiationSysName) out["sys_name"] = text(t.value);
    if (type == 4 && t.type == wire::kInitiationSysDescr) out["sys_descr"] = text(t.value);
    if (type == 5 && t.type == 1 && t.value.size() == 2) out["reason"] = load_be16(t.value.data());
  }
  out["tlvs"] = list;
}

void Describer::statistics(Bytes bytes, Json& out) {
  std::uint32_t count = 0;
  const Bytes body = wire::statistics_tlvs(bytes, count);
  out["count"] = count;
  out["statistics"] = Json::array();
  wire::TlvReader reader(body);
  for (wire::Tlv t; reader.next(t);) {
    Json s = {{"type", t.type}, {"name", std::string(statistic_name(t.type))}};
    const std::byte* p = t.value.data();
    if (t.value.size() == 4)
      s["value"] = load_be32(p);
    else if (t.value.size() == 8)
      s["value"] = load_be64(p);
    else if (t.value.size() == 11) {
      s["family"] = family_name({load_be16(p), load_u8(p + 2)});
      s["value"] = load_be64(p + 3);
    } else
      s["hex"] = hex(t.value);
    out["statistics"].push_back(std::move(s));
  }
  if (!reader.ok() || bytes.size() < kPeerBodyOffset + 4)
    error(out, ErrorCode::BmpMalformedTlv, std::min(bytes.size(), kPeerBodyOffset + 4));
}

void Describer::nlri(Bytes bytes, std::size_t at, Family family, View view, Peer& peer, Json& list,
                     Json& out) {
  if (bytes.empty()) return;
  if (!is_plain_prefix_family(family)) {
    list.push_back({{"afi", family.afi}, {"safi", family.safi}, {"nlri", hex(bytes)}});
    return;
  }
  const bool negotiated = peer.up && addpath_negotiated(peer.peer_up, view, family);
  auto& judge = peer.judges.try_emplace({view, family}, negotiated).first->second;
  const auto verdict = judge.judge(bytes, family);
  if (verdict.mismatch && peer.up) out["addpath_mismatch"] = true;
  wire::PrefixReader reader(bytes, family, verdict.path_ids);
  for (Prefix p; reader.next(p);) {
    Json route = {{"afi", family.afi},
                  {"safi", family.safi},
                  {"prefix", fmt::format("{}/{}", prefix_address(p).to_string(), p.length)}};
    if (verdict.path_ids) route["path_id"] = p.path_id;
    list.push_back(std::move(route));
  }
  if (!reader.ok()) error(out, ErrorCode::BgpNlriMalformed, at + reader.offset());
}

// `at`: of the PDU from the start of the message.
Json Describer::update(Bytes pdu, std::size_t at, const wire::PerPeerHeader& h, Peer& peer, Json& out) {
  const wire::Update u = wire::parse_update(pdu, h.as2_format());
  Json j = {{"disposition", std::string(disposition_name(u.disposition))}};
  if (u.disposition != wire::Update::Disposition::Good) error(out, u.error, at + u.error_offset);
  if (u.disposition == wire::Update::Disposition::Malformed) return j;
  if (u.end_of_rib) {
    j["end_of_rib"] = family_name(u.end_of_rib_family);
    return j;
  }
  if (u.as_width_mismatch) j["as_width_mismatch"] = true;
  const auto place = [&](Bytes part) { return at + static_cast<std::size_t>(part.data() - pdu.data()); };
  j["withdrawn"] = Json::array();
  nlri(u.withdrawn, place(u.withdrawn), kIpv4Unicast, h.view(), peer, j["withdrawn"], out);
  if (u.has_mp_unreach)
    nlri(u.mp_unreach.nlri, place(u.mp_unreach.nlri), u.mp_unreach.family, h.view(), peer, j["withdrawn"],
         out);
  j["announced"] = Json::array();
  nlri(u.announced, place(u.announced), kIpv4Unicast, h.view(), peer, j["announced"], out);
  if (u.has_mp_reach)
    nlri(u.mp_reach.nlri, place(u.mp_reach.nlri), u.mp_reach.family, h.view(), peer, j["announced"], out);
  if (!u.attributes.all.empty()) j["attributes"] = attributes(u);
  return j;
}

void Describer::mirroring(Bytes bytes, const wire::PerPeerHeader& h, Peer& peer, Json& out) {
  out["mirrored"] = Json::array();
  const Bytes body = wire::mirroring_tlvs(bytes);
  wire::TlvReader reader(body);
  for (wire::Tlv t; reader.next(t);) {
    Json item = {{"type", t.type}};
    if (t.type == wire::kMirrorInformation && t.value.size() == 2) {
      item["information"] = load_be16(t.value.data());
    } else if (t.type == wire::kMirrorBgpMessage && t.value.size() >= 19) {
      static constexpr std::string_view kTypes[] = {"",          "open",         "update", "notification",
                                                    "keepalive", "route refresh"};
      const std::uint8_t type = load_u8(&t.value[18]);
      item["bgp_message"] = std::string(type >= 1 && type <= 5 ? kTypes[type] : "unknown");
      // Errors of a mirrored message are what it was mirrored for: they are its content, not ours.
      Json ignored;
      const std::size_t errors = errors_;
      if (type == 1) item["open"] = open_json(wire::parse_open(t.value));
      if (type == 2) {
        const auto at = static_cast<std::size_t>(t.value.data() - start_);
        item["update"] = update(t.value, at, h, peer, ignored);
      }
      if (ignored.contains("errors")) item["errors"] = ignored["errors"];
      errors_ = errors;
    } else {
      item["hex"] = hex(t.value);
    }
    out["mirrored"].push_back(std::move(item));
  }
  if (!reader.ok()) error(out, ErrorCode::BmpMalformedTlv, kPeerBodyOffset);
}

void Describer::peer_message(Bytes bytes, std::uint8_t type, Json& out) {
  wire::PerPeerHeader h;
  if (!parse_per_peer_header(bytes, h)) return error(out, ErrorCode::BmpMalformedPeerHeader, bytes.size());
  out["peer"] = {{"type", h.peer_type},
                 {"flags", fmt::format("0x{:02x}", h.flags)},
                 {"view", std::string(to_string(h.view()))},
                 {"address", h.address.to_string()},
                 {"distinguisher", distinguisher_text(h.distinguisher)},
                 {"asn", h.asn},
                 {"bgp_id", bgp_id(h.bgp_id)},
                 {"as2", h.as2_format()},
                 {"time_bmp_ns", h.timestamp_ns}};
  Peer& peer = peers_[{h.peer_type, h.distinguisher, h.address}];
  switch (type) {
    case 0: {
      ErrorCode code;
      const Bytes pdu = wire::route_monitoring_pdu(bytes, code);
      if (code != ErrorCode::None) return error(out, code, kPeerBodyOffset);
      out["update"] = update(pdu, kPeerBodyOffset, h, peer, out);
      const std::size_t trailing = bytes.size() - kPeerBodyOffset - pdu.size();
      if (trailing != 0) out["trailing_bytes"] = trailing;
      break;
    }
    case 1: statistics(bytes, out); break;
    case 2: {
      wire::PeerDown down;
      if (const auto code = parse_peer_down(bytes, down); code != ErrorCode::None)
        error(out, code, kPeerBodyOffset);
      out["reason"] = down.reason;
      out["reason_text"] = std::string(peer_down_reason(down.reason));
      if ((down.reason == 1 || down.reason == 3) && down.data.size() >= 21)
        out["notification"] = {{"code", load_u8(&down.data[19])}, {"subcode", load_u8(&down.data[20])}};
      else if (down.reason == 2 && down.data.size() == 2)
        out["fsm_event"] = load_be16(down.data.data());
      else if (!down.data.empty())
        out["data"] = hex(down.data);
      peer = Peer{};
      break;
    }
    case 3: {
      wire::PeerUp up;
      std::uint32_t offset = 0;
      if (const auto code = parse_peer_up(bytes, h, up, &offset); code != ErrorCode::None)
        error(out, code, offset);
      out["local_address"] = up.local_address.to_string();
      out["local_port"] = up.local_port;
      out["remote_port"] = up.remote_port;
      out["sent_open"] = open_json(up.sent);
      out["received_open"] = open_json(up.received);
      if (!up.tlvs.empty()) {
        Json list;
        tlvs(up.tlvs, list, out);
        out["tlvs"] = list;
      }
      up.tlvs = {};
      if (h.is_loc_rib() && peer.up) {
        merge_capabilities(peer.peer_up.sent, up.sent);
        merge_capabilities(peer.peer_up.received, up.received);
      } else {
        peer = Peer{true, up, {}};
      }
      break;
    }
    case 6: mirroring(bytes, h, peer, out); break;
    default: break;
  }
}

Json Describer::message(Bytes bytes, std::size_t base) {
  start_ = bytes.data();
  base_ = base;
  Json out = Json::object();
  const wire::Frame frame = wire::next_frame(bytes, kMaxMessageBytes);
  if (frame.status != wire::Frame::Status::Ready) {
    out["type"] = "framing error";
    error(out, frame.status == wire::Frame::Status::Bad ? frame.error : ErrorCode::BmpTruncated, 0);
    return out;
  }
  bytes = bytes.first(frame.size_bytes);
  out["type"] = std::string(wire::bmp_type_name(frame.type));
  out["size_bytes"] = frame.size_bytes;
  if (frame.type == 4 || frame.type == 5)
    information(bytes, frame.type, out);
  else if (frame.type <= 6)
    peer_message(bytes, frame.type, out);
  else {
    out["type_number"] = frame.type;
    error(out, ErrorCode::BmpUnknownType, 5);
  }
  return out;
}

}  // namespace

std::string describe_bmp(Bytes message) {
  return Describer().message(message, 0).dump();
}

std::size_t describe_bmp_stream(Bytes stream, const std::function<void(const std::string&)>& line) {
  Describer describer;
  std::size_t at = 0;
  while (at < stream.size()) {
    Json out = {{"offset", at}};
    out.update(describer.message(stream.subspan(at), at));
    line(out.dump());
    if (!out.contains("size_bytes")) break;
    at += out["size_bytes"].get<std::size_t>();
  }
  return describer.errors();
}

}  // namespace arancini::tools
