#include "tools/aranctl_stream.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <memory>
#include <set>
#include <thread>

#include "common/nats/stream_reader.h"
#include "common/schema/message_headers.h"
#include "common/schema/update_decode.h"
#include "tools/dump_marks.h"
#include "tools/event_json.h"
#include "tools/journal_stream.h"
#include "tools/nats_flags.h"
#include "tools/route_fold.h"
#include "tools/route_json.h"
#include "tools/route_text.h"
#include "tools/sequence_audit.h"

namespace arancini::tools {

namespace {

using nlohmann::ordered_json;
using schema::DecodedUpdate;

struct StreamOptions {
  NatsFlags flags;
  std::string journal;  // read this directory instead of a stream
  std::string source;   // "stream NAME" or "journal DIR", for messages
  std::string prefix;
  std::string from;
  std::uint64_t count = 0;  // tail: 0, no end
  bool from_start = false;
  bool all = false;
  bool events = false;
  bool follow = false;
  bool from_dump = false;
  double settle_s = 3;

  Result<std::unique_ptr<StreamReader>, StreamError> open() {
    if (!journal.empty()) return open_journal();
    const auto place = find_stream(flags, events ? StreamKind::Events : StreamKind::Updates);
    if (!place.ok()) return Err{place.error()};
    if (place->journal.empty()) {
      source = "stream " + place->stream;
      return StreamReader::open(place->nats, place->stream, filter(), {});
    }
    journal = place->journal;
    return open_journal();
  }
  Result<std::unique_ptr<StreamReader>, StreamError> open_journal() {
    source = "journal " + journal;
    if (!prefix.empty())
      return Err{StreamError{kExitUsage, "--prefix is for streams: a journal holds no subjects"}};
    return open_journal_stream(journal, events ? StreamKind::Events : StreamKind::Updates);
  }
  [[nodiscard]] std::string filter() const {
    return prefix.empty() ? ">" : prefix + (events ? ".events.>" : ".updates.>");
  }
};

void say(const std::string& text) {
  fmt::print(stderr, "aranctl: {}\n", text);
}

void print_line(const std::string& line) {
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fputc('\n', stdout);
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return v;
}

std::optional<std::uint32_t> shard_of(const StreamMessage& message) {
  const auto n = number(message.header(schema::kHeaderShard));
  return n && *n <= UINT32_MAX ? std::optional(static_cast<std::uint32_t>(*n)) : std::nullopt;
}

// Decodes one message; says what is wrong with it, once per message.
std::optional<std::string> decode(const StreamMessage& message,
                                  const std::function<void(const DecodedUpdate&)>& each) {
  const std::string_view name = message.header(schema::kHeaderFormat);
  // Messages of other producers of this schema have no such header.
  const auto format = name.empty() ? schema::guess_format(message.payload()) : schema::payload_format(name);
  std::optional<std::string> error;
  if (!format) {
    error =
        name.empty() ? "no payload format that I know" : fmt::format("unknown Arancini-Format '{}'", name);
  } else {
    error = schema::decode_payload(*format, message.payload(), each);
  }
  if (error)
    error = fmt::format("stream sequence {} ({}): {}", message.stream_sequence(), message.subject(), *error);
  return error;
}

// Reads all that the stream held when this started and checks the identities on the way. Messages of
// different subjects overtake each other while they are published: holes are given settle_s to close before
// they count.
class FullRead {
 public:
  enum class Settle { Beginning, AllHoles };

  FullRead(StreamOptions& options, Settle settle) : options_(options), settle_(settle) {}

  // `each` sees every update in stream order. False when reading failed: exit_code() and stderr say why.
  bool run(const std::function<void(const DecodedUpdate&)>& each) {
    auto reader = options_.open();
    if (!reader.ok()) return failed(reader.error());
    const auto at = (*reader)->position();
    if (!at.ok()) return failed(at.error());
    beginning_discarded_ = at->first_sequence > 1;
    if (!read(**reader, 1, at->last_sequence, each)) return false;
    audit_.judge_up_to_here();
    std::uint64_t next = at->last_sequence + 1;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(options_.settle_s);
    while (holes_open() && std::chrono::steady_clock::now() < deadline) {
      const auto now_at = (*reader)->position();
      if (!now_at.ok()) return failed(now_at.error());
      if (now_at->last_sequence < next) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        continue;
      }
      if (!read(**reader, next, now_at->last_sequence, each)) return false;
      next = now_at->last_sequence + 1;
    }
    damaged_ = (*reader)->damaged();
    // Retention may have been at work meanwhile.
    if (!options_.journal.empty()) {
      const auto now_at = (*reader)->position();
      beginning_discarded_ = beginning_discarded_ || (now_at.ok() && now_at->first_sequence > 1);
    }
    return true;
  }

