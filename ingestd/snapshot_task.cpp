#include "ingestd/snapshot_task.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "ingestd/broken.h"
#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

namespace {

constexpr std::size_t kReferencedBytes = std::size_t{snapshot::kMaxAttributesId} / 8 + 8;
// Between two looks at the clock.
constexpr std::size_t kItemsAtOnce = 32;
constexpr std::size_t kPrefetch = 4;
constexpr unsigned kPathsShift = 6;  // RouteState::flags, see rib_shard.cpp

// Real time in every test: how long a slice may take has nothing to do with what is told.
std::uint64_t monotonic_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(t.tv_nsec);
}

void* map(std::size_t bytes, int flags) {
  void* const p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (p == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap of snapshot buffers");
  return p;
}

template <std::size_t N>
std::string_view text_of(const std::array<char, N>& field) {
  return {field.data(), ::strnlen(field.data(), N)};
}

}  // namespace

SnapshotTask::SnapshotTask(HotTasks& tasks, std::uint32_t router_rows, std::uint64_t slice_ns)
    : tasks_(tasks),
      slice_ns_(slice_ns),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      routers_seen_(router_rows) {
  if (!wake_) throw std::system_error(errno, std::generic_category(), "eventfd");
  memory_ = static_cast<std::byte*>(map(kBuffers * kBufferBytes, MAP_POPULATE));
  // Pages come as ids are used: one for 32768 of them.
  referenced_ = static_cast<std::uint64_t*>(map(kReferencedBytes, MAP_NORESERVE));
}

SnapshotTask::~SnapshotTask() {
  if (memory_ != nullptr) ::munmap(memory_, kBuffers * kBufferBytes);
  if (referenced_ != nullptr) ::munmap(referenced_, kReferencedBytes);
}

void SnapshotTask::prepare(std::uint32_t shard, std::uint32_t shard_count, std::uint64_t number,
                           const std::optional<Mark>& unless) {
  free_.clear();
  filled_.clear();
  for (std::uint32_t i = 0; i < kBuffers; ++i) (void)free_.push(i);
  taken_.reset();
  abandoned_.store(false, std::memory_order_relaxed);
  starved_.store(false, std::memory_order_relaxed);
  outcome_.store(Outcome::Running, std::memory_order_relaxed);
  state_ = State::Begin;
  header_ = {};
  header_.shard = shard;
  header_.shard_count = shard_count;
  header_.number = number;
  end_ = {};
  unless_ = unless;
  next_row_ = 0;
  current_ = {};
  attributes_.open = body_.open = false;
  item_count_ = next_item_ = 0;
  routers_ = views_ = tables_ = 0;
  for (RouterSeen& seen : routers_seen_) seen.serial = 0;
  highest_id_ = 0;
  release_word_ = 0;
  longest_slice_ns_ = slices_ = 0;
}

std::span<std::byte> SnapshotTask::take() {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto n = ::read(wake_.get(), &count, sizeof count);
  taken_ = filled_.pop();
  if (!taken_) return {};
  return {memory_ + taken_->buffer * kBufferBytes, taken_->bytes};
}

void SnapshotTask::give_back() {
  if (!taken_) return;
  (void)free_.push(taken_->buffer);
  taken_.reset();
  if (starved_.exchange(false, std::memory_order_acq_rel)) tasks_.wake();
}

void SnapshotTask::abandon() {
  abandoned_.store(true, std::memory_order_release);
  tasks_.wake();
}

HotTask::Progress SnapshotTask::run(Shard::Impl& shard) noexcept {
  const std::uint64_t began = monotonic_ns();
  const Progress progress = slice(shard);
  longest_slice_ns_ = std::max(longest_slice_ns_, monotonic_ns() - began);
  ++slices_;
  return progress;
}

void SnapshotTask::finish(Outcome outcome) noexcept {
  if (outcome == Outcome::Complete) push_all();
  state_ = State::Release;
  outcome_.store(outcome,
                 std::memory_order_release);  // pairs with outcome(): header, end and parts are there
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(wake_.get(), &one, sizeof one);
}

