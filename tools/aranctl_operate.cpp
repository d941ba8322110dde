#include "tools/aranctl_operate.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/base/joined.h"
#include "tools/curated_client.h"
#include "tools/route_json.h"
#include "tools/text_table.h"

namespace arancini::tools {

namespace {

namespace pb = control::v1;
using nlohmann::ordered_json;

// A restart of many processes ends by its own timeouts.
constexpr auto kRestartPatience = std::chrono::hours(24);
constexpr auto kReloadPatience = std::chrono::seconds(60);
constexpr std::uint32_t kDrainTimeoutS = 60;

void print(const ordered_json& value) {
  std::printf("%s\n", to_line(value).c_str());
  std::fflush(stdout);
}

struct RestartOptions {
  std::vector<std::string> processes;
  bool rolling = false;
  std::uint32_t timeout_s = 120;
};

const char* step_name(pb::RestartProgress::Step step) {
  switch (static_cast<int>(step)) {
    case pb::RestartProgress::GATE: return "gate";
    case pb::RestartProgress::SNAPSHOT: return "snapshot";
    case pb::RestartProgress::RESTART: return "restart";
    case pb::RestartProgress::WAIT: return "wait";
    case pb::RestartProgress::BACK: return "back";
    case pb::RestartProgress::END: return "end";
    default: return "unknown";  // of a newer curated
  }
}

void restart(const GlobalOptions& options, const RestartOptions& wanted, int& exit_code) {
  if (wanted.processes.empty() && !wanted.rolling) {
    std::fprintf(stderr,
                 "aranctl: name the processes to restart (aranctl status lists them), or say --rolling: all, "
                 "one after the other\n");
    exit_code = kExitUsage;
    return;
  }
  pb::RestartRequest request;
  request.mutable_processes()->Assign(wanted.processes.begin(), wanted.processes.end());
  request.set_rolling(wanted.rolling);
  request.set_timeout_s(wanted.timeout_s);
  bool well = false;
  const bool answered = call_curated(
      options, exit_code, kRestartPatience, [&](pb::Control::Stub& stub, grpc::ClientContext& context) {
        const auto reader = stub.Restart(&context, request);
        pb::RestartProgress p;
        while (reader->Read(&p)) {
          well = p.ok();
          if (options.json) {
            print({{"process", p.process()},
                   {"step", step_name(p.step())},
                   {"text", p.text()},
                   {"ok", p.ok()}});
          } else if (p.ok()) {
            std::printf("%s%s%s\n", p.process().c_str(), p.process().empty() ? "" : ": ", p.text().c_str());
            std::fflush(stdout);
          } else {
            std::fprintf(stderr, "aranctl: %s\n", p.text().c_str());
          }
        }
        return reader->Finish();
      });
  if (answered && !well) exit_code = kExitIncomplete;
}

struct DrainOptions {
  std::optional<std::uint32_t> shard;
  bool undo = false;
  std::uint32_t timeout_s = kDrainTimeoutS;
};

void drain(const GlobalOptions& options, const DrainOptions& wanted, int& exit_code) {
  pb::DrainRequest request;
  if (wanted.shard) request.set_shard(*wanted.shard);
  request.set_undo(wanted.undo);
  request.set_timeout_s(wanted.timeout_s);
  pb::DrainReply answer;
  if (!ask_curated(options, exit_code, request, answer, &pb::Control::Stub::Drain,
                   std::chrono::seconds(wanted.timeout_s) + kCuratedPatience)) {
    return;
  }
  if (options.json) {
    ordered_json out = {{"journal_bytes", answer.journal_bytes()}, {"shards", ordered_json::array()}};
    for (const auto& k : answer.shards()) {
      out["shards"].push_back({{"shard", k.shard()},
                               {"draining", k.draining()},
                               {"empty", k.empty()},
                               {"ring_used_bytes", k.ring_used_bytes()},
                               {"sessions_blocked", k.sessions_blocked()},
                               {"sessions", k.sessions()}});
    }
    print(out);
  } else {
    for (const auto& k : answer.shards()) {
      const auto sessions = static_cast<unsigned long long>(k.sessions());
      if (!k.draining()) {
        std::printf("shard %u reads its %llu sessions\n", k.shard(), sessions);
      } else if (k.empty()) {
        std::printf("shard %u is drained: all that was read is published; %llu sessions wait\n", k.shard(),
                    sessions);
      } else {
        std::printf("shard %u is not read, and not empty: %s bytes in its ring\n", k.shard(),
                    short_number(k.ring_used_bytes()).c_str());
      }
    }
  }
  for (const pb::ShardProblem& p : answer.problems()) {
    std::fprintf(stderr, "aranctl: shard %u: %s\n", p.shard(), p.text().c_str());
    exit_code = kExitIncomplete;
  }
}

void reload(const GlobalOptions& options, bool check_only, int& exit_code) {
  pb::ReloadRequest request;
  request.set_check_only(check_only);
  pb::ReloadReply answer;
  if (!ask_curated(options, exit_code, request, answer, &pb::Control::Stub::Reload, kReloadPatience)) return;
  if (options.json) {
    ordered_json out = {{"ok", answer.ok()},
                        {"hash", answer.hash()},
                        {"applied", answer.applied()},
                        {"needs_restart", ordered_json::array()},
                        {"problems", ordered_json::array()},
                        {"notes", answer.notes()}};
    for (const auto& n : answer.needs_restart())
      out["needs_restart"].push_back({{"key", n.key()}, {"processes", n.processes()}});
    for (const auto& p : answer.problems())
      out["problems"].push_back({{"process", p.process()}, {"text", p.text()}});
    print(out);
  } else {
    if (answer.applied_size() > 0)
      std::printf("%s: %s\n", check_only ? "would be in force" : "in force",
                  joined(answer.applied()).c_str());
    for (const auto& n : answer.needs_restart()) {
      std::printf("needs a restart of %s: %s\n", joined(n.processes()).c_str(), n.key().c_str());
    }
    for (const std::string& note : answer.notes()) std::printf("%s\n", note.c_str());
    if (answer.ok() && answer.applied_size() == 0 && answer.needs_restart_size() == 0)
      std::printf("the configuration is valid, nothing changed\n");
  }
  for (const auto& p : answer.problems())
    std::fprintf(stderr, "aranctl: %s: %s\n", p.process().c_str(), p.text().c_str());
  if (!answer.ok()) {
    std::fprintf(stderr, "aranctl: the configuration that was in force stays, everywhere\n");
    exit_code = kExitConfig;
  }
}

}  // namespace

void add_operate_commands(CLI::App& app, const GlobalOptions& options, int& exit_code) {
  auto* restart_command = app.add_subcommand(
      "restart", "processes one after the other, each when all others are well, and until it is back");
  const auto restarting = std::make_shared<RestartOptions>();
  restart_command->add_option("process", restarting->processes, "ingestd@0, publishd, …; in this order");
  restart_command->add_flag(
      "--rolling", restarting->rolling,
      "all ingestds, then publishd; ends where a shard's snapshot cannot be taken before it goes");
  restart_command->add_option("--timeout", restarting->timeout_s, "seconds within which each has to be back")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  restart_command->callback([&options, &exit_code, restarting] { restart(options, *restarting, exit_code); });

  auto* drain_command = app.add_subcommand(
      "drain", "stops reading from routers, and returns when all that was read is published");
  const auto draining = std::make_shared<DrainOptions>();
  drain_command->add_option("--shard", draining->shard, "only this one");
  drain_command->add_flag("--undo", draining->undo, "reads again; a restart of the ingestd does so as well");
  drain_command->add_option("--timeout", draining->timeout_s, "seconds that it may take; the drain stays")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  drain_command->callback([&options, &exit_code, draining] { drain(options, *draining, exit_code); });

  auto* reload_command =
      app.add_subcommand("reload", "reads the configuration again: in force in all processes, or in none");
  const auto check = std::make_shared<bool>(false);
  reload_command->add_flag("--check", *check, "only says what would happen");
  reload_command->callback([&options, &exit_code, check] { reload(options, *check, exit_code); });
}

}  // namespace arancini::tools
