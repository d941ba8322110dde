#include "common/schema/batch_encoder.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/schema/as_path.h"
#include "common/schema/bytes.h"
#include "common/schema/layout.h"

namespace arancini::schema {

namespace {

using namespace layout;

static_assert(kRouteBytes == kRecordRouteDataWords * kWordBytes && kRouteBytes % 8 == 0);

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "batch_encoder: %s\n", what);
  std::abort();
}

// Update's data section, assembled in registers: with constant bits this folds to shifts and ors.
struct DataSection {
  std::uint64_t words[kUpdateDataWords] = {};
  void set(UpdateBit bit, std::uint64_t value) { words[bit / 64] |= value << (bit % 64); }
  // Puts it over the words of `base`, which may be nullptr. Word by word: a wide load of what was just stored
  // in narrower pieces would wait until these have left the store buffer, behind whatever waits there for
  // memory.
  void write(std::byte* to, const std::uint64_t* base) const {
    for (std::uint32_t i = 0; i < kUpdateDataWords; ++i) {
      std::uint64_t word = words[i];
      asm("" : "+r"(word));
      store_u64(to + i * kWordBytes, base == nullptr ? word : word | base[i]);
    }
  }
};

// A text of up to 15 bytes as the words that it takes, its end included.
struct ShortText {
  std::uint64_t words[2] = {};
  std::uint32_t size = 0;

  constexpr ShortText() = default;
  explicit constexpr ShortText(std::string_view s) : size(static_cast<std::uint32_t>(s.size()) + 1) {
    for (std::size_t i = 0; i < s.size(); ++i)
      words[i / 8] |= std::uint64_t{static_cast<unsigned char>(s[i])} << (i % 8 * 8);
  }
};
constexpr ShortText kOriginTexts[] = {ShortText("IGP"), ShortText("EGP"), ShortText("INCOMPLETE")};

// Appends objects behind the template's fixed part; `at_` is the next free word of the template.
class TemplateWriter {
 public:
  TemplateWriter(std::byte* base, std::uint32_t words) : base_(base), at_(words) {}

  void text(UpdatePointer p, std::string_view s) {
    link(p, ElementSize::Byte, s.size() + 1);
    copy(s.data(), s.size(), s.size() + 1);
  }

  void text(UpdatePointer p, const ShortText& s) {
    link(p, ElementSize::Byte, s.size);
    store_u64(word(at_++), s.words[0]);
    if (s.size > kWordBytes) store_u64(word(at_++), s.words[1]);
  }

