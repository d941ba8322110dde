#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// A record in a ring: this header, then `payload_bytes` of payload, padded to 8 bytes. Records start at
// multiples of 8 and never cross the end of the buffer; a Padding record fills what is left there.
namespace arancini::shm {

enum class RecordKind : std::uint8_t {
  Padding = 0,      // only `size_bytes` and `kind` are valid: skip
  UpdateBatch = 1,  // payload: one framed Cap'n Proto UpdateBatch (common/schema/record.capnp)
  Barrier = 2,      // no payload: what was written before about this router is published before what follows
  // Payload: one framed Cap'n Proto Event (common/schema/event.capnp), as it is published. Uses no sequence
  // of updates (count is 0) but one of its own.
  Event = 3,
};

// In a barrier's router_id: it is about all routers of the ring.
inline constexpr std::uint32_t kAllRouters = 0xffffffffU;

// A batch either announces or withdraws, never both.
inline constexpr std::uint16_t kRecordFlagWithdraw = 1;
inline constexpr std::uint16_t kRecordFlagSynthetic = 2;

struct RecordHeader {
  std::uint32_t size_bytes;  // header + payload + padding, a multiple of 8
  std::uint8_t kind;         // RecordKind
  std::uint8_t format;       // version of the payload's layout: kRecordFormat
  std::uint16_t flags;
  std::uint64_t first_sequence;  // of the first update in the batch; the others follow densely
  std::uint32_t count;           // updates in the batch = sequence numbers used
  std::uint32_t payload_bytes;   // without padding
  std::uint64_t received_realtime_ns;
  // Where in the payload (bytes) the `shared` Update struct with everything below it lies, contiguous, so
  // that a single Update can be made from it by copy and patch.
  std::uint32_t template_offset_bytes;
  std::uint32_t template_bytes;
  std::uint32_t router_id;  // index of the router in the writer's stats page
  std::uint32_t reserved0;
  std::uint64_t subject_key;  // hash of (router, peer AS, family); a hint, never proof
  // Of an Event record; they are dense within the ring, from 1. Else 0.
  std::uint64_t event_sequence;
};

inline constexpr std::uint8_t kRecordFormat = 1;
inline constexpr std::uint32_t kRecordAlignBytes = 8;
inline constexpr std::uint32_t kRecordMaxBytes = 4U * 1024 * 1024;

static_assert(std::is_standard_layout_v<RecordHeader> && std::is_trivially_copyable_v<RecordHeader>);
static_assert(sizeof(RecordHeader) == 64);
static_assert(offsetof(RecordHeader, kind) == 4 && offsetof(RecordHeader, flags) == 6);
static_assert(offsetof(RecordHeader, first_sequence) == 8 && offsetof(RecordHeader, count) == 16);
static_assert(offsetof(RecordHeader, payload_bytes) == 20 &&
              offsetof(RecordHeader, received_realtime_ns) == 24);
static_assert(offsetof(RecordHeader, template_offset_bytes) == 32 &&
              offsetof(RecordHeader, template_bytes) == 36);
static_assert(offsetof(RecordHeader, router_id) == 40 && offsetof(RecordHeader, subject_key) == 48 &&
              offsetof(RecordHeader, event_sequence) == 56);

}  // namespace arancini::shm
