#include "common/nats/stream_rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/config.h"
#include "common/base/joined.h"

namespace arancini {

namespace {

constexpr double kLongDuplicateWindow_s = 120;
constexpr double kSameAge_s = 1;

}  // namespace

StreamWishes updates_stream_wishes(const Config& config) {
  const Config::Nats& n = config.nats;
  return {n.subject_prefix + ".updates.>", n.replicas, n.max_bytes, n.max_age_s, true};
}

StreamWishes events_stream_wishes(const Config& config) {
  const Config::Nats& n = config.nats;
  return {n.subject_prefix + ".events.>", n.replicas, 0, n.max_age_s, false};
}

bool subject_covers(std::string_view filter, std::string_view wanted) {
  const auto cut = [](std::string_view& s) {
    const auto dot = s.find('.');
    const std::string_view token = s.substr(0, dot);
    s = dot == std::string_view::npos ? std::string_view{} : s.substr(dot + 1);
    return token;
  };
  for (;;) {
    const std::string_view f = cut(filter);
    const std::string_view w = cut(wanted);
    if (f == ">") return !w.empty();
    if (f.empty() || w.empty()) return f.empty() && w.empty();
    if (w == ">" || (f != "*" && f != w)) return false;
  }
}

std::string why_unusable(const StreamFacts& s, const StreamWishes& w) {
  const bool covered = std::any_of(s.subjects.begin(), s.subjects.end(),
                                   [&](const std::string& f) { return subject_covers(f, w.subjects); });
  if (s.mirrors_others) return "it is fed by a mirror or by sources";
  if (!covered) return "its subjects do not cover " + w.subjects;
  if (s.sealed) return "it is sealed";
  if (s.no_ack) return "it has no_ack set, so that nothing can be known to be stored";
  if (!s.keeps_until_limits) return "its retention is not 'limits': messages vanish when consumed";
  if (s.in_memory) return "its storage is memory: a restart of the server would lose everything";
  if (s.max_messages_per_subject > 0) return "max_msgs_per_subject discards updates that consumers need";
  return {};
}

std::string why_full(const StreamFacts& s) {
  if (!s.refuses_when_full) return {};
  if (s.max_messages > 0 && s.messages >= s.max_messages)
    return fmt::format("max_msgs {} is reached and it refuses what comes (discard: new)", s.max_messages);
  if (s.max_bytes > 0 && s.bytes >= s.max_bytes)
    return fmt::format("max_bytes {} is reached and it refuses what comes (discard: new)", s.max_bytes);
  return {};
}

std::vector<std::string> stream_warnings(const StreamFacts& s, const StreamWishes& w) {
  std::vector<std::string> out;
  if (w.must_be_whole) {
    // What the configuration asked for needs no warning.
    std::vector<std::string> limits;
    if (s.max_messages > 0) limits.push_back(fmt::format("max_msgs {}", s.max_messages));
    if (s.max_bytes > 0 && s.max_bytes != w.max_bytes)
      limits.push_back(fmt::format("max_bytes {}", s.max_bytes));
    const double age_off = s.max_age_s > w.max_age_s ? s.max_age_s - w.max_age_s : w.max_age_s - s.max_age_s;
    if (s.max_age_s > 0 && age_off > kSameAge_s) limits.push_back(fmt::format("max_age {:g} s", s.max_age_s));
    if (!limits.empty()) {
      out.push_back(
          s.refuses_when_full
              ? fmt::format("{} with discard: new: when it is reached, nothing more is taken and the "
                            "routers wait in the end",
                            joined(limits))
              : fmt::format("{}: the oldest updates are discarded; a consumer that begins later "
                            "lacks what was in them",
                            joined(limits)));
    }
    if (s.rollup_allowed)
      out.emplace_back("allow_rollup_hdrs lets any publisher purge it with a header; switch it off");
  }
  if (s.replicas < w.replicas) {
    out.push_back(
        fmt::format("it has {} replica(s), nats.replicas says {}; existing streams are not changed: "
                    "nats stream edit --replicas {}",
                    s.replicas, w.replicas, w.replicas));
  }
  if (s.duplicate_window_s > kLongDuplicateWindow_s) {
    out.push_back(
        fmt::format("its duplicate window of {:g} s costs the server memory for each message; it is "
                    "not needed (nats stream edit --dupe-window 10s)",
                    s.duplicate_window_s));
  }
  return out;
}

}  // namespace arancini
