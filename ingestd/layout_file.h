#pragma once

#include <cstdint>
#include <string>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/snapshot/snapshot_store.h"

namespace arancini::ingestd {

// Since when (real time, ns) the routers are divided among `shard_count` shards. All shards that start in
// this state directory note it there, in <state>/layout; when it changes, also to a number that was in force
// before, the time is set, above that of every snapshot that is there, whatever the clock says. The error is
// one line for the operator.
Result<std::uint64_t, std::string> layout_began(const std::string& state_dir, std::uint32_t shard_count,
                                                snapshot::SnapshotStore& snapshots, const Clock& clock);

// This life does not note how the routers are divided, so that a later one must not trust what an earlier one
// noted. Empty, or one line for the operator.
std::string forget_layout(const std::string& state_dir);

}  // namespace arancini::ingestd