HotTask::Progress SnapshotTask::slice(Shard::Impl& shard) noexcept {
  if (cancelled()) {
    if (state_ == State::Begin || state_ == State::Views) finish(Outcome::Abandoned);
    (void)release(shard.context.attributes, UINT64_MAX);
    state_ = State::Done;
    return Progress::Done;
  }
  const std::uint64_t until_ns = monotonic_ns() + slice_ns_;
  if (state_ == State::Begin && begin(shard)) state_ = State::Views;
  if (state_ == State::Views) {
    if (abandoned_.load(std::memory_order_acquire)) {
      finish(Outcome::Abandoned);
      return Progress::More;
    }
    switch (walk(shard, until_ns)) {
      case Step::More: return Progress::More;
      case Step::NoBuffer:
        // If one comes back right now the loop looks again in a millisecond.
        starved_.store(true, std::memory_order_release);
        return Progress::Wait;
      case Step::TooLarge: finish(Outcome::TooLarge); return Progress::More;
    }
  }
  if (state_ == State::Release && release(shard.context.attributes, until_ns)) state_ = State::Done;
  return state_ == State::Done ? Progress::Done : Progress::More;
}

bool SnapshotTask::begin(Shard::Impl& shard) noexcept {
  const RingWriter& ring = shard.context.ring;
  const RingWriter::LogMark log = ring.log_mark();
  header_.writer = ring.writer_id();
  header_.ring_position = ring.tail();
  header_.next_sequence = ring.next_sequence();
  header_.log_identity = log.identity;
  header_.log_sequence = log.sequence;
  header_.started_realtime_ns = shard.context.realtime_ns;
  // A log that began anew has its mark already, and not yet what the tables say was told.
  if (shard.restoring || ring.owes_dump()) {
    finish(Outcome::Restoring);
    return false;
  }
  if (unless_ && *unless_ == begin_mark()) {
    finish(Outcome::Unchanged);
    return false;
  }
  return true;
}

bool SnapshotTask::open(Filling& filling) noexcept {
  if (filling.open) return true;
  const auto buffer = free_.pop();
  if (!buffer) return false;
  filling.buffer = *buffer;
  filling.builder.reset({memory_ + *buffer * kBufferBytes, kBufferBytes});
  filling.open = true;
  return true;
}

void SnapshotTask::push(Filling& filling) noexcept {
  if (!filling.open || filling.builder.empty()) return;
  const auto bytes = static_cast<std::uint32_t>(filling.builder.blocks().size());
  (void)filled_.push({filling.buffer, bytes});  // there is room for every buffer
  filling.open = false;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(wake_.get(), &one, sizeof one);
}

void SnapshotTask::push_all() noexcept {
  push(attributes_);
  push(body_);
}

template <class Entry>
SnapshotTask::Step SnapshotTask::add(Filling& to, const Entry& entry) noexcept {
  if (!open(to)) return Step::NoBuffer;
  if (to.builder.add(entry)) return Step::More;
  if (to.builder.empty()) return Step::TooLarge;
  if (&to == &attributes_) {
    push(attributes_);
  } else {
    push_all();
  }
  if (!open(to)) return Step::NoBuffer;
  return to.builder.add(entry) ? Step::More : Step::TooLarge;
}

SnapshotTask::Step SnapshotTask::add_route(std::uint32_t table, Family family,
                                           const snapshot::RouteEntry& entry) noexcept {
  if (!open(body_)) return Step::NoBuffer;
  if (body_.builder.add(table, family, entry)) return Step::More;
  push_all();
  if (!open(body_)) return Step::NoBuffer;
  return body_.builder.add(table, family, entry) ? Step::More : Step::TooLarge;
}

