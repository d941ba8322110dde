#include "common/schema/batch_expander.h"

#include <cstring>

#include "common/schema/bytes.h"
#include "common/schema/layout.h"

namespace arancini::schema {

namespace {

using namespace layout;

// The data words up to the last one that write_update() fills.
constexpr std::uint32_t kPatchedDataWords = kSequence / 64 + 1;

// Checks that a template is laid out exactly as the encoder does it: every object at the place where the one
// before it ends. That bounds every pointer, and whoever reads the copies finds no overlap and no loop.
class TemplateCheck {
 public:
  TemplateCheck(const std::byte* base, std::uint32_t words) : base_(base), words_(words) {}

  bool run() {
    constexpr struct {
      UpdatePointer pointer;
      std::uint32_t word;
    } kFixed[] = {{UpdatePointer::kRouterAddr, kRouterAddrWord},
                  {UpdatePointer::kPeerAddr, kPeerAddrWord},
                  {UpdatePointer::kPrefixAddr, kPrefixAddrWord},
                  {UpdatePointer::kNextHop, kNextHopWord},
                  {UpdatePointer::kWriterId, kWriterIdWord}};
    for (const auto& f : kFixed) {
      if (pointer(f.pointer) != fixed_data_pointer(f.pointer, f.word)) return false;
    }
    for (const UpdatePointer p :
         {UpdatePointer::kRawNlri, UpdatePointer::kLabels, UpdatePointer::kTableName}) {
      if (pointer(p) != 0) return false;
    }
    return text(UpdatePointer::kRouterId) && text(UpdatePointer::kOrigin) &&
           u32_list(UpdatePointer::kAsPath) &&
           struct_list(UpdatePointer::kCommunities, kCommunityDataWords) && extended_communities() &&
           struct_list(UpdatePointer::kLargeCommunities, kLargeCommunityDataWords) &&
           u32_list(UpdatePointer::kClusterList) && as_segments() && bytes(UpdatePointer::kRawAttributes) &&
           texts(UpdatePointer::kTags) && at_ == words_;
  }

 private:
  [[nodiscard]] std::uint64_t word(std::uint64_t i) const { return load_u64(base_ + i * kWordBytes); }
  [[nodiscard]] std::uint64_t pointer(UpdatePointer p) const { return word(pointer_word(p)); }

  // A list pointer at word `from` to the next free word: its elements, or -1 when it is anything else.
  [[nodiscard]] std::int64_t elements(std::uint32_t from, ElementSize size) const {
    const std::uint64_t p = word(from);
    const auto count = static_cast<std::uint32_t>(p >> 35);
    return p == list_pointer(at_ - from - 1, size, count) ? std::int64_t{count} : -1;
  }

  bool advance(std::uint64_t words) {
    if (words > words_ - at_) return false;
    at_ += static_cast<std::uint32_t>(words);
    return true;
  }

  bool u32_list_at(std::uint32_t from) {
    const std::int64_t n = elements(from, ElementSize::FourBytes);
    return n > 0 && advance((static_cast<std::uint64_t>(n) + 1) / 2);
  }
  bool u32_list(UpdatePointer p) { return pointer(p) == 0 || u32_list_at(pointer_word(p)); }

  // A byte list: its size, or -1.
  std::int64_t byte_list(UpdatePointer p) {
    const std::int64_t n = elements(pointer_word(p), ElementSize::Byte);
    return n > 0 && advance((static_cast<std::uint64_t>(n) + 7) / 8) ? n : -1;
  }
  bool bytes(UpdatePointer p) { return pointer(p) == 0 || byte_list(p) > 0; }
  bool text(UpdatePointer p) {
    if (pointer(p) == 0) return true;
    const std::size_t start = std::size_t{at_} * kWordBytes;
    const std::int64_t n = byte_list(p);
    return n > 0 && base_[start + static_cast<std::size_t>(n) - 1] == std::byte{0};
  }

