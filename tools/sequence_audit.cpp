#include "tools/sequence_audit.h"

#include <algorithm>

namespace arancini::tools {

bool SequenceSet::add(std::uint64_t sequence) {
  auto after = ranges_.upper_bound(sequence);
  auto before = after == ranges_.begin() ? ranges_.end() : std::prev(after);
  if (before != ranges_.end() && sequence <= before->second) return false;
  ++size_;
  const bool joins_before = before != ranges_.end() && before->second + 1 == sequence;
  const bool joins_after = after != ranges_.end() && sequence + 1 == after->first;
  if (joins_before) {
    before->second = joins_after ? after->second : sequence;
    if (joins_after) ranges_.erase(after);
  } else if (joins_after) {
    const std::uint64_t last = after->second;
    ranges_.erase(after);
    ranges_.emplace(sequence, last);
  } else {
    ranges_.emplace(sequence, sequence);
  }
  return true;
}

std::vector<SequenceSet::Range> SequenceSet::holes(std::uint64_t from, std::uint64_t to,
                                                   std::size_t limit) const {
  std::vector<Range> out;
  for (auto r = ranges_.begin(); r != ranges_.end() && out.size() < limit && from <= to; ++r) {
    if (r->second < from) continue;
    if (r->first > from) out.emplace_back(from, std::min(r->first - 1, to));
    from = r->second + 1;
  }
  if (from <= to && out.size() < limit && (out.empty() || out.back().second < to)) out.emplace_back(from, to);
  return out;
}

std::uint64_t SequenceSet::missing(std::uint64_t from, std::uint64_t to) const {
  if (from > to) return 0;
  std::uint64_t there = 0;
  for (const auto& [first, last] : ranges_) {
    if (first > to) break;
    if (last >= from) there += std::min(last, to) - std::max(first, from) + 1;
  }
  return to - from + 1 - there;
}

std::uint64_t SequenceAudit::Writer::judged() const {
  if (sequences.empty()) return 0;
  return judged_to ? std::min(*judged_to, sequences.last()) : sequences.last();
}

std::uint64_t SequenceAudit::Writer::gaps(bool beginning_discarded) const {
  return sequences.empty() ? 0 : sequences.missing(beginning_discarded ? sequences.first() : 1, judged());
}

std::vector<SequenceSet::Range> SequenceAudit::Writer::holes(bool beginning_discarded,
                                                             std::size_t limit) const {
  if (sequences.empty()) return {};
  return sequences.holes(beginning_discarded ? sequences.first() : 1, judged(), limit);
}

void SequenceAudit::judge_up_to_here() {
  bounded_ = true;
  for (auto& [id, w] : writers_) w.judged_to = w.sequences.empty() ? 0 : w.sequences.last();
}

SequenceAudit::Writer& SequenceAudit::writer(const WriterId& id) {
  if (recent_ == nullptr || recent_->id != id) {
    const auto [it, fresh] = writers_.try_emplace(id);
    recent_ = &it->second;
    if (fresh) {
      recent_->id = id;
      if (bounded_) recent_->judged_to = 0;
    }
  }
  return *recent_;
}

void SequenceAudit::add(const WriterId& id, std::string_view subject, std::uint64_t sequence) {
  Writer& w = writer(id);
  ++w.records;
  const bool fresh = w.sequences.add(sequence);
  std::uint64_t& last = w.last_of_subject[std::string(subject)];
  if (!fresh) {
    ++w.duplicates;
  } else if (sequence < last) {
    ++w.order_violations;
  }
  if (sequence > last) last = sequence;
}

void SequenceAudit::describe(const WriterId& id, std::optional<std::uint32_t> shard,
                             std::string_view instance) {
  Writer& w = writer(id);
  if (shard) w.shard = shard;
  if (!instance.empty()) w.instance = instance;
}

std::uint64_t SequenceAudit::records() const {
  std::uint64_t n = 0;
  for (const auto& [id, w] : writers_) n += w.records;
  return n;
}
std::uint64_t SequenceAudit::gaps(bool beginning_discarded) const {
  std::uint64_t n = 0;
  for (const auto& [id, w] : writers_) n += w.gaps(beginning_discarded);
  return n;
}
std::uint64_t SequenceAudit::duplicates() const {
  std::uint64_t n = 0;
  for (const auto& [id, w] : writers_) n += w.duplicates;
  return n;
}
std::uint64_t SequenceAudit::order_violations() const {
  std::uint64_t n = 0;
  for (const auto& [id, w] : writers_) n += w.order_violations;
  return n;
}

}  // namespace arancini::tools
