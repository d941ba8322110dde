#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/result.h"
#include "common/base/types.h"
#include "shm-layout/ring_header.h"

namespace arancini {

// Why a ring could not be created or attached; `text` is for the operator: what, where, what to do.
struct RingFileError {
  enum class Kind : std::uint8_t {
    Missing,       // no such file (yet)
    Locked,        // the other process of this side lives
    Incompatible,  // magic, ABI, layout, size or capacity differ
    System,        // errno
    NoHugepages,   // hugepages = "require" and there are none
  };
  Kind kind = Kind::System;
  std::string text;
};

enum class RingSide : std::uint8_t { Writer, Reader };

// A mapped ring file with the OFD lock of one side. Movable; unmaps and unlocks when destroyed, the file stays.
class RingFile {
 public:
  struct CreateOptions {
    std::uint64_t capacity_bytes = 0;
    std::uint32_t shard = 0;
    HugepageMode hugepages = HugepageMode::Auto;
    std::uint64_t created_realtime_ns = 0;
  };

  // Writer side: attaches to the ring at `path` or makes it. Made under a temporary name, filled and prefaulted, then
  // renamed: nobody sees a half-made ring. On hugetlbfs when there are free huge pages and a writable mount (then
  // `path` is a link to it), else where `path` is, with on_hugepages() false and the reason in hugepage_note().
  // A ring that is there with another capacity or ABI is moved aside to `path`.old-N first (DESIGN 4.4).
  static Result<RingFile, RingFileError> create_or_attach(const std::string& path, const CreateOptions& options);

  // Either side: attaches to what is there. Checks magic, ABI version, layout hash, capacity and file size against each
  // other before it touches anything else; Incompatible says what differs.
  static Result<RingFile, RingFileError> attach(const std::string& path, RingSide side);

  // Pid that holds the lock of `side`, 0 if nobody does (that side is dead), -1 if it cannot be told.
  static int lock_holder(const std::string& path, RingSide side);

  RingFile(RingFile&&) noexcept;
  RingFile& operator=(RingFile&&) noexcept;
  ~RingFile();

  [[nodiscard]] shm::RingHeader& header() const;
  [[nodiscard]] std::byte* data() const;
  [[nodiscard]] const std::string& path() const;
  [[nodiscard]] bool on_hugepages() const;
  [[nodiscard]] const std::string& hugepage_note() const;
  [[nodiscard]] bool created() const;  // made by this call, not found
  // True when the name now leads to another file (the ring was replaced): drain this one, then attach anew.
  [[nodiscard]] bool replaced() const;

 private:
  struct State;
  explicit RingFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace arancini
