#include "ingestd/rules_task.h"

#include <utility>

#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

namespace {

// Why the session cannot stay what it is; empty: it can.
std::string_view misplaced(const RouterRules& rules, const Session& session) {
  const Router& router = *session.router;
  const auto name = rules.name_of(session.source, router.sys_name.data());
  if (name == std::string_view(router.name)) return {};
  if (name) return "[[router]] calls it otherwise now";
  return rules.allows(session.source) ? "no [[router]] of its address has its sysName any more"
                                      : "neither bmp.allow nor a [[router]] has its address any more";
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
