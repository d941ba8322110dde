#include "ingestd/rules_task.h"

#include <utility>

#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

namespace {

// Why the session cannot stay what it is; empty: it can.
std::string_view misplaced(const RouterRules& rules, const Session& session) {
  const Router& router = *session.router;
  if (!rules.allows(session.source)) return "neither bmp.allow nor a [[router]] has its address any more";
  const bool by_name = rules.needs_sys_name(session.source);
  const RouterEntry* entry =
      rules.find(session.source, by_name ? std::string_view(router.sys_name.data()) : std::string_view());
  if (by_name && entry == nullptr) return "no [[router]] of its address has its sysName any more";
  return (entry == nullptr ? std::string_view() : entry->name) == router.name
             ? std::string_view()
             : "[[router]] calls it otherwise now";
}

}  // namespace

void RulesTask::take_over(Shard::Impl& shard) {
  taken_over_ = true;
  ShardContext& context = shard.context;
  if (context.witness != nullptr) context.witness->reloaded();
  std::swap(context.rules,
            rules_);  // routers point to the entries of the former ones, which stay where they are
  const std::uint64_t interval = context.dump_interval_ns;
  context.set_timers(next_);
  if (context.dump_interval_ns != interval) shard.dump.interval_changed();
}

HotTask::Progress RulesTask::run(Shard::Impl& shard) noexcept {
  if (!taken_over_) take_over(shard);
  const std::size_t rows = shard.peers.router_rows();
  const std::size_t sessions = shard.peers.session_ids();
  // When the shard ends there is no later slice.
  for (std::size_t looked = 0; looked < kSlice || cancelled();) {
    if (router_ < rows) {
      Router* router = shard.peers.router_at(router_++);
      if (router == nullptr) continue;
      shard.peers.apply_rules(*router);
      ++looked;
    } else if (session_ < sessions) {
      Session& session = shard.peers.session(SessionId{static_cast<std::uint32_t>(session_++)});
      if (!session.open || session.router == nullptr || session.must_close) continue;
      if (const std::string_view why = misplaced(shard.context.rules, session); !why.empty())
        shard.ask_to_close(session, why);
      ++looked;
    } else {
      return Progress::Done;
    }
  }
  return Progress::More;
}

}  // namespace arancini::ingestd
