#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shm-layout/abi.h"
#include "shm-layout/record.h"

// The head of a ring file: one writer (ingestd), one reader (publishd), variable-length records (record.h).
//
// Positions are byte counts since the ring was made. They are 64 bits wide, only grow and never wrap; the
// byte at position P lies at `data_offset_bytes + P % capacity_bytes`. [head, tail) holds committed records
// that nobody has made durable yet. Whatever the writer put beyond `tail` does not exist for the reader: a
// half-written record needs no repair.
namespace arancini::shm {

inline constexpr std::uint64_t kRingMagic = 0x474e495249434e41ULL;  // "ANCIRING" in memory order
inline constexpr std::uint32_t kRingAbiVersion = 3;

// Written once by the creator, before the file gets its name. `abi_version` is stored last (release); an
// attaching process loads it first (acquire).
struct alignas(kLineBytes) RingIdentity {
  std::uint64_t magic;
  std::atomic<std::uint32_t> abi_version;
  std::uint32_t shard;
  std::uint64_t layout_hash;
  std::uint64_t capacity_bytes;     // power of two
  std::uint64_t data_offset_bytes;  // from the start of the file
  std::uint64_t created_realtime_ns;
  std::uint8_t writer_id[16];  // names this ring instance in every published message (DESIGN 4.3)
  std::uint8_t reserved[64];
};

// A committed position with the sequences of the next update and the next event to be written there. Two
// slots take turns, so that one of them always belongs to the `tail` that is in force, whenever the writer
// dies.
//
// The writer fills the slot that is not in force, then stores `tail` (release). The slot in force is the one
// whose `position` equals `tail`; since positions only grow, a half-written slot never matches.
struct CommitSlot {
  std::atomic<std::uint64_t> position;
  std::atomic<std::uint64_t> next_sequence;
  std::atomic<std::uint64_t> next_event_sequence;
  std::uint64_t reserved;
};
inline constexpr std::uint64_t kNoPosition = ~std::uint64_t{0};  // a slot that was never written

// Written by the writer only.
struct alignas(kLineBytes) RingWriterLine {
  std::atomic<std::uint64_t> tail;   // release by writer, acquire by reader: records below are complete
  std::atomic<std::uint64_t> epoch;  // + 1 at each attach of a writer
  CommitSlot commit[2];
  // Among how many shards the routers were divided when the present writer attached (0: never said), and the
  // position from which on that holds: what lies below may be about routers of other shards.
  std::atomic<std::uint64_t> shard_count;
  std::atomic<std::uint64_t> layout_since;
  // The RingReaderLine::dump_request that has been answered.
  std::atomic<std::uint64_t> dump_answered;
  std::uint8_t reserved[24];
};

// Written by the reader only. Order of stores: `head`, then `floor_stream_sequence` (both release), so that a
// floor that survives a crash is never too high.
struct alignas(kLineBytes) RingReaderLine {
  std::atomic<std::uint64_t> head;   // release by reader, acquire by writer: everything below is durable
  std::atomic<std::uint64_t> epoch;  // + 1 at each attach of a reader
  // Every record of this ring that is in the stream at or below this stream sequence lies below `head`; so
  // only what the stream holds above it must be looked at after a crash. kNoFloor until first set.
  std::atomic<std::uint64_t> floor_stream_sequence;
  std::atomic<std::uint64_t> floor_stream_created_ns;  // creation time of the stream that the floor is about
  // Position: records of [some head of before, here) are, or were, in the publisher's journal alone and not
  // published yet. Stored before `head` passes them. 0: none.
  std::atomic<std::uint64_t> journal_end;
  // The log is what consumers read: the updates stream, or the journal where that is the sink. Everything of
  // this ring below `published` is in it. Everything of this ring that is in the log at or below
  // `log_sequence` lies below `published`. `log_identity` names the log: creation time of the stream, or of
  // the journal. Stores in the order published, log_sequence; 0 until first known.
  std::atomic<std::uint64_t> published;
  std::atomic<std::uint64_t> log_sequence;
  std::atomic<std::uint64_t> log_identity;
  // + 1 whenever the log began anew (DESIGN 4.3): the writer answers with a dump of all its tables.
  std::atomic<std::uint64_t> dump_request;
  std::uint8_t reserved[56];
};

inline constexpr std::uint64_t kNoFloor = ~std::uint64_t{0};

// One per side, refreshed about once a second by that side. Old while its lock is held: stuck, not dead.
struct alignas(kLineBytes) RingHeartbeat {
  std::atomic<std::uint64_t> boottime_ns;
  std::atomic<std::uint32_t> pid;
  std::uint8_t reserved[116];
};

// How an idle reader is woken without a system call per record: the reader sets `waiting`, looks at `tail`
// once more and sleeps on `futex`; a writer that finds `waiting` set after its release clears it, bumps
// `futex` and wakes.
struct alignas(kLineBytes) RingDoorbell {
  std::atomic<std::uint32_t> waiting;
  std::atomic<std::uint32_t> futex;
  std::uint8_t reserved[120];
};

struct RingHeader {
  RingIdentity identity;
  RingWriterLine writer;
  RingReaderLine reader;
  RingHeartbeat writer_heartbeat;
  RingHeartbeat reader_heartbeat;
  RingDoorbell reader_doorbell;  // rung by the writer
};

// Where data starts. The gap behind the header is reserved for the publisher's in-flight table.
inline constexpr std::uint64_t kRingDataOffsetBytes = 64 * 1024;
inline constexpr std::uint64_t kRingMinCapacityBytes = 64 * 1024;
inline constexpr std::uint64_t kRingMaxCapacityBytes = 1ULL << 40;

// OFD lock bytes on the ring file; a lock that is free means that this side is dead.
inline constexpr std::int64_t kRingWriterLockByte = 0;
inline constexpr std::int64_t kRingReaderLockByte = 1;

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(std::is_standard_layout_v<RingHeader>);
static_assert(sizeof(RingIdentity) == 128 && sizeof(RingWriterLine) == 128 && sizeof(RingReaderLine) == 128);
static_assert(sizeof(RingHeartbeat) == 128 && sizeof(RingDoorbell) == 128);
static_assert(offsetof(RingIdentity, abi_version) == 8 && offsetof(RingIdentity, layout_hash) == 16);
static_assert(offsetof(RingIdentity, writer_id) == 48);
static_assert(offsetof(RingWriterLine, commit) == 16);
static_assert(offsetof(RingReaderLine, floor_stream_sequence) == 16);
static_assert(offsetof(RingHeader, writer) == 128 && offsetof(RingHeader, reader) == 256);
static_assert(offsetof(RingHeader, writer_heartbeat) == 384 && offsetof(RingHeader, reader_heartbeat) == 512);
static_assert(offsetof(RingHeader, reader_doorbell) == 640);
static_assert(sizeof(RingHeader) == 768 && sizeof(RingHeader) <= kRingDataOffsetBytes);

// Every offset of the header and of the records behind it; a process with another layout refuses the file.
inline constexpr std::uint64_t kRingLayoutHash = [] {
  std::uint64_t h = kLayoutSeed;
  for (const std::size_t v : {std::size_t{kRingAbiVersion},
                              sizeof(RingHeader),
                              std::size_t{kRingDataOffsetBytes},
                              offsetof(RingIdentity, magic),
                              offsetof(RingIdentity, abi_version),
                              offsetof(RingIdentity, shard),
                              offsetof(RingIdentity, layout_hash),
                              offsetof(RingIdentity, capacity_bytes),
                              offsetof(RingIdentity, data_offset_bytes),
                              offsetof(RingIdentity, created_realtime_ns),
                              offsetof(RingIdentity, writer_id),
                              offsetof(RingHeader, writer),
                              offsetof(RingWriterLine, tail),
                              offsetof(RingWriterLine, epoch),
                              offsetof(RingWriterLine, commit),
                              offsetof(RingWriterLine, shard_count),
                              offsetof(RingWriterLine, layout_since),
                              offsetof(RingWriterLine, dump_answered),
                              sizeof(CommitSlot),
                              offsetof(CommitSlot, next_sequence),
                              offsetof(CommitSlot, next_event_sequence),
                              offsetof(RingHeader, reader),
                              offsetof(RingReaderLine, head),
                              offsetof(RingReaderLine, epoch),
                              offsetof(RingReaderLine, floor_stream_sequence),
                              offsetof(RingReaderLine, floor_stream_created_ns),
                              offsetof(RingReaderLine, journal_end),
                              offsetof(RingReaderLine, published),
                              offsetof(RingReaderLine, log_sequence),
                              offsetof(RingReaderLine, log_identity),
                              offsetof(RingReaderLine, dump_request),
                              offsetof(RingHeader, writer_heartbeat),
                              offsetof(RingHeader, reader_heartbeat),
                              offsetof(RingHeartbeat, boottime_ns),
                              offsetof(RingHeartbeat, pid),
                              offsetof(RingHeader, reader_doorbell),
                              offsetof(RingDoorbell, waiting),
                              offsetof(RingDoorbell, futex),
                              sizeof(RecordHeader),
                              offsetof(RecordHeader, kind),
                              offsetof(RecordHeader, format),
                              offsetof(RecordHeader, flags),
                              offsetof(RecordHeader, first_sequence),
                              offsetof(RecordHeader, count),
                              offsetof(RecordHeader, payload_bytes),
                              offsetof(RecordHeader, received_realtime_ns),
                              offsetof(RecordHeader, template_offset_bytes),
                              offsetof(RecordHeader, template_bytes),
                              offsetof(RecordHeader, router_id),
                              offsetof(RecordHeader, subject_key),
                              offsetof(RecordHeader, event_sequence),
                              std::size_t{kRecordAlignBytes}}) {
    h = fold_layout(h, v);
  }
  return h;
}();

}  // namespace arancini::shm
