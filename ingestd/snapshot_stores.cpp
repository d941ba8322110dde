#include "ingestd/snapshot_stores.h"

#include "common/snapshot/file_store.h"

namespace arancini::ingestd {

std::unique_ptr<snapshot::SnapshotStore> open_snapshot_store(const Config& config) {
  switch (config.snapshot.store) {
    case SnapshotStoreKind::File: return std::make_unique<snapshot::FileStore>(config.snapshot_dir());
    case SnapshotStoreKind::Kv: return open_kv_store(config.log_path());
    case SnapshotStoreKind::None: break;
  }
  return nullptr;
}

}  // namespace arancini::ingestd
