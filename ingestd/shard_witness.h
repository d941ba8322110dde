#pragma once

#include <span>

#include "common/base/types.h"
#include "common/schema/event_fields.h"

namespace arancini::ingestd {

struct RestoreBatch;

// Sees what tasks of other threads do to a shard's records, as they do it, on the hot thread: for recordings.
class ShardWitness {
 public:
  virtual ~ShardWitness() = default;
  // A dump was asked for: of a router, or (null) of all.
  virtual void dump_asked(const IpAddress* router) noexcept = 0;
  // Rules and timers are not those of the beginning any more.
  virtual void reloaded() noexcept = 0;
  // The tables are not yet what was told (true), or so they are.
  virtual void restoring(bool restoring) noexcept = 0;
  // A batch of a restore begins to be applied.
  virtual void restore_batch(const RestoreBatch& batch) noexcept = 0;
  // Sessions of the process before are to go on at the end of the restore, which follows.
  virtual void adopted(std::span<const std::byte> restart_state) noexcept = 0;
  // All batches are applied; these are written before anything else is. Not `complete`: a dump of all is
  // owed.
  virtual void restore_end(std::span<const schema::EventFields> events, bool complete) noexcept = 0;
};

}  // namespace arancini::ingestd