  void texts(UpdatePointer p, std::span<const std::string> values) {
    const auto count = static_cast<std::uint32_t>(values.size());
    link(p, ElementSize::Pointer, count);
    const std::uint32_t first = at_;
    at_ += count;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::string& s = values[i];
      store_u64(word(first + i), list_pointer(at_ - (first + i) - 1, ElementSize::Byte,
                                              static_cast<std::uint32_t>(s.size() + 1)));
      copy(s.data(), s.size(), s.size() + 1);
    }
  }

  void data(UpdatePointer p, wire::Bytes bytes) {
    link(p, ElementSize::Byte, bytes.size());
    copy(bytes.data(), bytes.size(), bytes.size());
  }

  // Attribute types without a field, whole, in their order.
  void raw_attributes(wire::Bytes all) {
    std::byte* const start = word(at_);
    std::size_t n = 0;
    wire::RawAttribute a;
    while (wire::next_attribute(all, a)) {
      if (wire::has_update_field(a.type)) continue;
      std::memcpy(start + n, a.whole.data(), a.whole.size());
      n += a.whole.size();
    }
    if (n == 0) return;
    link(UpdatePointer::kRawAttributes, ElementSize::Byte, n);
    std::memset(start + n, 0, (kWordBytes - n % kWordBytes) % kWordBytes);
    at_ += words_for_bytes(n);
  }

  // `count` 4-byte elements; returns where they go. The last word is zeroed for the padding.
  std::byte* u32_list(UpdatePointer p, std::uint32_t count) {
    link(p, ElementSize::FourBytes, count);
    return u32_elements(count);
  }

  void u32_list_be(UpdatePointer p, wire::Bytes values) {
    const auto count = static_cast<std::uint32_t>(values.size() / 4);
    if (count == 0) return;
    std::byte* out = u32_list(p, count);
    for (std::uint32_t i = 0; i < count; ++i) store_u32(out + 4 * i, load_be32(values.data() + 4 * i));
  }

  void communities(wire::Bytes values) {
    const auto count = static_cast<std::uint32_t>(values.size() / 4);
    if (count == 0) return;
    std::byte* out = struct_list(UpdatePointer::kCommunities, count, kCommunityDataWords, 0);
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint32_t v = load_be32(values.data() + 4 * i);
      store_u64(out + 8 * i, (v >> 16) | (std::uint64_t{v & 0xffffU} << 32));
    }
  }

  void extended_communities(wire::Bytes values) {
    const auto count = static_cast<std::uint32_t>(values.size() / 8);
    if (count == 0) return;
    std::byte* out = struct_list(UpdatePointer::kExtendedCommunities, count, kExtendedCommunityDataWords,
                                 kExtendedCommunityPointers);
    std::byte* const value_words = out + std::size_t{16} * count;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint64_t v = load_u64(values.data() + 8 * i);  // type high, type low, six bytes of value
      store_u64(out + std::size_t{16} * i, v & 0xffffU);
      store_u64(out + std::size_t{16} * i + 8, list_pointer(2 * (count - 1 - i) + i, ElementSize::Byte, 6));
      store_u64(value_words + 8 * i, v >> 16);
    }
    at_ += count;
  }

  void large_communities(wire::Bytes values) {
    const auto count = static_cast<std::uint32_t>(values.size() / 12);
    if (count == 0) return;
    std::byte* out = struct_list(UpdatePointer::kLargeCommunities, count, kLargeCommunityDataWords, 0);
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::byte* in = values.data() + std::size_t{12} * i;
      store_u64(out, load_be32(in) | (std::uint64_t{load_be32(in + 4)} << 32));
      store_u64(out + 8, load_be32(in + 8));
      out += 16;
    }
  }

  void as_segments(const wire::Attributes& attributes, std::uint32_t count) {
    std::byte* element =
        struct_list(UpdatePointer::kAsSegments, count, kAsSegmentDataWords, kAsSegmentPointers);
    AsPathWalk walk(attributes);
    PathSegment s;
    while (walk.next(s)) {
      store_u64(element, s.type);
      const auto pointer_word = static_cast<std::uint32_t>((element + 8 - base_) / 8);
      store_u64(element + 8, list_pointer(at_ - pointer_word - 1, ElementSize::FourBytes, s.count));
      std::byte* out = u32_elements(s.count);
      for (std::uint32_t i = 0; i < s.count; ++i) store_u32(out + 4 * i, s.member(i));
      element += 16;
    }
  }

  [[nodiscard]] std::byte* word(std::uint32_t index) const { return base_ + std::size_t{index} * kWordBytes; }
  [[nodiscard]] std::uint32_t words() const { return at_; }

 private:
  void link(UpdatePointer p, ElementSize size, std::size_t count) {
    const std::uint32_t from = pointer_word(p);
    store_u64(word(from), list_pointer(at_ - from - 1, size, static_cast<std::uint32_t>(count)));
  }

  void copy(const void* from, std::size_t bytes, std::size_t with_terminator) {
    const std::uint32_t words = words_for_bytes(with_terminator);
    store_u64(word(at_ + words - 1), 0);
    std::memcpy(word(at_), from, bytes);
    at_ += words;
  }

  std::byte* u32_elements(std::uint32_t count) {
    std::byte* out = word(at_);
    at_ += (count + 1) / 2;
    store_u64(word(at_ - 1), 0);
    return out;
  }

  std::byte* struct_list(UpdatePointer p, std::uint32_t count, std::uint32_t data_words,
                         std::uint32_t pointers) {
    const std::uint32_t words = count * (data_words + pointers);
    link(p, ElementSize::Composite, words);
    store_u64(word(at_), list_tag(count, data_words, pointers));
    std::byte* out = word(at_ + 1);
    at_ += 1 + words;
    return out;
  }

  std::byte* base_;
  std::uint32_t at_;
};

