#include "curated/status_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <iterator>
#include <map>
#include <numeric>
#include <span>
#include <utility>

#include "common/base/error.h"
#include "common/base/joined.h"
#include "curated/process_name.h"

namespace arancini::curated {

namespace {

constexpr unsigned kRingAlmostFull = 80;  // percent
constexpr std::size_t kMostNames = 5;     // of routers in one finding

constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--text:#1c2330;--dim:#5d6878;--line:#e1e5eb;
--good:#1a7f4b;--good-bg:#e3f5ea;--note:#8a5a00;--note-bg:#fdf1d8;--bad:#b3261e;--bad-bg:#fce8e6}
@media (prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2029;--text:#e4e8ee;--dim:#97a3b4;--line:#2b3440;
--good:#6fd49b;--good-bg:#16301f;--note:#f0c060;--note-bg:#352a12;--bad:#ff8a80;--bad-bg:#3b1b1a}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px;max-width:1240px;background:var(--bg);color:var(--text);
font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{margin:0;font-size:22px}h2{margin:28px 0 8px;font-size:15px}
p{margin:4px 0}.dim,.d{color:var(--dim)}.d{font-size:12.5px}
ul{margin:16px 0 0;padding:0;list-style:none}
li{margin:0 0 8px;padding:10px 14px;border-left:4px solid;border-radius:6px;background:var(--card)}
li.problem{border-color:var(--bad);background:var(--bad-bg)}li.notice{border-color:var(--note);background:var(--note-bg)}
li.none{border-color:var(--good);background:var(--good-bg)}
li b{font-weight:600}li.problem b:first-child{color:var(--bad)}li.notice b:first-child{color:var(--note)}
li.none b:first-child{color:var(--good)}li .d{color:var(--text)}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{width:100%;border-collapse:collapse}
th,td{padding:7px 12px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}th{color:var(--dim);font-size:12px;font-weight:600;white-space:nowrap}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.w{overflow-wrap:anywhere}.a{min-width:9.5em;overflow-wrap:anywhere}
.s{padding:1px 8px;border-radius:10px;font-size:12.5px;font-weight:600;white-space:nowrap}
.s.none{color:var(--good);background:var(--good-bg)}.s.notice{color:var(--note);background:var(--note-bg)}
.s.problem{color:var(--bad);background:var(--bad-bg)}
)";

// "1 234 567", with narrow no-break spaces.
std::string grouped(std::uint64_t n) {
  std::string digits = std::to_string(n);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, "\u202f");
  return digits;
}

std::string uptime(std::uint64_t seconds) {
  return spoken_duration(seconds * 1'000'000'000U);
}

std::string ago(std::uint64_t now_ns, std::uint64_t then_ns) {
  if (then_ns == 0) return "never";
  return spoken_duration(now_ns > then_ns ? now_ns - then_ns : 0) + " ago";
}

std::string utc(std::uint64_t realtime_ns) {
  const auto seconds = static_cast<std::time_t>(realtime_ns / 1'000'000'000U);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  const std::size_t n = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return {text.data(), n};
}

unsigned ring_percent(const ShardView& shard) {
  const std::uint64_t capacity = shard.value(IngestMetric::RingCapacityBytes);
  const std::uint64_t used = std::min(shard.value(IngestMetric::RingUsedBytes), capacity);
  return capacity == 0
             ? 0
             : static_cast<unsigned>(static_cast<double>(used) / static_cast<double>(capacity) * 100);
}

Concern concern_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::Running: return Concern::None;
    case Verdict::Starting:
    case Verdict::Draining: return Concern::Notice;
    case Verdict::Degraded:
    case Verdict::Dead:
    case Verdict::Stuck:
    case Verdict::Stopped: return Concern::Problem;
  }
  return Concern::Problem;
}

std::string advice_for(const ProcessView& process) {
  switch (process.verdict) {
    case Verdict::Running: return {};
    case Verdict::Starting: return "Wait; if it lasts, its log says what it waits for.";
    case Verdict::Draining:
      return "It reads nothing from routers until it is told to (aranctl drain --undo) or restarted.";
    case Verdict::Degraded: return "Its log says what is missing; what follows here says what to do.";
    case Verdict::Dead:
      return "It is started again by itself, less and less often; its log says why it ended.";
    case Verdict::Stuck:
      return fmt::format("It holds on to its work and does none: restart it (aranctl restart {}).",
                         process.name);
    case Verdict::Stopped: return "Somebody stopped it, or it was never started: start it.";
  }
  return {};
}

// Of publishd and of its journal; docs/nats.md and docs/stream.md say more.
std::string advice_for(ErrorCode trouble) {
  constexpr std::pair<ErrorCode, std::string_view> kAdvice[] = {
      {ErrorCode::NatsUnreachable,
       "Check that nats-server runs, that nats.url is right, and that most servers of the cluster are "
       "up; "
       "nothing is lost meanwhile."},
      {ErrorCode::StreamUnusable,
       "Enable JetStream, and compare the stream's settings with those wanted: aranctl doctor."},
      {ErrorCode::PublishRejected, "See the log of publishd for the server's own code and text."},
      {ErrorCode::PublishTimeout,
       "If it lasts, the server or its disk is too slow, or the cluster has no quorum: look at NATS."},
      {ErrorCode::PublishOutOfOrder,
       "Find out who else publishes to the stream; a second publishd must not run."},
      {ErrorCode::NatsTls, "Check nats.tls_ca, the certificates and their expiry: aranctl doctor."},
      {ErrorCode::NatsUnauthorized,
       "Check the credentials in nats.url or nats.creds, and that their account may publish to the "
       "subjects: the log of publishd names the one refused."},
      {ErrorCode::StreamFull,
       "Give the stream or the account more room, or let the stream discard old messages."},
      {ErrorCode::StreamReplaced, "Consumers begin anew; publish the tables again with aranctl dump."},
      {ErrorCode::PublishStalled,
       "Updates go to the journal until NATS acks again; look at NATS and at the free disk space."},
      {ErrorCode::JournalFull,
       "Make room on the disk or raise journal.max_bytes; nothing is lost, the routers wait."},
      {ErrorCode::JournalFailed,
       "Check the disk, and that the journal's directory belongs to the user that publishd runs as."},
      {ErrorCode::JournalCorrupt,
       "Look at the file that the log names (it is kept as *.corrupt); what could not be read is lost: "
       "publish the tables again with aranctl dump."},
  };

  const auto it = std::ranges::find(kAdvice, trouble, [](const auto& a) { return a.first; });
  return std::string(it == std::end(kAdvice) ? "See the log of publishd." : it->second);
}

void add_trouble(std::uint64_t code, std::string_view where, std::vector<Finding>& out) {
  if (code == 0) return;
  const auto trouble = static_cast<ErrorCode>(code);
  out.push_back({Concern::Problem, fmt::format("{} (error {}): {}.", where, code, to_string(trouble)),
                 advice_for(trouble)});
}

void add_processes(const FleetView& view, std::vector<Finding>& out) {
  for (const ProcessView& p : view.processes) {
    if (const Concern concern = concern_of(p.verdict); concern != Concern::None) {
      out.push_back(
          {concern,
           fmt::format("{} is {}{}{}.", p.name, to_string(p.verdict), p.detail.empty() ? "" : ": ", p.detail),
           advice_for(p)});
    } else if (is_daemon(p.name) && !p.version.empty() && p.version != ARANCINI_VERSION) {
      out.push_back({Concern::Notice,
                     fmt::format("{} runs version {}, curated {}.", p.name, p.version, ARANCINI_VERSION),
                     fmt::format("Its files were replaced: restart it (aranctl restart {}).", p.name)});
    }
  }
}

void add_publishing(const Config& config, const FleetView& view, std::vector<Finding>& out) {
  const std::uint64_t trouble = view.value(PublishMetric::Trouble);
  add_trouble(trouble, "Updates are not published", out);
  add_trouble(view.value(PublishMetric::JournalTrouble), "The journal does not work", out);
  if (trouble == 0 && config.sink.kind != SinkKind::Journal && view.nats_state != "connected") {
    out.push_back({Concern::Problem, fmt::format("NATS: {}.", view.nats_state),
                   view.nats_state == "unknown" ? "publishd says so when it runs."
                                                : advice_for(ErrorCode::NatsUnreachable)});
  }
  if (const std::uint64_t corrupt = view.value(PublishMetric::RingsCorrupt); corrupt != 0) {
    out.push_back({Concern::Problem, fmt::format("publishd gave {} ring(s) up as corrupt.", corrupt),
                   "Restart the ingestd that the log of publishd names: its tables are told anew."});
  }
}

void add_shards(const Config& config, const FleetView& view, std::vector<Finding>& out) {
  for (const ShardView& s : view.shards) {
    if (s.ring_state.starts_with("disconnected") || s.ring_state.starts_with("unknown")) {
      out.push_back({Concern::Problem, fmt::format("The ring of shard {}: {}.", s.shard, s.ring_state),
                     "Its updates wait in the ring until publishd reads it."});
    }
    if (const unsigned fill = ring_percent(s); fill >= kRingAlmostFull) {
      out.push_back(
          {Concern::Problem, fmt::format("The ring of shard {} is {} % full.", s.shard, fill),
           config.ring.when_full == WhenRingFull::DropNewest
               ? "Publishing is slower than the routers. When it is full, updates are not told for now "
                 "(ring.when_full = \"drop-newest\"): look at NATS."
               : "Publishing is slower than the routers. When it is full, the routers wait; nothing is "
                 "lost: look at NATS."});
    }
    const std::uint64_t restore = s.value(IngestMetric::RestoreState);
    if (restore != 0) {
      out.push_back(
          {restore == 1 ? Concern::Notice : Concern::Problem,
           fmt::format("Shard {} {}: its routers are not read yet.", s.shard,
                       restore == 1 ? "restores its tables" : "waits for the log to restore its tables"),
           restore == 1 ? "Wait." : "It needs NATS; aranctl status says what is missing."});
    }
    if (const std::uint64_t n = s.value(IngestMetric::RoutesUntold); n != 0) {
      out.push_back({Concern::Problem,
                     fmt::format("Of {} routes of shard {} the stream does not have the latest.", n, s.shard),
                     "They are told when the ring has room again (ring.when_full = \"drop-newest\")."});
    }
    if (s.value(IngestMetric::SessionsOpen) >= config.bmp.max_sessions) {
      out.push_back({Concern::Problem,
                     fmt::format("Shard {} has {} sessions: further ones are refused.", s.shard,
                                 s.value(IngestMetric::SessionsOpen)),
                     "Raise bmp.max_sessions, or find out who connects so often."});
    }
    if (const std::uint64_t n = s.value(IngestMetric::SnapshotsFailed); n != 0) {
      out.push_back(
          {Concern::Notice,
           fmt::format("{} snapshots of shard {} failed since its start; the last one in force stays.", n,
                       s.shard),
           "aranctl status says why; a restart takes longer without a recent one."});
    }
  }
}

// Empty where the address says as much.
std::string name_of(const StatsReader::Router& row) {
  const std::string& name = row.name.empty() ? row.sys_name : row.name;
  return name == row.address ? std::string() : name;
}

void add_routers(const Config& config, const StatusPageInput& input,
                 const std::vector<RouterDiagnosis>& routers, std::vector<Finding>& out) {
  if (input.routers.empty()) {
    out.push_back(
        {Concern::Notice, "No router has connected yet.",
         fmt::format("Configure {} as BMP collector on your routers.", config.bmp.listen.to_string())});
  }
  std::map<RouterCondition, std::vector<std::size_t>> alike;
  for (std::size_t i = 0; i < routers.size(); ++i) {
    if (routers[i].concern != Concern::None) alike[routers[i].condition].push_back(i);
  }
  for (const auto& [condition, which] : alike) {
    if (which.size() == 1) {
      const StatsReader::Router& row = input.routers[which[0]].row;
      const std::string name = name_of(row);
      out.push_back({routers[which[0]].concern,
                     fmt::format("Router {}{} – {}. {}", row.address, name.empty() ? "" : " (" + name + ")",
                                 to_string(condition), routers[which[0]].what),
                     routers[which[0]].advice});
      continue;
    }
    std::string names =
        joined(std::span(which).first(std::min(which.size(), kMostNames)), ", ",
               [&](std::size_t n) -> const std::string& { return input.routers[n].row.address; });
    if (which.size() > kMostNames) names += fmt::format(" and {} more", which.size() - kMostNames);
    out.push_back({routers[which[0]].concern,
                   fmt::format("{} routers – {}: {}.", which.size(), to_string(condition), names),
                   "Each has its own line in the table of routers, with what to do."});
  }
}

std::string cell(std::string_view text) {
  return fmt::format("<td class=w>{}</td>", html_escaped(text));
}
std::string number(const std::string& text) {
  return fmt::format("<td class=n align=right>{}</td>", text);
}
std::string state(std::string_view word, Concern concern) {
  return fmt::format("<td><span class=\"s {}\">{}</span></td>", to_string(concern), html_escaped(word));
}

std::string table_start(std::string_view title, std::initializer_list<std::string_view> columns) {
  std::string out = fmt::format("<h2>{}</h2>\n<div class=scroll><table>\n<tr>", title);
  for (const std::string_view c : columns) {
    // "#" in front: numbers.
    const bool right = c.starts_with('#');
    out += fmt::format("<th{}>{}</th>", right ? " class=n align=right" : "", right ? c.substr(1) : c);
  }
  return out + "</tr>\n";
}

std::string table_end(std::size_t all, std::size_t shown, std::string_view where) {
  std::string out = "</table></div>\n";
  if (all > shown)
    out += fmt::format("<p class=dim>{} more are not shown here: {}</p>\n", all - shown, where);
  return out;
}

// Order of rows: what needs attention first; rows of the same concern by name, and as they are where that is
// the same.
template <class ConcernOf, class NameOf = std::string_view (*)(std::size_t)>
std::vector<std::size_t> by_concern(
    std::size_t rows, ConcernOf&& concern, NameOf name = [](std::size_t) { return std::string_view(); }) {
  std::vector<std::size_t> order(rows);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return std::pair(concern(b), name(a)) < std::pair(concern(a), name(b));
  });
  return order;
}

