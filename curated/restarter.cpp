#include "curated/restarter.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "common/base/joined.h"
#include "curated/process_name.h"

namespace arancini::curated {

namespace {

std::string with_code(std::string text) {
  return fmt::format("{} ({})", text, number(ErrorCode::RestartFailed));
}

}  // namespace

struct Restarter::Before {
  int pid = 0;
  std::uint64_t sessions = 0;
  std::uint64_t last_sequence = 0;
};

std::vector<std::string> Restarter::rolling(const FleetView& view) {
  std::vector<std::string> out;
  for (const ProcessView& p : view.processes)
    if (shard_of(p.name)) out.push_back(p.name);
  if (view.process("publishd") != nullptr) out.emplace_back("publishd");
  return out;
}

std::string Restarter::unusable(const std::vector<std::string>& processes, const FleetView& view) {
  std::vector<std::string> known;
  for (const ProcessView& p : view.processes)
    if (p.name != "curated") known.push_back(p.name);
  for (const std::string& name : processes) {
    if (name == "curated")
      return "curated does not restart itself: systemctl restart curated, no data passes through it";
    if (view.process(name) == nullptr)
      return "there is no process '" + name + "'; there are: " + joined(known);
    if (std::ranges::count(processes, name) > 1) return "'" + name + "' is named twice";
  }
  return processes.empty() ? "no process is named" : "";
}

// Why `name` must not go now; empty: it may. What is wrong with itself is what a restart may mend.
std::string Restarter::gate(const std::string& name, const FleetView& view,
                            const std::vector<ShardAnswer>& shards) const {
  for (const ProcessView& p : view.processes) {
    if (p.name == name || p.verdict == Verdict::Running) continue;
    if (p.verdict == Verdict::Draining) return p.name + " is draining; aranctl drain --undo ends that";
    return fmt::format("{} is {}{}{}", p.name, to_string(p.verdict), p.detail.empty() ? "" : ": ", p.detail);
  }
  const auto own = shard_of(name);
  const bool publishd = name == "publishd" || name == "nats-server";
  for (const ShardView& s : view.shards) {
    if (own == s.shard) continue;
    if (s.ring_state != "connected" && !publishd)
      return fmt::format("the ring of shard {} is {}", s.shard, s.ring_state);
    if (s.shard >= shards.size()) continue;
    const ShardAnswer& answer = shards[s.shard];
    if (!answer.problem.empty()) return fmt::format("shard {} {}", s.shard, answer.problem);
    if (answer.restoring)
      return fmt::format("shard {} restores its tables: {}", s.shard, answer.restore_text);
  }
  // An ingestd reads back through publishd what consumers were told.
  if (own && view.nats_state != "connected" && view.nats_state != "not used")
    return fmt::format("NATS is {}: the tables could not be restored", view.nats_state);
  return "";
}

// What is missing until `name` is as it was; empty: nothing.
std::string Restarter::not_back(const std::string& name, const Before& before, bool grace_is_over) const {
  const FleetView view = world_.view();
  const ProcessView* process = view.process(name);
  if (process == nullptr) return "it is gone";
  if (process->pid == 0) return process->detail.empty() ? "it does not run" : process->detail;
  if (process->pid == before.pid) return fmt::format("its former process {} has not ended", before.pid);
  if (process->verdict != Verdict::Running) {
    return fmt::format("it is {}{}{}", to_string(process->verdict), process->detail.empty() ? "" : ": ",
                       process->detail);
  }
  if (const auto own = shard_of(name)) {
    const ShardView* shard = view.shard(*own);
    if (shard == nullptr || shard->ring_state != "connected")
      return "its ring is " + (shard == nullptr ? std::string("missing") : shard->ring_state);
    const std::vector<ShardAnswer> answers = world_.shards();
    if (*own < answers.size()) {
      if (!answers[*own].problem.empty()) return "it " + answers[*own].problem;
      if (answers[*own].restoring) return "it restores its tables: " + answers[*own].restore_text;
    }
    const std::uint64_t sessions = shard->value(IngestMetric::SessionsOpen);
    if (sessions < before.sessions && !grace_is_over)
      return fmt::format("{} of {} sessions are back", sessions, before.sessions);
    return "";
  }
  if (name != "publishd" && name != "nats-server") return "";
  for (const ShardView& s : view.shards) {
    if (s.ring_state != "connected") return fmt::format("the ring of shard {} is {}", s.shard, s.ring_state);
  }
  if (view.nats_state != "connected" && view.nats_state != "not used") return "NATS is " + view.nats_state;
  const std::uint64_t in_flight = view.value(PublishMetric::MessagesInFlight);
  if (in_flight != 0 && view.value(PublishMetric::StreamLastSequence) <= before.last_sequence)
    return fmt::format("{} messages are in flight and none is acked", in_flight);
  return "";
}

bool Restarter::restart_one(const std::string& name, const Plan& plan, const Tell& tell) {
  const auto failed = [&](std::string text, std::string_view what_to_do) {
    tell({name, Step::End, with_code(fmt::format("{}: {}; {}", name, text, what_to_do)), false});
    return false;
  };
  bool told_to_end = false;
  const auto nobody_waits = [&] {
    return failed(told_to_end ? "the caller is gone, it was told to end before"
                              : "the caller is gone, it was not restarted",
                  "nothing more is restarted; see: aranctl status");
  };
  // What a successor would not start with.
  const auto refused = [&](const std::string& why) {
    return failed("not restarted: its successor would refuse the configuration: " + why,
                  "mend that first; see: aranctl reload --check");
  };

  const std::uint64_t gate_until = world_.now_ns() + std::min(kGateNs, plan.timeout_ns);
  FleetView view;
  std::string said;
  while (true) {
    view = world_.view();
    std::string why = gate(name, view, world_.shards());
    if (why.empty()) break;
    if (world_.now_ns() >= gate_until)
      return failed("not restarted: " + why, "mend that first; see: aranctl status");
    if (why != said) tell({name, Step::Gate, "waiting: " + why, true});
    said = std::move(why);
    if (!world_.pause()) return nobody_waits();
  }
  tell({name, Step::Gate, "everything else is well", true});

  const ProcessView* process = view.process(name);
  Before before;
  if (process != nullptr) before.pid = process->pid;
  const auto own = shard_of(name);
  if (own) {
    if (const ShardView* shard = view.shard(*own)) before.sessions = shard->value(IngestMetric::SessionsOpen);
  }
  before.last_sequence = view.value(PublishMetric::StreamLastSequence);

  if (own && plan.snapshots && (process == nullptr || !answers(process->verdict))) {
    tell({name, Step::Snapshot,
          fmt::format("none, it will read more of the log: it is {}",
                      process == nullptr ? "gone" : to_string(process->verdict)),
          true});
  } else if (own && plan.snapshots) {
    const auto taken = world_.snapshot(*own);
    if (world_.gone()) return nobody_waits();
    if (taken) {
      tell({name, Step::Snapshot, fmt::format("{}, {} routes", taken->name, taken->routes), true});
    } else if (plan.needs_snapshot) {
      return failed("no snapshot of it: " + taken.error(),
                    "mend that, or restart it without: aranctl restart " + name);
    } else {
      tell({name, Step::Snapshot, "none, it will read more of the log: " + taken.error(), true});
    }
  }

  // A snapshot takes its time.
  if (world_.gone()) return nobody_waits();
  if (const std::string why = gate(name, world_.view(), world_.shards()); !why.empty())
    return failed("not restarted: " + why, "mend that first; see: aranctl status");
  if (const std::string why = world_.config_problem(); !why.empty()) return refused(why);
  if (const auto told = world_.restart(name); !told) return failed(told.error(), "see: aranctl status");
  told_to_end = true;
  tell({name, Step::Restart,
        before.pid > 0 ? fmt::format("process {} is told to end", before.pid) : "started", true});
  const std::uint64_t began = world_.now_ns();
  said.clear();
  while (true) {
    const std::uint64_t waited = world_.now_ns() - began;
    std::string why = not_back(name, before, waited >= plan.grace_ns);
    if (why.empty()) break;
    if (waited >= plan.timeout_ns) {
      return failed(fmt::format("not back after {} s: {}", plan.timeout_ns / 1'000'000'000U, why),
                    "nothing more is restarted; see its log and: aranctl status");
    }
    if (why != said) tell({name, Step::Wait, why, true});
    said = std::move(why);
    if (!world_.pause()) return nobody_waits();
  }
  tell({name, Step::Back,
        fmt::format("back after {:.1f} s", static_cast<double>(world_.now_ns() - began) * 1e-9), true});
  return true;
}

bool Restarter::run(const Plan& plan, const Tell& tell) {
  const auto refused = [&](std::string text) {
    tell({"", Step::End, with_code("nothing is restarted: " + std::move(text)), false});
    return false;
  };
  if (const std::string why = world_.config_problem(); !why.empty()) {
    return refused("a process that starts now would refuse the configuration: " + why +
                   "; mend that first; see: aranctl reload --check");
  }
  if (plan.rolling) {
    const FleetView view = world_.view();
    const auto draining = std::ranges::find(view.processes, Verdict::Draining, &ProcessView::verdict);
    if (draining != view.processes.end())
      return refused(draining->name +
                     " is draining, and a restart would end that; first: aranctl drain --undo");
  }
  for (const std::string& name : plan.processes) {
    if (!restart_one(name, plan, tell)) return false;
  }
  tell({"", Step::End, fmt::format("{} restarted", plan.processes.size()), true});
  return true;
}

}  // namespace arancini::curated
