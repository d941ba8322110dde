#pragma once

#include <string>

#include "common/base/fd.h"
#include "common/snapshot/snapshot_store.h"

namespace arancini::snapshot {

// Snapshots as files of one directory, which is made (0700) when it is missing. A new one is written as
// ".<name>.tmp", locked while somebody writes it, and renamed after fsync; then the directory is fsynced.
class FileStore final : public SnapshotStore {
 public:
  explicit FileStore(std::string directory) : directory_(std::move(directory)) {}

  Result<std::vector<SnapshotName>, std::string> list() override;
  Result<std::unique_ptr<ByteSource>, std::string> open(const SnapshotName& name) override;
  // Also removes temporary files that nobody writes any more: those of the same shard, old ones of others.
  Result<std::unique_ptr<SnapshotSink>, std::string> create(const SnapshotName& name) override;
  std::string set_aside(const SnapshotName& name) override;
  std::string remove(const SnapshotName& name) override;
  [[nodiscard]] std::string describe(const SnapshotName& name) const override;

 private:
  // Looked at each time: the disk may have been mounted anew.
  Result<Fd, std::string> directory() const;

  std::string directory_;
};

}  // namespace arancini::snapshot
