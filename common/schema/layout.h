#pragma once

#include <cstddef>
#include <cstdint>

// Where update.capnp, record.capnp and batch.capnp put each field (Cap'n Proto encoding), and in which order
// this project allocates the objects of a message. tests/common/schema compares all of it with the compiled
// schema and with libcapnp's output.
//
// An UpdateBatch message has one segment, in this order of words:
//
//   root pointer | UpdateBatch (1 data word, 2 pointers) | template | routes (tag word, 3 words each)
//
// and `template`, the region that makes a single Update when it is copied behind a root pointer, is
//
//   Update (12 data words, 18 pointers)
//   routerAddr, peerAddr, prefixAddr (zeros), nextHop, writerId   16 bytes each, always there: constant
//   offsets routerId, origin, asPath, communities, extendedCommunities (list, then the values),
//   largeCommunities, clusterList, asSegments (list, then the members), rawAttributes, tags (list, then the
//   texts)            each only when not empty, else a null pointer
//
// rawNlri, labels and tableName are null in record format 1.
namespace arancini::schema::layout {

inline constexpr std::size_t kWordBytes = 8;
inline constexpr std::size_t kFrameBytes = 8;  // stream framing: segment count - 1, words of the only segment

inline constexpr std::uint32_t kUpdateDataWords = 12;
inline constexpr std::uint32_t kUpdatePointers = 18;
inline constexpr std::uint32_t kUpdateWords = kUpdateDataWords + kUpdatePointers;
inline constexpr std::uint32_t kRecordDataWords = 1;
inline constexpr std::uint32_t kRecordPointers = 2;
inline constexpr std::uint32_t kRecordRouteDataWords = 3;
inline constexpr std::uint32_t kBatchDataWords = 4;  // batch.capnp, if nothing is left out
inline constexpr std::uint32_t kBatchPointers = 3;
inline constexpr std::uint32_t kSourceDataWords = 3;
inline constexpr std::uint32_t kSourcePointers = 5;
inline constexpr std::uint32_t kPathAttributesDataWords = 5;
inline constexpr std::uint32_t kPathAttributesPointers = 8;
inline constexpr std::uint32_t kRouteDataWords = 3;
inline constexpr std::uint32_t kCommunityDataWords = 1;
inline constexpr std::uint32_t kExtendedCommunityDataWords = 1;
inline constexpr std::uint32_t kExtendedCommunityPointers = 1;
inline constexpr std::uint32_t kLargeCommunityDataWords = 2;
inline constexpr std::uint32_t kAsSegmentDataWords = 1;
inline constexpr std::uint32_t kAsSegmentPointers = 1;

// Bit of Update's data section at which a field starts.
enum UpdateBit : std::uint32_t {
  kTimeReceivedNs = 0,
  kTimeBmpHeaderNs = 64,
  kRouterPort = 128,
  kPrefixLen = 144,
  kIsPostPolicy = 152,
  kIsAdjRibOut = 153,
  kAnnounced = 154,
  kSynthetic = 155,
  kAtomicAggregate = 156,
  kPeerBgpId = 160,
  kPeerAsn = 192,
  kMultiExitDisc = 224,
  kLocalPreference = 256,
  kOnlyToCustomer = 288,
  kAggregatorAsn = 320,
  kAggregatorBgpId = 352,
  kOriginatorId = 384,
  kMpReachAfi = 416,
  kMpReachSafi = 432,
  kMpUnreachSafi = 440,
  kMpUnreachAfi = 448,
  kPeerType = 464,
  kPathId = 480,
  kSequence = 512,
  kPeerDistinguisher = 576,
  kView = 640,
  kReason = 656,
  kAttributesPresent = 704,
};

// Index in Update's pointer section.
enum UpdatePointer : std::uint32_t {
  kRouterAddr = 0,
  kPeerAddr = 1,
  kPrefixAddr = 2,
  kOrigin = 3,
  kAsPath = 4,
  kNextHop = 5,
  kCommunities = 6,
  kExtendedCommunities = 7,
  kLargeCommunities = 8,
  kClusterList = 9,
  kWriterId = 10,
  kRouterId = 11,
  kRawNlri = 12,
  kLabels = 13,
  kAsSegments = 14,
  kRawAttributes = 15,
  kTags = 16,
  kTableName = 17,
};

// Values of Origin in batch.capnp.
inline constexpr std::uint64_t kOriginIgp = 1;
inline constexpr std::uint64_t kOriginEgp = 2;
inline constexpr std::uint64_t kOriginIncomplete = 3;

// Words of an UpdateBatch segment.
inline constexpr std::uint32_t kBatchRootWord = 0;
inline constexpr std::uint32_t kFirstSequenceWord = 1;
inline constexpr std::uint32_t kSharedPointerWord = 2;
inline constexpr std::uint32_t kRoutesPointerWord = 3;
inline constexpr std::uint32_t kTemplateWord = 4;
inline constexpr std::uint32_t kTemplateOffsetBytes = kFrameBytes + kTemplateWord * kWordBytes;

// Words of the template, from its start.
inline constexpr std::uint32_t kRouterAddrWord = kUpdateWords;
inline constexpr std::uint32_t kPeerAddrWord = kRouterAddrWord + 2;
inline constexpr std::uint32_t kPrefixAddrWord = kPeerAddrWord + 2;
inline constexpr std::uint32_t kNextHopWord = kPrefixAddrWord + 2;
inline constexpr std::uint32_t kWriterIdWord = kNextHopWord + 2;
inline constexpr std::uint32_t kFixedTemplateWords = kWriterIdWord + 2;

// A framed Update: framing, root pointer, template.
inline constexpr std::size_t kUpdateTemplateBytes = kFrameBytes + kWordBytes;

// --- pointer words (https://capnproto.org/encoding.html). `offset`: words from behind the pointer to its
// target.

enum class ElementSize : std::uint32_t {
  Byte = 2,
  FourBytes = 4,
  EightBytes = 5,
  Pointer = 6,
  Composite = 7
};

constexpr std::uint64_t struct_pointer(std::uint32_t offset, std::uint32_t data_words,
                                       std::uint32_t pointers) {
  return (std::uint64_t{offset} << 2) | (std::uint64_t{data_words} << 32) | (std::uint64_t{pointers} << 48);
}
// `count`: elements, but for Composite the words behind the tag.
constexpr std::uint64_t list_pointer(std::uint32_t offset, ElementSize size, std::uint32_t count) {
  return (std::uint64_t{offset} << 2) | 1U | (static_cast<std::uint64_t>(size) << 32) |
         (std::uint64_t{count} << 35);
}
// The tag word in front of a composite list.
constexpr std::uint64_t list_tag(std::uint32_t elements, std::uint32_t data_words, std::uint32_t pointers) {
  return struct_pointer(elements, data_words, pointers);
}
constexpr std::uint32_t pointer_word(UpdatePointer p) {
  return kUpdateDataWords + p;
}
// Pointer to one of the always present 16-byte objects.
constexpr std::uint64_t fixed_data_pointer(UpdatePointer p, std::uint32_t target_word) {
  return list_pointer(target_word - pointer_word(p) - 1, ElementSize::Byte, 16);
}

constexpr std::uint32_t words_for_bytes(std::size_t bytes) {
  return static_cast<std::uint32_t>((bytes + 7) / 8);
}

}  // namespace arancini::schema::layout
