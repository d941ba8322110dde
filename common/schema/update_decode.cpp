#include "common/schema/update_decode.h"

#include <capnp/serialize.h>

#include <cstring>
#include <exception>

#include "batch.capnp.h"
#include "common/schema/bytes.h"
#include "common/schema/layout.h"
#include "record.capnp.h"
#include "update.capnp.h"

namespace arancini::schema {

namespace {

// Update as it was before @31: the least that any producer writes.
constexpr std::uint16_t kOldUpdateDataWords = 8;
constexpr std::uint16_t kOldUpdatePointers = 10;

// A payload that breaks the contract although it is good Cap'n Proto.
struct BadField : std::exception {
  explicit BadField(const char* what) : text(what) {}
  [[nodiscard]] const char* what() const noexcept override { return text; }
  const char* text;
};

template <std::size_t N>
std::array<std::uint8_t, N> fixed_bytes(capnp::Data::Reader data, const char* what) {
  std::array<std::uint8_t, N> out{};
  if (data.size() == 0) return out;
  if (data.size() != N) throw BadField(what);
  std::memcpy(out.data(), data.begin(), N);
  return out;
}

std::string text_of(capnp::Text::Reader text) {
  return {text.begin(), text.size()};
}

void u32_list(capnp::List<std::uint32_t>::Reader in, std::vector<std::uint32_t>& out) {
  out.clear();
  out.reserve(in.size());
  for (const std::uint32_t v : in) out.push_back(v);
}

void segments_of(capnp::List<AsSegment>::Reader in, DecodedUpdate& out) {
  out.as_segments.clear();
  for (const auto segment : in) {
    DecodedUpdate::Segment& s = out.as_segments.emplace_back();
    s.type = segment.getType();
    u32_list(segment.getMembers(), s.members);
  }
}

// What Update and PathAttributes have under the same names.
template <class Reader>
void plain_attributes_of(Reader in, DecodedUpdate& out) {
  u32_list(in.getAsPath(), out.as_path);
  segments_of(in.getAsSegments(), out);
  out.med = in.getMultiExitDisc();
  out.local_pref = in.getLocalPreference();
  out.only_to_customer = in.getOnlyToCustomer();
  out.atomic_aggregate = in.getAtomicAggregate();
  out.aggregator_asn = in.getAggregatorAsn();
  out.aggregator_bgp_id = in.getAggregatorBgpId();
  out.originator_id = in.getOriginatorId();
  u32_list(in.getClusterList(), out.cluster_list);
  const capnp::Data::Reader others = in.getRawAttributes();
  out.raw_attributes.assign(others.begin(), others.end());
}

void attributes_of(Update::Reader in, DecodedUpdate& out) {
  plain_attributes_of(in, out);
  out.attributes_present = in.getAttributesPresent();
  out.origin = text_of(in.getOrigin());
  out.next_hop.bytes = fixed_bytes<16>(in.getNextHop(), "nextHop is not 16 bytes");
  out.communities.clear();
  for (const auto c : in.getCommunities()) out.communities.push_back({c.getAsn(), c.getValue()});
  out.large_communities.clear();
  for (const auto c : in.getLargeCommunities()) {
    out.large_communities.push_back({c.getGlobalAdmin(), c.getLocalDataPart1(), c.getLocalDataPart2()});
  }
  out.ext_communities.clear();
  for (const auto c : in.getExtendedCommunities()) {
    const auto value = fixed_bytes<6>(c.getValue(), "value of an extended community is not 6 bytes");
    std::vector<std::uint8_t>& bytes = out.ext_communities.emplace_back();
    bytes = {c.getTypeHigh(), c.getTypeLow()};
    bytes.insert(bytes.end(), value.begin(), value.end());
  }
}

// What Update and Source have under the same names: who told it.
template <class Reader>
void teller_of(Reader in, DecodedUpdate& out) {
  out.writer.bytes = fixed_bytes<16>(in.getWriterId(), "writerId is not 16 bytes");
  out.router.bytes = fixed_bytes<16>(in.getRouterAddr(), "routerAddr is not 16 bytes");
  out.peer.bytes = fixed_bytes<16>(in.getPeerAddr(), "peerAddr is not 16 bytes");
  out.router_id = text_of(in.getRouterId());
  out.tags.clear();
  for (const auto tag : in.getTags()) out.tags.push_back(text_of(tag));
  out.router_port = in.getRouterPort();
  out.peer_bgp_id = in.getPeerBgpId();
  out.peer_asn = in.getPeerAsn();
  out.peer_type = in.getPeerType();
  out.peer_distinguisher = in.getPeerDistinguisher();
  const auto view = static_cast<std::uint16_t>(in.getView());
  if (view >= kViewCount) throw BadField("view is not known");
  out.view = static_cast<arancini::View>(view);
}

void decode_update(Update::Reader in, DecodedUpdate& out) {
  teller_of(in, out);
  out.time_received_ns = in.getTimeReceivedNs();
  out.time_bmp_ns = in.getTimeBmpHeaderNs();
  out.family = {in.getMpReachAfi(), in.getMpReachSafi()};
  if (out.family == Family{}) out.family = {in.getMpUnreachAfi(), in.getMpUnreachSafi()};
  out.multiprotocol = out.family != Family{};
  if (!out.multiprotocol) out.family = kIpv4Unicast;
  out.prefix_address.bytes = fixed_bytes<16>(in.getPrefixAddr(), "prefixAddr is not 16 bytes");
  out.prefix_length = in.getPrefixLen();
  if (out.prefix_length > 128) throw BadField("prefixLen is above 128");
  out.path_id = in.getPathId();
  out.announced = in.getAnnounced();
  out.synthetic = in.getSynthetic();
  out.is_post_policy = in.getIsPostPolicy();
  out.is_adj_rib_out = in.getIsAdjRibOut();
  out.reason = static_cast<arancini::Reason>(in.getReason());
  out.sequence = in.getSequence();
  attributes_of(in, out);
}

using Each = std::function<void(const DecodedUpdate&)>;

void decode_record(UpdateBatch::Reader in, DecodedUpdate& out, const Each& each) {
  decode_update(in.getShared(), out);
  std::uint64_t sequence = in.getFirstSequence();
  for (const auto route : in.getRoutes()) {
    Prefix p;
    p.high = route.getAddrHigh();
    p.low = route.getAddrLow();
    p.length = route.getPrefixLen();
    if (p.length > 128) throw BadField("prefixLen is above 128");
    out.prefix_address = prefix_address(p);
    out.prefix_length = p.length;
    out.path_id = route.getPathId();
    out.sequence = sequence++;
    each(out);
  }
}

void source_of(Source::Reader in, DecodedUpdate& out) {
  teller_of(in, out);
  out.is_post_policy = out.view == arancini::View::AdjInPost || out.view == arancini::View::AdjOutPost;
  out.is_adj_rib_out = out.view == arancini::View::AdjOutPre || out.view == arancini::View::AdjOutPost;
  out.family = {in.getAfi(), in.getSafi()};
}

void attributes_of(PathAttributes::Reader in, DecodedUpdate& out) {
  plain_attributes_of(in, out);
  out.attributes_present = in.getPresent();
  switch (in.getOrigin()) {
    case Origin::IGP: out.origin = "IGP"; break;
    case Origin::EGP: out.origin = "EGP"; break;
    case Origin::INCOMPLETE: out.origin = "INCOMPLETE"; break;
    case Origin::ABSENT:
    default: out.origin.clear(); break;
  }
  const capnp::Data::Reader hop = in.getNextHop();
  if (hop.size() == 4) {
    out.next_hop = IpAddress::from_v4(load_be32(reinterpret_cast<const std::byte*>(hop.begin())));
  } else {
    out.next_hop.bytes = fixed_bytes<16>(hop, "nextHop is neither 4 nor 16 bytes");
  }
  out.communities.clear();
  for (const std::uint32_t c : in.getCommunities())
    out.communities.push_back({c >> 16, static_cast<std::uint16_t>(c & 0xffffU)});
  out.large_communities.clear();
  const auto large = in.getLargeCommunities();
  if (large.size() % 3 != 0) throw BadField("largeCommunities are not in threes");
  for (unsigned i = 0; i < large.size(); i += 3)
    out.large_communities.push_back({large[i], large[i + 1], large[i + 2]});
  out.ext_communities.clear();
  for (const std::uint64_t c : in.getExtendedCommunities()) {
    std::vector<std::uint8_t>& bytes = out.ext_communities.emplace_back();
    for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<std::uint8_t>(c >> shift));
  }
}

// `out` has the source of the batch before, if there was one.
void decode_batch(Batch::Reader in, DecodedUpdate& out, bool& has_source, const Each& each) {
  if (in.hasSource()) source_of(in.getSource(), out);
  has_source = has_source || in.hasSource();
  if (!has_source) throw BadField("the first batch has no source");
  out.time_received_ns = in.getTimeReceivedNs();
  out.time_bmp_ns = in.getTimeBmpHeaderNs();
  out.announced = in.getAnnounced();
  out.synthetic = in.getSynthetic();
  out.multiprotocol = in.getMultiprotocol();
  out.reason = static_cast<arancini::Reason>(in.getReason());
  attributes_of(in.getAttributes(), out);
  std::uint64_t sequence = in.getFirstSequence();
  const bool v4 = out.family.afi == kIpv4Unicast.afi;
  for (const auto route : in.getRoutes()) {
    Prefix p;
    p.high = v4 ? 0 : (std::uint64_t{route.getAddr0()} << 32) | route.getAddr1();
    p.low = v4 ? kV4MappedLow | route.getAddr0() : route.getAddr2();
    p.length = route.getPrefixLen();
    if (p.length > 128) throw BadField("prefixLen is above 128");
    out.prefix_address = prefix_address(p);
    out.prefix_length = p.length;
    out.path_id = route.getPathId();
    out.sequence = sequence++;
    each(out);
  }
}

std::string located(std::size_t word, std::string_view what) {
  return "byte " + std::to_string(word * sizeof(capnp::word)) + ": " + std::string(what);
}

}  // namespace

