#include "common/snapshot/snapshot_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "common/journal/crc32c.h"
#include "common/snapshot/format.h"

namespace arancini::snapshot {

namespace {

// Routes given at once.
constexpr std::size_t kRoutesAtOnce = 1024;
// A count of entries that no snapshot reaches: ids fit.
constexpr std::uint64_t kMaxEntries = 1U << 30;

// Takes a payload apart.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool bytes(std::size_t count, std::span<const std::byte>& out) {
    if (count > bytes_.size() - at_) return false;
    out = bytes_.subspan(at_, count);
    at_ += count;
    return true;
  }
  template <class T>
  [[nodiscard]] bool get(T& out) {
    std::span<const std::byte> from;
    if (!bytes(sizeof out, from)) return false;
    std::memcpy(&out, from.data(), sizeof out);
    return true;
  }
  [[nodiscard]] bool text(std::size_t count, std::string_view& out) {
    std::span<const std::byte> from;
    if (!bytes(count, from)) return false;
    out = {reinterpret_cast<const char*>(from.data()), from.size()};
    return true;
  }
  [[nodiscard]] std::size_t at() const { return at_; }
  [[nodiscard]] bool at_end() const { return at_ == bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

// Bits of the address beyond `length` are zero.
bool is_clean(const Prefix& p, bool v4) {
  const unsigned length = p.length + (v4 ? 96U : 0U);
  if (length >= 128) return true;
  if (length >= 64) return length == 64 ? p.low == 0 : (p.low << (length - 64)) == 0;
  return p.low == 0 && (length == 0 ? p.high == 0 : (p.high << length) == 0);
}

class Reader {
 public:
  Reader(ByteSource& source, SnapshotVisitor& visitor) : source_(source), visitor_(visitor) {}

  Result<Totals, ReadError> run() {
    if (!file_header()) return Err{std::move(error_)};
    if (!visitor_.header(totals_.header)) return Err{stopped()};
    while (!ended_) {
      if (!block()) return Err{std::move(error_)};
    }
    std::byte more{};
    std::size_t got = 0;
    if (!read({&more, 1}, got)) return Err{std::move(error_)};
    if (got != 0) return Err{corrupt(totals_.bytes, "bytes behind the end")};
    if (!visitor_.end(totals_.end)) return Err{stopped()};
    return totals_;
  }

  Result<Header, ReadError> header() {
    if (!file_header()) return Err{std::move(error_)};
    return totals_.header;
  }

 private:
  ReadError corrupt(std::uint64_t offset, std::string_view what) {
    return {ReadError::Kind::Corrupt, offset, fmt::format("byte {}: {}", offset, what)};
  }
  ReadError stopped() { return {ReadError::Kind::Stopped, totals_.bytes, "stopped"}; }
  bool fail(std::uint64_t offset, std::string_view what) {
    error_ = corrupt(offset, what);
    return false;
  }

  // As many bytes as there are, up to out.size(). False: error_.
  bool read(std::span<std::byte> out, std::size_t& got) {
    got = 0;
    while (got < out.size()) {
      auto n = source_.read(out.subspan(got));
      if (!n) {
        error_ = {ReadError::Kind::Unreadable, totals_.bytes + got,
                  fmt::format("byte {}: {}", totals_.bytes + got, n.error())};
        return false;
      }
      if (*n == 0) break;
      got += *n;
    }
    return true;
  }
  bool read_all(std::span<std::byte> out) {
    std::size_t got = 0;
    if (!read(out, got)) return false;
    if (got < out.size()) return fail(totals_.bytes + got, "it ends here, there must be more");
    return true;
  }

  bool file_header() {
    FileHeader file;
    if (!read_all(std::as_writable_bytes(std::span(&file, 1)))) return false;
    if (file.magic != kMagic) return fail(0, "this is no snapshot");
    if (file.version != kVersion) {
      (void)fail(offsetof(FileHeader, version),
                 fmt::format("version {} of the format, not {}", file.version, kVersion));
      FileHeader ours = file;  // with a damaged version
      ours.version = kVersion;
      if (ours.crc != journal::crc_of_struct(ours, &FileHeader::crc))
        error_.kind = ReadError::Kind::OtherVersion;
      return false;
    }
    if (file.crc != journal::crc_of_struct(file, &FileHeader::crc))
      return fail(0, "the header's checksum does not match");
    if (file.header_bytes != sizeof file || file.reserved != 0)
      return fail(offsetof(FileHeader, header_bytes), "not this header");
    if (file.shard_count == 0 || file.shard >= file.shard_count)
      return fail(offsetof(FileHeader, shard), fmt::format("shard {} of {}", file.shard, file.shard_count));
    Header& h = totals_.header;
    h.shard = file.shard;
    h.shard_count = file.shard_count;
    h.number = file.number;
    std::copy_n(std::begin(file.writer), h.writer.bytes.size(), h.writer.bytes.begin());
    h.ring_position = RingPosition{file.ring_position};
    h.next_sequence = Sequence{file.next_sequence};
    h.log_identity = file.log_identity;
    h.log_sequence = file.log_sequence;
    h.started_realtime_ns = file.started_realtime_ns;
    totals_.bytes = sizeof file;
    return true;
  }

  bool block() {
    const std::uint64_t begin = totals_.bytes;
    BlockHeader header;
    if (!read_all(std::as_writable_bytes(std::span(&header, 1)))) return false;
    if (header.magic != kBlockMagic || header.reserved != 0) return fail(begin, "no block begins here");
    if (header.payload_bytes > kMaxPayloadBytes)
      return fail(begin, fmt::format("a block of {} bytes", header.payload_bytes));
    totals_.bytes += sizeof header;
    if (payload_.size() < header.payload_bytes) payload_.resize(header.payload_bytes);
    const std::span payload(payload_.data(), header.payload_bytes);
    if (!read_all(payload)) return false;
    const std::uint32_t crc = std::exchange(header.crc, 0);
    if (journal::crc32c(payload, journal::crc32c(std::as_bytes(std::span(&header, 1)))) != crc)
      return fail(begin, "the block's checksum does not match");
    if (header.number != next_block_++)
      return fail(begin, fmt::format("block {}, not {}", header.number, next_block_ - 1));
    if (header.count == 0) return fail(begin, "a block without entries");

    Cursor cursor(payload);
    const char* fault = nullptr;
    switch (static_cast<BlockKind>(header.kind)) {
      case BlockKind::Routers: fault = each(header, cursor, &Reader::router); break;
      case BlockKind::Views: fault = each(header, cursor, &Reader::view); break;
      case BlockKind::Attributes: fault = each(header, cursor, &Reader::attributes); break;
      case BlockKind::Tables: fault = each(header, cursor, &Reader::table); break;
      case BlockKind::Routes: fault = routes(header, cursor); break;
      case BlockKind::End: fault = end(header, cursor, begin); break;
      default: return fail(begin, fmt::format("a block of unknown kind {}", header.kind));
    }
    if (stopped_) {
      error_ = stopped();
      return false;
    }
    if (fault == nullptr && !cursor.at_end()) fault = "more bytes than entries";
    if (fault != nullptr) return fail(begin + sizeof header + cursor.at(), fault);
    totals_.bytes += header.payload_bytes;
    return true;
  }

  const char* each(const BlockHeader& header, Cursor& cursor, const char* (Reader::*entry)(Cursor&)) {
    for (std::uint32_t i = 0; i < header.count; ++i) {
      if (const char* fault = (this->*entry)(cursor); fault != nullptr || stopped_) return fault;
    }
    return nullptr;
  }

  static constexpr const char* kShort = "an entry that is cut off";

  const char* router(Cursor& cursor) {
    RouterFields fields;
    RouterEntry entry;
    if (!cursor.get(fields)) return kShort;
    if (fields.id != totals_.routers || fields.id >= kMaxEntries) return "a router whose id is not the next";
    entry.id = fields.id;
    std::copy(std::begin(fields.address), std::end(fields.address), entry.address.bytes.begin());
    if (!cursor.text(fields.name_bytes, entry.name) || !cursor.text(fields.sys_name_bytes, entry.sys_name) ||
        !cursor.text(fields.sys_descr_bytes, entry.sys_descr)) {
      return kShort;
    }
    ++totals_.routers;
    stopped_ = !visitor_.router(entry);
    return nullptr;
  }

  const char* view(Cursor& cursor) {
    ViewFields fields;
    if (!cursor.get(fields)) return kShort;
    if (fields.id != totals_.views || fields.id >= kMaxEntries) return "a view whose id is not the next";
    if (fields.router >= totals_.routers) return "a view of an unknown router";
    if (fields.view >= kViewCount) return "an unknown view";
    if (fields.told > 1 || fields.reserved != 0) return "a view with unknown flags";
    ViewEntry entry;
    entry.id = fields.id;
    entry.router = fields.router;
    entry.peer_type = fields.peer_type;
    entry.view = static_cast<View>(fields.view);
    entry.distinguisher = fields.distinguisher;
    std::copy(std::begin(fields.address), std::end(fields.address), entry.address.bytes.begin());
    entry.told = fields.told != 0;
    entry.asn = fields.asn;
    entry.bgp_id = fields.bgp_id;
    entry.router_port = fields.router_port;
    ++totals_.views;
    stopped_ = !visitor_.view(entry);
    return nullptr;
  }

  const char* attributes(Cursor& cursor) {
    AttributesFields fields;
    AttributesEntry entry;
    if (!cursor.get(fields)) return kShort;
    if (!cursor.bytes(fields.next_hop_bytes, entry.next_hop) ||
        !cursor.bytes(fields.flags_bytes, entry.flags) ||
        !cursor.bytes(fields.attributes_bytes, entry.attributes)) {
      return kShort;
    }
    if (fields.id == 0 || fields.id > kMaxAttributesId) return "attributes with an id that cannot be";
    entry.id = fields.id;
    const std::size_t word = fields.id / 64;
    const std::uint64_t bit = std::uint64_t{1} << (fields.id % 64);
    if (word >= known_.size()) known_.resize(std::max(word + 1, 2 * known_.size()));
    if ((known_[word] & bit) != 0) return "attributes that come twice";
    known_[word] |= bit;
    ++totals_.attributes;
    stopped_ = !visitor_.attributes(entry);
    return nullptr;
  }

  const char* table(Cursor& cursor) {
    TableFields fields;
    if (!cursor.get(fields)) return kShort;
    if (fields.id != tables_.size() || fields.id >= kMaxEntries) return "a table whose id is not the next";
    if (fields.view >= totals_.views) return "a table of an unknown view";
    const Family family{fields.afi, fields.safi};
    if (!is_plain_prefix_family(family)) return "a table of a family that has none";
    if (fields.without_ids > 1) return "a table with unknown flags";
    const TableEntry entry{
        .id = fields.id, .view = fields.view, .family = family, .without_ids = fields.without_ids != 0};
    tables_.push_back(entry);
    ++totals_.tables;
    stopped_ = !visitor_.table(entry);
    return nullptr;
  }

  [[nodiscard]] bool is_known(std::uint32_t attributes_id) const {
    const std::size_t word = attributes_id / 64;
    return word < known_.size() && ((known_[word] >> (attributes_id % 64)) & 1) != 0;
  }

  const char* routes(const BlockHeader& header, Cursor& cursor) {
    RoutesFields fields;
    if (!cursor.get(fields)) return kShort;
    if (fields.table >= tables_.size()) return "routes of an unknown table";
    if (fields.path_ids > 1 || std::any_of(std::begin(fields.reserved), std::end(fields.reserved),
                                           [](std::uint8_t b) { return b != 0; })) {
      return "routes with unknown flags";
    }
    const TableEntry table = tables_[fields.table];
    const bool v4 = table.family.afi == 1;
    routes_.clear();
    for (std::uint32_t i = 0; i < header.count; ++i) {
      RouteEntry entry;
      if (const char* fault = route(cursor, v4, fields.path_ids != 0, entry)) return fault;
      routes_.push_back(entry);
      if (routes_.size() < kRoutesAtOnce && i + 1 < header.count) continue;
      totals_.routes += routes_.size();
      if (!visitor_.routes(table, routes_)) {
        stopped_ = true;
        return nullptr;
      }
      routes_.clear();
    }
    return nullptr;
  }

  const char* route(Cursor& cursor, bool v4, bool path_id, RouteEntry& entry) const {
    if (v4) {
      std::uint32_t address = 0;
      if (!cursor.get(address)) return kShort;
      entry.prefix.low = kV4MappedLow | __builtin_bswap32(address);
    } else {
      std::uint64_t address[2];
      if (!cursor.get(address)) return kShort;
      entry.prefix.high = __builtin_bswap64(address[0]);
      entry.prefix.low = __builtin_bswap64(address[1]);
    }
    RouteFields fields;
    if (!cursor.get(fields) || (path_id && !cursor.get(entry.prefix.path_id))) return kShort;
    if (fields.length > (v4 ? 32 : 128)) return "a prefix that is too long";
    entry.prefix.length = fields.length;
    if (!is_clean(entry.prefix, v4)) return "a prefix with bits behind its length";
    if (fields.paths > 3) return "a route with unknown flags";
    if (!is_known(fields.attributes)) return "a route with unknown attributes";
    entry.attributes = fields.attributes;
    entry.paths = fields.paths;
    return nullptr;
  }

  const char* end(const BlockHeader& header, Cursor& cursor, std::uint64_t begin) {
    EndFields fields;
    if (header.count != 1 || !cursor.get(fields)) return kShort;
    if (fields.routers != totals_.routers || fields.views != totals_.views ||
        fields.attributes != totals_.attributes || fields.tables != totals_.tables ||
        fields.routes != totals_.routes || fields.bytes != begin) {
      return "totals that do not match what came";
    }
    totals_.end = {fields.routes, RingPosition{fields.ring_position}, Sequence{fields.next_sequence}};
    ended_ = true;
    return nullptr;
  }

  ByteSource& source_;
  SnapshotVisitor& visitor_;
  Totals totals_;
  ReadError error_;
  std::vector<std::byte> payload_;
  std::vector<std::uint64_t> known_;  // ids of attributes
  std::vector<TableEntry> tables_;
  std::vector<RouteEntry> routes_;
  std::uint32_t next_block_ = 0;
  bool ended_ = false;
  bool stopped_ = false;
};

}  // namespace

Result<std::size_t, std::string> MemorySource::read(std::span<std::byte> out) {
  const std::size_t n = std::min(out.size(), bytes_.size());
  if (n > 0) std::memcpy(out.data(), bytes_.data(), n);
  bytes_ = bytes_.subspan(n);
  return n;
}

Result<Totals, ReadError> read_snapshot(ByteSource& source, SnapshotVisitor& visitor) {
  return Reader(source, visitor).run();
}

Result<Totals, ReadError> check_snapshot(ByteSource& source) {
  SnapshotVisitor nobody;
  return read_snapshot(source, nobody);
}

Result<Header, ReadError> read_header(ByteSource& source) {
  SnapshotVisitor nobody;
  return Reader(source, nobody).header();
}

}  // namespace arancini::snapshot
