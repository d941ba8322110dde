#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/base/fd.h"
#include "common/ring/ring_writer.h"
#include "common/snapshot/block_builder.h"
#include "common/snapshot/entries.h"
#include "ingestd/hot_task.h"
#include "ingestd/peer_table.h"
#include "ingestd/spsc_slots.h"

namespace arancini::ingestd {

// Walks a shard's told tables for a snapshot (docs/decisions/0009-snapshots.md): the hot thread fills buffers
// in slices, a cold thread takes them and gives them back. The tables go on meanwhile. What was told as it
// began and was not changed by a record since is in the snapshot as it was told; of the rest, what the
// records say counts.
class SnapshotTask final : public HotTask {
 public:
  static constexpr std::uint64_t kSliceNs = 100'000;
  static constexpr std::size_t kBuffers = 8;
  static constexpr std::size_t kBufferBytes = 256 * 1024;

  // Cold. Allocates all that the hot thread uses. `tasks` is woken when buffers come back; `router_rows`: of
  // the shard's stats page. A slice ends with the first small step that takes it above `slice_ns`.
  SnapshotTask(HotTasks& tasks, std::uint32_t router_rows, std::uint64_t slice_ns = kSliceNs);
  ~SnapshotTask() override;

  // Where a former snapshot began and ended. If nothing was written since and the log stands where it stood,
  // there is nothing to do.
  struct Mark {
    RingPosition position{};
    RingWriter::LogMark log;
    friend bool operator==(const Mark& a, const Mark& b) {
      return a.position == b.position && a.log.sequence == b.log.sequence && a.log.identity == b.log.identity;
    }
  };
  // Cold, before each post(): the next run of that shard and number.
  void prepare(std::uint32_t shard, std::uint32_t shard_count, std::uint64_t number,
               const std::optional<Mark>& unless);

  Progress run(Shard::Impl& shard) noexcept override;

  enum class Outcome : std::uint8_t {
    Running,
    Complete,   // header() and end() hold; the last parts may not be taken yet
    Unchanged,  // since the mark
    Restoring,  // the tables are not what was told
    TooLarge,   // attributes that no buffer holds
    Abandoned,
  };
  // Cold. Anything but Running is final; the task goes on with giving its references back until it is done.
  [[nodiscard]] Outcome outcome() const { return outcome_.load(std::memory_order_acquire); }
  // Readable when there may be a part to take, or another outcome. read() it empty before looking.
  [[nodiscard]] int wake_fd() const { return wake_.get(); }
  // Cold. The next blocks, in order, until give_back(). Empty: none now.
  std::span<std::byte> take();
  void give_back();
  // Cold: nobody will take any more of this run.
  void abandon();

  // Valid once there was a part, or the outcome is Complete.
  [[nodiscard]] const snapshot::Header& header() const { return header_; }
  [[nodiscard]] const snapshot::End& end() const { return end_; }  // once it is Complete
  [[nodiscard]] Mark begin_mark() const {
    return {header_.ring_position, {header_.log_sequence, header_.log_identity}};
  }
  // Once the task is done: of all its slices.
  [[nodiscard]] std::uint64_t longest_slice_ns() const { return longest_slice_ns_; }
  [[nodiscard]] std::uint64_t slices() const { return slices_; }

 private:
  enum class State : std::uint8_t { Begin, Views, Release, Done };
  enum class Step : std::uint8_t { More, NoBuffer, TooLarge };
  struct Item {
    Prefix prefix;
    AttrId attr;
    std::uint8_t paths;
    bool fresh;  // its attributes are not in the snapshot yet
  };
  struct Part {
    std::uint32_t buffer = 0;
    std::uint32_t bytes = 0;
  };
  // Being filled.
  struct Filling {
    snapshot::BlockBuilder builder;
    std::uint32_t buffer = 0;
    bool open = false;
  };
  // Which view is being walked, by what it is: rows and addresses may be given to others.
  struct Current {
    bool active = false;
    PeerKey key;
    std::uint64_t router = 0;  // Router::serial
    View view{};
    std::uint32_t id = 0;
    bool began = false;  // its entry is in the snapshot
    std::size_t table = 0;
    bool table_began = false;
    std::uint32_t table_id = 0;
    Family family;
    std::uint64_t position = 0;  // hash up to which its routes were collected
    bool at_end = false;         // all were
  };

  Progress slice(Shard::Impl& shard) noexcept;
  bool begin(Shard::Impl& shard) noexcept;
  Step walk(Shard::Impl& shard, std::uint64_t until_ns) noexcept;
  Step view_entry(const PeerView& view) noexcept;
  // What is told of the next range of the table, all of one moment.
  void collect(Shard::Impl& shard, const RibTable& table) noexcept;
  bool collect_range(const RibTable& table, std::uint64_t from, std::uint64_t to) noexcept;
  Step write_items(Shard::Impl& shard, std::uint64_t until_ns) noexcept;
  template <class Entry>
  Step add(Filling& to, const Entry& entry) noexcept;
  Step add_route(std::uint32_t table, Family family, const snapshot::RouteEntry& entry) noexcept;
  bool open(Filling& filling) noexcept;
  void push(Filling& filling) noexcept;
  // Attributes first: routes in `body_` are about them.
  void push_all() noexcept;
  bool release(AttributeStore& attributes, std::uint64_t until_ns) noexcept;
  void finish(Outcome outcome) noexcept;

  HotTasks& tasks_;
  const std::uint64_t slice_ns_;
  Fd wake_;
  std::byte* memory_ = nullptr;          // kBuffers buffers
  std::uint64_t* referenced_ = nullptr;  // a bit for each attribute id that is in the snapshot, and held
  SpscSlots<std::uint32_t, kBuffers> free_;
  SpscSlots<Part, kBuffers> filled_;
  std::atomic<Outcome> outcome_{Outcome::Running};
  std::atomic<bool> abandoned_{false};
  std::atomic<bool> starved_{false};  // waits for a buffer
  std::optional<Part> taken_;         // cold

  // Hot.
  State state_ = State::Begin;
  snapshot::Header header_;
  snapshot::End end_;
  std::optional<Mark> unless_;
  std::uint64_t next_row_ = 0;
  Current current_;
  Filling attributes_, body_;
  std::array<Item, 1024> items_;
  std::size_t item_count_ = 0, next_item_ = 0;
  std::uint32_t routers_ = 0, views_ = 0, tables_ = 0;
  struct RouterSeen {
    std::uint64_t serial = 0;  // Router::serial, 0: none
    std::uint32_t id = 0;
  };
  std::vector<RouterSeen> routers_seen_;  // by row
  std::uint32_t highest_id_ = 0;          // of the bits in referenced_
  std::uint64_t release_word_ = 0;
  std::uint64_t longest_slice_ns_ = 0, slices_ = 0;
};

}  // namespace arancini::ingestd