std::string process_table(const FleetView& view) {
  std::string out =
      table_start("Processes", {"Process", "State", "#PID", "#Up", "#Restarts", "Version", "Why"});
  const auto order =
      by_concern(view.processes.size(), [&](std::size_t i) { return concern_of(view.processes[i].verdict); });
  const std::size_t shown = std::min(order.size(), kMostShardRows);
  for (std::size_t i = 0; i < shown; ++i) {
    const ProcessView& p = view.processes[order[i]];
    out += "<tr>" + cell(p.name) + state(to_string(p.verdict), concern_of(p.verdict)) +
           number(p.pid > 0 ? std::to_string(p.pid) : "–") + number(p.pid > 0 ? uptime(p.uptime_s) : "–") +
           number(std::to_string(p.restarts)) + cell(p.version) + cell(p.detail) + "</tr>\n";
  }
  return out + table_end(order.size(), shown, "aranctl status");
}

std::string shard_table(const FleetView& view, std::uint64_t now_ns) {
  std::string out = table_start("Shards", {"Shard", "Ring", "#Fill", "#Sessions", "#Waiting", "#Routes",
                                           "#Updates", "#Suppressed", "#Malformed", "Tables", "#Snapshot"});
  const auto concern = [&](std::size_t i) {
    const ShardView& s = view.shards[i];
    if (s.ring_state != "connected" || ring_percent(s) >= kRingAlmostFull) return Concern::Problem;
    return s.value(IngestMetric::RestoreState) != 0 ? Concern::Notice : Concern::None;
  };
  const auto order = by_concern(view.shards.size(), concern);
  const std::size_t shown = std::min(order.size(), kMostShardRows);
  for (std::size_t i = 0; i < shown; ++i) {
    const ShardView& s = view.shards[order[i]];
    const auto n = [&](IngestMetric m) { return number(grouped(s.value(m))); };
    const std::uint64_t restore = s.value(IngestMetric::RestoreState);
    out +=
        "<tr>" + cell(std::to_string(s.shard)) +
        state(s.ring_state, s.ring_state == "connected" ? Concern::None : Concern::Problem) +
        number(fmt::format("{} %", ring_percent(s))) + n(IngestMetric::SessionsOpen) +
        n(IngestMetric::SessionsThrottled) + n(IngestMetric::Routes) +
        number(grouped(s.value(IngestMetric::UpdatesAnnounced) + s.value(IngestMetric::UpdatesWithdrawn))) +
        number(grouped(s.value(IngestMetric::UpdatesSuppressedDuplicate) +
                       s.value(IngestMetric::UpdatesSuppressedUnknown))) +
        n(IngestMetric::MessagesMalformed) +
        cell(s.values.empty() ? "–"
             : restore == 0   ? "in force"
             : restore == 1   ? "restoring"
                              : "wait for the log") +
        number(ago(now_ns, s.value(IngestMetric::SnapshotTimeNs))) + "</tr>\n";
  }
  return out + table_end(order.size(), shown, "aranctl status");
}