std::optional<PayloadFormat> payload_format(std::string_view header_value) {
  if (header_value == "update-v1") return PayloadFormat::UpdateV1;
  if (header_value == "update-v1-concat") return PayloadFormat::UpdateV1Concat;
  if (header_value == "batch-v2") return PayloadFormat::BatchV2;
  return std::nullopt;
}

namespace {

struct RootSize {
  std::uint16_t data_words;
  std::uint16_t pointers;
};

// Our messages have one segment, so the root pointer is the second word.
std::optional<RootSize> root_size(std::span<const std::byte> message) {
  if (message.size() < 16 || load_u32(message.data()) != 0) return std::nullopt;
  const std::uint64_t root = load_u64(message.data() + 8);
  if ((root & 3) != 0) return std::nullopt;
  return RootSize{static_cast<std::uint16_t>(root >> 32), static_cast<std::uint16_t>(root >> 48)};
}

bool is_record(const RootSize& s) {
  return s.data_words == layout::kRecordDataWords && s.pointers == layout::kRecordPointers;
}
bool is_batch(const RootSize& s) {
  return s.data_words <= layout::kBatchDataWords && s.pointers == layout::kBatchPointers;
}

}  // namespace

std::optional<PayloadFormat> guess_format(std::span<const std::byte> payload) {
  const auto size = root_size(payload);
  if (!size) return std::nullopt;
  if (is_record(*size) || is_batch(*size)) return PayloadFormat::BatchV2;
  if (size->data_words >= kOldUpdateDataWords && size->pointers >= kOldUpdatePointers)
    return PayloadFormat::UpdateV1Concat;
  return std::nullopt;
}

