#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "publishd/drain.h"

// What the drain knows of one ring; seen by drain*.cpp only.
namespace arancini::publishd {

struct Drain::Ring {
  std::uint32_t slot = 0;
  std::string name;
  std::unique_ptr<RecordSource> source;
  std::string writer_hex;
  bool first = false;  // before the rings without

  RingPosition head{};     // released up to here
  RingPosition scanned{};  // read up to here
  // Read, and neither in a lane nor wholly taken: waits for room (where its memory is not stable), or is a
  // barrier for all.
  bool has_record = false;
  RingRecord record;

  std::vector<std::unique_ptr<Lane>> lanes;  // by router; null: nothing came from it
  std::vector<Lane*> listed;                 // that may hold the head back
  // Lane + 1 of the router in each row of the writer, which is all that a barrier names. 0: none since the
  // session began.
  std::vector<std::uint32_t> lane_of_row;
  static constexpr std::uint32_t kSeveral = ~std::uint32_t{0};
  std::vector<std::uint64_t> sent;  // by subject: the last sequence that was ever sent

  // What the stream held when the session began: updates up to there are skipped. Cleared once the head is
  // past it.
  std::unordered_map<std::string, Sequence> stored;
  Sequence stored_max{};
  bool base_pending = false;
  std::optional<RingPosition> base_end;  // the records that the stream held end here

  bool known = false;    // the present session knows what the stream has of it
  bool empty = false;    // at the last look
  bool corrupt = false;  // not read any more; leaves when nothing of it is under way
  bool too_large_told = false;

  void list(Lane& lane) {
    if (lane.listed) return;
    lane.listed = true;
    listed.push_back(&lane);
  }
  // Nothing that was read is still open.
  [[nodiscard]] bool settled() const {
    return !has_record &&
           std::all_of(listed.begin(), listed.end(), [](const Lane* l) { return !l->open_from(); });
  }
  [[nodiscard]] RingPosition releasable() {
    RingPosition to = scanned;
    if (has_record) to = std::min(to, record.begin);
    std::erase_if(listed, [&](Lane* l) {
      const auto open = l->open_from();
      if (open) to = std::min(to, *open);
      l->listed = open.has_value();
      return !open;
    });
    return to;
  }
  // Nothing is known of what is under way any more.
  void restart() {
    for (const auto& l : lanes) {
      if (l != nullptr) {
        l->reset();
        l->listed = false;
      }
    }
    listed.clear();
    std::fill(lane_of_row.begin(), lane_of_row.end(), 0U);
    has_record = false;
    source->rewind();
    scanned = head = source->head();
    stored.clear();
    stored_max = Sequence{0};
    base_pending = false;
    base_end.reset();
    corrupt = false;  // what is corrupt will be found so again
  }
};

}  // namespace arancini::publishd