  [[nodiscard]] const SequenceAudit& audit() const { return audit_; }
  [[nodiscard]] bool beginning_discarded() const { return beginning_discarded_; }
  [[nodiscard]] std::uint64_t damaged() const { return damaged_; }
  [[nodiscard]] std::uint64_t messages() const { return messages_; }
  [[nodiscard]] std::uint64_t undecodable() const { return undecodable_; }
  [[nodiscard]] std::uint64_t header_mismatches() const { return header_mismatches_; }
  [[nodiscard]] std::uint64_t unidentified() const { return unidentified_; }
  // Some writer's first updates are not there.
  [[nodiscard]] bool headless() const {
    const auto& writers = audit_.writers();
    return std::any_of(writers.begin(), writers.end(), [](const auto& w) { return w.second.headless(); });
  }
  [[nodiscard]] int exit_code() const { return exit_code_; }

  // What a reader of the table must know; one line each on stderr.
  void say_what_is_missing() const {
    if (beginning_discarded_) {
      say("the beginning of " + options_.source +
          (options_.journal.empty() ? " is gone (retention or purge)"
                                    : " is gone (retention, or published to a broker)") +
          ": routes announced there and unchanged since are missing");
    }
    for (const auto& [id, w] : audit_.writers()) {
      if (const std::uint64_t gaps = w.gaps(beginning_discarded_); gaps > 0) {
        const auto holes = w.holes(beginning_discarded_, 1);
        say(fmt::format("writer {}: {} of {} updates are not in the {}, first {} to {}", id.to_hex(), gaps,
                        w.sequences.last(), options_.journal.empty() ? "stream" : "journal",
                        holes.front().first, holes.front().second));
      }
    }
  }

 private:
  bool failed(const StreamError& error) {
    exit_code_ = error.exit_code;
    say(error.text);
    return false;
  }

  bool read(StreamReader& reader, std::uint64_t from, std::uint64_t to,
            const std::function<void(const DecodedUpdate&)>& each) {
    if (to < from) return true;
    const auto error = reader.read(from, to, [&](const StreamMessage& m) {
      take(m, each);
      return true;
    });
    return !error || failed(*error);
  }

  [[nodiscard]] bool holes_open() const {
    return settle_ == Settle::AllHoles ? audit_.gaps(beginning_discarded_) > 0
                                       : !beginning_discarded_ && headless();
  }

  void take(const StreamMessage& m, const std::function<void(const DecodedUpdate&)>& each) {
    ++messages_;
    std::uint64_t count = 0;
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    WriterId writer;
    const auto error = decode(m, [&](const DecodedUpdate& u) {
      if (count++ == 0) {
        first = u.sequence;
        writer = u.writer;
      }
      last = u.sequence;
      if (u.sequence == 0) {
        ++unidentified_;
      } else {
        audit_.add(u.writer, m.subject(), u.sequence);
      }
      each(u);
    });
    if (error) {
      if (undecodable_++ < 10) say(*error);
      return;
    }
    if (first == 0) return;
    audit_.describe(writer, shard_of(m), m.header(schema::kHeaderInstance));
    check_headers(m, writer, first, last, count);
  }

  void check_headers(const StreamMessage& m, const WriterId& writer, std::uint64_t first, std::uint64_t last,
                     std::uint64_t count) {
    const std::string_view named = m.header(schema::kHeaderWriter);
    if (named.empty()) return;
    if (named == writer.to_hex() && number(m.header(schema::kHeaderFirst)) == first &&
        number(m.header(schema::kHeaderLast)) == last && number(m.header(schema::kHeaderCount)) == count) {
      return;
    }
    if (header_mismatches_++ < 10) {
      say(fmt::format("stream sequence {}: headers name other updates than the payload has",
                      m.stream_sequence()));
    }
  }

