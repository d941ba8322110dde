#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/base/types.h"
#include "common/ring/ring_writer.h"
#include "common/snapshot/entries.h"
#include "common/snapshot/snapshot_store.h"

// From which snapshots a shard's tables are restored, and from where on the log is read
// (docs/decisions/0010-restore.md).
namespace arancini::ingestd {

struct KnownSnapshot {
  snapshot::SnapshotName name;
  snapshot::Header header;
};

// The shard of a restore and what its ring says.
struct RestoreSubject {
  std::uint32_t shard = 0;
  std::uint32_t shard_count = 1;
  WriterId writer;
  RingPosition in_log{};              // RingWriter::in_log()
  std::uint64_t log_identity = 0;     // of the log that this is about
  std::uint64_t layout_began_ns = 0;  // since then no other number of shards was in force
};

struct RestorePlan {
  // All of one log, in any order; base_of() says which one counts for a router.
  std::vector<KnownSnapshot> snapshots;
  // Together they cover all of the shard's routers up to here. Identity 0: they do not, all is read.
  std::uint64_t log_identity = 0;
  std::uint64_t log_sequence = 0;
  // Above 0: what follows the shard's own snapshot in its own ring is all that follows.
  RingPosition ring_position{};

  // Index in `snapshots` of the newest one that covers the router; nullopt: none does.
  [[nodiscard]] std::optional<std::size_t> base_of(const IpAddress& router) const;
};

// Snapshots of the log `identity` only. `known` may be of any shards and layouts.
RestorePlan plan_restore(const RestoreSubject& subject, std::span<const KnownSnapshot> known,
                         std::uint64_t identity);

// The log that is most likely there: the ring's, else that of the snapshot that was begun last; 0: no idea.
std::uint64_t likely_log(std::uint64_t of_ring, std::span<const KnownSnapshot> known);

}  // namespace arancini::ingestd