std::optional<std::string> decode_payload(PayloadFormat format, std::span<const std::byte> payload,
                                          const std::function<void(const DecodedUpdate&)>& each,
                                          const std::function<void(const FramedMessage&)>& message) {
  if (payload.empty()) return "byte 0: empty payload";
  if (payload.size() % sizeof(capnp::word) != 0) {
    return "payload of " + std::to_string(payload.size()) + " bytes is not a multiple of 8";
  }
  // Payloads lie anywhere in memory, libcapnp wants whole aligned words.
  std::vector<capnp::word> words(payload.size() / sizeof(capnp::word));
  std::memcpy(words.data(), payload.data(), payload.size());

  DecodedUpdate update;
  bool has_source = false;
  std::size_t at = 0;
  std::size_t messages = 0;
  try {
    while (at < words.size()) {
      if (format == PayloadFormat::UpdateV1 && messages > 0)
        return located(at, "more than one message in update-v1");
      const std::span<const std::byte> rest = payload.subspan(at * sizeof(capnp::word));
      capnp::FlatArrayMessageReader reader(kj::arrayPtr(words.data() + at, words.size() - at));
      const char* name = "Update";
      if (format != PayloadFormat::BatchV2) {
        decode_update(reader.getRoot<Update>(), update);
        each(update);
      } else if (const auto size = root_size(rest); size && is_record(*size)) {
        name = "UpdateBatch";
        decode_record(reader.getRoot<UpdateBatch>(), update, each);
      } else {
        name = "Batch";
        decode_batch(reader.getRoot<Batch>(), update, has_source, each);
      }
      const auto end = static_cast<std::size_t>(reader.getEnd() - words.data());
      if (message) {
        message(
            {name, at * sizeof(capnp::word), (end - at) * sizeof(capnp::word), load_u32(rest.data()) + 1});
      }
      at = end;
      ++messages;
    }
  } catch (const kj::Exception& e) {
    return located(at, std::string_view(e.getDescription().begin(), e.getDescription().size()));
  } catch (const BadField& e) {
    return located(at, e.what());
  }
  return std::nullopt;
}

}  // namespace arancini::schema
