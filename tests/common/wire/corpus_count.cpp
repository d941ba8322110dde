// corpus_count [--bgp] FILE: replays BMP bytes (or raw BGP messages, as the routes of one peer) through
// common/wire and prints what was in them as one JSON object: message types, NLRI announced and withdrawn and
// End-of-RIBs per "AFI/SAFI", the routes left at the end per view, errors with their offsets. Families that
// are not plain prefixes are not counted.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "common/wire/bgp_update.h"
#include "common/wire/big_endian.h"
#include "common/wire/bmp.h"

namespace arancini::wire {
namespace {

using Json = nlohmann::json;
using PeerKey = std::tuple<std::uint8_t, std::uint64_t, IpAddress>;

std::string name_of(Family f) {
  return std::to_string(f.afi).append("/").append(std::to_string(f.safi));
}

std::string name_of(View view) {
  std::string s(to_string(view));
  for (char& c : s)
    if (c == '-') c = '_';
  return s;
}

class Replay {
 public:
  void bmp(Bytes file);
  void bgp(Bytes file);
  Json result();
  // One line per route that is left: peer type, distinguisher, address, view, family, prefix, path id.
  void print_routes() const;

 private:
  struct Table {
    AddPathJudge judge;
    std::set<Prefix> routes;
  };
  struct Peer {
    PeerUp up;
    bool is_up = false;
    std::map<std::pair<View, Family>, Table> tables;
  };

  void message(Bytes bytes, std::uint8_t type);
  void update(Peer& peer, View view, Bytes pdu, bool as2);
  void nlri(Peer& peer, View view, Family family, Bytes bytes, bool announced, bool keep);
  void error(ErrorCode code, std::size_t offset, std::string_view what);