std::string router_table(const StatusPageInput& input, const std::vector<RouterDiagnosis>& diagnoses) {
  if (input.routers.empty()) return {};
  std::string out = table_start("Routers", {"Router", "State", "What it means, and what to do", "#Peers up",
                                            "#Routes", "#Messages", "#Last", "#Malformed", "#Shard"});
  const auto order = by_concern(
      input.routers.size(), [&](std::size_t i) { return diagnoses[i].concern; },
      [&](std::size_t i) { return std::string_view(input.routers[i].row.address); });
  const std::size_t shown = std::min(order.size(), kMostRouterRows);
  for (std::size_t i = 0; i < shown; ++i) {
    const StatsReader::Router& row = input.routers[order[i]].row;
    const RouterDiagnosis& d = diagnoses[order[i]];
    out += "<tr><td class=a><b>" + html_escaped(row.address) + "</b>";
    if (const std::string name = name_of(row); !name.empty())
      out += "<div class=d><bdi>" + html_escaped(name) + "</bdi></div>";
    out += "</td>" + state(to_string(d.condition), d.concern) + "<td class=w>" + html_escaped(d.what);
    if (!d.advice.empty()) out += "<div class=d>" + html_escaped(d.advice) + "</div>";
    // A reason for being refused, or for the limit, is in the sentence.
    if (row.last_error != 0 && d.what.find(row.last_error_text) == std::string::npos) {
      out += fmt::format("<div class=d>Last error {}: <bdi>{}</bdi></div>", row.last_error,
                         html_escaped(row.last_error_text));
    }
    out += "</td>" + number(grouped(row.peers_up)) + number(grouped(row.routes)) +
           number(grouped(row.messages)) + number(ago(input.now_realtime_ns, row.last_message_realtime_ns)) +
           number(grouped(row.malformed)) + number(std::to_string(input.routers[order[i]].shard)) + "</tr>\n";
  }
  return out + table_end(order.size(), shown, "aranctl routers");
}

