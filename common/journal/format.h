#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shm-layout/abi.h"
#include "shm-layout/record.h"

// The journal on disk (docs/decisions/0007): `<state_dir>/journal/<writer hex>/` holds the segments of one
// ring and its checkpoint. A segment is a SegmentHeader and then frames; a frame is a FrameHeader and whole
// ring records, contiguous in ring positions. Little-endian, as the rings are.
namespace arancini::journal {

inline constexpr std::uint64_t kSegmentMagic = 0x474553494e415241ULL;     // "ARANISEG" in memory order
inline constexpr std::uint64_t kCheckpointMagic = 0x504b43494e415241ULL;  // "ARANICKP"
inline constexpr std::uint32_t kFrameMagic = 0x4d524641U;                 // "AFRM"
inline constexpr std::uint32_t kVersion = 1;

// Twice in the first page of a file, so that a damaged sector does not cost the whole segment.
struct SegmentHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t crc;  // CRC32C of this struct with 0 here
  std::uint64_t layout_hash;
  std::uint64_t segment_id;  // random; stands in every frame, so that stale bytes are never taken for one
  std::uint8_t writer_id[16];
  std::uint64_t writer_created_ns;
  std::uint32_t shard;
  std::uint32_t header_bytes;  // kSegmentHeaderBytes: where the first frame lies
  std::uint64_t begin;         // ring position of the first frame; also the file's name
  std::uint64_t capacity_bytes;
  std::uint64_t first_frame;  // every frame before this one is durable in other segments (or was discarded)
  std::uint64_t first_order;
  std::uint64_t floor_stream_sequence;  // as of the creation, should the checkpoint be lost
  std::uint64_t floor_created_ns;
  std::uint64_t created_realtime_ns;
};
inline constexpr std::size_t kSegmentHeaderBytes = 4096;
inline constexpr std::size_t kSecondHeaderOffset = 2048;

struct FrameHeader {
  std::uint32_t magic;
  std::uint32_t header_crc;     // CRC32C of this struct with 0 here
  std::uint32_t payload_crc;    // CRC32C of the records
  std::uint32_t payload_bytes;  // the next frame begins at the next multiple of kFrameAlignBytes
  std::uint64_t begin;          // ring position of the first record
  std::uint64_t first_sequence;
  std::uint64_t order;  // over all rings of the journal
  std::uint64_t frame;  // dense within the writer, from 1
  std::uint64_t segment_id;
  std::uint64_t durable_frame;  // the writer's last frame that was fdatasynced when this one was written
};
inline constexpr std::size_t kFrameAlignBytes = 64;
inline constexpr std::size_t kFrameMaxPayloadBytes = 2 * std::size_t{shm::kRecordMaxBytes};

constexpr std::uint64_t frame_file_bytes(std::uint64_t payload_bytes) {
  return (sizeof(FrameHeader) + payload_bytes + kFrameAlignBytes - 1) / kFrameAlignBytes * kFrameAlignBytes;
}

// The checkpoint file: one page, mapped by publishd. Two slots of a kind take turns; the valid one with the
// higher counter is in force, whenever its writer dies.
struct PublishedSlot {
  std::uint64_t counter;
  std::uint64_t begin;  // everything before it is published and acked (or discarded)
  std::uint64_t floor_stream_sequence;
  std::uint64_t floor_created_ns;
  std::uint32_t reserved;
  std::uint32_t crc;
};
// Says which frames were acknowledged: such a frame that cannot be read is damaged, another one never
// counted.
struct DurableSlot {
  std::uint64_t counter;
  std::uint64_t frame;
  std::uint64_t end;  // ring position behind it
  std::uint64_t order;
  std::uint32_t reserved;
  std::uint32_t crc;
};
struct CheckpointIdentity {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t crc;
  std::uint64_t layout_hash;
  std::uint8_t writer_id[16];
  std::uint64_t writer_created_ns;
  std::uint32_t shard;
  std::uint32_t reserved;
};
struct CheckpointPage {
  CheckpointIdentity identity;
  std::uint8_t pad0[512 - sizeof(CheckpointIdentity)];
  // A sector each: a torn write of the page hits one slot.
  struct PublishedSector {
    PublishedSlot slot;
    std::uint8_t pad[512 - sizeof(PublishedSlot)];
  } published[2];
  struct DurableSector {
    DurableSlot slot;
    std::uint8_t pad[512 - sizeof(DurableSlot)];
  } durable[2];
  std::uint8_t pad1[4096 - 5 * 512];
};

