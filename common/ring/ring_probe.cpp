#include "common/ring/ring_probe.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <iterator>

#include "common/base/fd.h"
#include "common/ring/ring_file.h"

namespace arancini {

namespace {

// "ring-7" and "ring-7.old-2"; what was set aside as no ring is none.
bool is_ring_name(const std::string& name) {
  constexpr std::string_view kPrefix = "ring-";
  if (!name.starts_with(kPrefix)) return false;
  const auto end = name.find_first_not_of("0123456789", kPrefix.size());
  return end != kPrefix.size() && (end == std::string::npos || name.compare(end, 5, ".old-") == 0);
}

}  // namespace

RingProbe::RingProbe(std::string path, SharedMapping mapping)
    : path_(std::move(path)), mapping_(std::move(mapping)) {
  std::copy_n(std::begin(header().identity.writer_id), writer_id_.bytes.size(), writer_id_.bytes.begin());
}

std::optional<RingProbe> RingProbe::open(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat st {};
  if (!fd || ::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode) ||
      static_cast<std::uint64_t>(st.st_size) < shm::kRingDataOffsetBytes + shm::kRingMinCapacityBytes) {
    return std::nullopt;
  }
  auto mapping = SharedMapping::map(fd.get(), static_cast<std::size_t>(st.st_size), false);
  if (!mapping) return std::nullopt;
  RingProbe probe(path, std::move(mapping).value());
  const shm::RingIdentity& identity = probe.header().identity;
  // Stored last by whoever made the ring.
  if (identity.abi_version.load(std::memory_order_acquire) != shm::kRingAbiVersion ||
      identity.magic != shm::kRingMagic || identity.layout_hash != shm::kRingLayoutHash) {
    return std::nullopt;
  }
  return probe;
}

std::vector<RingProbe> RingProbe::all(const std::string& runtime_dir) {
  std::vector<std::string> paths;
  std::error_code ec;
  for (std::filesystem::directory_iterator it(runtime_dir, ec), end; !ec && it != end; it.increment(ec)) {
    if (is_ring_name(it->path().filename().string())) paths.push_back(it->path().string());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<RingProbe> out;
  for (const std::string& path : paths) {
    if (auto probe = open(path)) out.push_back(std::move(*probe));
  }
  return out;
}

std::uint32_t RingProbe::shard() const {
  return header().identity.shard;
}
RingPosition RingProbe::head() const {
  return RingPosition{header().reader.head.load(std::memory_order_acquire)};
}
RingPosition RingProbe::tail() const {
  return RingPosition{header().writer.tail.load(std::memory_order_acquire)};
}
// Pairs with RingWriter::set_layout, which stores the position first.
std::uint32_t RingProbe::shard_count() const {
  return static_cast<std::uint32_t>(header().writer.shard_count.load(std::memory_order_acquire));
}
RingPosition RingProbe::layout_since() const {
  return RingPosition{header().writer.layout_since.load(std::memory_order_acquire)};
}

RingProbe::Log RingProbe::log() const {
  const shm::RingReaderLine& line = header().reader;
  for (;;) {
    Log out;
    out.identity = line.log_identity.load(std::memory_order_acquire);
    out.published = RingPosition{line.published.load(std::memory_order_acquire)};
    out.sequence = line.log_sequence.load(std::memory_order_acquire);
    // The log changes seldom: not in between twice.
    if (line.log_identity.load(std::memory_order_acquire) == out.identity) return out;
  }
}

bool RingProbe::writer_lives() const {
  return RingFile::lock_holder(path_, RingSide::Writer) != 0;
}

}  // namespace arancini
