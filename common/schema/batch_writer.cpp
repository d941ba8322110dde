#include "common/schema/batch_writer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/schema/bytes.h"
#include "common/schema/layout.h"

namespace arancini::schema {

namespace {

using namespace layout;

constexpr std::uint32_t kRootWord = 1;  // behind the framing
constexpr std::uint32_t kBatchWord = 2;
constexpr std::uint32_t kFixedSourceWords =
    kSourceDataWords + kSourcePointers + 6;  // but for the router's name

// What a list pointer of the template points to. The expander has checked it.
struct Object {
  const std::byte* at = nullptr;
  std::uint32_t elements = 0;  // but for Composite the words behind the tag
};

// It lies in memory of another process: whatever is read twice is checked twice.
class Template {
 public:
  explicit Template(std::span<const std::byte> bytes)
      : base_(bytes.data()), words_(static_cast<std::uint32_t>(bytes.size() / kWordBytes)) {}

  [[nodiscard]] const std::byte* word(std::uint32_t index) const {
    return base_ + std::size_t{index} * kWordBytes;
  }
  [[nodiscard]] Object object(UpdatePointer p) const {
    const std::uint64_t v = load_u64(word(pointer_word(p)));
    if (v == 0) return {};
    const std::uint64_t at = pointer_word(p) + 1 + (static_cast<std::uint32_t>(v) >> 2);
    const auto elements = static_cast<std::uint32_t>(v >> 35);
    const auto size = static_cast<ElementSize>((v >> 32) & 7U);
    const std::uint64_t words = size == ElementSize::Byte        ? (std::uint64_t{elements} + 7) / 8
                                : size == ElementSize::FourBytes ? (std::uint64_t{elements} + 1) / 2
                                : size == ElementSize::Pointer   ? std::uint64_t{elements}
                                                                 : std::uint64_t{elements} + 1;
    if (at + words > words_) return {};
    return {word(static_cast<std::uint32_t>(at)), elements};
  }
  // Words of the template from there on.
  [[nodiscard]] std::uint64_t behind(const std::byte* at) const {
    return words_ - static_cast<std::uint64_t>(at - base_) / kWordBytes;
  }
  template <class T>
  [[nodiscard]] std::uint64_t field(UpdateBit bit) const {
    T v;
    std::memcpy(&v, base_ + bit / 8, sizeof v);
    return v;
  }
  [[nodiscard]] std::uint64_t flag(UpdateBit bit) const {
    return (std::to_integer<std::uint64_t>(base_[bit / 8]) >> (bit % 8)) & 1U;
  }

 private:
  const std::byte* base_;
  std::uint32_t words_;
};

// A segment that grows object by object. Memory is dirty: whoever takes words fills them.
class Words {
 public:
  explicit Words(std::uint64_t* base) : base_(base) {}

  [[nodiscard]] std::uint32_t at() const { return at_; }
  std::uint64_t* take(std::uint32_t count) {
    std::uint64_t* out = base_ + at_;
    at_ += count;
    return out;
  }
  std::uint64_t& operator[](std::uint32_t index) { return base_[index]; }

  // A list of `count` elements; the last word is zeroed for the padding.
  std::uint64_t* list(std::uint32_t pointer, ElementSize size, std::uint32_t count, std::uint32_t words) {
    base_[pointer] = list_pointer(at_ - pointer - 1, size, count);
    std::uint64_t* out = take(words);
    out[words - 1] = 0;
    return out;
  }
  void bytes(std::uint32_t pointer, const std::byte* from, std::uint32_t count) {
    std::memcpy(list(pointer, ElementSize::Byte, count, words_for_bytes(count)), from, count);
  }
  void u32s(std::uint32_t pointer, const Object& from) {
    std::memcpy(list(pointer, ElementSize::FourBytes, from.elements, (from.elements + 1) / 2), from.at,
                std::size_t{from.elements} * 4);
  }