SnapshotTask::Step SnapshotTask::view_entry(const PeerView& view) noexcept {
  const Router& router = *view.peer.router;
  RouterSeen& seen = routers_seen_[router.row];
  if (seen.serial != router.serial) {
    const Step step = add(body_, snapshot::RouterEntry{.id = routers_,
                                                       .address = router.address,
                                                       .name = router.name,
                                                       .sys_name = text_of(router.sys_name),
                                                       .sys_descr = text_of(router.sys_descr)});
    if (step != Step::More) return step;
    seen = {router.serial, routers_++};
  }
  snapshot::ViewEntry entry;
  entry.id = views_;
  entry.router = seen.id;
  entry.peer_type = view.peer.key.type;
  entry.view = view.view;
  entry.distinguisher = view.peer.key.distinguisher;
  entry.address = view.peer.key.address;
  entry.told = view.told_asn.has_value();
  entry.asn = view.told_asn.value_or(view.asn);
  entry.bgp_id = entry.told ? view.told_bgp_id : view.bgp_id;
  entry.router_port = view.router_port;
  const Step step = add(body_, entry);
  if (step == Step::More) current_.id = views_++;
  return step;
}

SnapshotTask::Step SnapshotTask::walk(Shard::Impl& shard, std::uint64_t until_ns) noexcept {
  PeerTable& peers = shard.peers;
  for (bool first = true;; first = false) {
    // Also of a view that has gone since: its attributes are counted on.
    if (next_item_ < item_count_) {
      const Step step = write_items(shard, until_ns);
      if (step != Step::More || next_item_ < item_count_) return step;
      first = false;
    }
    if (!first && monotonic_ns() >= until_ns) return Step::More;
    if (next_row_ == peers.view_rows()) {
      end_.ring_position = shard.context.ring.tail();
      end_.next_sequence = shard.context.ring.next_sequence();
      finish(Outcome::Complete);
      return Step::More;
    }
    const PeerView* view = peers.view_at(next_row_);
    // Nothing is told of a view that goes, and of one that came since then nothing was told.
    if (view != nullptr && current_.active &&
        !(view->peer.key == current_.key && view->peer.router->serial == current_.router &&
          view->view == current_.view)) {
      view = nullptr;
    }
    if (view == nullptr) {
      ++next_row_;
      current_ = {};
      continue;
    }
    if (!current_.active) {
      current_.active = true;
      current_.key = view->peer.key;
      current_.router = view->peer.router->serial;
      current_.view = view->view;
    }
    if (!current_.began) {
      if (const Step step = view_entry(*view); step != Step::More) return step;
      current_.began = true;
    }
    const RibTable* table = view->tables[current_.table].get();
    const bool is_empty = table == nullptr || (table->routes.size() == 0 && table->untold.size() == 0);
    if (current_.at_end || is_empty) {
      ++current_.table;
      current_.table_began = current_.at_end = false;
      current_.position = 0;
      if (current_.table == view->tables.size()) {
        ++next_row_;
        current_ = {};
      }
      continue;
    }
    if (!current_.table_began) {
      const Step step = add(body_, snapshot::TableEntry{.id = tables_,
                                                        .view = current_.id,
                                                        .family = table->family,
                                                        .without_ids = table->without_ids});
      if (step != Step::More) return step;
      current_.table_id = tables_++;
      current_.family = table->family;
      current_.table_began = true;
    }
    collect(shard, *table);
  }
}

