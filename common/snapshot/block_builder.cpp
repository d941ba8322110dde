#include "common/snapshot/block_builder.h"

#include <algorithm>
#include <cstring>

namespace arancini::snapshot {

namespace {

constexpr BlockKind kNone{};

std::byte* put(std::byte* at, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(at, from, bytes);
  return at + bytes;
}

std::uint16_t short_size(std::size_t bytes) {
  return static_cast<std::uint16_t>(std::min<std::size_t>(bytes, UINT16_MAX));
}

}  // namespace

void BlockBuilder::reset(std::span<std::byte> buffer) noexcept {
  buffer_ = buffer;
  used_ = 0;
  kind_ = kNone;
}

void BlockBuilder::close() noexcept {
  if (kind_ == kNone) return;
  const BlockHeader header{.magic = kBlockMagic,
                           .kind = static_cast<std::uint16_t>(kind_),
                           .reserved = 0,
                           .count = count_,
                           .payload_bytes = static_cast<std::uint32_t>(used_ - begin_ - sizeof(BlockHeader)),
                           .number = 0,
                           .crc = 0};
  std::memcpy(buffer_.data() + begin_, &header, sizeof header);
  kind_ = kNone;
}

std::span<std::byte> BlockBuilder::blocks() noexcept {
  close();
  return buffer_.first(used_);
}

std::byte* BlockBuilder::extend(std::size_t bytes) noexcept {
  if (bytes > buffer_.size() - used_ || used_ - begin_ - sizeof(BlockHeader) + bytes > kMaxPayloadBytes)
    return nullptr;
  ++count_;
  std::byte* const at = buffer_.data() + used_;
  used_ += bytes;
  return at;
}

std::byte* BlockBuilder::open(BlockKind kind, std::size_t bytes) noexcept {
  if (bytes > kMaxPayloadBytes || sizeof(BlockHeader) + bytes > buffer_.size() - used_) return nullptr;
  close();
  kind_ = kind;
  count_ = 0;
  begin_ = used_;
  used_ += sizeof(BlockHeader);
  return extend(bytes);
}

std::byte* BlockBuilder::take(BlockKind kind, std::size_t bytes) noexcept {
  std::byte* const at = kind_ == kind ? extend(bytes) : nullptr;
  return at != nullptr ? at : open(kind, bytes);
}

bool BlockBuilder::add(const RouterEntry& router) noexcept {
  RouterFields fields{};
  fields.id = router.id;
  std::memcpy(fields.address, router.address.bytes.data(), sizeof fields.address);
  fields.name_bytes = short_size(router.name.size());
  fields.sys_name_bytes = short_size(router.sys_name.size());
  fields.sys_descr_bytes = short_size(router.sys_descr.size());
  std::byte* at = take(BlockKind::Routers, sizeof fields + fields.name_bytes + fields.sys_name_bytes +
                                               std::size_t{fields.sys_descr_bytes});
  if (at == nullptr) return false;
  at = put(at, &fields, sizeof fields);
  at = put(at, router.name.data(), fields.name_bytes);
  at = put(at, router.sys_name.data(), fields.sys_name_bytes);
  put(at, router.sys_descr.data(), fields.sys_descr_bytes);
  return true;
}

bool BlockBuilder::add(const ViewEntry& view) noexcept {
  std::byte* const at = take(BlockKind::Views, sizeof(ViewFields));
  if (at == nullptr) return false;
  ViewFields fields{};
  fields.id = view.id;
  fields.router = view.router;
  fields.peer_type = view.peer_type;
  fields.view = static_cast<std::uint8_t>(view.view);
  fields.told = view.told ? 1 : 0;
  fields.distinguisher = view.distinguisher;
  std::memcpy(fields.address, view.address.bytes.data(), sizeof fields.address);
  fields.asn = view.asn;
  fields.bgp_id = view.bgp_id;
  fields.router_port = view.router_port;
  put(at, &fields, sizeof fields);
  return true;
}

bool BlockBuilder::add(const AttributesEntry& attributes) noexcept {
  AttributesFields fields{};
  if (attributes.next_hop.size() > UINT16_MAX || attributes.flags.size() > UINT16_MAX ||
      attributes.attributes.size() > kMaxPayloadBytes) {
    return false;
  }
  fields.id = attributes.id;
  fields.next_hop_bytes = static_cast<std::uint16_t>(attributes.next_hop.size());
  fields.flags_bytes = static_cast<std::uint16_t>(attributes.flags.size());
  fields.attributes_bytes = static_cast<std::uint32_t>(attributes.attributes.size());
  std::byte* at = take(BlockKind::Attributes, sizeof fields + attributes.next_hop.size() +
                                                  attributes.flags.size() + attributes.attributes.size());
  if (at == nullptr) return false;
  at = put(at, &fields, sizeof fields);
  at = put(at, attributes.next_hop.data(), attributes.next_hop.size());
  at = put(at, attributes.flags.data(), attributes.flags.size());
  put(at, attributes.attributes.data(), attributes.attributes.size());
  return true;
}

bool BlockBuilder::add(const TableEntry& table) noexcept {
  std::byte* const at = take(BlockKind::Tables, sizeof(TableFields));
  if (at == nullptr) return false;
  const TableFields fields{.id = table.id,
                           .view = table.view,
                           .afi = table.family.afi,
                           .safi = table.family.safi,
                           .without_ids = static_cast<std::uint8_t>(table.without_ids ? 1 : 0)};
  put(at, &fields, sizeof fields);
  return true;
}

bool BlockBuilder::add(std::uint32_t table, Family family, const RouteEntry& route) noexcept {
  const bool path_ids = route.prefix.path_id != 0;
  const std::size_t address_bytes = family.afi == 1 ? 4 : 16;
  const std::size_t entry = address_bytes + sizeof(RouteFields);
  constexpr std::size_t kPathId = sizeof(std::uint32_t);
  std::byte* at = nullptr;
  // Routes without path id may stand in a block that has them.
  if (kind_ == BlockKind::Routes && table_ == table && path_ids_ >= path_ids)
    at = extend(entry + (path_ids_ ? kPathId : 0));
  if (at == nullptr) {
    const RoutesFields fields{
        .table = table, .path_ids = static_cast<std::uint8_t>(path_ids ? 1 : 0), .reserved = {}};
    at = open(BlockKind::Routes, sizeof fields + entry + (path_ids ? kPathId : 0));
    if (at == nullptr) return false;
    table_ = table;
    path_ids_ = path_ids;
    at = put(at, &fields, sizeof fields);
  }
  if (family.afi == 1) {
    const std::uint32_t address = __builtin_bswap32(static_cast<std::uint32_t>(route.prefix.low));
    at = put(at, &address, sizeof address);
  } else {
    const std::uint64_t address[2] = {__builtin_bswap64(route.prefix.high),
                                      __builtin_bswap64(route.prefix.low)};
    at = put(at, address, sizeof address);
  }
  const RouteFields fields{
      .attributes = route.attributes, .length = route.prefix.length, .paths = route.paths};
  at = put(at, &fields, sizeof fields);
  if (path_ids_) put(at, &route.prefix.path_id, sizeof route.prefix.path_id);
  return true;
}

}  // namespace arancini::snapshot
