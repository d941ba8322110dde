#include "common/snapshot/snapshot_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/journal/crc32c.h"

namespace arancini::snapshot {

namespace {

constexpr std::size_t kBufferBytes = 256 * 1024;

}  // namespace

SnapshotWriter::SnapshotWriter(ByteSink& sink)
    : sink_(sink), buffer_(std::make_unique_for_overwrite<std::byte[]>(kBufferBytes)) {
  builder_.reset({buffer_.get(), kBufferBytes});
}

void SnapshotWriter::write(std::span<const std::byte> bytes) {
  if (failed()) return;
  error_ = sink_.write(bytes);
  bytes_ += bytes.size();
}

void SnapshotWriter::begin(const Header& header) {
  FileHeader file{};
  file.magic = kMagic;
  file.version = kVersion;
  file.header_bytes = sizeof file;
  file.shard = header.shard;
  file.shard_count = header.shard_count;
  file.number = header.number;
  std::copy(header.writer.bytes.begin(), header.writer.bytes.end(), std::begin(file.writer));
  file.ring_position = raw(header.ring_position);
  file.next_sequence = raw(header.next_sequence);
  file.log_identity = header.log_identity;
  file.log_sequence = header.log_sequence;
  file.started_realtime_ns = header.started_realtime_ns;
  file.crc = journal::crc_of_struct(file, &FileHeader::crc);
  write(std::as_bytes(std::span(&file, 1)));
}

void SnapshotWriter::blocks(std::span<std::byte> blocks) {
  if (!builder_.empty()) flush();
  std::span<std::byte> rest = blocks;
  while (!rest.empty()) {
    BlockHeader header;
    std::memcpy(&header, rest.data(), sizeof header);
    const std::size_t size = sizeof header + header.payload_bytes;
    header.number = next_block_++;
    header.crc = 0;
    header.crc = journal::crc32c(std::as_bytes(std::span(&header, 1)));
    header.crc = journal::crc32c(rest.subspan(sizeof header, header.payload_bytes), header.crc);
    std::memcpy(rest.data(), &header, sizeof header);
    counts_[header.kind - 1] += header.count;
    rest = rest.subspan(size);
  }
  write(blocks);
}

void SnapshotWriter::flush() {
  const std::span<std::byte> full = builder_.blocks();
  builder_.reset({buffer_.get(), kBufferBytes});
  blocks(full);
}

template <class Entry>
void SnapshotWriter::add(const Entry& entry) {
  if (builder_.add(entry)) return;
  flush();
  if (!builder_.add(entry) && !failed())
    error_ = fmt::format("an entry is larger than {} bytes", kBufferBytes);
}
template void SnapshotWriter::add(const RouterEntry&);
template void SnapshotWriter::add(const ViewEntry&);
template void SnapshotWriter::add(const AttributesEntry&);
template void SnapshotWriter::add(const TableEntry&);

void SnapshotWriter::route(std::uint32_t table, Family family, const RouteEntry& entry) {
  if (builder_.add(table, family, entry)) return;
  flush();
  (void)builder_.add(table, family, entry);
}

std::string SnapshotWriter::finish(const End& end) {
  if (!builder_.empty()) flush();
  const auto count = [this](BlockKind kind) { return counts_[static_cast<std::size_t>(kind) - 1]; };
  if (!failed() && count(BlockKind::Routes) != end.routes) {
    error_ = fmt::format("{} routes were written, {} were meant", count(BlockKind::Routes), end.routes);
  }
  struct {
    BlockHeader header{};
    EndFields fields{};
  } last;
  static_assert(sizeof last == sizeof(BlockHeader) + sizeof(EndFields));
  last.header = {.magic = kBlockMagic,
                 .kind = static_cast<std::uint16_t>(BlockKind::End),
                 .reserved = 0,
                 .count = 1,
                 .payload_bytes = sizeof(EndFields),
                 .number = 0,
                 .crc = 0};
  last.fields = {.routers = count(BlockKind::Routers),
                 .views = count(BlockKind::Views),
                 .attributes = count(BlockKind::Attributes),
                 .tables = count(BlockKind::Tables),
                 .routes = count(BlockKind::Routes),
                 .bytes = bytes_,
                 .ring_position = raw(end.ring_position),
                 .next_sequence = raw(end.next_sequence)};
  blocks(std::as_writable_bytes(std::span(&last, 1)));
  return error_;
}

}  // namespace arancini::snapshot
