#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

// A snapshot's bytes: a FileHeader, then blocks, the last of which is an End block. A block is a BlockHeader
// and its payload: `count` entries of one kind. All is little-endian, nothing is padded, and every byte is
// under a CRC32C. Another version is another format: it is refused, never guessed.
namespace arancini::snapshot {

static_assert(std::endian::native == std::endian::little, "entries are written in native order");

inline constexpr std::uint64_t kMagic = 0x50414e5349434e41ULL;  // "ANCISNAP" in memory order
inline constexpr std::uint32_t kVersion = 1;

struct FileHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t header_bytes;  // of this struct
  std::uint32_t shard;
  std::uint32_t shard_count;
  std::uint64_t number;
  std::uint8_t writer[16];
  std::uint64_t ring_position;
  std::uint64_t next_sequence;
  std::uint64_t log_identity;
  std::uint64_t log_sequence;
  std::uint64_t started_realtime_ns;
  std::uint32_t reserved;  // 0
  std::uint32_t crc;       // CRC32C of this struct with 0 here
};
static_assert(sizeof(FileHeader) == 96 && std::is_standard_layout_v<FileHeader>);

enum class BlockKind : std::uint16_t {
  Routers = 1,
  Views = 2,
  Attributes = 3,
  Tables = 4,
  Routes = 5,
  End = 6
};

inline constexpr std::uint32_t kBlockMagic = 0x4b4c4241U;  // "ABLK"
struct BlockHeader {
  std::uint32_t magic;
  std::uint16_t kind;
  std::uint16_t reserved;  // 0
  std::uint32_t count;     // entries, at least 1
  std::uint32_t payload_bytes;
  std::uint32_t number;  // of the block, from 0: none is missing, none comes twice
  std::uint32_t crc;     // CRC32C of this struct with 0 here, and the payload
};
static_assert(sizeof(BlockHeader) == 24 && std::is_standard_layout_v<BlockHeader>);
inline constexpr std::uint32_t kMaxPayloadBytes = 4U << 20;

// Entries; strings and blobs follow in the order of their sizes.
#pragma pack(push, 1)
struct RouterFields {
  std::uint32_t id;
  std::uint8_t address[16];
  std::uint16_t name_bytes, sys_name_bytes, sys_descr_bytes;
};
struct ViewFields {
  std::uint32_t id, router;
  std::uint8_t peer_type, view;
  std::uint8_t told;  // 0 or 1
  std::uint8_t reserved;
  std::uint64_t distinguisher;
  std::uint8_t address[16];
  std::uint32_t asn, bgp_id;
  std::uint16_t router_port;
};
struct AttributesFields {
  std::uint32_t id;
  std::uint16_t next_hop_bytes, flags_bytes;
  std::uint32_t attributes_bytes;
};
struct TableFields {
  std::uint32_t id, view;
  std::uint16_t afi;
  std::uint8_t safi;
  std::uint8_t without_ids;  // 0 or 1
};
// In front of a Routes block's entries, which are: the address (4 or 16 bytes in network order, by the
// table's AFI), RouteFields, and the path id (4 bytes) if `path_ids`.
struct RoutesFields {
  std::uint32_t table;
  std::uint8_t path_ids;  // 0 or 1
  std::uint8_t reserved[3];
};
struct RouteFields {
  std::uint32_t attributes;
  std::uint8_t length;
  std::uint8_t paths;
};
// Totals of the snapshot, this block not counted.
struct EndFields {
  std::uint64_t routers, views, attributes, tables, routes;
  std::uint64_t bytes;  // of the file, up to this block
  std::uint64_t ring_position, next_sequence;
};
#pragma pack(pop)
static_assert(sizeof(RouterFields) == 26 && sizeof(ViewFields) == 46 && sizeof(AttributesFields) == 12);
static_assert(sizeof(TableFields) == 12 && sizeof(RoutesFields) == 8 && sizeof(RouteFields) == 6);
static_assert(sizeof(EndFields) == 64);

}  // namespace arancini::snapshot