static_assert(std::is_standard_layout_v<SegmentHeader> && std::is_trivially_copyable_v<SegmentHeader>);
static_assert(sizeof(SegmentHeader) == 120 && sizeof(SegmentHeader) <= kSecondHeaderOffset);
static_assert(offsetof(SegmentHeader, crc) == 12 && offsetof(SegmentHeader, layout_hash) == 16);
static_assert(offsetof(SegmentHeader, segment_id) == 24 && offsetof(SegmentHeader, writer_id) == 32);
static_assert(offsetof(SegmentHeader, writer_created_ns) == 48 && offsetof(SegmentHeader, shard) == 56);
static_assert(offsetof(SegmentHeader, header_bytes) == 60 && offsetof(SegmentHeader, begin) == 64);
static_assert(offsetof(SegmentHeader, capacity_bytes) == 72 && offsetof(SegmentHeader, first_frame) == 80);
static_assert(offsetof(SegmentHeader, first_order) == 88);
static_assert(offsetof(SegmentHeader, floor_stream_sequence) == 96);
static_assert(offsetof(SegmentHeader, floor_created_ns) == 104);
static_assert(offsetof(SegmentHeader, created_realtime_ns) == 112);
static_assert(std::is_standard_layout_v<FrameHeader> && std::is_trivially_copyable_v<FrameHeader>);
static_assert(sizeof(FrameHeader) == 64 && sizeof(FrameHeader) == kFrameAlignBytes);
static_assert(offsetof(FrameHeader, header_crc) == 4 && offsetof(FrameHeader, payload_crc) == 8);
static_assert(offsetof(FrameHeader, payload_bytes) == 12 && offsetof(FrameHeader, begin) == 16);
static_assert(offsetof(FrameHeader, first_sequence) == 24 && offsetof(FrameHeader, order) == 32);
static_assert(offsetof(FrameHeader, frame) == 40 && offsetof(FrameHeader, segment_id) == 48);
static_assert(offsetof(FrameHeader, durable_frame) == 56);
static_assert(std::is_standard_layout_v<CheckpointPage> && std::is_trivially_copyable_v<CheckpointPage>);
static_assert(sizeof(PublishedSlot) == 40 && sizeof(DurableSlot) == 40 && sizeof(CheckpointIdentity) == 56);
static_assert(offsetof(PublishedSlot, crc) == 36 && offsetof(DurableSlot, crc) == 36);
static_assert(offsetof(CheckpointIdentity, crc) == 12 && offsetof(CheckpointIdentity, writer_id) == 24);
static_assert(offsetof(CheckpointIdentity, writer_created_ns) == 40);
static_assert(offsetof(CheckpointPage, published) == 512 && offsetof(CheckpointPage, durable) == 1536);
static_assert(sizeof(CheckpointPage) == 4096);

// A file with another hash is of another program version and refused.
inline constexpr std::uint64_t kLayoutHash = [] {
  std::uint64_t h = shm::kLayoutSeed;
  for (const std::size_t v : {std::size_t{kVersion},
                              sizeof(SegmentHeader),
                              kSegmentHeaderBytes,
                              kSecondHeaderOffset,
                              offsetof(SegmentHeader, segment_id),
                              offsetof(SegmentHeader, writer_id),
                              offsetof(SegmentHeader, shard),
                              offsetof(SegmentHeader, begin),
                              offsetof(SegmentHeader, first_frame),
                              offsetof(SegmentHeader, first_order),
                              offsetof(SegmentHeader, floor_stream_sequence),
                              sizeof(FrameHeader),
                              kFrameAlignBytes,
                              offsetof(FrameHeader, payload_crc),
                              offsetof(FrameHeader, begin),
                              offsetof(FrameHeader, first_sequence),
                              offsetof(FrameHeader, order),
                              offsetof(FrameHeader, frame),
                              offsetof(FrameHeader, segment_id),
                              offsetof(FrameHeader, durable_frame),
                              sizeof(CheckpointPage),
                              offsetof(CheckpointPage, published),
                              offsetof(CheckpointPage, durable),
                              sizeof(PublishedSlot),
                              sizeof(DurableSlot),
                              sizeof(shm::RecordHeader),
                              offsetof(shm::RecordHeader, kind),
                              offsetof(shm::RecordHeader, format),
                              offsetof(shm::RecordHeader, first_sequence),
                              offsetof(shm::RecordHeader, count),
                              offsetof(shm::RecordHeader, payload_bytes),
                              offsetof(shm::RecordHeader, template_offset_bytes),
                              offsetof(shm::RecordHeader, router_id),
                              offsetof(shm::RecordHeader, subject_key),
                              offsetof(shm::RecordHeader, event_sequence),
                              std::size_t{shm::kRecordAlignBytes},
                              std::size_t{shm::kRecordFormat}}) {
    h = shm::fold_layout(h, v);
  }
  return h;
}();

}  // namespace arancini::journal
