#include "common/base/runtime_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "common/base/config.h"

namespace arancini {

std::string open_to_others(const Fd& directory) {
  struct stat st {};
  if (::fstat(directory.get(), &st) != 0) return fmt::format("fstat: {}", std::strerror(errno));
  const uid_t me = ::geteuid();
  if (st.st_uid != me && st.st_uid != 0) {
    return fmt::format(
        "belongs to uid {}, but this process runs as uid {}, and who owns the directory could replace every "
        "file in it: run as its owner, or chown it",
        st.st_uid, me);
  }
  if ((st.st_mode & S_IWOTH) != 0 || ((st.st_mode & S_IWGRP) != 0 && st.st_gid != ::getegid())) {
    return fmt::format("other users may write there (mode {:04o}, gid {}): chmod go-w it",
                       static_cast<unsigned>(st.st_mode & 07777U), st.st_gid);
  }
  return {};
}

Fd open_own_dir(const std::string& path, const char* flag) {
  std::string name = path;  // without the slashes at its end, which would lead through a link
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  const auto refuse = [&](const std::string& why) {
    throw ConfigError(fmt::format("{}: {}; choose another with {}", path, why, flag));
  };
  std::error_code error;
  if (const auto parent = std::filesystem::path(name).parent_path(); !parent.empty()) {
    std::filesystem::create_directories(parent, error);
  }
  if (::mkdir(name.c_str(), 0750) != 0 && errno != EEXIST) {
    refuse(fmt::format("cannot be made: {}", std::strerror(errno)));
  }
  Fd fd(::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) {
    refuse(errno == ENOTDIR || errno == ELOOP ? std::string("is not a directory (a link to one is refused)")
                                              : fmt::format("cannot be opened: {}", std::strerror(errno)));
  }
  if (const std::string why = open_to_others(fd); !why.empty()) refuse(why);
  return fd;
}

void check_runtime_dir(const std::string& path) {
  open_own_dir(path, "--runtime-dir");
}

Result<Fd, LockFileError> lock_pid_file(const Fd& directory, const std::string& path, const char* name) {
  const auto failed = [&](const std::string& why) {
    return Err{LockFileError{false, 0, fmt::format("{}/{}: {}", path, name, why)}};
  };
  Fd fd(::openat(directory.get(), name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                 0600));
  if (!fd) {
    return failed(errno == ELOOP ? std::string("is a symbolic link: remove it")
                                 : fmt::format("cannot be opened: {}", std::strerror(errno)));
  }
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return failed(fmt::format("fstat: {}", std::strerror(errno)));
  if (!S_ISREG(st.st_mode) || st.st_uid != ::geteuid() || st.st_nlink != 1) {
    return failed("is not a regular file of this user's alone: remove it");
  }
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(fd.get(), F_OFD_SETLK, &whole) != 0) {
    if (errno != EAGAIN && errno != EACCES) {
      return failed(fmt::format("cannot be locked: {}", std::strerror(errno)));
    }
    LockFileError held{true, 0, {}};
    char text[16] = {};
    if (const ssize_t n = ::pread(fd.get(), text, sizeof text, 0); n > 0)
      std::from_chars(text, text + n, held.pid);
    return Err{std::move(held)};
  }
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return failed(fmt::format("cannot be written: {}", std::strerror(errno)));
  }
  return fd;
}

}  // namespace arancini
