#include "common/snapshot/file_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "common/base/config.h"
#include "common/base/runtime_dir.h"

namespace arancini::snapshot {

namespace {

constexpr std::string_view kTemporaryEnd = ".tmp";
// So much is handed to the disk at once, not all with the fsync.
constexpr std::uint64_t kWriteBehindBytes = 4U << 20;

std::string reason(const char* what) {
  return fmt::format("{}: {}", what, std::strerror(errno));
}

std::string temporary_name(const SnapshotName& name) {
  return fmt::format(".{}{}", name.to_string(), kTemporaryEnd);
}

std::optional<SnapshotName> parse_temporary(std::string_view text) {
  if (!text.starts_with('.') || !text.ends_with(kTemporaryEnd)) return std::nullopt;
  text.remove_prefix(1);
  text.remove_suffix(kTemporaryEnd.size());
  return SnapshotName::parse(text);
}

// False: somebody else has it.
bool lock(const Fd& fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd.get(), F_OFD_SETLK, &whole) == 0;
}

bool is_old(const Fd& fd) {
  constexpr time_t kOldSeconds = 3600;
  struct stat st {};
  return ::fstat(fd.get(), &st) == 0 && ::time(nullptr) - st.st_mtime > kOldSeconds;
}

// Calls f(const char*) for each name.
template <class F>
std::string each_name(const Fd& directory, F&& f) {
  Fd own(::openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  DIR* const dir = own ? ::fdopendir(own.get()) : nullptr;
  if (dir == nullptr) return reason("cannot be listed");
  (void)own.release();
  errno = 0;
  while (const dirent* entry = ::readdir(dir)) f(entry->d_name);
  const std::string error = errno == 0 ? std::string{} : reason("cannot be listed");
  ::closedir(dir);
  return error;
}

class FileSource final : public ByteSource {
 public:
  FileSource(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  Result<std::size_t, std::string> read(std::span<std::byte> out) override {
    for (;;) {
      const ssize_t n = ::read(fd_.get(), out.data(), out.size());
      if (n >= 0) return static_cast<std::size_t>(n);
      if (errno != EINTR) return Err{fmt::format("{}: {}", path_, reason("read"))};
    }
  }

 private:
  Fd fd_;
  std::string path_;
};

class FileSink final : public SnapshotSink {
 public:
  FileSink(Fd directory, Fd fd, const SnapshotName& name, std::string path)
      : directory_(std::move(directory)), fd_(std::move(fd)), name_(name), path_(std::move(path)) {}
  ~FileSink() override {
    if (!committed_) ::unlinkat(directory_.get(), temporary_name(name_).c_str(), 0);
  }
  FileSink(const FileSink&) = delete;
  FileSink& operator=(const FileSink&) = delete;

  std::string write(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fmt::format("{}: {}", path_, reason("write"));
      written_ += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    if (written_ - handed_over_ >= kWriteBehindBytes) {
      (void)::sync_file_range(fd_.get(), static_cast<off64_t>(handed_over_),
                              static_cast<off64_t>(written_ - handed_over_), SYNC_FILE_RANGE_WRITE);
      handed_over_ = written_;
    }
    return {};
  }

  std::string commit() override {
    if (::fsync(fd_.get()) != 0) return fmt::format("{}: {}", path_, reason("fsync"));
    if (::renameat(directory_.get(), temporary_name(name_).c_str(), directory_.get(),
                   name_.to_string().c_str()) != 0) {
      return fmt::format("{}: {}", path_, reason("rename"));
    }
    committed_ = true;
    if (::fsync(directory_.get()) != 0) return fmt::format("{}: {}", path_, reason("fsync of the directory"));
    return {};
  }

 private:
  Fd directory_, fd_;
  SnapshotName name_;
  std::string path_;
  std::uint64_t written_ = 0, handed_over_ = 0;
  bool committed_ = false;
};

}  // namespace

std::string FileStore::describe(const SnapshotName& name) const {
  return fmt::format("{}/{}", directory_, name.to_string());
}

Result<Fd, std::string> FileStore::directory() const {
  std::error_code ignored;
  const std::filesystem::path path(directory_);
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
  ::mkdir(directory_.c_str(), 0700);  // what is wrong with it is found next
  try {
    return open_own_dir(directory_, "--state-dir");
  } catch (const ConfigError& e) {
    return Err{std::string(e.what())};
  }
}

Result<std::vector<SnapshotName>, std::string> FileStore::list() {
  auto dir = directory();
  if (!dir) return Err{dir.error()};
  std::vector<SnapshotName> names;
  const std::string error = each_name(*dir, [&names](const char* file) {
    if (const auto name = SnapshotName::parse(file)) names.push_back(*name);
  });
  if (!error.empty()) return Err{fmt::format("{}: {}", directory_, error)};
  return names;
}

Result<std::unique_ptr<ByteSource>, std::string> FileStore::open(const SnapshotName& name) {
  auto dir = directory();
  if (!dir) return Err{dir.error()};
  Fd fd(::openat(dir->get(), name.to_string().c_str(),
                 O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) return Err{fmt::format("{}: {}", describe(name), reason("cannot be opened"))};
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode))
    return Err{fmt::format("{}: is not a regular file", describe(name))};
  return std::unique_ptr<ByteSource>(std::make_unique<FileSource>(std::move(fd), describe(name)));
}

Result<std::unique_ptr<SnapshotSink>, std::string> FileStore::create(const SnapshotName& name) {
  auto dir = directory();
  if (!dir) return Err{dir.error()};
  (void)each_name(*dir, [&](const char* file) {
    const auto of = parse_temporary(file);
    if (!of) return;
    const Fd left(::openat(dir->get(), file, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    // Another shard may have made its own this moment and not locked it yet.
    if (!left || (of->shard != name.shard && !is_old(left))) return;
    if (lock(left)) ::unlinkat(dir->get(), file, 0);
  });
  const std::string temporary = temporary_name(name);
  Fd fd(::openat(dir->get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  const std::string path = fmt::format("{}/{}", directory_, temporary);
  if (!fd) return Err{fmt::format("{}: {}", path, reason("cannot be made"))};
  if (!lock(fd)) return Err{fmt::format("{}: {}", path, reason("cannot be locked"))};
  return std::unique_ptr<SnapshotSink>(
      std::make_unique<FileSink>(std::move(dir).value(), std::move(fd), name, path));
}

std::string FileStore::set_aside(const SnapshotName& name) {
  auto dir = directory();
  if (!dir) return dir.error();
  const std::string from = name.to_string();
  // Never over another one that is kept.
  for (int i = 1;; ++i) {
    const std::string to = i == 1 ? from + ".corrupt" : fmt::format("{}.{}.corrupt", from, i);
    if (::renameat2(dir->get(), from.c_str(), dir->get(), to.c_str(), RENAME_NOREPLACE) == 0) return {};
    if (errno != EEXIST || i == 1000) return fmt::format("{}: {}", describe(name), reason("rename"));
  }
}

std::string FileStore::remove(const SnapshotName& name) {
  auto dir = directory();
  if (!dir) return dir.error();
  if (::unlinkat(dir->get(), name.to_string().c_str(), 0) != 0 && errno != ENOENT)
    return fmt::format("{}: {}", describe(name), reason("cannot be removed"));
  return {};
}

}  // namespace arancini::snapshot
