#include "ingestd/restore_plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace arancini::ingestd {

namespace {

// Which of two is newer, about the same routers.
auto age(const KnownSnapshot& s) {
  return std::tuple(s.header.log_sequence, s.header.number, s.header.started_realtime_ns);
}

}  // namespace

std::optional<std::size_t> RestorePlan::base_of(const IpAddress& router) const {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < snapshots.size(); ++i) {
    const snapshot::Header& header = snapshots[i].header;
    if (raw(owner_of(router, header.shard_count)) != header.shard) continue;
    if (!best || age(snapshots[i]) > age(snapshots[*best])) best = i;
  }
  return best;
}

std::uint64_t likely_log(std::uint64_t of_ring, std::span<const KnownSnapshot> known) {
  if (of_ring != 0) return of_ring;
  const KnownSnapshot* last = nullptr;
  for (const KnownSnapshot& s : known) {
    if (s.header.log_identity == 0) continue;
    if (last == nullptr || s.header.started_realtime_ns > last->header.started_realtime_ns) last = &s;
  }
  return last == nullptr ? 0 : last->header.log_identity;
}

RestorePlan plan_restore(const RestoreSubject& subject, std::span<const KnownSnapshot> known,
                         std::uint64_t identity) {
  // The newest of each shard of each layout.
  std::map<std::pair<std::uint32_t, std::uint32_t>, KnownSnapshot> newest;
  for (const KnownSnapshot& s : known) {
    const snapshot::Header& h = s.header;
    if (identity == 0 || h.log_identity != identity || h.shard_count == 0 || h.shard >= h.shard_count)
      continue;
    const auto [entry, added] = newest.try_emplace({h.shard_count, h.shard}, s);
    if (!added && age(s) > age(entry->second)) entry->second = s;
  }
  // From where on the log must be read: the own snapshot covers all routers, and so does every layout of
  // which all shards have one.
  std::optional<std::uint64_t> start;
  const auto own = newest.find({subject.shard_count, subject.shard});
  if (own != newest.end()) start = own->second.header.log_sequence;
  std::set<std::uint32_t> counts;
  for (const auto& [key, s] : newest) counts.insert(key.first);
  for (const std::uint32_t count : counts) {
    std::uint64_t lowest = ~std::uint64_t{0};
    for (std::uint32_t k = 0; k < count; ++k) {
      const auto found = newest.find({count, k});
      lowest = std::min(lowest, found == newest.end() ? 0 : found->second.header.log_sequence);
    }
    if (lowest != 0 && (!start || lowest > *start)) start = lowest;
  }

  RestorePlan plan;
  if (!start) return plan;
  plan.log_identity = identity;
  plan.log_sequence = *start;
  // One that ends before is of no use: what follows it is not read.
  for (const auto& [key, s] : newest) {
    if (s.header.log_sequence >= *start) plan.snapshots.push_back(s);
  }
  if (own != newest.end() && subject.log_identity == identity) {
    const snapshot::Header& h = own->second.header;
    const bool holds_all = h.writer == subject.writer && h.ring_position >= subject.in_log &&
                           raw(h.ring_position) != 0 && subject.layout_began_ns != 0 &&
                           h.started_realtime_ns > subject.layout_began_ns;
    if (holds_all) plan.ring_position = h.ring_position;
  }
  return plan;
}

}  // namespace arancini::ingestd
