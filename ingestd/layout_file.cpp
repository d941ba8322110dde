#include "ingestd/layout_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "common/base/fd.h"
#include "common/snapshot/snapshot_reader.h"

namespace arancini::ingestd {

namespace {

std::string layout_path(const std::string& state_dir) {
  return (std::filesystem::path(state_dir) / "layout").string();
}

}  // namespace

std::string forget_layout(const std::string& state_dir) {
  const std::string path = layout_path(state_dir);
  if (::unlink(path.c_str()) == 0 || errno == ENOENT || errno == ENOTDIR) return {};
  return path + ": cannot be removed: " + std::strerror(errno);
}

Result<std::uint64_t, std::string> layout_began(const std::string& state_dir, std::uint32_t shard_count,
                                                snapshot::SnapshotStore& snapshots, const Clock& clock) {
  const std::string path = layout_path(state_dir);
  const auto failed = [&path](const char* what) {
    return Err(path + ": " + what + ": " + std::strerror(errno));
  };
  std::error_code error;
  std::filesystem::create_directories(state_dir, error);
  const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return failed("cannot be opened");
  if (::flock(fd.get(), LOCK_EX) != 0) return failed("cannot be locked");
  std::array<char, 64> text{};
  const ssize_t size = ::pread(fd.get(), text.data(), text.size() - 1, 0);
  if (size < 0) return failed("cannot be read");
  unsigned long long began = 0;
  unsigned long count = 0;
  int end = 0;
  // A line that is not whole is as good as none.
  if (std::sscanf(text.data(), "shards %lu since %llu.%n", &count, &began, &end) == 2 && end != 0 &&
      count == shard_count)
    return std::uint64_t{began};
  began = std::max<std::uint64_t>(clock.realtime_ns(), began + 1);
  if (const auto names = snapshots.list()) {
    for (const snapshot::SnapshotName& name : names.value()) {
      const auto source = snapshots.open(name);
      if (!source) continue;
      if (const auto header = snapshot::read_header(*source.value()))
        began = std::max<std::uint64_t>(began, header.value().started_realtime_ns + 1);
    }
  }
  const int length = std::snprintf(text.data(), text.size(), "shards %u since %llu.\n",
                                   static_cast<unsigned>(shard_count), began);
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), text.data(), static_cast<std::size_t>(length), 0) != length ||
      ::fsync(fd.get()) != 0)
    return failed("cannot be written");
  return std::uint64_t{began};
}

}  // namespace arancini::ingestd
