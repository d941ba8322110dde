#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/base/types.h"

// A recording of a shard (docs/decisions/0011): everything that its records depend on, in the order in which
// it came. Numbers are little-endian.
//
// File: kFileMagic, kVersion (32 bits), 32 bits of 0, then blocks. Block: BlockHeader and its bytes. The
// bytes of all Data blocks, one after the other, are a Start and then calls; an End block, when there is one,
// says why no more follows. A call is its Entry with what it was given, then an entry for each thing that the
// shard learnt while it ran, then Done or Published. A call that is not complete did not happen: the process
// died in it.
namespace arancini::recording {

inline constexpr std::uint64_t kFileMagic = 0x434552494e415241ULL;  // "ARANIREC" in memory order
inline constexpr std::uint32_t kVersion = 2;
inline constexpr std::uint32_t kBlockMagic = 0x4b4c4252U;  // "RBLK"
inline constexpr std::uint32_t kBlockMaxBytes = 1U << 20;

enum class BlockKind : std::uint32_t { Data = 1, End = 2 };

struct BlockHeader {
  std::uint32_t magic;
  BlockKind kind;
  std::uint32_t bytes;
  std::uint32_t crc;  // CRC32C of the bytes
};
static_assert(sizeof(BlockHeader) == 16);

enum class Entry : std::uint8_t {
  // Calls, in brackets what follows the byte.
  Construct = 1,      // []
  OpenSession = 2,    // [address 16, port 16 bits]; result: the session
  Apply = 3,          // [session 32, size 32, one BMP message]; result: Shard::Applied
  SessionError = 4,   // [session 32, code 32, size 32, text]
  CloseSession = 5,   // [session 32]
  SetThrottled = 6,   // [session 32, 0 or 1 in a byte]
  TakeSession = 7,    // [] a session was to be closed; result: which
  DoWork = 8,         // []
  Publish = 9,        // []; ends with Published
  Finish = 10,        // []
  SetRestoring = 11,  // [0 or 1 in a byte]
  // What the shard learnt.
  Time = 32,          // [boot time 64, real time 64] in ns
  Head = 33,          // [position 64] up to where the ring's reader is done
  SameHead = 34,      // [] it looked and saw the same as before
  Seen = 35,          // [field 8, value 64] what else the ring's reader says (RingWriter::Witness)
  DumpAsked = 36,     // [1: of all routers, else 0, address 16] somebody asked for a dump
  RestoreBatch = 37,  // [size 32, bytes] what is restored, the next part (ingestd/restore_bytes.h)
  // [size 32, then so many bytes: 1: complete, else 0 and a dump is owed, in a byte; framed events, each with
  // its size in 32 bits before it]
  RestoreEnd = 38,
  Adopted = 39,  // [size 32, bytes] sessions of the process before go on (ingestd/restart_state.h)
  // Ends of calls.
  Done = 64,  // [result 32]
  // [tail 64, next update 64, bytes 32, CRC32C 32]: headers and payloads since the last one
  Published = 65,
};

// What a shard is made with.
struct Start {
  std::string version;  // of the program
  std::uint32_t shard = 0;
  std::uint32_t routers = 0, peers = 0;  // rows of its stats page
  std::uint64_t seed_a = 0, seed_b = 0;  // HashSeed
  WriterId writer;
  std::uint64_t ring_bytes = 0;
  std::uint64_t tail = 0, head = 0;  // of the ring, when the writer attached
  std::uint64_t next_sequence = 0, next_event_sequence = 0;
  std::string config;  // TOML, without secrets
};

}  // namespace arancini::recording