std::string finding_list(const std::vector<Finding>& all) {
  if (all.empty()) {
    return "<ul><li class=none><b>All is well.</b> All processes run, and all routers that are known are "
           "received.</li></ul>\n";
  }
  std::string out = "<ul>\n";
  const std::size_t shown = std::min(all.size(), kMostFindings);
  for (std::size_t i = 0; i < shown; ++i) {
    const Finding& f = all[i];
    out += fmt::format("<li class={}><b>{}</b> {}<div class=d>{}</div></li>\n", to_string(f.concern),
                       f.concern == Concern::Problem ? "Problem:" : "Notice:", html_escaped(f.what),
                       html_escaped(f.advice));
  }
  out += "</ul>\n";
  if (all.size() > shown)
    out += fmt::format("<p class=dim>{} more are not shown here.</p>\n", all.size() - shown);
  return out;
}

std::string publishing_line(const Config& config, const FleetView& view) {
  const std::string journal =
      fmt::format("journal {} bytes in {} files", grouped(view.value(PublishMetric::JournalBytes)),
                  grouped(view.value(PublishMetric::JournalSegments)));
  if (config.sink.kind == SinkKind::Journal) {
    return fmt::format("Published into the journal {}: {}.", html_escaped(config.journal_dir()), journal);
  }
  return fmt::format("NATS {} at {}, stream {}: last sequence {}, {} messages in flight, {}.",
                     html_escaped(view.nats_state), html_escaped(config.nats.url),
                     html_escaped(config.nats.updates_stream),
                     grouped(view.value(PublishMetric::StreamLastSequence)),
                     grouped(view.value(PublishMetric::MessagesInFlight)), journal);
}

}  // namespace