std::uint32_t u32_or_zero(wire::Bytes value) {
  return value.size() == 4 ? load_be32(value.data()) : 0;
}

// What a source keeps of the data section.
DataSection source_section(const BatchMeta& m) {
  DataSection d;
  d.set(kPeerBgpId, m.peer_bgp_id);
  d.set(kPeerAsn, m.peer_asn);
  d.set(kPeerType, m.peer_type);
  d.set(kPeerDistinguisher, m.peer_distinguisher);
  d.set(kIsPostPolicy, std::uint64_t{m.view == View::AdjInPost || m.view == View::AdjOutPost});
  d.set(kIsAdjRibOut, std::uint64_t{m.view == View::AdjOutPre || m.view == View::AdjOutPost});
  d.set(kView, static_cast<std::uint64_t>(m.view));
  return d;
}

// The rest of it.
[[gnu::always_inline]] inline void add_to_section(DataSection& d, const BatchMeta& m,
                                                  const wire::Attributes* a) {
  d.set(kTimeReceivedNs, m.received_realtime_ns);
  d.set(kTimeBmpHeaderNs, m.bmp_timestamp_ns);
  d.set(kRouterPort, m.router_port);
  d.set(kAnnounced, std::uint64_t{m.announced});
  d.set(kSynthetic, std::uint64_t{m.synthetic});
  d.set(kReason, static_cast<std::uint64_t>(m.reason));
  // Without the mp fields a reader takes the route for IPv4 unicast, so every other family needs them.
  if (m.via_mp || m.family != kIpv4Unicast) {
    d.set(m.announced ? kMpReachAfi : kMpUnreachAfi, m.family.afi);
    d.set(m.announced ? kMpReachSafi : kMpUnreachSafi, m.family.safi);
  }
  if (a == nullptr) return;
  d.set(kMultiExitDisc, u32_or_zero(a->med));
  d.set(kLocalPreference, u32_or_zero(a->local_pref));
  d.set(kOnlyToCustomer, u32_or_zero(a->only_to_customer));
  d.set(kOriginatorId, u32_or_zero(a->originator_id));
  d.set(kAtomicAggregate, std::uint64_t{a->has(wire::AttrType::AtomicAggregate)});
  if (!a->aggregator.empty()) {
    const Aggregator aggregator = aggregator_of(*a);
    d.set(kAggregatorAsn, aggregator.asn);
    d.set(kAggregatorBgpId, aggregator.bgp_id);
  }
  d.set(kAttributesPresent, a->present);
}

// The always present 16-byte objects and, where there is one, the router's name.
void write_source(TemplateWriter& out, const BatchMeta& meta) {
  const auto fixed = [&](UpdatePointer p, std::uint32_t target, const std::uint8_t* bytes) {
    store_u64(out.word(pointer_word(p)), fixed_data_pointer(p, target));
    std::memcpy(out.word(target), bytes, 16);
  };
  static constexpr std::uint8_t kZeros[16] = {};
  fixed(UpdatePointer::kRouterAddr, kRouterAddrWord, meta.router_address.bytes.data());
  fixed(UpdatePointer::kPeerAddr, kPeerAddrWord, meta.peer_address.bytes.data());
  fixed(UpdatePointer::kPrefixAddr, kPrefixAddrWord, kZeros);
  fixed(UpdatePointer::kNextHop, kNextHopWord, kZeros);
  fixed(UpdatePointer::kWriterId, kWriterIdWord, meta.writer.bytes.data());
  if (!meta.router_name.empty()) out.text(UpdatePointer::kRouterId, meta.router_name);
}