  bool texts(UpdatePointer p) {
    if (pointer(p) == 0) return true;
    const std::int64_t count = elements(pointer_word(p), ElementSize::Pointer);
    const std::uint32_t first = at_;
    if (count <= 0 || !advance(static_cast<std::uint64_t>(count))) return false;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::size_t start = std::size_t{at_} * kWordBytes;
      const std::int64_t n = elements(first + static_cast<std::uint32_t>(i), ElementSize::Byte);
      if (n <= 0 || !advance((static_cast<std::uint64_t>(n) + 7) / 8) ||
          base_[start + static_cast<std::size_t>(n) - 1] != std::byte{0}) {
        return false;
      }
    }
    return true;
  }

  // A composite list: its elements, or -1. Leaves at_ behind it.
  std::int64_t composite(UpdatePointer p, std::uint32_t data_words, std::uint32_t pointers) {
    const std::int64_t words = elements(pointer_word(p), ElementSize::Composite);
    const std::uint32_t tag = at_;
    if (words <= 0 || !advance(1) || !advance(static_cast<std::uint64_t>(words))) return -1;
    const std::int64_t count = words / (data_words + pointers);
    if (count * (data_words + pointers) != words) return -1;
    return word(tag) == list_tag(static_cast<std::uint32_t>(count), data_words, pointers) ? count : -1;
  }
  bool struct_list(UpdatePointer p, std::uint32_t data_words) {
    return pointer(p) == 0 || composite(p, data_words, 0) > 0;
  }

  bool extended_communities() {
    constexpr UpdatePointer kPointer = UpdatePointer::kExtendedCommunities;
    if (pointer(kPointer) == 0) return true;
    const std::uint32_t first = at_ + 1;
    const std::int64_t count = composite(kPointer, kExtendedCommunityDataWords, kExtendedCommunityPointers);
    for (std::int64_t i = 0; i < count; ++i) {
      if (elements(first + 2 * static_cast<std::uint32_t>(i) + 1, ElementSize::Byte) != 6 || !advance(1))
        return false;
    }
    return count > 0;
  }

  bool as_segments() {
    constexpr UpdatePointer kPointer = UpdatePointer::kAsSegments;
    if (pointer(kPointer) == 0) return true;
    const std::uint32_t first = at_ + 1;
    const std::int64_t count = composite(kPointer, kAsSegmentDataWords, kAsSegmentPointers);
    for (std::int64_t i = 0; i < count; ++i) {
      if (!u32_list_at(first + 2 * static_cast<std::uint32_t>(i) + 1)) return false;
    }
    return count > 0;
  }

  const std::byte* base_;
  std::uint32_t words_;
  std::uint32_t at_ = kFixedTemplateWords;
};

template <class T>
T field(const std::byte* base, UpdateBit bit) {
  T v;
  std::memcpy(&v, base + bit / 8, sizeof v);
  return v;
}

}  // namespace