void SnapshotTask::collect(Shard::Impl& shard, const RibTable& table) noexcept {
  const std::uint64_t from = current_.position;
  // 0 is behind all others.
  const auto sooner = [](std::uint64_t a, std::uint64_t b) { return a - 1 < b - 1 ? a : b; };
  std::uint64_t to = sooner(table.routes.segment_end(from), table.untold.segment_end(from));
  while (!collect_range(table, from, to)) {
    // A segment that could not split.
    const std::uint64_t half = (to - 1 - from) / 2;
    if (half == 0) broken("too many routes of one hash");
    to = from + half;
  }
  current_.position = to;
  current_.at_end = to == 0;

  AttributeStore& attributes = shard.context.attributes;
  for (std::size_t i = 0; i < item_count_; ++i) {
    Item& item = items_[i];
    const std::uint32_t id = raw(item.attr);
    std::uint64_t& word = referenced_[id / 64];
    const std::uint64_t bit = std::uint64_t{1} << (id % 64);
    item.fresh = (word & bit) == 0;
    if (!item.fresh) continue;
    word |= bit;
    highest_id_ = std::max(highest_id_, id);
    attributes.prefetch(item.attr);
  }
  for (std::size_t i = 0; i < item_count_; ++i) {
    if (items_[i].fresh) attributes.ref(items_[i].attr);
  }
}

// Both tables of the range in one go: a route can move between them without a record, when what was not told
// is withdrawn, or a withdraw that was not told is announced again.
bool SnapshotTask::collect_range(const RibTable& table, std::uint64_t from, std::uint64_t to) noexcept {
  item_count_ = next_item_ = 0;
  const auto put = [this](const Prefix& prefix, AttrId attr, int paths) {
    if (item_count_ == items_.size()) return false;
    items_[item_count_++] = {prefix, attr, static_cast<std::uint8_t>(paths), false};
    return true;
  };
  const bool fits = table.routes.visit(from, to, [&](const Prefix& prefix, const RouteState& route) {
    if ((route.flags & kRouteDirty) != 0) return true;  // its entry says what was told
    return put(prefix, route.attr, route.flags >> kPathsShift);
  });
  if (!fits || table.untold.size() == 0) return fits;
  return table.untold.visit(from, to, [&](const Prefix& prefix, const RouteState& entry) {
    if ((entry.flags & kRouteTold) == 0) return true;
    const RouteState* route = table.routes.find(prefix);
    // One that is gone may come back in the form that it had.
    const int paths = route != nullptr                           ? route->flags >> kPathsShift
                      : table.without_ids && prefix.path_id == 0 ? 1
                                                                 : 0;
    return put(prefix, entry.attr, paths);
  });
}

SnapshotTask::Step SnapshotTask::write_items(Shard::Impl& shard, std::uint64_t until_ns) noexcept {
  const AttributeStore& attributes = shard.context.attributes;
  while (next_item_ < item_count_) {
    if (const std::size_t ahead = next_item_ + kPrefetch; ahead < item_count_ && items_[ahead].fresh)
      prefetch_line(attributes.bytes(items_[ahead].attr).data());
    Item& item = items_[next_item_];
    if (item.fresh) {
      const AttrKey parts = attributes.parts(item.attr);
      const Step step = add(attributes_, snapshot::AttributesEntry{.id = raw(item.attr),
                                                                   .next_hop = parts.next_hop,
                                                                   .flags = parts.flags,
                                                                   .attributes = parts.attributes});
      if (step != Step::More) return step;
      item.fresh = false;
    }
    const Step step =
        add_route(current_.table_id, current_.family, {item.prefix, raw(item.attr), item.paths});
    if (step != Step::More) return step;
    ++end_.routes;
    if (++next_item_ % kItemsAtOnce == 0 && monotonic_ns() >= until_ns) break;
  }
  return Step::More;
}

bool SnapshotTask::release(AttributeStore& attributes, std::uint64_t until_ns) noexcept {
  for (bool first = true; release_word_ <= highest_id_ / 64; ++release_word_) {
    std::uint64_t& word = referenced_[release_word_];
    if (word == 0) continue;
    if (!std::exchange(first, false) && monotonic_ns() >= until_ns) return false;
    while (word != 0) {
      const auto bit = static_cast<unsigned>(std::countr_zero(word));
      word &= word - 1;
      attributes.unref(AttrId{static_cast<std::uint32_t>(release_word_ * 64 + bit)});
    }
  }
  return true;
}

}  // namespace arancini::ingestd