void write_as_path(TemplateWriter& out, const wire::Attributes& a, std::uint32_t& segments, bool& plain) {
  segments = 0;
  plain = true;
  // Nearly always one sequence of 4-byte ASes.
  if (!a.as2 && a.as_path.size() > 2 && a.as_path[0] == std::byte{static_cast<int>(SegmentType::Sequence)} &&
      2 + std::size_t{4} * static_cast<std::uint8_t>(a.as_path[1]) == a.as_path.size()) [[likely]] {
    segments = 1;
    out.u32_list_be(UpdatePointer::kAsPath, a.as_path.subspan(2));
    return;
  }
  std::uint32_t members = 0;
  PathSegment s;
  for (AsPathWalk walk(a); walk.next(s); ++segments) {
    if (s.type == static_cast<std::uint8_t>(SegmentType::Sequence)) {
      members += s.count;
    } else {
      plain = false;
    }
  }
  if (members == 0) return;
  std::byte* to = out.u32_list(UpdatePointer::kAsPath, members);
  for (AsPathWalk walk(a); walk.next(s);) {
    if (s.type != static_cast<std::uint8_t>(SegmentType::Sequence)) continue;
    for (std::uint32_t i = 0; i < s.count; ++i, to += 4) store_u32(to, s.member(i));
  }
}

void write_attributes(TemplateWriter& out, const wire::Attributes& a) {
  if (const std::size_t origin = a.origin.empty() ? 3 : static_cast<std::uint8_t>(a.origin[0]); origin < 3)
    out.text(UpdatePointer::kOrigin, kOriginTexts[origin]);
  std::uint32_t segments = 0;
  bool plain = true;
  if (!a.as_path.empty()) write_as_path(out, a, segments, plain);
  out.communities(a.communities);
  out.extended_communities(a.extended_communities);
  out.large_communities(a.large_communities);
  out.u32_list_be(UpdatePointer::kClusterList, a.cluster_list);
  if (!plain) out.as_segments(a, segments);
  if (a.has_other) out.raw_attributes(a.all);
}

}  // namespace

std::uint32_t max_record_bytes(const BatchMeta& meta, const BatchAttributes& attributes,
                               std::uint32_t routes) {
  // Fixed parts, the routes' tag word, the router name with its terminator.
  std::size_t bytes = sizeof(shm::RecordHeader) + kTemplateOffsetBytes + kFixedTemplateWords * kWordBytes +
                      kWordBytes + std::size_t{routes} * kRecordRouteDataWords * kWordBytes +
                      meta.router_name.size() + 8;
  for (const std::string& tag : meta.tags) bytes += kWordBytes + tag.size() + 8;
  if (const wire::Attributes* a = attributes.attributes; a != nullptr) {
    // Growth against the wire: an AS path at most 7 times (segments of one 2-byte AS: 4 bytes become 16 in
    // the segment list, 8 of members and 4 in asPath), communities 2, extended communities 3, large
    // communities 4/3. Each object has up to a tag and 7 bytes of padding besides; origin has 2 words.
    constexpr std::size_t kObjects = 8;
    bytes += 8 * (a->as_path.size() + a->as4_path.size()) + 2 * a->communities.size() +
             3 * a->extended_communities.size() + 2 * a->large_communities.size() + a->cluster_list.size() +
             (a->has_other ? a->all.size() : 0) + kObjects * 2 * kWordBytes;
  }
  return static_cast<std::uint32_t>((bytes + 7) & ~std::size_t{7});
}

BatchSource::BatchSource(const BatchMeta& meta) : asn_(meta.peer_asn), bgp_id_(meta.peer_bgp_id) {
  constexpr std::size_t kMostName = (kMostWords - kFixedTemplateWords) * kWordBytes - 1;
  if (meta.router_name.size() > kMostName) return;
  template_ = {};
  auto* const words = reinterpret_cast<std::byte*>(template_.data());
  source_section(meta).write(words, nullptr);
  TemplateWriter out(words, kFixedTemplateWords);
  write_source(out, meta);
  words_ = out.words();
}

