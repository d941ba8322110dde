#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

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

// A mapped ring file with the OFD lock of one side. Movable; unmaps and unlocks when destroyed, the file
// stays.
class RingFile {
 public:
  struct CreateOptions {
    std::uint64_t capacity_bytes = 0;
    std::uint32_t shard = 0;
    HugepageMode hugepages = HugepageMode::Auto;
    std::uint64_t created_realtime_ns = 0;
  };

  // Writer side: attaches to the ring at `path` or makes it. Made under a temporary name, filled and
  // prefaulted, then renamed: nobody sees a half-made ring. On hugetlbfs when there are free huge pages and a
  // writable mount (then `path` is a link to it), else where `path` is, with on_hugepages() false and the
  // reason in hugepage_note(). What is there and cannot be used is moved aside, and replace_note() says why:
  // to `path`.old-N when it is a ring of another capacity or ABI that a reader must drain first (DESIGN 4.4),
  // to `path`.bad-N when nothing can be read from it.
  static Result<RingFile, RingFileError> create_or_attach(const std::string& path,
                                                          const CreateOptions& options);

  // Either side: attaches to what is there. Checks magic, ABI version, layout hash, capacity and file size
  // against each other before it touches anything else; Incompatible says what differs. A ring that was moved
  // aside is attached by its present name; `successor` is the name that it had.
  static Result<RingFile, RingFileError> attach(const std::string& path, RingSide side,
                                                const std::string& successor = {});

  // The id in the head of the file at `path`, whoever uses it; nullopt if there is no ring of this ABI.
  static std::optional<WriterId> writer_of(const std::string& path);

  // Pid that holds the lock of `side`, 0 if nobody does (that side is dead), -1 if it cannot be told.
  static int lock_holder(const std::string& path, RingSide side);

  // `path`.old-N, oldest first.
  static std::vector<std::string> moved_aside(const std::string& path);
  // Deletes this ring's file under the name it was attached by (and what a link leads to). For drained rings.
  void remove();

  RingFile(RingFile&&) noexcept;
  RingFile& operator=(RingFile&&) noexcept;
  ~RingFile();

  [[nodiscard]] shm::RingHeader& header() const;
  [[nodiscard]] std::byte* data() const;
  [[nodiscard]] const std::string& path() const;
  [[nodiscard]] bool on_hugepages() const;
  [[nodiscard]] const std::string& hugepage_note() const;
  [[nodiscard]] bool created() const;  // made by this call, not found
  [[nodiscard]] const std::string& replace_note()
      const;  // why a former ring was moved aside; empty if none was
  // True when the name (or the successor's name, see attach()) now leads to another file: drain this one,
  // then attach anew. A name that leads nowhere is not a replacement.
  [[nodiscard]] bool replaced() const;

 private:
  struct State;
  explicit RingFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace arancini