  StreamOptions& options_;
  Settle settle_;
  SequenceAudit audit_;
  bool beginning_discarded_ = false;
  std::uint64_t damaged_ = 0;
  std::uint64_t messages_ = 0;
  std::uint64_t undecodable_ = 0;
  std::uint64_t header_mismatches_ = 0;
  std::uint64_t unidentified_ = 0;
  int exit_code_ = kExitOk;
};

void print_table(const RouteFold& table, bool json) {
  std::string heading;
  table.for_each([&](const DecodedUpdate& route) {
    const ordered_json j = route_json(route);
    if (json) {
      print_line(to_line(j));
      return;
    }
    std::string its = table_text(j);
    if (its != heading) print_line(its);
    heading = std::move(its);
    print_line("  " + route_text(j));
  });
}

// Behind the mark of the last complete dump of each router.
int fold_from_dump(StreamOptions& options, bool json) {
  const auto failed = [](const StreamError& error) {
    say(error.text);
    return error.exit_code;
  };
  StreamOptions of_events = options;
  of_events.events = true;
  of_events.flags.stream.reset();
  DumpMarks marks;
  auto events = of_events.open();
  if (!events.ok()) return failed(events.error());
  const auto events_at = (*events)->position();
  if (!events_at.ok()) return failed(events_at.error());
  if (const auto error = (*events)->read(1, events_at->last_sequence, [&](const StreamMessage& m) {
        marks.add(m);
        return true;
      })) {
    return failed(*error);
  }
  if (marks.complete().empty()) {
    say("no router has a complete dump in the " + of_events.source +
        ": make one (aranctl dump), or fold from the beginning");
    return kExitIncomplete;
  }
  std::uint64_t from = UINT64_MAX;
  for (const auto& [router, mark] : marks.complete()) from = std::min(from, mark.after + 1);

  auto reader = options.open();
  if (!reader.ok()) return failed(reader.error());
  const auto at = (*reader)->position();
  if (!at.ok()) return failed(at.error());
  RouteFold table;
  std::uint64_t updates = 0;
  bool bad = false;
  std::set<std::string> without;
  const auto error = (*reader)->read(from, at->last_sequence, [&](const StreamMessage& m) {
    const auto problem = decode(m, [&](const DecodedUpdate& u) {
      std::string router = u.router_id.empty() ? u.router.to_string() : u.router_id;
      const auto mark = marks.complete().find(router);
      if (mark == marks.complete().end()) {
        without.insert(std::move(router));
      } else if (m.stream_sequence() <= mark->second.after) {
        return;
      }
      table.apply(u);
      ++updates;
    });
    if (problem) say(*problem);
    bad = bad || problem.has_value();
    return true;
  });
  if (error) return failed(*error);
  print_table(table, json);
  if (!json) fmt::print("{} routes from {} updates behind {}\n", table.size(), updates, from - 1);
  const bool discarded = at->first_sequence > from;
  if (discarded) say(fmt::format("{} no longer has {}, where the oldest dump begins", options.source, from));
  for (const std::string& router : without) {
    say(fmt::format("router {} has no complete dump: what was told of it up to {} is missing", router,
                    from - 1));
  }
  if (bad || (*reader)->damaged() > 0) return kExitBadData;
  return discarded || !without.empty() ? kExitIncomplete : kExitOk;
}

int fold(StreamOptions& options, bool json) {
  if (options.from_dump) return fold_from_dump(options, json);
  RouteFold table;
  FullRead stream(options, FullRead::Settle::Beginning);
  if (!stream.run([&](const DecodedUpdate& u) { table.apply(u); })) return stream.exit_code();
  print_table(table, json);
  if (!json)
    fmt::print("{} routes from {} updates\n", table.size(), stream.audit().records() + stream.unidentified());
  stream.say_what_is_missing();
  if (stream.undecodable() > 0 || stream.damaged() > 0) return kExitBadData;
  return stream.beginning_discarded() || stream.headless() ? kExitIncomplete : kExitOk;
}

ordered_json writer_json(const SequenceAudit::Writer& w, bool beginning_discarded) {
  constexpr std::size_t kShownHoles = 10;
  ordered_json j;
  j["writer"] = w.id.to_hex();
  j["shard"] = w.shard ? ordered_json(*w.shard) : ordered_json(nullptr);
  j["instance"] = w.instance;
  j["first"] = w.sequences.first();
  j["last"] = w.sequences.last();
  j["records"] = w.records;
  j["gaps"] = w.gaps(beginning_discarded);
  j["duplicates"] = w.duplicates;
  j["order_violations"] = w.order_violations;
  ordered_json& missing = j["missing"] = ordered_json::array();
  for (const auto& [first, last] : w.holes(beginning_discarded, kShownHoles)) {
    missing.push_back({first, last});
  }
  return j;
}

int audit(StreamOptions& options, bool json) {
  FullRead stream(options, FullRead::Settle::AllHoles);
  if (!stream.run([](const DecodedUpdate&) {})) return stream.exit_code();
  const SequenceAudit& a = stream.audit();
  const bool discarded = stream.beginning_discarded();
  ordered_json j;
  j["records"] = a.records();
  j["gaps"] = a.gaps(discarded);
  j["duplicates"] = a.duplicates();
  j["order_violations"] = a.order_violations();
  j["messages"] = stream.messages();
  j["undecodable"] = stream.undecodable();
  j["header_mismatches"] = stream.header_mismatches();
  j["unidentified"] = stream.unidentified();
  j["beginning_discarded"] = discarded;
  if (!options.journal.empty()) j["damaged"] = stream.damaged();
  ordered_json& writers = j["writers"] = ordered_json::array();
  for (const auto& [id, w] : a.writers()) writers.push_back(writer_json(w, discarded));
  if (json) {
    print_line(to_line(j));
  } else {
    for (const auto& w : writers) {
      fmt::print("writer {} shard {}: {} to {}, {} records, {} gaps, {} duplicates, {} order violations\n",
                 w["writer"].get<std::string>(), w["shard"].dump(), w["first"].dump(), w["last"].dump(),
                 w["records"].dump(), w["gaps"].dump(), w["duplicates"].dump(), w["order_violations"].dump());
      for (const auto& hole : w["missing"])
        fmt::print("  missing {} to {}\n", hole[0].dump(), hole[1].dump());
    }
    fmt::print("{} messages, {} records, gaps {}, duplicates {}, order violations {}\n", stream.messages(),
               a.records(), a.gaps(discarded), a.duplicates(), a.order_violations());
  }
  if (discarded) say("the beginning of " + options.source + " is gone: what was there cannot be checked");
  if (stream.unidentified() > 0)
    say(fmt::format("{} updates have no sequence: not checked", stream.unidentified()));
  if (a.gaps(discarded) > 0 || a.duplicates() > 0 || a.order_violations() > 0) return kExitFound;
  if (stream.undecodable() > 0 || stream.header_mismatches() > 0 || stream.damaged() > 0) return kExitBadData;
  return discarded ? kExitIncomplete : kExitOk;
}

std::string update_text(const ordered_json& j) {
  const std::chrono::sys_time<std::chrono::nanoseconds> received{
      std::chrono::nanoseconds(j["time_received_ns"].get<std::uint64_t>())};
  const auto seconds = std::chrono::floor<std::chrono::seconds>(received);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(received - seconds).count();
  std::string out = fmt::format("{:%FT%T}.{:06}Z {} {} {}", seconds, micros,
                                j["announced"] == true ? '+' : '-', route_text(j), table_text(j));
  if (j["synthetic"] == true) out += " (synthetic: " + j["reason"].get<std::string>() + ")";
  return out + " seq " + j["sequence"].dump();
}

int tail(StreamOptions& options, bool json) {
  auto reader = options.open();
  const auto failed = [](const StreamError& error) {
    say(error.text);
    return error.exit_code;
  };
  if (!reader.ok()) return failed(reader.error());
  const auto at = (*reader)->position();
  if (!at.ok()) return failed(at.error());
  // A count asks for updates that are there, without one the interest is in what comes.
  const bool what_is_there = options.from_start || options.all || options.count > 0;
  const std::string from = !options.from.empty() ? options.from : what_is_there ? "start" : "new";
  std::uint64_t start = 1;
  if (from == "new") {
    start = at->last_sequence + 1;
  } else if (const auto n = number(from); n) {
    start = *n;
  }
  std::uint64_t printed = 0;
  bool bad = false;
  const std::uint64_t to = options.all ? at->last_sequence : StreamReader::kFollow;
  const auto error = (*reader)->read(start, to, [&](const StreamMessage& m) {
    const auto shard = shard_of(m);
    if (options.events) {
      const auto wrong = print_event(m.payload(), shard, json);
      if (wrong) say(fmt::format("stream sequence {} ({}): {}", m.stream_sequence(), m.subject(), *wrong));
      bad = bad || wrong.has_value();
      printed += wrong ? 0 : 1;
      std::fflush(stdout);
      return std::ferror(stdout) == 0 && (options.count == 0 || printed < options.count);
    }
    const auto problem = decode(m, [&](const DecodedUpdate& u) {
      if (options.count > 0 && printed == options.count) return;
      ++printed;
      const ordered_json j = update_json(u, shard);
      print_line(json ? to_line(j) : update_text(j));
    });
    if (problem) say(*problem);
    bad = bad || problem.has_value();
    std::fflush(stdout);
    return std::ferror(stdout) == 0 && (options.count == 0 || printed < options.count);
  });
  if (error) return failed(*error);
  bad = bad || (*reader)->damaged() > 0;
  return bad ? kExitBadData : kExitOk;
}

int events(StreamOptions& options, bool json) {
  options.events = true;
  options.all = !options.follow;
  if (options.from.empty()) options.from = "start";
  return tail(options, json);
}

}  // namespace