  std::size_t at_ = 0;  // of the message, from the start of the file
  std::map<PeerKey, Peer> peers_;
  std::map<std::string, std::uint64_t> types_, announced_, withdrawn_, eor_, notes_;
  Json errors_ = Json::array();
  std::uint64_t error_count_ = 0;
};

void Replay::error(ErrorCode code, std::size_t offset, std::string_view what) {
  ++error_count_;
  if (errors_.size() < 20)
    errors_.push_back({{"message", at_},
                       {"offset", at_ + offset},
                       {"code", static_cast<std::uint32_t>(code)},
                       {"text", to_string(code)},
                       {"in", what}});
}

void Replay::nlri(Peer& peer, View view, Family family, Bytes bytes, bool announced, bool keep) {
  if (bytes.empty() || !is_plain_prefix_family(family)) return;
  auto [it, fresh] = peer.tables.try_emplace({view, family});
  Table& table = it->second;
  if (fresh) table.judge = AddPathJudge(peer.is_up && addpath_negotiated(peer.up, view, family));
  const auto verdict = table.judge.judge(bytes, family);
  if (!verdict.parses) error(ErrorCode::BgpNlriMalformed, 0, name_of(family));
  if (verdict.mismatch) ++notes_["addpath_mismatch " + name_of(family)];
  if (verdict.path_ids) ++notes_["addpath_messages " + name_of(family)];
  PrefixReader reader(bytes, family, verdict.path_ids);
  for (Prefix p; reader.next(p);) {
    ++(announced ? announced_ : withdrawn_)[name_of(family)];
    if (announced && keep)
      table.routes.insert(p);
    else
      table.routes.erase(p);
  }
}

void Replay::update(Peer& peer, View view, Bytes pdu, bool as2) {
  const Update u = parse_update(pdu, as2);
  if (u.disposition != Update::Disposition::Good) error(u.error, u.error_offset, "update");
  if (u.disposition == Update::Disposition::Malformed) return;
  if (u.as_width_mismatch) ++notes_["as_width_mismatch"];
  if (u.end_of_rib) {
    ++eor_[name_of(u.end_of_rib_family)];
    return;
  }
  const bool keep = u.disposition != Update::Disposition::TreatAsWithdraw;
  nlri(peer, view, kIpv4Unicast, u.withdrawn, false, keep);
  if (u.has_mp_unreach) nlri(peer, view, u.mp_unreach.family, u.mp_unreach.nlri, false, keep);
  nlri(peer, view, kIpv4Unicast, u.announced, true, keep);
  if (u.has_mp_reach) nlri(peer, view, u.mp_reach.family, u.mp_reach.nlri, true, keep);
}

void Replay::message(Bytes bytes, std::uint8_t type) {
  ++types_[std::string(bmp_type_name(type))];
  PerPeerHeader h;
  if (!parse_per_peer_header(bytes, h)) {
    if (type > 6) error(ErrorCode::BmpUnknownType, 5, "common header");
    TlvReader tlvs(information_tlvs(bytes));
    for (Tlv tlv; (type == 4 || type == 5) && tlvs.next(tlv);) {
    }
    if (!tlvs.ok()) error(ErrorCode::BmpMalformedTlv, 0, bmp_type_name(type));
    return;
  }
  Peer& peer = peers_[{h.peer_type, h.distinguisher, h.address}];
  if (type == 0) {
    if (!peer.is_up) ++notes_["route_monitoring_without_peer_up"];
    ErrorCode code;
    const Bytes pdu = route_monitoring_pdu(bytes, code);
    if (code != ErrorCode::None) return error(code, 48, "route monitoring");
    at_ += 48;  // offsets in the PDU are from its start
    update(peer, h.view(), pdu, h.as2_format());
    at_ -= 48;
  } else if (type == 2) {
    PeerDown down;
    if (const auto code = parse_peer_down(bytes, down); code != ErrorCode::None) error(code, 48, "peer down");
    peer = Peer{};
  } else if (type == 3) {
    PeerUp up;
    std::uint32_t offset = 0;
    if (const auto code = parse_peer_up(bytes, h, up, &offset); code != ErrorCode::None)
      error(code, offset, "peer up");
    // A Peer Up of an established peer is a new session, but for Loc-RIB it may be another family of the same
    // table.
    if (!h.is_loc_rib() || !peer.is_up) {
      peer.tables.clear();
      peer.up = up;
    } else {
      merge_capabilities(peer.up.sent, up.sent);
      merge_capabilities(peer.up.received, up.received);
    }
    peer.is_up = true;
  }
}

void Replay::bmp(Bytes file) {
  while (at_ < file.size()) {
    const Frame f = next_frame(file.subspan(at_), 1U << 24);
    if (f.status == Frame::Status::Bad) return error(f.error, 0, "framing");
    if (f.status == Frame::Status::NeedMore) return error(ErrorCode::BmpTruncated, 0, "framing");
    message(file.subspan(at_, f.size_bytes), f.type);
    at_ += f.size_bytes;
  }
}

void Replay::bgp(Bytes file) {
  Peer& peer = peers_[{}];
  while (at_ < file.size()) {
    const Bytes rest = file.subspan(at_);
    if (rest.size() < 19) return error(ErrorCode::BgpBadLength, 0, "framing");
    const std::size_t size = load_be16(&rest[16]);
    if (load_be64(rest.data()) != ~0ULL || load_be64(&rest[8]) != ~0ULL)
      return error(ErrorCode::BgpBadMarker, 0, "framing");
    if (size < 19 || size > rest.size()) return error(ErrorCode::BgpBadLength, 16, "framing");
    const std::uint8_t type = load_u8(&rest[18]);
    ++types_[std::to_string(type)];
    if (type == 2) update(peer, View::AdjInPre, rest.first(size), false);
    at_ += size;
  }
}

Json Replay::result() {
  std::map<std::string, std::uint64_t> final_routes;
  for (const auto& [key, peer] : peers_)
    for (const auto& [table, contents] : peer.tables)
      if (!contents.routes.empty())
        final_routes[name_of(table.first).append(" ").append(name_of(table.second))] +=
            contents.routes.size();
  return {{"messages", types_},
          {"announced", announced_},
          {"withdrawn", withdrawn_},
          {"eor", eor_},
          {"notes", notes_},
          {"errors", errors_},
          {"error_count", error_count_},
          {"final_routes", final_routes}};
}

void Replay::print_routes() const {
  for (const auto& [key, peer] : peers_)
    for (const auto& [table, contents] : peer.tables)
      for (const Prefix& p : contents.routes)
        std::cout << unsigned{std::get<0>(key)} << ' ' << distinguisher_text(std::get<1>(key)) << ' '
                  << std::get<2>(key).to_string() << ' ' << to_string(table.first) << ' '
                  << name_of(table.second) << ' ' << prefix_address(p).to_string() << '/'
                  << unsigned{p.length} << ' ' << p.path_id << '\n';
}

}  // namespace
}  // namespace arancini::wire

int main(int argc, char** argv) {
  bool bgp = false;
  bool routes = false;
  std::size_t limit = SIZE_MAX;
  std::string name;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--bgp")
      bgp = true;
    else if (arg == "--routes")
      routes = true;
    else if (arg == "--limit" && i + 1 < argc)
      limit = std::stoull(argv[++i]);
    else
      name = arg;
  }
  std::ifstream in(name, std::ios::binary);
  if (!in) {
    std::cerr << "usage: corpus_count [--bgp] [--routes] [--limit BYTES] FILE\n";
    return 64;
  }
  const std::vector<char> file((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span(file)).first(std::min(limit, file.size()));
  arancini::wire::Replay replay;
  bgp ? replay.bgp(bytes) : replay.bmp(bytes);
  if (routes)
    replay.print_routes();
  else
    std::cout << replay.result().dump() << '\n';
}
