#include "ingestd/dump.h"

#include <algorithm>

#include "common/metrics/metric_list.h"
#include "ingestd/attribute_set.h"
#include "ingestd/batch_meta.h"
#include "ingestd/deadline.h"
#include "ingestd/event_writer.h"
#include "ingestd/router_event.h"

namespace arancini::ingestd {

namespace {

// Rows of views that one step looks at to find the next table.
constexpr std::size_t kRows = 2048;
// How soon it looks again for room, or whether the log has come so far: later the longer it waits.
constexpr std::uint64_t kRetryNs = 1'000'000;
constexpr std::uint64_t kLongestRetryNs = 100'000'000;
// How often it looks whether all is told that a dump is owed for.
constexpr std::uint64_t kOwedCheckNs = 1'000'000'000;

}  // namespace

Dump::Dump(ShardContext& context, PeerTable& peers, Barriers& barriers)
    : context_(context), peers_(peers), barriers_(barriers), asked_(context.ring.dump_answered()) {
  interval_changed();
  next_deadline_ns_ = next_due_ns_;
}

void Dump::interval_changed() {
  next_due_ns_ = context_.dump_interval_ns == 0 ? 0 : context_.now_ns + context_.dump_interval_ns;
}

void Dump::request_all(DumpWaiter* waiter) {
  peers_.each_router([&](const Router& router) {
    if (router.state != shm::RouterState::Refused) add(router, waiter);
  });
}

bool Dump::request(const IpAddress& router, DumpWaiter* waiter) {
  bool found = false;
  peers_.each_router([&](const Router& r) {
    if (r.address != router) return;
    add(r, waiter);
    found = true;
  });
  return found;
}

void Dump::add(const Router& router, DumpWaiter* waiter) {
  const RouterKey key{router.address, router.name};
  // One that has begun may be too old for whoever asks now.
  const auto begin = queue_.begin() + (state_ == State::Start ? 0 : 1);
  auto job = std::find_if(begin, queue_.end(), [&](const Job& j) { return j.router == key; });
  if (job == queue_.end()) job = queue_.insert(queue_.end(), Job{.router = key, .waiters = {}});
  if (waiter == nullptr) return;
  job->waiters.push_back(waiter);
  ++waiter->left;
}

void Dump::forget(const DumpWaiter& waiter) {
  for (Job& job : queue_) std::erase(job.waiters, &waiter);
}

void Dump::owe_all() {
  // With a grace time of 0 routers need a moment as well.
  owed_check_ns_ = context_.now_ns + std::max(context_.grace_ns, context_.resync_settle_ns);
  owed_latest_ns_ = owed_check_ns_ + context_.resync_timeout_ns;
  // One that was left unanswered comes at once, and this one after it.
  if (asked_ == context_.ring.dump_request()) context_.ring.set_dump_answered(asked_ - 1);
}

void Dump::answer(std::uint64_t request) {
  request_all(nullptr);
  if (queue_.empty()) {
    answered(request);
  } else {
    queue_.back().answers = request;  // all that were asked for end before this one does
  }
}

void Dump::answered(std::uint64_t request) {
  const bool more =
      owed_check_ns_ != 0 || std::ranges::any_of(queue_, [](const Job& j) { return j.answers.has_value(); });
  if (!more) context_.ring.set_dump_answered(request);
}

bool Dump::settled() {
  bool all = true;
  peers_.each_view([&all](PeerView& view) {
    all = all && !view.grace_active;
    view.each_table([&all](const RibTable& t) { all = all && !t.resync.active && !t.sweep.running.active; });
  });
  return all;
}

void Dump::ask_itself() {
  const std::uint64_t wanted = context_.ring.dump_request();
  if (wanted != asked_) {
    asked_ = wanted;
    answer(wanted);
    if (!queue_.empty()) {
      context_.log.warn("the log lacks what was told: the tables of {} routers are published again",
                        queue_.size());
    }
  }
  if (owed_check_ns_ != 0 && context_.now_ns >= owed_check_ns_) {
    if (context_.now_ns < owed_latest_ns_ && !settled()) {
      owed_check_ns_ = context_.now_ns + kOwedCheckNs;
    } else {
      owed_check_ns_ = 0;
      answer(wanted);
      context_.log.warn("the restore was not complete: the tables of {} routers are published again",
                        queue_.size());
    }
  }
  if (next_due_ns_ != 0 && context_.now_ns >= next_due_ns_) {
    next_due_ns_ = context_.now_ns + context_.dump_interval_ns;
    if (queue_.empty()) request_all(nullptr);
  }
}

Dump::Progress Dump::run() {
  ask_itself();
  const Progress progress = queue_.empty() ? Progress::Idle : work();
  next_deadline_ns_ = sooner(next_due_ns_, owed_check_ns_);
  if (progress != Progress::Wait) {
    waits_since_ns_ = 0;
    return progress;
  }
  if (waits_since_ns_ == 0) waits_since_ns_ = context_.now_ns;
  const std::uint64_t waited = context_.now_ns - waits_since_ns_;
  const std::uint64_t retry = context_.now_ns + std::clamp(waited / 16, kRetryNs, kLongestRetryNs);
  next_deadline_ns_ = sooner(next_deadline_ns_, retry);
  return progress;
}

Dump::Progress Dump::work() {
  Router* const router = peers_.find_router(queue_.front().router);
  if (router == nullptr) {  // gone before its turn
    finished();
    return Progress::More;
  }
  switch (state_) {
    case State::Start:
      if (!has_room() || !write_start(*router)) return Progress::Wait;
      router->dumping = true;
      state_ = State::Mark;
      return Progress::Wait;
    case State::Mark:
      // What is written from here on lies behind the event's Arancini-After. Not sooner: a publisher that
      // begins anew would find it in the stream before it has sent the event.
      if (raw(context_.ring.witnessed_in_log()) < raw(mark_)) return Progress::Wait;
      state_ = State::Tables;
      row_ = table_index_ = 0;
      table_ = nullptr;
      return Progress::More;
    case State::Tables: return step(*router);
    case State::End:
      if (!write_end(*router)) return Progress::Wait;
      router->dumping = false;
      for (DumpWaiter* waiter : queue_.front().waiters) {
        ++waiter->routers;
        waiter->routes += routes_;
        if (waiter->start_event == 0) waiter->start_event = start_event_;
        waiter->end_event = context_.ring.next_event_sequence() - 1;
      }
      finished();
      return Progress::More;
  }
  return Progress::Idle;
}

void Dump::finished() {
  const Job job = std::move(queue_.front());
  queue_.pop_front();
  for (DumpWaiter* waiter : job.waiters) --waiter->left;
  if (job.answers) answered(*job.answers);
  state_ = State::Start;
}

bool Dump::write_start(const Router& router) {
  auto event = about_router<schema::EventFields>(router, schema::EventKind::DumpStart);
  if (!write_event(context_, router.row, event)) return false;
  mark_ = context_.ring.tail();
  start_event_ = event.sequence;
  start_realtime_ns_ = context_.realtime_ns;
  routes_ = 0;
  return true;
}

bool Dump::write_end(const Router& router) {
  auto event = about_router<schema::EventFields>(router, schema::EventKind::DumpEnd);
  event.since_ns = start_realtime_ns_;
  event.until_ns = context_.realtime_ns;
  event.counters = {{"routes", routes_}};
  event.details = {{"start", std::to_string(start_event_)}};
  if (!write_event(context_, router.row, event)) return false;
  context_.stats.add(IngestMetric::Dumps);
  return true;
}

RibTable* Dump::table_at_cursor() {
  if (table_ == nullptr) return nullptr;
  PeerView* const view = peers_.view_at(row_);
  RibTable* const table = view == nullptr ? nullptr : view->tables[table_index_].get();
  // Of another one in its place all was told since the dump began.
  return table == table_ ? table : nullptr;
}

void Dump::next_table(const Router& router) {
  for (std::size_t n = 0; n < kRows && row_ < peers_.view_rows(); ++n, ++row_, table_index_ = 0) {
    PeerView* const view = peers_.view_at(row_);
    if (view == nullptr || view->peer.router != &router) continue;
    for (; table_index_ < view->tables.size(); ++table_index_) {
      const RibTable* const table = view->tables[table_index_].get();
      if (table == nullptr || table->routes.size() + table->untold.size() == 0) continue;
      table_ = table;
      cursor_ = WalkCursor{};
      part_left_ = false;
      return;
    }
  }
  if (row_ >= peers_.view_rows()) state_ = State::End;
}

Dump::Progress Dump::step(const Router& router) {
  RibTable* const table = table_at_cursor();
  if (table == nullptr || (cursor_.done && !part_left_)) {
    if (table_ != nullptr) ++table_index_;
    table_ = nullptr;
    next_table(router);
    return Progress::More;
  }
  if (!has_room()) return Progress::Wait;
  const auto routes = part_left_ ? walk_.again(*table, taken_) : walk_.next(*table, cursor_);
  taken_ = tell(*table, routes);
  part_left_ = taken_ < routes.size();
  return part_left_ ? Progress::Wait : Progress::More;
}

std::uint32_t Dump::tell(RibTable& table, std::span<const ToldRoute> routes) {
  PeerView& view = table.view;
  if (routes.empty()) return 0;
  // Restored, and not told by this ring yet.
  if (!view.told_asn && !barriers_.separate_identities(view)) return 0;
  schema::BatchMeta meta = batch_meta(context_, view);
  if (*view.told_asn != view.asn) {
    meta.peer_asn = *view.told_asn;
    meta.peer_bgp_id = view.told_bgp_id;
  }
  meta.router_port = view.router_port;
  meta.family = table.family;
  meta.announced = true;
  meta.synthetic = true;
  meta.reason = Reason::Dump;
  std::uint32_t done = 0;
  while (done < routes.size()) {
    const AttributeSet set(context_.attributes.parts(routes[done].attr), table.family);
    meta.via_mp = set.via_mp;
    const schema::BatchAttributes attributes{.attributes = &set.attributes, .next_hop = set.next_hop};
    SliceWriter writer(context_.ring, meta, attributes);
    // Not 0: a route that no record can hold is never in a table.
    const std::uint32_t limit = std::max(writer.max_routes(), 1U);
    std::uint32_t last = done;
    while (last < routes.size() && last - done < limit && routes[last].attr == routes[done].attr) ++last;
    if (!writer.reserve(last - done)) break;
    for (; done < last; ++done) writer.add(routes[done].prefix);
    (void)writer.commit();
    context_.stats.add(IngestMetric::RingRecords);
  }
  if (done > 0) {
    context_.stats.add(IngestMetric::UpdatesAnnounced, done);
    context_.stats.add(IngestMetric::UpdatesDumped, done);
    view.published += done;
    view.peer.router->published += done;
    routes_ += done;
    peers_.touch(view);
  }
  return done;
}

}  // namespace arancini::ingestd
