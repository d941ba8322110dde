#include "common/schema/update_decode.h"

#include <capnp/serialize.h>

#include <cstring>
#include <exception>

#include "batch.capnp.h"
#include "common/schema/bytes.h"
#include "common/schema/layout.h"
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

void attributes_of(Update::Reader in, DecodedUpdate& out) {
  out.attributes_present = in.getAttributesPresent();
  out.origin = text_of(in.getOrigin());
  u32_list(in.getAsPath(), out.as_path);
  out.as_segments.clear();
  for (const auto segment : in.getAsSegments()) {
    DecodedUpdate::Segment& s = out.as_segments.emplace_back();
    s.type = segment.getType();
    u32_list(segment.getMembers(), s.members);
  }
  out.next_hop.bytes = fixed_bytes<16>(in.getNextHop(), "nextHop is not 16 bytes");
  out.med = in.getMultiExitDisc();
  out.local_pref = in.getLocalPreference();
  out.only_to_customer = in.getOnlyToCustomer();
  out.atomic_aggregate = in.getAtomicAggregate();
  out.aggregator_asn = in.getAggregatorAsn();
  out.aggregator_bgp_id = in.getAggregatorBgpId();
  out.originator_id = in.getOriginatorId();
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
  u32_list(in.getClusterList(), out.cluster_list);
  const capnp::Data::Reader others = in.getRawAttributes();
  out.raw_attributes.assign(others.begin(), others.end());
}

void decode_update(Update::Reader in, DecodedUpdate& out) {
  out.time_received_ns = in.getTimeReceivedNs();
  out.time_bmp_ns = in.getTimeBmpHeaderNs();
  out.router.bytes = fixed_bytes<16>(in.getRouterAddr(), "routerAddr is not 16 bytes");
  out.peer.bytes = fixed_bytes<16>(in.getPeerAddr(), "peerAddr is not 16 bytes");
  out.router_port = in.getRouterPort();
  out.peer_bgp_id = in.getPeerBgpId();
  out.peer_asn = in.getPeerAsn();
  out.peer_type = in.getPeerType();
  out.peer_distinguisher = in.getPeerDistinguisher();
  const auto view = static_cast<std::uint16_t>(in.getView());
  if (view >= kViewCount) throw BadField("view is not known");
  out.view = static_cast<arancini::View>(view);
  out.family = {in.getMpReachAfi(), in.getMpReachSafi()};
  if (out.family == Family{}) out.family = {in.getMpUnreachAfi(), in.getMpUnreachSafi()};
  if (out.family == Family{}) out.family = kIpv4Unicast;
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
  out.writer.bytes = fixed_bytes<16>(in.getWriterId(), "writerId is not 16 bytes");
  out.router_id = text_of(in.getRouterId());
  attributes_of(in, out);
}

void decode_batch(UpdateBatch::Reader in, DecodedUpdate& out,
                  const std::function<void(const DecodedUpdate&)>& each) {
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

std::optional<PayloadFormat> guess_format(std::span<const std::byte> payload) {
  // Our messages have one segment, so the root pointer is the second word.
  if (payload.size() < 16 || load_u32(payload.data()) != 0) return std::nullopt;
  const std::uint64_t root = load_u64(payload.data() + 8);
  if ((root & 3) != 0) return std::nullopt;
  const auto data_words = static_cast<std::uint16_t>(root >> 32);
  const auto pointers = static_cast<std::uint16_t>(root >> 48);
  if (data_words == layout::kBatchDataWords && pointers == layout::kBatchPointers)
    return PayloadFormat::BatchV2;
  if (data_words >= kOldUpdateDataWords && pointers >= kOldUpdatePointers)
    return PayloadFormat::UpdateV1Concat;
  return std::nullopt;
}

std::optional<std::string> decode_payload(PayloadFormat format, std::span<const std::byte> payload,
                                          const std::function<void(const DecodedUpdate&)>& each) {
  if (payload.empty()) return "byte 0: empty payload";
  if (payload.size() % sizeof(capnp::word) != 0) {
    return "payload of " + std::to_string(payload.size()) + " bytes is not a multiple of 8";
  }
  // Payloads lie anywhere in memory, libcapnp wants whole aligned words.
  std::vector<capnp::word> words(payload.size() / sizeof(capnp::word));
  std::memcpy(words.data(), payload.data(), payload.size());

  DecodedUpdate update;
  std::size_t at = 0;
  std::size_t messages = 0;
  try {
    while (at < words.size()) {
      if (format == PayloadFormat::UpdateV1 && messages > 0)
        return located(at, "more than one message in update-v1");
      capnp::FlatArrayMessageReader reader(kj::arrayPtr(words.data() + at, words.size() - at));
      if (format == PayloadFormat::BatchV2) {
        decode_batch(reader.getRoot<UpdateBatch>(), update, each);
      } else {
        decode_update(reader.getRoot<Update>(), update);
        each(update);
      }
      at = static_cast<std::size_t>(reader.getEnd() - words.data());
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