void add_stream_commands(CLI::App& app, const GlobalOptions& globals, int& exit_code) {
  struct Command {
    const char* name;
    const char* help;
    int (*run)(StreamOptions&, bool json);
  };
  static constexpr Command kCommands[] = {
      {"tail", "updates as they come, one per line", tail},
      {"fold", "folds the stream from its start: the routers' tables, sorted, one route per line", fold},
      {"events", "what happened to routers, sessions, peers and tables", events},
      {"audit", "checks that every update is in the stream once and in order; exit 1 if not", audit},
  };
  for (const Command& command : kCommands) {
    auto options = std::make_shared<StreamOptions>();
    CLI::App* const sub = app.add_subcommand(command.name, command.help);
    options->flags.add_to(*sub);
    sub->add_option("--journal", options->journal,
                    "directory of a journal, read instead of a stream, beside a publishd or without one "
                    "(default: where --config says sink.kind = \"journal\", its journal)")
        ->type_name("DIR")
        ->excludes("--nats")
        ->excludes("--stream");
    sub->add_option("--prefix", options->prefix,
                    "only subjects <prefix>.updates.> (default: the whole stream)");
    if (command.run == tail) {
      sub->add_option("--count", options->count, "ends after that many updates")->check(CLI::PositiveNumber);
      auto* const from =
          sub->add_option("--from", options->from,
                          "start: the oldest that the stream has; new: only what comes; or a stream "
                          "sequence (default: new; start with --count or --all)");
      from->check([](const std::string& v) {
        return v == "start" || v == "new" || number(v) ? std::string()
                                                       : "must be start, new or a number: " + v;
      });
      sub->add_flag("--from-start", options->from_start, "same as --from start")->excludes(from);
      sub->add_flag("--all", options->all, "ends behind what the stream holds now");
      sub->add_flag("--events", options->events,
                    "events instead of updates (default stream: nats.events_stream)");
    } else if (command.run == events) {
      sub->add_flag("--follow", options->follow, "goes on with what comes");
      sub->add_option("--from", options->from, "start (default), new, or a stream sequence")
          ->check([](const std::string& v) {
            return v == "start" || v == "new" || number(v) ? std::string()
                                                           : "must be start, new or a number: " + v;
          });
    } else {
      if (command.run == fold) {
        sub->add_flag(
            "--from-dump", options->from_dump,
            "begins at the last complete dump of each router (aranctl dump), not at the stream's start");
      }
      sub->add_option("--settle", options->settle_s, "seconds that holes get to close on a live stream")
          ->capture_default_str()
          ->check(CLI::NonNegativeNumber);
    }
    sub->callback(
        [&globals, &exit_code, options, run = command.run] { exit_code = run(*options, globals.json); });
  }
}

}  // namespace arancini::tools
