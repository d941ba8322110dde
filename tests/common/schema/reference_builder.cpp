#include "tests/common/schema/reference_builder.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <cstring>
#include <string>

#include "batch.capnp.h"
#include "record.capnp.h"
#include "update.capnp.h"

namespace arancini::schema::test {

namespace {

using U8 = std::uint8_t;

std::uint32_t be(wire::Bytes b, std::size_t at, std::size_t bytes) {
  std::uint32_t v = 0;
  for (std::size_t i = 0; i < bytes; ++i) v = (v << 8) | static_cast<U8>(b[at + i]);
  return v;
}
bool has(const wire::Attributes& a, unsigned type) {
  return ((a.present >> type) & 1U) != 0;
}

struct Segment {
  U8 type;
  std::vector<std::uint32_t> members;
};

std::vector<Segment> segments_of(wire::Bytes path, std::size_t as_bytes) {
  std::vector<Segment> out;
  for (std::size_t at = 0; at < path.size();) {
    Segment s{static_cast<U8>(path[at]), {}};
    const auto n = static_cast<std::size_t>(path[at + 1]);
    at += 2;
    for (std::size_t i = 0; i < n; ++i, at += as_bytes) s.members.push_back(be(path, at, as_bytes));
    if (n > 0) out.push_back(std::move(s));
  }
  return out;
}

std::size_t hop_count(const std::vector<Segment>& path) {
  std::size_t n = 0;
  for (const Segment& s : path) n += s.type == 2 ? s.members.size() : s.type == 1 ? 1 : 0;
  return n;
}

bool as4_void(const wire::Attributes& a) {
  return has(a, 7) && has(a, 18) && a.aggregator.size() == 6 && be(a.aggregator, 0, 2) != 23456;
}

// RFC 6793 4.2.3, AS by AS.
std::vector<Segment> whole_path(const wire::Attributes& a) {
  std::vector<Segment> old_path = segments_of(a.as_path, a.as2 ? 2 : 4);
  if (!a.as2 || !has(a, 17) || as4_void(a)) return old_path;
  std::vector<Segment> new_path;
  for (Segment& s : segments_of(a.as4_path, 4)) {
    if (s.type < 3) new_path.push_back(std::move(s));
  }
  const std::size_t theirs = hop_count(new_path);
  if (theirs == 0 || hop_count(old_path) < theirs) return old_path;
  std::size_t leading = hop_count(old_path) - theirs;
  std::vector<Segment> out;
  for (const Segment& s : old_path) {
    if (s.type >= 3) {
      out.push_back(s);
      continue;
    }
    if (leading == 0) break;
    Segment part{s.type, {}};
    if (s.type == 1) {
      part = s;
      --leading;
    } else {
      for (std::uint32_t asn : s.members) {
        if (leading == 0) break;
        part.members.push_back(asn);
        --leading;
      }
    }
    const bool cut = part.members.size() < s.members.size();
    out.push_back(std::move(part));
    if (cut) break;
  }
  out.insert(out.end(), new_path.begin(), new_path.end());
  return out;
}

void put_data(capnp::Data::Builder to, const void* from) {
  std::memcpy(to.begin(), from, to.size());
}

void fill_path(Update::Builder u, const std::vector<Segment>& path) {
  std::vector<std::uint32_t> members;
  for (const Segment& s : path) {
    if (s.type == 2) members.insert(members.end(), s.members.begin(), s.members.end());
  }
  if (members.empty()) return;
  auto list = u.initAsPath(static_cast<unsigned>(members.size()));
  for (unsigned i = 0; i < members.size(); ++i) list.set(i, members[i]);
}

void fill_segments(Update::Builder u, const std::vector<Segment>& path) {
  bool plain = true;
  for (const Segment& s : path) plain = plain && s.type == 2;
  if (plain) return;
  auto list = u.initAsSegments(static_cast<unsigned>(path.size()));
  for (unsigned i = 0; i < path.size(); ++i) {
    list[i].setType(path[i].type);
    auto members = list[i].initMembers(static_cast<unsigned>(path[i].members.size()));
    for (unsigned j = 0; j < path[i].members.size(); ++j) members.set(j, path[i].members[j]);
  }
}

void fill_attributes(Update::Builder u, const wire::Attributes& a) {
  u.setAttributesPresent(a.present);
  if (has(a, 4)) u.setMultiExitDisc(be(a.med, 0, 4));
  if (has(a, 5)) u.setLocalPreference(be(a.local_pref, 0, 4));
  if (has(a, 6)) u.setAtomicAggregate(true);
  if (has(a, 7)) {
    const std::size_t as_bytes = a.aggregator.size() - 4;
    u.setAggregatorAsn(be(a.aggregator, 0, as_bytes));
    u.setAggregatorBgpId(be(a.aggregator, as_bytes, 4));
    if (as_bytes == 2 && u.getAggregatorAsn() == 23456 && has(a, 18)) {
      u.setAggregatorAsn(be(a.as4_aggregator, 0, 4));
      u.setAggregatorBgpId(be(a.as4_aggregator, 4, 4));
    }
  }
  if (has(a, 9)) u.setOriginatorId(be(a.originator_id, 0, 4));
  if (has(a, 35)) u.setOnlyToCustomer(be(a.only_to_customer, 0, 4));

  static constexpr const char* kOrigins[] = {"IGP", "EGP", "INCOMPLETE"};
  if (has(a, 1) && static_cast<U8>(a.origin[0]) < 3) u.setOrigin(kOrigins[static_cast<U8>(a.origin[0])]);
  const std::vector<Segment> path = has(a, 2) && !a.as_path.empty() ? whole_path(a) : std::vector<Segment>{};
  fill_path(u, path);
  if (const auto n = static_cast<unsigned>(a.communities.size() / 4); n > 0) {
    auto list = u.initCommunities(n);
    for (unsigned i = 0; i < n; ++i) {
      list[i].setAsn(be(a.communities, i * 4, 2));
      list[i].setValue(static_cast<std::uint16_t>(be(a.communities, i * 4 + 2, 2)));
    }
  }
  if (const auto n = static_cast<unsigned>(a.extended_communities.size() / 8); n > 0) {
    auto list = u.initExtendedCommunities(n);
    for (unsigned i = 0; i < n; ++i) {
      const std::byte* in = a.extended_communities.data() + 8 * i;
      list[i].setTypeHigh(static_cast<U8>(in[0]));
      list[i].setTypeLow(static_cast<U8>(in[1]));
      put_data(list[i].initValue(6), in + 2);
    }
  }
  if (const auto n = static_cast<unsigned>(a.large_communities.size() / 12); n > 0) {
    auto list = u.initLargeCommunities(n);
    for (unsigned i = 0; i < n; ++i) {
      list[i].setGlobalAdmin(be(a.large_communities, i * 12, 4));
      list[i].setLocalDataPart1(be(a.large_communities, i * 12 + 4, 4));
      list[i].setLocalDataPart2(be(a.large_communities, i * 12 + 8, 4));
    }
  }
  if (const auto n = static_cast<unsigned>(a.cluster_list.size() / 4); n > 0) {
    auto list = u.initClusterList(n);
    for (unsigned i = 0; i < n; ++i) list.set(i, be(a.cluster_list, i * 4, 4));
  }
  fill_segments(u, path);

  std::vector<std::byte> others;
  for (std::size_t at = 0; at < a.all.size();) {
    const bool extended = (static_cast<U8>(a.all[at]) & 0x10) != 0;
    const std::size_t length = be(a.all, at + 2, extended ? 2 : 1) + (extended ? 4 : 3);
    switch (static_cast<U8>(a.all[at + 1])) {
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
      case 7:
      case 8:
      case 9:
      case 10:
      case 14:
      case 15:
      case 16:
      case 17:
      case 18:
      case 32:
      case 35: break;
      default:
        others.insert(others.end(), a.all.begin() + static_cast<std::ptrdiff_t>(at),
                      a.all.begin() + static_cast<std::ptrdiff_t>(at + length));
    }
    at += length;
  }
  if (!others.empty()) put_data(u.initRawAttributes(static_cast<unsigned>(others.size())), others.data());
}

template <class Builder>
void put_tags(Builder to, const BatchMeta& m) {
  if (m.tags.empty()) return;
  auto list = to.initTags(static_cast<unsigned>(m.tags.size()));
  for (unsigned i = 0; i < list.size(); ++i) list.set(i, m.tags[i].c_str());
}

void fill_update(Update::Builder u, const BatchMeta& m, const BatchAttributes& attributes,
                 const IpAddress& prefix) {
  u.setTimeReceivedNs(m.received_realtime_ns);
  u.setTimeBmpHeaderNs(m.bmp_timestamp_ns);
  put_data(u.initRouterAddr(16), m.router_address.bytes.data());
  put_data(u.initPeerAddr(16), m.peer_address.bytes.data());
  put_data(u.initPrefixAddr(16), prefix.bytes.data());
  put_data(u.initNextHop(16), attributes.next_hop.bytes.data());
  put_data(u.initWriterId(16), m.writer.bytes.data());
  if (!m.router_name.empty()) u.setRouterId(std::string(m.router_name).c_str());
  u.setRouterPort(m.router_port);
  u.setPeerBgpId(m.peer_bgp_id);
  u.setPeerAsn(m.peer_asn);
  u.setPeerType(m.peer_type);
  u.setPeerDistinguisher(m.peer_distinguisher);
  u.setView(static_cast<schema::View>(m.view));
  u.setIsPostPolicy(m.view == arancini::View::AdjInPost || m.view == arancini::View::AdjOutPost);
  u.setIsAdjRibOut(m.view == arancini::View::AdjOutPre || m.view == arancini::View::AdjOutPost);
  u.setAnnounced(m.announced);
  u.setSynthetic(m.synthetic);
  u.setReason(static_cast<schema::Reason>(m.reason));
  if (m.via_mp && m.announced) {
    u.setMpReachAfi(m.family.afi);
    u.setMpReachSafi(m.family.safi);
  } else if (m.via_mp) {
    u.setMpUnreachAfi(m.family.afi);
    u.setMpUnreachSafi(m.family.safi);
  }
  if (attributes.attributes != nullptr) fill_attributes(u, *attributes.attributes);
  put_tags(u, m);
}

void fill_batch_attributes(PathAttributes::Builder to, const wire::Attributes& a, const IpAddress& next_hop) {
  // What Update says, in the other struct.
  capnp::MallocMessageBuilder scratch;
  auto u = scratch.initRoot<Update>();
  fill_attributes(u, a);
  to.setPresent(u.getAttributesPresent());
  to.setMultiExitDisc(u.getMultiExitDisc());
  to.setLocalPreference(u.getLocalPreference());
  to.setOnlyToCustomer(u.getOnlyToCustomer());
  to.setAtomicAggregate(u.getAtomicAggregate());
  to.setAggregatorAsn(u.getAggregatorAsn());
  to.setAggregatorBgpId(u.getAggregatorBgpId());
  to.setOriginatorId(u.getOriginatorId());
  const std::string origin = u.getOrigin().cStr();
  to.setOrigin(origin == "IGP"          ? Origin::IGP
               : origin == "EGP"        ? Origin::EGP
               : origin == "INCOMPLETE" ? Origin::INCOMPLETE
                                        : Origin::ABSENT);
  if (u.hasAsPath()) to.setAsPath(u.getAsPath());
  if (next_hop != IpAddress{}) {
    const unsigned bytes = next_hop.is_v4() ? 4 : 16;
    put_data(to.initNextHop(bytes), next_hop.bytes.data() + 16 - bytes);
  }
  const auto u32s = [](wire::Bytes from, auto init) {
    const auto n = static_cast<unsigned>(from.size() / 4);
    if (n == 0) return;
    auto list = init(n);
    for (unsigned i = 0; i < n; ++i) list.set(i, be(from, std::size_t{i} * 4, 4));
  };
  u32s(a.communities, [&](unsigned n) { return to.initCommunities(n); });
  u32s(a.large_communities.first(a.large_communities.size() / 12 * 12),
       [&](unsigned n) { return to.initLargeCommunities(n); });
  if (const auto n = static_cast<unsigned>(a.extended_communities.size() / 8); n > 0) {
    auto list = to.initExtendedCommunities(n);
    for (unsigned i = 0; i < n; ++i) {
      const std::uint64_t high = be(a.extended_communities, std::size_t{i} * 8, 4);
      list.set(i, (high << 32) | be(a.extended_communities, std::size_t{i} * 8 + 4, 4));
    }
  }
  if (u.hasClusterList()) to.setClusterList(u.getClusterList());
  if (u.hasAsSegments()) to.setAsSegments(u.getAsSegments());
  if (u.hasRawAttributes()) to.setRawAttributes(u.asReader().getRawAttributes());
}

std::vector<std::byte> framed(capnp::MessageBuilder& message) {
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(message);
  const auto bytes = std::as_bytes(std::span(words.begin(), words.size()));
  return {bytes.begin(), bytes.end()};
}

template <class Reader>
std::vector<std::byte> canonical(Reader reader) {
  const kj::Array<capnp::word> words = capnp::canonicalize(reader);
  std::vector<std::byte> out(8 + words.size() * 8);
  const std::uint64_t frame = std::uint64_t{words.size()} << 32;
  std::memcpy(out.data(), &frame, 8);
  std::memcpy(out.data() + 8, words.begin(), words.size() * 8);
  return out;
}

// One segment whatever the message's size.
constexpr unsigned kFirstSegmentWords = 1U << 18;

}  // namespace

std::vector<std::byte> reference_batch(const BatchMeta& meta, const BatchAttributes& attributes,
                                       const std::vector<Prefix>& routes, Sequence first_sequence) {
  capnp::MallocMessageBuilder message(kFirstSegmentWords);
  auto batch = message.initRoot<UpdateBatch>();
  batch.setFirstSequence(raw(first_sequence));
  fill_update(batch.initShared(), meta, attributes, IpAddress{});
  auto list = batch.initRoutes(static_cast<unsigned>(routes.size()));
  for (unsigned i = 0; i < routes.size(); ++i) {
    list[i].setAddrHigh(routes[i].high);
    list[i].setAddrLow(routes[i].low);
    list[i].setPathId(routes[i].path_id);
    list[i].setPrefixLen(routes[i].length);
  }
  return framed(message);
}

std::vector<std::byte> reference_message(const BatchMeta& m, const BatchAttributes& attributes,
                                         std::span<const Prefix> routes, Sequence first_sequence,
                                         bool with_source) {
  capnp::MallocMessageBuilder message(kFirstSegmentWords);
  auto batch = message.initRoot<Batch>();
  batch.setFirstSequence(raw(first_sequence));
  batch.setTimeReceivedNs(m.received_realtime_ns);
  batch.setTimeBmpHeaderNs(m.bmp_timestamp_ns);
  batch.setAnnounced(m.announced);
  batch.setSynthetic(m.synthetic);
  batch.setMultiprotocol(m.via_mp);
  batch.setReason(static_cast<schema::Reason>(m.reason));
  if (with_source) {
    auto s = batch.initSource();
    put_data(s.initWriterId(16), m.writer.bytes.data());
    put_data(s.initRouterAddr(16), m.router_address.bytes.data());
    put_data(s.initPeerAddr(16), m.peer_address.bytes.data());
    if (!m.router_name.empty()) s.setRouterId(std::string(m.router_name).c_str());
    s.setPeerDistinguisher(m.peer_distinguisher);
    s.setPeerBgpId(m.peer_bgp_id);
    s.setPeerAsn(m.peer_asn);
    s.setRouterPort(m.router_port);
    s.setAfi(m.family.afi);
    s.setSafi(m.family.safi);
    s.setPeerType(m.peer_type);
    s.setView(static_cast<schema::View>(m.view));
    put_tags(s, m);
  }
  if (attributes.attributes != nullptr) {
    const wire::Attributes& a = *attributes.attributes;
    if (a.present != 0 || !a.all.empty() || attributes.next_hop != IpAddress{})
      fill_batch_attributes(batch.initAttributes(), a, attributes.next_hop);
  }
  auto list = batch.initRoutes(static_cast<unsigned>(routes.size()));
  for (unsigned i = 0; i < routes.size(); ++i) {
    const Prefix& p = routes[i];
    const bool v4 = m.family.afi == 1;
    list[i].setAddr0(static_cast<std::uint32_t>(v4 ? p.low : p.high >> 32));
    list[i].setPrefixLen(p.length);
    list[i].setPathId(p.path_id);
    if (v4) continue;
    list[i].setAddr1(static_cast<std::uint32_t>(p.high));
    list[i].setAddr2(p.low);
  }
  return canonical(batch.asReader());
}

std::vector<std::byte> canonical_update(std::span<const std::byte> framed) {
  std::vector<capnp::word> words(framed.size() / sizeof(capnp::word));
  std::memcpy(words.data(), framed.data(), framed.size());
  capnp::FlatArrayMessageReader reader(kj::arrayPtr(words.data(), words.size()));
  if (reader.getEnd() != words.data() + words.size()) return {};
  return canonical(reader.getRoot<Update>());
}

std::vector<std::byte> reference_update(const BatchMeta& meta, const BatchAttributes& attributes,
                                        const Prefix& route, Sequence sequence) {
  capnp::MallocMessageBuilder message(kFirstSegmentWords);
  auto update = message.initRoot<Update>();
  fill_update(update, meta, attributes, prefix_address(route));
  update.setPrefixLen(route.length);
  update.setPathId(route.path_id);
  update.setSequence(raw(sequence));
  return framed(message);
}

}  // namespace arancini::schema::test
