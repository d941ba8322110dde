#include "ingestd/resync.h"

#include <algorithm>
#include <cstring>

#include "ingestd/hash.h"

namespace arancini::ingestd {

namespace {

// Up to a tenth of the time-out, the same for one router in every run: routers that come back together are
// not swept together.
std::uint64_t jitter_ns(const Router& router, std::uint64_t timeout_ns) {
  std::uint64_t address[2];
  std::memcpy(address, router.address.bytes.data(), sizeof address);
  constexpr HashSeed kFixed{kHashOdd1, kHashOdd2};
  return hash_words(address[0], address[1], kFixed) % (timeout_ns / 10 + 1);
}

}  // namespace

void Resync::begin(PeerView& view) {
  view.each_table([this](RibTable& table) { begin(table); });
}

void Resync::begin(RibTable& table) {
  if (!context_.curate) return;  // nobody knows what is there
  ResyncState& resync = table.resync;
  // Without a free generation (see Generations) what was announced since the last re-sync counts as announced
  // in this one.
  (void)table.generations.bump(table.routes.size());
  const std::uint64_t timeout = context_.resync_timeout_ns;
  if (!resync.listed) resyncs_.push_back(&table);
  resync = ResyncState{.active = true,
                       .listed = true,
                       .deadline_ns = context_.now_ns + timeout + jitter_ns(*table.view.peer.router, timeout),
                       .end_of_rib_ns = 0,
                       .news_ns = context_.now_ns,
                       .since_realtime_ns = context_.realtime_ns};
  life_cycle_.sync_start(table);
  next_due_ns_ = std::min(next_due_ns_, due(table));
}

void Resync::end_of_rib(RibTable& table) {
  if (!table.resync.active) return;
  table.resync.end_of_rib_ns = context_.now_ns;
  next_due_ns_ = std::min(next_due_ns_, due(table));
}

void Resync::lost(PeerView& view) {
  view.each_table([](RibTable& table) {
    table.resync.active = false;
    table.resync.since_realtime_ns = 0;  // the end of the session is its end
  });
  ended();
  if (view.routes == 0) return;
  if (context_.grace_ns == 0) {
    view.each_table(
        [this](RibTable& table) { sweep_.request_all(table, Reason::SessionLost, SyncCause::SessionLost); });
    return;
  }
  view.grace_active = true;
  view.grace_deadline_ns = context_.now_ns + context_.grace_ns;
  if (!view.grace_listed) graces_.push_back(&view);
  view.grace_listed = true;
  next_due_ns_ = std::min(next_due_ns_, view.grace_deadline_ns);
}

void Resync::take_over(RibTable& table, const ResyncState& was) {
  table.resync = was;
  table.resync.listed = true;
  resyncs_.push_back(&table);
  ended();
}

void Resync::take_over_grace(PeerView& view, std::uint64_t deadline_ns) {
  view.grace_active = view.grace_listed = true;
  view.grace_deadline_ns = deadline_ns;
  graces_.push_back(&view);
  ended();
}

std::uint64_t Resync::due(const RibTable& table) const {
  const Session* session = table.view.owner;
  if (session == nullptr || session->waiting()) return kNever;  // resumed() looks again
  const ResyncState& resync = table.resync;
  const std::uint64_t heard = session->resumed_ns == 0 ? 0 : session->resumed_ns + context_.resync_settle_ns;
  const std::uint64_t timeout = std::max(resync.deadline_ns, heard);
  if (resync.end_of_rib_ns == 0) return timeout;
  const std::uint64_t quiet = std::max(resync.end_of_rib_ns, resync.news_ns) + context_.resync_settle_ns;
  return std::min(timeout, std::max(quiet, heard));
}

std::uint64_t Resync::due(const PeerView& view) const {
  // Another session of the router that is not read may be about to tell the view.
  const Router& router = *view.peer.router;
  if (router.waiting != 0) return kNever;
  return std::max(view.grace_deadline_ns,
                  router.resumed_ns == 0 ? 0 : router.resumed_ns + context_.resync_settle_ns);
}

std::uint64_t Resync::run() {
  const std::uint64_t now = context_.now_ns;
  if (now >= next_due_ns_) {
    next_due_ns_ = kNever;
    std::erase_if(resyncs_, [&](RibTable* table) {
      if (table->resync.active) {
        const std::uint64_t at = due(*table);
        if (now < at) {
          next_due_ns_ = std::min(next_due_ns_, at);
          return false;
        }
        table->resync.active = false;
        sweep_.request(*table, Reason::ResyncMissing,
                       table->resync.end_of_rib_ns != 0 ? SyncCause::EndOfRib : SyncCause::Timeout);
      }
      table->resync.listed = false;
      return true;
    });
    std::erase_if(graces_, [&](PeerView* view) {
      if (view->grace_active) {
        const std::uint64_t at = due(*view);
        if (now < at) {
          next_due_ns_ = std::min(next_due_ns_, at);
          return false;
        }
        view->grace_active = false;
        view->each_table([this](RibTable& table) {
          sweep_.request_all(table, Reason::GraceExpired, SyncCause::GraceExpired);
        });
      }
      view->grace_listed = false;
      return true;
    });
  }
  return next_due_ns_ == kNever ? 0 : next_due_ns_;
}

}  // namespace arancini::ingestd