BatchEncoder::BatchEncoder(std::span<std::byte> claimed, const BatchMeta& meta,
                           const BatchAttributes& attributes, Sequence first_sequence,
                           std::uint32_t max_routes, std::uint32_t fixed_bytes)
    : payload_(claimed.data() + sizeof(shm::RecordHeader)), max_routes_(max_routes) {
  if (claimed.size() < fixed_bytes + std::size_t{max_routes} * kRouteBytes) [[unlikely]]
    broken("claim smaller than max_record_bytes()");
  std::byte* const segment = payload_ + kFrameBytes;
  store_u64(segment + kBatchRootWord * kWordBytes, struct_pointer(0, kRecordDataWords, kRecordPointers));
  store_u64(segment + kFirstSequenceWord * kWordBytes, raw(first_sequence));
  store_u64(segment + kSharedPointerWord * kWordBytes,
            struct_pointer(kTemplateWord - kSharedPointerWord - 1, kUpdateDataWords, kUpdatePointers));

  std::byte* const base = payload_ + kTemplateOffsetBytes;
  const BatchSource* const source =
      meta.source != nullptr && meta.source->made_of(meta) ? meta.source : nullptr;
  TemplateWriter out(base, source == nullptr ? kFixedTemplateWords : source->words_);
  DataSection d;
  if (source != nullptr) [[likely]] {
    std::memcpy(base + kUpdateDataWords * kWordBytes, source->template_.data() + kUpdateDataWords,
                (source->words_ - kUpdateDataWords) * kWordBytes);
  } else {
    d = source_section(meta);
    std::memset(base + kUpdateDataWords * kWordBytes, 0, kUpdatePointers * kWordBytes);
    write_source(out, meta);
  }
  add_to_section(d, meta, attributes.attributes);
  d.write(base, source == nullptr ? nullptr : source->template_.data());
  if (attributes.attributes != nullptr)
    std::memcpy(out.word(kNextHopWord), attributes.next_hop.bytes.data(), sizeof attributes.next_hop.bytes);
  if (attributes.attributes != nullptr) write_attributes(out, *attributes.attributes);
  if (!meta.tags.empty()) out.texts(UpdatePointer::kTags, meta.tags);

  routes_ = out.word(out.words() + 1);
  header_.kind = static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch);
  header_.format = shm::kRecordFormat;
  header_.flags = static_cast<std::uint16_t>((meta.announced ? 0U : shm::kRecordFlagWithdraw) |
                                             (meta.synthetic ? shm::kRecordFlagSynthetic : 0U));
  header_.first_sequence = raw(first_sequence);
  header_.received_realtime_ns = meta.received_realtime_ns;
  header_.template_offset_bytes = kTemplateOffsetBytes;
  header_.template_bytes = out.words() * static_cast<std::uint32_t>(kWordBytes);
  header_.router_id = meta.router_id;
  header_.subject_key = subject_key(meta.router_address, meta.peer_asn, meta.family);
}

void BatchEncoder::too_many() {
  broken("more routes than claimed for");
}

const shm::RecordHeader& BatchEncoder::finish() {
  const std::uint32_t template_words = header_.template_bytes / static_cast<std::uint32_t>(kWordBytes);
  const std::uint32_t route_words = count_ * kRecordRouteDataWords;
  std::byte* const segment = payload_ + kFrameBytes;
  store_u64(segment + kRoutesPointerWord * kWordBytes,
            list_pointer(kTemplateWord + template_words - kRoutesPointerWord - 1, ElementSize::Composite,
                         route_words));
  store_u64(routes_ - kWordBytes, list_tag(count_, kRecordRouteDataWords, 0));
  const std::uint32_t words = kTemplateWord + template_words + 1 + route_words;
  store_u64(payload_, std::uint64_t{words} << 32);
  header_.count = count_;
  header_.payload_bytes = static_cast<std::uint32_t>(kFrameBytes + std::size_t{words} * kWordBytes);
  header_.size_bytes = static_cast<std::uint32_t>(sizeof(shm::RecordHeader)) + header_.payload_bytes;
  return header_;
}

std::uint64_t subject_key(const IpAddress& router, std::uint32_t peer_asn, Family family) {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  std::memcpy(&high, router.bytes.data(), 8);
  std::memcpy(&low, router.bytes.data() + 8, 8);
  const auto mix = [](std::uint64_t h, std::uint64_t v) {
    h = (h ^ v) * 0x9fb21c651e98df25U;
    return h ^ (h >> 32);
  };
  const std::uint64_t rest =
      (std::uint64_t{peer_asn} << 32) | (std::uint64_t{family.afi} << 8) | std::uint64_t{family.safi};
  return mix(mix(mix(0x2545f4914f6cdd1dU, high), low), rest);
}

}  // namespace arancini::schema