 private:
  std::uint64_t* base_;
  std::uint32_t at_ = kBatchWord;
};

// Without trailing zeros: canonical.
template <std::size_t N>
std::uint32_t used(const std::array<std::uint64_t, N>& words) {
  auto n = static_cast<std::uint32_t>(N);
  while (n > 0 && words[n - 1] == 0) --n;
  return n;
}

std::uint64_t origin_of(const Object& text) {
  if (text.elements == 4 && std::memcmp(text.at, "IGP", 4) == 0) return kOriginIgp;
  if (text.elements == 4 && std::memcmp(text.at, "EGP", 4) == 0) return kOriginEgp;
  if (text.elements == 11 && std::memcmp(text.at, "INCOMPLETE", 11) == 0) return kOriginIncomplete;
  return 0;
}

// The pointers are relative, and the texts lie behind them without a gap.
void write_texts(Words& out, std::uint32_t pointer, const Object& from, std::uint64_t most_words) {
  std::uint64_t words = from.elements;
  for (std::uint32_t i = 0; i < from.elements; ++i) {
    const std::uint64_t bytes = load_u64(from.at + kWordBytes * std::size_t{i}) >> 35;
    words += (bytes + 7) / 8;
  }
  words = std::min(words, most_words);
  out[pointer] = list_pointer(out.at() - pointer - 1, ElementSize::Pointer, from.elements);
  std::memcpy(out.take(static_cast<std::uint32_t>(words)), from.at, words * kWordBytes);
}

void write_source(Words& out, std::uint32_t pointer, const Template& t, Family family) {
  const Object name = t.object(UpdatePointer::kRouterId);
  const Object tags = t.object(UpdatePointer::kTags);
  const std::uint32_t pointers = tags.elements > 0 ? 5 : name.elements > 0 ? 4 : 3;
  out[pointer] = struct_pointer(out.at() - pointer - 1, kSourceDataWords, pointers);
  std::uint64_t* const data = out.take(kSourceDataWords);
  data[0] = t.field<std::uint64_t>(kPeerDistinguisher);
  data[1] = t.field<std::uint32_t>(kPeerBgpId) | (t.field<std::uint32_t>(kPeerAsn) << 32);
  data[2] = t.field<std::uint16_t>(kRouterPort) | (std::uint64_t{family.afi} << 16) |
            (std::uint64_t{family.safi} << 32) | (t.field<std::uint8_t>(kPeerType) << 40) |
            (t.field<std::uint16_t>(kView) << 48);
  const std::uint32_t first = out.at();
  out.take(pointers);
  out.bytes(first, t.word(kWriterIdWord), 16);
  out.bytes(first + 1, t.word(kRouterAddrWord), 16);
  out.bytes(first + 2, t.word(kPeerAddrWord), 16);
  if (name.elements > 0) {
    out.bytes(first + 3, name.at, name.elements);
  } else if (pointers > 3) {
    out[first + 3] = 0;
  }
  if (tags.elements > 0) write_texts(out, first + 4, tags, t.behind(tags.at));
}

// The objects that PathAttributes points to, in the order of its pointers.
struct Found {
  Object as_path;
  const std::byte* next_hop = nullptr;
  std::uint32_t next_hop_bytes = 0;
  Object communities;
  Object large;
  Object extended;
  Object clusters;
  Object segments;
  Object raw;

  explicit Found(const Template& t)
      : as_path(t.object(UpdatePointer::kAsPath)),
        communities(t.object(UpdatePointer::kCommunities)),
        large(t.object(UpdatePointer::kLargeCommunities)),
        extended(t.object(UpdatePointer::kExtendedCommunities)),
        clusters(t.object(UpdatePointer::kClusterList)),
        segments(t.object(UpdatePointer::kAsSegments)),
        raw(t.object(UpdatePointer::kRawAttributes)) {
    const std::byte* const hop = t.word(kNextHopWord);
    const std::uint64_t high = load_u64(hop);
    const std::uint64_t low = load_u64(hop + 8);
    if ((high | low) == 0) return;
    const bool v4 = high == 0 && (low & 0xffffffffU) == 0xffff0000U;  // ::ffff:a.b.c.d
    next_hop = v4 ? hop + 12 : hop;
    next_hop_bytes = v4 ? 4 : 16;
  }
  [[nodiscard]] std::uint32_t pointers() const {
    if (raw.elements > 0) return 8;
    if (segments.elements > 0) return 7;
    if (clusters.elements > 0) return 6;
    if (extended.elements > 0) return 5;
    if (large.elements > 0) return 4;
    if (communities.elements > 0) return 3;
    if (next_hop_bytes > 0) return 2;
    return as_path.elements > 0 ? 1 : 0;
  }
};

void write_communities(Words& out, std::uint32_t pointer, const Object& from) {
  // Composite, a word each: the AS number, then the value.
  const std::uint32_t count = from.elements;
  auto* const to =
      reinterpret_cast<std::byte*>(out.list(pointer, ElementSize::FourBytes, count, (count + 1) / 2));
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t v = load_u64(from.at + kWordBytes * (std::size_t{i} + 1));
    store_u32(to + std::size_t{4} * i,
              static_cast<std::uint32_t>(v << 16) | static_cast<std::uint16_t>(v >> 32));
  }
}

void write_large(Words& out, std::uint32_t pointer, const Object& from) {
  const std::uint32_t count = from.elements / kLargeCommunityDataWords;
  auto* const to =
      reinterpret_cast<std::byte*>(out.list(pointer, ElementSize::FourBytes, 3 * count, (3 * count + 1) / 2));
  for (std::uint32_t i = 0; i < count; ++i) {
    std::memcpy(to + std::size_t{12} * i, from.at + kWordBytes * (std::size_t{2} * i + 1), 12);
  }
}

void write_extended(Words& out, std::uint32_t pointer, const Object& from) {
  // Composite, two words each (types, pointer), then all values.
  const std::uint32_t count = from.elements / (kExtendedCommunityDataWords + kExtendedCommunityPointers);
  std::uint64_t* const to = out.list(pointer, ElementSize::EightBytes, count, count);
  const std::byte* const types = from.at + kWordBytes;
  const std::byte* const values = types + kWordBytes * 2 * std::size_t{count};
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t type = load_u64(types + kWordBytes * 2 * std::size_t{i}) & 0xffffU;
    const std::uint64_t value = load_u64(values + kWordBytes * std::size_t{i}) << 16;
    to[i] = __builtin_bswap64(type | value);
  }
}

