#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/types.h"
#include "common/shm/shared_file.h"
#include "shm-layout/ring_header.h"

namespace arancini {

// What the head of a ring says, for a bystander: neither side, no lock, nothing is written. The file may be
// moved aside or deleted meanwhile; what was opened is what is seen.
class RingProbe {
 public:
  // Nullopt: no ring of this ABI (yet).
  static std::optional<RingProbe> open(const std::string& path);
  // All rings of a runtime directory, also those that were moved aside, by path.
  static std::vector<RingProbe> all(const std::string& runtime_dir);

  [[nodiscard]] const std::string& path() const { return path_; }
  // Another ring has its name now; nothing is written to it any more.
  [[nodiscard]] bool moved_aside() const { return path_.find(".old-") != std::string::npos; }
  [[nodiscard]] const WriterId& writer_id() const { return writer_id_; }
  [[nodiscard]] std::uint32_t shard() const;
  [[nodiscard]] RingPosition head() const;
  [[nodiscard]] RingPosition tail() const;
  [[nodiscard]] std::uint32_t shard_count() const;  // RingWriterLine
  [[nodiscard]] RingPosition layout_since() const;  // RingWriterLine
  // Of one log (RingReaderLine).
  struct Log {
    std::uint64_t identity = 0;
    std::uint64_t sequence = 0;
    RingPosition published{};
  };
  [[nodiscard]] Log log() const;
  // Somebody holds the writer's lock: a process that may still write.
  [[nodiscard]] bool writer_lives() const;

 private:
  RingProbe(std::string path, SharedMapping mapping);
  [[nodiscard]] const shm::RingHeader& header() const {
    return *reinterpret_cast<const shm::RingHeader*>(mapping_.data());
  }

  std::string path_;
  SharedMapping mapping_;
  WriterId writer_id_;
};

}  // namespace arancini
