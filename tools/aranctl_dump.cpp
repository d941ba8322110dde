#include "tools/aranctl_dump.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "common/nats/stream_reader.h"
#include "tools/aranctl_control.h"
#include "tools/dump_marks.h"
#include "tools/journal_stream.h"
#include "tools/nats_flags.h"
#include "tools/route_json.h"

namespace arancini::tools {

namespace {

// Within which the last event is in its stream, once the last record is in the ring.
constexpr auto kEventPatience = std::chrono::seconds(30);

struct DumpOptions {
  NatsFlags flags;
  std::string router;
  std::uint64_t timeout_s = 600;
};

int failed(const StreamError& error) {
  fmt::print(stderr, "aranctl: {}\n", error.text);
  return error.exit_code;
}

void print(const DumpMark& mark, bool json) {
  if (json) {
    nlohmann::ordered_json j = {{"router", mark.router},          {"routes", mark.routes},
                                {"from", mark.after + 1},         {"complete", mark.complete},
                                {"writer", mark.writer.to_hex()}, {"start_event", mark.start_event},
                                {"end_event", mark.end_event}};
    fmt::print("{}\n", to_line(j));
  } else if (mark.routes == 0) {
    fmt::print("router {}: no routes; read the stream from {}\n", mark.router, mark.after + 1);
  } else {
    fmt::print("router {}: {} routes; read the stream from {}, complete at {}\n", mark.router, mark.routes,
               mark.after + 1, mark.complete);
  }
}

int dump(const DumpOptions& options, const GlobalOptions& globals) {
  const auto place = find_stream(options.flags, StreamKind::Events);
  if (!place.ok()) return failed(place.error());
  auto events = place->journal.empty() ? StreamReader::open(place->nats, place->stream, ">", {})
                                       : open_journal_stream(place->journal, StreamKind::Events);
  if (!events.ok()) return failed(events.error());
  const auto before = (*events)->position();
  if (!before.ok()) return failed(before.error());

  std::vector<DumpedShard> shards;
  int exit_code = kExitOk;
  if (!request_dump(globals, options.router, options.timeout_s, shards, exit_code)) return exit_code;

  DumpMarks marks;
  const auto all_seen = [&] {
    return std::all_of(shards.begin(), shards.end(), [&](const DumpedShard& shard) {
      const auto writer = WriterId::from_hex(shard.writer);
      return writer && marks.seen(*writer, shard.end_event);
    });
  };
  std::uint64_t next = before->last_sequence + 1;
  const auto deadline = std::chrono::steady_clock::now() + kEventPatience;
  while (!all_seen() && std::chrono::steady_clock::now() < deadline) {
    const auto at = (*events)->position();
    if (!at.ok()) return failed(at.error());
    if (at->last_sequence < next) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      continue;
    }
    const auto error = (*events)->read(next, at->last_sequence, [&](const StreamMessage& m) {
      marks.add(m);
      return true;
    });
    if (error) return failed(*error);
    next = at->last_sequence + 1;
  }
  for (const auto& [router, mark] : marks.complete()) print(mark, globals.json);
  std::uint64_t routers = 0;
  for (const DumpedShard& shard : shards) routers += shard.routers;
  if (marks.complete().size() < routers) {
    fmt::print(stderr,
               "aranctl: {} of {} routers are dumped, but their marks are not in the events stream yet; "
               "aranctl events shows them (dump_start, dump_end)\n",
               routers - marks.complete().size(), routers);
    return kExitIncomplete;
  }
  if (!globals.json && routers == 0) fmt::print("there is no router\n");
  return exit_code;
}

}  // namespace

void add_dump_command(CLI::App& app, const GlobalOptions& globals, int& exit_code) {
  auto options = std::make_shared<DumpOptions>();
  CLI::App* const sub = app.add_subcommand(
      "dump", "publishes the tables of a router, or of all, again, so that a consumer can begin there");
  sub->add_option("router", options->router,
                  "its address or name (which stands for its address); default: all");
  sub->add_option("--timeout", options->timeout_s, "seconds that it may take")->capture_default_str();
  options->flags.add_to(*sub);
  sub->callback([&globals, &exit_code, options] { exit_code = dump(*options, globals); });
}

}  // namespace arancini::tools