// Its own pointers are relative, and all that they point to lies behind it without a gap.
void write_segments(Words& out, std::uint32_t pointer, const Object& from, std::uint64_t most_words) {
  const std::uint32_t elements = from.elements / (kAsSegmentDataWords + kAsSegmentPointers);
  std::uint64_t words = 1 + std::uint64_t{from.elements};
  for (std::uint32_t i = 0; i < elements; ++i) {
    const std::uint64_t members = load_u64(from.at + kWordBytes * (std::size_t{2} * i + 2)) >> 35;
    words += (members + 1) / 2;
  }
  words = std::min(words, most_words);
  out[pointer] = list_pointer(out.at() - pointer - 1, ElementSize::Composite, from.elements);
  std::memcpy(out.take(static_cast<std::uint32_t>(words)), from.at, words * kWordBytes);
}

void write_attributes(Words& out, std::uint32_t pointer, const Template& t) {
  const Found found(t);
  const std::array<std::uint64_t, kPathAttributesDataWords> data{
      t.field<std::uint64_t>(kAttributesPresent),
      t.field<std::uint32_t>(kMultiExitDisc) | (origin_of(t.object(UpdatePointer::kOrigin)) << 32) |
          (t.flag(kAtomicAggregate) << 48),
      t.field<std::uint32_t>(kLocalPreference) | (t.field<std::uint32_t>(kOnlyToCustomer) << 32),
      t.field<std::uint32_t>(kAggregatorAsn) | (t.field<std::uint32_t>(kAggregatorBgpId) << 32),
      t.field<std::uint32_t>(kOriginatorId)};
  const std::uint32_t data_words = used(data);
  const std::uint32_t pointers = found.pointers();
  if (data_words + pointers == 0) {
    out[pointer] = 0;
    return;
  }
  out[pointer] = struct_pointer(out.at() - pointer - 1, data_words, pointers);
  std::copy_n(data.begin(), data_words, out.take(data_words));
  const std::uint32_t p = out.at();
  std::fill_n(out.take(pointers), pointers, 0);
  if (found.as_path.elements > 0) out.u32s(p, found.as_path);
  if (found.next_hop_bytes > 0) out.bytes(p + 1, found.next_hop, found.next_hop_bytes);
  if (found.communities.elements > 0) write_communities(out, p + 2, found.communities);
  if (found.large.elements > 0) write_large(out, p + 3, found.large);
  if (found.extended.elements > 0) write_extended(out, p + 4, found.extended);
  if (found.clusters.elements > 0) out.u32s(p + 5, found.clusters);
  if (found.segments.elements > 0) {
    write_segments(out, p + 6, found.segments, t.behind(found.segments.at));
  }
  if (found.raw.elements > 0) out.bytes(p + 7, found.raw.at, found.raw.elements);
}

