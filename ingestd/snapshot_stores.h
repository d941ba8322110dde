#pragma once

#include <memory>
#include <string>

#include "common/base/config.h"
#include "common/snapshot/snapshot_store.h"

namespace arancini::ingestd {

// The store that `[snapshot] store` chose; null: "none". Nothing is opened yet.
std::unique_ptr<snapshot::SnapshotStore> open_snapshot_store(const Config& config);

// Snapshots in the key-value bucket, through publishd's Log service at `socket_path`
// (common/proto/log.proto). Each call asks anew, so publishd may come and go. (snapshot_client.cpp)
std::unique_ptr<snapshot::SnapshotStore> open_kv_store(const std::string& socket_path);

}  // namespace arancini::ingestd
