#pragma once

#include <sys/types.h>

#include <boost/interprocess/mapped_region.hpp>
#include <cstddef>
#include <cstdint>
#include <string>

#include "common/base/fd.h"
#include "common/base/result.h"

// What ring files and stats pages share: mapping, prefaulting, OFD locks and publication by rename.
namespace arancini {

// "<what>: <text of errno>"
std::string errno_text(const std::string& what, int error);

// A whole file, mapped shared; unmapped when destroyed.
class SharedMapping {
 public:
  // `bytes` must not exceed the file's size (the caller has it from fstat): access beyond it would be SIGBUS.
  // On hugetlbfs it is a multiple of the page size.
  static Result<SharedMapping, std::string> map(int fd, std::size_t bytes, bool writable);

  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(region_.get_address()); }
  [[nodiscard]] std::size_t size() const { return region_.get_size(); }
  // Makes every page present, so that neither a fault nor a SIGBUS comes later. Empty, or what failed.
  [[nodiscard]] std::string prefault() const;

 private:
  boost::interprocess::mapped_region region_;
};

enum class LockState : std::uint8_t { Free, Held, Unknown };
// Open file description lock (fcntl(2)) on one byte of `fd`, which must be open for writing: released by the
// kernel when the last descriptor and mapping of this open() are gone, however the process ended. Never
// waits. Returns Free when it is ours now, Held when another has it.
LockState ofd_lock(int fd, std::int64_t byte);
void ofd_unlock(int fd, std::int64_t byte);
// Whether someone else holds it; `fd` may be read-only.
LockState ofd_test(int fd, std::int64_t byte);

struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};
// Of the file that `path` leads to (links followed) or that is open; false when there is none.
bool identify(const std::string& path, FileIdentity& out);
bool identify(int fd, FileIdentity& out);

// rename(2) that fails with EEXIST instead of replacing. Returns 0 or errno.
int rename_new(const std::string& from, const std::string& to);

}  // namespace arancini