std::string html_escaped(std::string_view text, std::size_t most) {
  std::string out;
  const std::size_t end = std::min(text.size(), most);
  out.reserve(end + end / 8);
  for (const char c : text.substr(0, end)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    }
  }
  if (end < text.size()) out += "…";
  return out;
}

std::vector<Finding> findings(const Config& config, const StatusPageInput& input,
                              const std::vector<RouterDiagnosis>& routers) {
  std::vector<Finding> out;
  add_processes(input.view, out);
  add_publishing(config, input.view, out);
  add_shards(config, input.view, out);
  add_routers(config, input, routers, out);
  if (input.audit_errors != 0) {
    out.push_back({Concern::Notice,
                   fmt::format("{} changing calls are not in the audit file (error {}).", input.audit_errors,
                               number(ErrorCode::AuditFailed)),
                   "Check the disk and the state directory; the calls stand in curated's log."});
  }
  if (!config.curation.enabled) {
    out.push_back({Concern::Notice,
                   "curation.enabled = false: the stream does not fold to the routers' tables.",
                   "It is for comparisons; switch it on for consumers that fold."});
  }
  std::ranges::stable_sort(out, [](const Finding& a, const Finding& b) { return a.concern > b.concern; });
  return out;
}

std::string status_page(const Config& config, const StatusPageInput& input) {
  const std::uint64_t now = input.now_realtime_ns;
  const std::vector<RouterDiagnosis> diagnoses =
      diagnose_all(input.view, input.routers, input.peers, config.curation.enabled, now);
  const std::vector<Finding> all = findings(config, input, diagnoses);
  const auto problems = static_cast<std::size_t>(
      std::ranges::count_if(all, [](const Finding& f) { return f.concern == Concern::Problem; }));
  const std::string instance = html_escaped(config.instance.name);
  const ProcessView* self = input.view.process("curated");

  std::string out = "<!doctype html>\n<html lang=en>\n<head><meta charset=utf-8>\n";
  out += "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n";
  out += "<meta http-equiv=refresh content=5>\n<link rel=icon href=\"data:,\">\n";
  out += fmt::format("<title>{}{} – Arancini</title>\n<style>{}</style></head>\n<body>\n",
                     problems == 0 ? "" : fmt::format("({}) ", problems), instance, kStyle);
  out += fmt::format("<h1>Arancini – {}</h1>\n", instance);
  out += fmt::format("<p class=dim>Version {}, up {}. BMP at {}. Seen {}.</p>\n", ARANCINI_VERSION,
                     self == nullptr ? "–" : uptime(self->uptime_s),
                     html_escaped(config.bmp.listen.to_string()), utc(now));
  out += finding_list(all);
  out += router_table(input, diagnoses);
  out += shard_table(input.view, now);
  out += "<h2>Publishing</h2>\n<p>" + publishing_line(config, input.view) + "</p>\n";
  out += process_table(input.view);
  out +=
      "<p class=dim>Numbers for graphs and alerts: <a href=\"/metrics\">/metrics</a>. Health: <a "
      "href=\"/healthz\">/healthz</a>.</p>\n</body>\n</html>\n";
  return out;
}

}  // namespace arancini::curated
