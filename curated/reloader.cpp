#include "curated/reloader.h"

#include <fmt/format.h>

#include <set>

#include "curated/process_name.h"

namespace arancini::curated {

Reloader::Outcome Reloader::reload(bool check_only) {
  const std::lock_guard turn(one_at_a_time_);
  Outcome out;
  Config next;
  try {
    next = world_.load();
  } catch (const ConfigError& e) {
    out.problems.emplace_back("curated", e.what());
    return out;
  }
  out.hash = text_hash(next.text);
  std::set<std::string> live;
  const auto add = [&](const std::string& process, const auto& plan) {
    live.insert(plan.live.begin(), plan.live.end());
    for (const std::string& key : plan.start) out.needs_restart[key].push_back(process);
  };
  add("curated", plan_change(now_, next, Daemon::Curated));

  std::vector<std::string> asked;
  for (const ProcessView& p : world_.view().processes) {
    if (!is_daemon(p.name)) continue;
    if (p.verdict == Verdict::Dead || p.verdict == Verdict::Stopped) {
      out.notes.push_back(fmt::format("{} does not run: it reads the file when it starts", p.name));
      continue;
    }
    if (!answers(p.verdict)) {  // it may have read the former text, or not
      out.problems.emplace_back(p.name, fmt::format("is {}: try again when it runs", to_string(p.verdict)));
      continue;
    }
    const auto prepared = world_.prepare(p.name, next);
    if (!prepared) {
      out.problems.emplace_back(p.name, prepared.error());
    } else if (prepared->hash != out.hash) {
      out.problems.emplace_back(p.name, "has got another text than was sent");
    } else {
      asked.push_back(p.name);
      add(p.name, *prepared);
    }
  }
  out.applied.assign(live.begin(), live.end());
  out.ok = out.problems.empty();
  if (!out.ok) out.applied.clear();
  if (!out.ok || check_only) return out;

  for (const std::string& process : asked) {
    std::string why = world_.commit(process, out.hash);
    if (why.empty()) continue;
    out.problems.emplace_back(process,
                              fmt::format("took it over, and did not put it in force: {}; it takes it when "
                                          "it is restarted: aranctl restart {}",
                                          why, process));
  }
  // A daemon that fails now has said that it is valid: the others have it, and it will have it at its start.
  world_.take(next);
  now_ = with_live_keys(std::move(now_), next);
  out.ok = out.problems.empty();
  return out;
}

}  // namespace arancini::curated
