#include "common/shm/shared_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/interprocess/exceptions.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace arancini {
namespace {

namespace bip = boost::interprocess;

// Boost's file_mapping opens by name; locks and checks are on a descriptor, and the name may change in
// between.
struct BorrowedFd {
  int fd;
  [[nodiscard]] bip::mapping_handle_t get_mapping_handle() const {
    return bip::ipcdetail::mapping_handle_from_file_handle(fd);
  }
};

struct flock64 byte_lock(short type, std::int64_t byte) {
  struct flock64 lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

bool identify_stat(const struct stat& st, FileIdentity& out) {
  out = {st.st_dev, st.st_ino};
  return true;
}

}  // namespace

std::string errno_text(const std::string& what, int error) {
  return what + ": " + std::system_category().message(error);
}

Result<SharedMapping, std::string> SharedMapping::map(int fd, std::size_t bytes, bool writable) {
  try {
    SharedMapping m;
    m.region_ = bip::mapped_region(BorrowedFd{fd}, writable ? bip::read_write : bip::read_only, 0, bytes);
    return m;
  } catch (const bip::interprocess_exception& e) {
    return Err{errno_text("mmap of " + std::to_string(bytes) + " bytes", e.get_native_error())};
  }
}

std::string SharedMapping::prefault() const {
  const bool writable = region_.get_mode() == bip::read_write;
  int r = 0;
  do {
    r = ::madvise(data(), size(), writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
  } while (r != 0 && errno == EINTR);
  // EINVAL: before Linux 5.14. posix_fallocate() has reserved the space, so later faults are slow but not
  // fatal.
  if (r == 0 || errno == EINVAL) return {};
  return errno_text("cannot make " + std::to_string(size()) + " bytes present (MADV_POPULATE)", errno);
}

LockState ofd_lock(int fd, std::int64_t byte) {
  auto lock = byte_lock(F_WRLCK, byte);
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return LockState::Free;
  return errno == EAGAIN || errno == EACCES ? LockState::Held : LockState::Unknown;
}

void ofd_unlock(int fd, std::int64_t byte) {
  auto lock = byte_lock(F_UNLCK, byte);
  ::fcntl(fd, F_OFD_SETLK, &lock);
}

LockState ofd_test(int fd, std::int64_t byte) {
  auto lock = byte_lock(F_WRLCK, byte);
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0) return LockState::Unknown;
  return lock.l_type == F_UNLCK ? LockState::Free : LockState::Held;
}

bool identify(const std::string& path, FileIdentity& out) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && identify_stat(st, out);
}

bool identify(int fd, FileIdentity& out) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 && identify_stat(st, out);
}

int rename_new(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // A file system without RENAME_NOREPLACE: link(2) is as exclusive.
  if (::linkat(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), 0) != 0) return errno;
  ::unlink(from.c_str());
  return 0;
}

}  // namespace arancini
