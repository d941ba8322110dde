#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/base/types.h"
#include "common/schema/canonical.h"
#include "common/schema/update_decode.h"
#include "common/snapshot/snapshot_reader.h"
#include "ingestd/restore_batch.h"

// The cold side of a restore: what snapshots and the log say, as batches for the hot thread.
namespace arancini::ingestd {

// Where batches go.
class BatchSink {
 public:
  virtual ~BatchSink() = default;
  // The batch to be filled, the same one until it is given; waits for one. Null: nothing is taken any more.
  virtual RestoreBatch* batch() = 0;
  virtual void give() = 0;
};

// All calls return false when the sink takes nothing any more.
class RestoreFeed {
 public:
  // Routers of other shards are left out. `sink` is borrowed.
  RestoreFeed(BatchSink& sink, std::uint32_t shard, std::uint32_t shard_count)
      : sink_(sink), shard_(shard), shard_count_(shard_count) {}

  // Reads a snapshot: what it says of the shard's routers of which `wanted` says true.
  using Wanted = std::function<bool(const IpAddress& router)>;
  struct SnapshotRead {
    bool stopped = false;                      // by the sink
    std::optional<snapshot::ReadError> error;  // something of it may have been given
    snapshot::Totals totals;
  };
  // `moved(router, taken)`: for each router of the snapshot that is the shard's and wanted, or not the
  // shard's.
  using Moved = std::function<void(const snapshot::RouterEntry& router, bool taken)>;
  SnapshotRead read(snapshot::ByteSource& source, const Wanted& wanted, const Moved& moved = {});

  // One payload of the log, or of a record. `problem`: what is wrong with it; what came before was taken.
  bool payload(schema::PayloadFormat format, std::span<const std::byte> bytes,
               std::optional<std::string>& problem);
  // All that was given so far was told in another log.
  bool clear();
  // Gives what was begun.
  bool flush();

  // Of the log, about routers of the shard.
  [[nodiscard]] std::uint64_t updates() const { return updates_; }

 private:
  friend class SnapshotFeed;
  using Kind = RestoreBatch::Kind;
  using ViewKey = std::tuple<std::uint32_t, std::uint8_t, std::uint64_t, IpAddress, View>;

  [[nodiscard]] bool owns(const IpAddress& router) const {
    return raw(owner_of(router, shard_count_)) == shard_;
  }
  bool update(const schema::DecodedUpdate& update);
  // The batch, with room. Null: stopped.
  RestoreBatch* open();
  // Their numbers; announced to the hot side when new, or when something changed.
  bool router(RestoredRouter router, std::uint32_t& number);
  bool view(const RestoredView& view, std::uint32_t& number);

  BatchSink& sink_;
  const std::uint32_t shard_, shard_count_;
  std::map<std::pair<IpAddress, std::string>, std::uint32_t> routers_;
  std::map<ViewKey, std::uint32_t> numbers_;
  std::vector<RestoredView> views_;  // by number
  std::uint64_t updates_ = 0;
  schema::CanonicalAttributes canonical_;
};

}  // namespace arancini::ingestd
