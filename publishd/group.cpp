#include "publishd/group.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace arancini::publishd {

namespace {
constexpr std::size_t kSpareGroups = 1024;
constexpr std::size_t kSpareBufferBytes = 1024UL * 1024;
constexpr std::size_t kFirstBufferBytes = 4096;
}  // namespace

GroupTable::~GroupTable() {
  close_all();
}

Group* GroupTable::find(std::uint32_t ring, SubjectId subject) const {
  if (ring >= rings_.size() || raw(subject) >= rings_[ring].by_subject.size()) return nullptr;
  return rings_[ring].by_subject[raw(subject)];
}

Group& GroupTable::open(std::uint32_t ring, SubjectId subject) {
  if (ring >= rings_.size()) rings_.resize(ring + 1);
  PerRing& r = rings_[ring];
  if (raw(subject) >= r.by_subject.size()) r.by_subject.resize(std::bit_ceil(std::size_t{raw(subject)} + 1));
  std::unique_ptr<Group> fresh;
  if (spare_.empty()) {
    fresh = std::make_unique<Group>();
  } else {
    fresh = std::move(spare_.back());
    spare_.pop_back();
  }
  Group* g = fresh.release();  // owned by the table's links until close()
  g->ring = ring;
  g->subject = subject;
  g->count = 0;
  g->bytes = 0;
  g->next = nullptr;
  g->previous = r.newest;
  (r.newest != nullptr ? r.newest->next : r.oldest) = g;
  r.newest = g;
  r.by_subject[raw(subject)] = g;
  ++open_groups_;
  return *g;
}

std::byte* GroupTable::extend(Group& group, std::size_t bytes) {
  const std::size_t need = group.bytes + bytes;
  if (need > group.capacity) {
    const std::size_t capacity = std::bit_ceil(std::max(need, kFirstBufferBytes));
    std::unique_ptr<std::byte[]> bigger(new std::byte[capacity]);
    if (group.bytes > 0) std::memcpy(bigger.get(), group.buffer.get(), group.bytes);
    group.buffer = std::move(bigger);
    group.capacity = capacity;
  }
  std::byte* at = group.buffer.get() + group.bytes;
  group.bytes = need;
  open_bytes_ += bytes;
  return at;
}

void GroupTable::close(Group& group) {
  PerRing& r = rings_[group.ring];
  r.by_subject[raw(group.subject)] = nullptr;
  (group.previous != nullptr ? group.previous->next : r.oldest) = group.next;
  (group.next != nullptr ? group.next->previous : r.newest) = group.previous;
  --open_groups_;
  open_bytes_ -= group.bytes;
  std::unique_ptr<Group> owned(&group);
  if (spare_.size() < kSpareGroups && group.capacity <= kSpareBufferBytes) spare_.push_back(std::move(owned));
}

void GroupTable::close_all() {
  for (PerRing& r : rings_) {
    // close() moves `oldest` on before it frees the group: the oldest has no predecessor.
    while (r.oldest != nullptr) close(*r.oldest);  // NOLINT(clang-analyzer-cplusplus.NewDelete)
  }
}

Group* GroupTable::oldest(std::uint32_t ring) const {
  return ring < rings_.size() ? rings_[ring].oldest : nullptr;
}

}  // namespace arancini::publishd
