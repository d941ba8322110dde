#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/base/types.h"

// Checks the identity contract (DESIGN 4.3): per writer every sequence from 1 once, per subject in rising
// order.
namespace arancini::tools {

// Sequences seen, as ranges: subjects interleave, so a hole may still close; memory follows the holes, not
// the updates.
class SequenceSet {
 public:
  using Range = std::pair<std::uint64_t, std::uint64_t>;  // first, last

  // False if it was there already.
  bool add(std::uint64_t sequence);
  [[nodiscard]] bool empty() const { return ranges_.empty(); }
  [[nodiscard]] std::uint64_t first() const { return ranges_.begin()->first; }
  [[nodiscard]] std::uint64_t last() const { return ranges_.rbegin()->second; }
  [[nodiscard]] std::uint64_t size() const { return size_; }
  // Holes in [from, to], lowest first, at most `limit`.
  [[nodiscard]] std::vector<Range> holes(std::uint64_t from, std::uint64_t to, std::size_t limit) const;
  // How many of [from, to] are not there.
  [[nodiscard]] std::uint64_t missing(std::uint64_t from, std::uint64_t to) const;

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;  // first → last, disjoint, not adjacent
  std::uint64_t size_ = 0;
};

class SequenceAudit {
 public:
  struct Writer {
    WriterId id;
    std::optional<std::uint32_t> shard;
    std::string instance;
    SequenceSet sequences;
    std::uint64_t records = 0;
    std::uint64_t duplicates = 0;
    std::uint64_t order_violations = 0;
    std::unordered_map<std::string, std::uint64_t> last_of_subject;

    std::optional<std::uint64_t> judged_to;

    // Missing sequences from 1, or from the first seen when `beginning_discarded`, to the last that is
    // judged.
    [[nodiscard]] std::uint64_t gaps(bool beginning_discarded) const;
    [[nodiscard]] std::vector<SequenceSet::Range> holes(bool beginning_discarded, std::size_t limit) const;
    // Sequence 1 is not there.
    [[nodiscard]] bool headless() const {
      return !sequences.empty() && judged() > 0 && sequences.first() > 1;
    }

   private:
    [[nodiscard]] std::uint64_t judged() const;
  };

  // Updates must come in stream order. `subject` is that of their message.
  void add(const WriterId& writer, std::string_view subject, std::uint64_t sequence);
  // Holes behind what is there now are not judged: on a live stream some messages are always still on their
  // way.
  void judge_up_to_here();
  // What the message's headers say about the writer; shown, not judged.
  void describe(const WriterId& writer, std::optional<std::uint32_t> shard, std::string_view instance);

  [[nodiscard]] const std::map<WriterId, Writer>& writers() const { return writers_; }
  [[nodiscard]] std::uint64_t records() const;
  [[nodiscard]] std::uint64_t gaps(bool beginning_discarded) const;
  [[nodiscard]] std::uint64_t duplicates() const;
  [[nodiscard]] std::uint64_t order_violations() const;

 private:
  Writer& writer(const WriterId& id);

  std::map<WriterId, Writer> writers_;
  Writer* recent_ = nullptr;
  bool bounded_ = false;
};

}  // namespace arancini::tools