// As few words a route as hold all of them: one for IPv4, two for most of IPv6 and for path ids.
void write_routes(Words& out, std::uint32_t pointer, const std::byte* from, std::uint32_t count, bool v4) {
  std::array<std::uint64_t, kRouteDataWords> any{};
  const auto route = [&](std::uint32_t i) {
    const std::byte* const r = from + std::size_t{i} * kRecordRouteDataWords * kWordBytes;
    const std::uint64_t high = load_u64(r);
    const std::uint64_t low = load_u64(r + 8);
    const std::uint64_t length = std::to_integer<std::uint64_t>(r[20]) << 32;
    const std::uint64_t path_id = load_u32(r + 16);
    return v4 ? std::array{(low & 0xffffffffU) | length, path_id, std::uint64_t{0}}
              : std::array{(high >> 32) | length, path_id | (high << 32), low};
  };
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto words = route(i);
    for (std::size_t w = 0; w < any.size(); ++w) any[w] |= words[w];
  }
  const std::uint32_t each = used(any);
  out[pointer] = list_pointer(out.at() - pointer - 1, ElementSize::Composite, count * each);
  *out.take(1) = list_tag(count, each, 0);
  std::uint64_t* to = out.take(count * each);
  for (std::uint32_t i = 0; i < count; ++i, to += each) std::copy_n(route(i).begin(), each, to);
}

}  // namespace

std::span<const std::byte> BatchWriter::write(const BatchExpander& record, std::uint32_t first,
                                              std::uint32_t count, bool with_source) {
  const std::span<const std::byte> bytes = record.update_template();
  // Nothing becomes longer than it is there, routes aside; seven lists and a text.
  const std::size_t most =
      kBatchWord + 8 * bytes.size() / kWordBytes + 1 + std::size_t{count} * kRouteDataWords;
  if (words_.size() < most) words_.resize(most * 2);
  const Template t(bytes);
  Words out(words_.data());

  const std::uint64_t multiprotocol =
      (t.field<std::uint16_t>(kMpReachAfi) | t.field<std::uint8_t>(kMpReachSafi) |
       t.field<std::uint16_t>(kMpUnreachAfi) | t.field<std::uint8_t>(kMpUnreachSafi)) != 0
          ? 1
          : 0;
  const std::array<std::uint64_t, kBatchDataWords> data{
      raw(record.first_sequence()) + first, t.field<std::uint64_t>(kTimeReceivedNs),
      t.field<std::uint64_t>(kTimeBmpHeaderNs),
      t.flag(kAnnounced) | (t.flag(kSynthetic) << 1) | (multiprotocol << 2) |
          (t.field<std::uint16_t>(kReason) << 16)};
  const std::uint32_t data_words = used(data);
  out[kRootWord] = struct_pointer(0, data_words, kBatchPointers);
  std::copy_n(data.begin(), data_words, out.take(data_words));
  const std::uint32_t p = out.at();
  out.take(kBatchPointers);
  if (with_source) {
    write_source(out, p, t, record.family());
  } else {
    out[p] = 0;
  }
  write_attributes(out, p + 1, t);
  // An address that is not mapped (a table of another family cannot bring one) would lose bits as IPv4.
  write_routes(out, p + 2, record.routes().data() + std::size_t{first} * kRecordRouteDataWords * kWordBytes,
               count, record.family().afi == kIpv4Unicast.afi);
  out[0] = std::uint64_t{out.at() - 1} << 32;
  return std::as_bytes(std::span(words_)).first(std::size_t{out.at()} * kWordBytes);
}

bool BatchWriter::same_source(const BatchExpander& record, std::span<const std::byte> batch) {
  const std::span<const std::byte> bytes = record.update_template();
  const std::size_t most = kBatchWord + kFixedSourceWords + bytes.size() / kWordBytes;
  if (words_.size() < most) words_.resize(most * 2);
  Words out(words_.data());
  const std::uint32_t from = out.at();
  write_source(out, kRootWord, Template(bytes), record.family());
  const std::size_t size = std::size_t{out.at() - from} * kWordBytes;

  if (batch.size() < kBatchWord * kWordBytes) return false;
  const std::uint64_t root = load_u64(batch.data() + kRootWord * kWordBytes);
  const std::size_t data_words = static_cast<std::uint16_t>(root >> 32);
  const std::size_t at = (kBatchWord + data_words + kBatchPointers) * kWordBytes;
  // The pointer tells the sizes; the rest lies right behind the pointers of the batch.
  return batch.size() >= at + size &&
         static_cast<std::uint32_t>(load_u64(batch.data() + at - kBatchPointers * kWordBytes) >> 32) ==
             static_cast<std::uint32_t>(out[kRootWord] >> 32) &&
         std::memcmp(batch.data() + at, words_.data() + from, size) == 0;
}

}  // namespace arancini::schema