bool BatchExpander::open(const shm::RecordHeader& untrusted, std::span<const std::byte> payload) {
  const shm::RecordHeader header = untrusted;  // one read: it may lie in memory that another process writes
  if (header.kind != static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch) ||
      header.format != shm::kRecordFormat || header.count == 0 || header.payload_bytes > payload.size() ||
      header.payload_bytes % kWordBytes != 0 || header.payload_bytes > shm::kRecordMaxBytes ||
      header.template_offset_bytes != kTemplateOffsetBytes || header.template_bytes % kWordBytes != 0 ||
      header.template_bytes < kFixedTemplateWords * kWordBytes) {
    return false;
  }
  const std::size_t route_bytes = std::size_t{header.count} * kRecordRouteDataWords * kWordBytes;
  const std::size_t tag_at = std::size_t{kTemplateOffsetBytes} + header.template_bytes;
  if (tag_at + kWordBytes + route_bytes != header.payload_bytes) return false;

  const std::byte* const p = payload.data();
  const std::byte* const segment = p + kFrameBytes;
  const auto words = static_cast<std::uint32_t>((header.payload_bytes - kFrameBytes) / kWordBytes);
  const auto template_words = static_cast<std::uint32_t>(header.template_bytes / kWordBytes);
  if (load_u64(p) != std::uint64_t{words} << 32 ||
      load_u64(segment + kBatchRootWord * kWordBytes) !=
          struct_pointer(0, kRecordDataWords, kRecordPointers) ||
      load_u64(segment + kFirstSequenceWord * kWordBytes) != header.first_sequence ||
      load_u64(segment + kSharedPointerWord * kWordBytes) !=
          struct_pointer(kTemplateWord - kSharedPointerWord - 1, kUpdateDataWords, kUpdatePointers) ||
      load_u64(segment + kRoutesPointerWord * kWordBytes) !=
          list_pointer(kTemplateWord + template_words - kRoutesPointerWord - 1, ElementSize::Composite,
                       header.count * kRecordRouteDataWords) ||
      load_u64(p + tag_at) != list_tag(header.count, kRecordRouteDataWords, 0)) {
    return false;
  }
  const std::byte* const base = p + kTemplateOffsetBytes;
  if (!TemplateCheck(base, template_words).run()) return false;

  template_ = payload.subspan(kTemplateOffsetBytes, header.template_bytes);
  routes_ = payload.subspan(tag_at + kWordBytes, route_bytes);
  data_words_ = kUpdateDataWords;
  while (data_words_ > kPatchedDataWords && load_u64(base + (data_words_ - 1) * kWordBytes) == 0)
    --data_words_;
  pointers_ = kUpdatePointers;
  while (pointers_ > 0 && load_u64(base + (kUpdateDataWords + pointers_ - 1) * kWordBytes) == 0) --pointers_;
  has_prototype_ = false;
  update_bytes_ =
      kUpdateTemplateBytes + header.template_bytes - (kUpdateWords - data_words_ - pointers_) * kWordBytes;
  count_ = header.count;
  first_sequence_ = Sequence{header.first_sequence};
  std::memcpy(router_address_.bytes.data(), base + std::size_t{kRouterAddrWord} * kWordBytes, 16);
  peer_asn_ = field<std::uint32_t>(base, kPeerAsn);
  family_ = {field<std::uint16_t>(base, kMpReachAfi), field<std::uint8_t>(base, kMpReachSafi)};
  if (family_ == Family{}) {
    family_ = {field<std::uint16_t>(base, kMpUnreachAfi), field<std::uint8_t>(base, kMpUnreachSafi)};
  }
  if (family_ == Family{}) family_ = kIpv4Unicast;
  return true;
}

void BatchExpander::make_prototype() {
  has_prototype_ = true;
  const std::size_t words = update_bytes_ / kWordBytes;
  if (prototype_.size() < words) prototype_.resize(words * 2);
  std::uint64_t* to = prototype_.data();
  *to++ = std::uint64_t{words - 1} << 32;
  *to++ = struct_pointer(0, data_words_, pointers_);
  const std::byte* const base = template_.data();
  std::memcpy(to, base, data_words_ * kWordBytes);
  to += data_words_;
  // What is left out lies between the pointers and what they point to.
  const std::uint64_t nearer = std::uint64_t{kUpdatePointers - pointers_} << 2;
  for (std::uint32_t i = 0; i < pointers_; ++i) {
    const std::uint64_t pointer = load_u64(base + std::size_t{kUpdateDataWords + i} * kWordBytes);
    *to++ = pointer == 0 ? 0 : pointer - nearer;
  }
  const std::size_t objects = std::size_t{kUpdateWords} * kWordBytes;
  std::memcpy(to, base + objects, template_.size() - objects);
}

void BatchExpander::write_update(std::uint32_t i, std::byte* out) {
  if (!has_prototype_) make_prototype();
  const std::byte* const route = routes_.data() + std::size_t{i} * kRecordRouteDataWords * kWordBytes;
  std::memcpy(out, prototype_.data(), update_bytes_);
  std::byte* const base = out + kUpdateTemplateBytes;
  std::byte* const address =
      base + std::size_t{kPrefixAddrWord - kUpdateWords + data_words_ + pointers_} * kWordBytes;
  store_be64(address, load_u64(route));
  store_be64(address + 8, load_u64(route + 8));
  std::memcpy(base + kPathId / 8, route + 16, 4);
  base[kPrefixLen / 8] = route[20];
  store_u64(base + kSequence / 8, raw(first_sequence_) + i);
}

}  // namespace arancini::schema
