#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// What a stream must be like, so that nothing that is published to it gets lost. No NATS in here.
namespace arancini {

// Of a stream's configuration and state; 0 where there is no limit.
struct StreamFacts {
  std::vector<std::string> subjects;
  bool sealed = false;
  bool no_ack = false;
  bool keeps_until_limits = true;  // retention "limits"
  bool in_memory = false;
  bool mirrors_others = false;     // mirror or sources
  bool refuses_when_full = false;  // discard: new
  bool rollup_allowed = false;
  std::uint64_t max_messages = 0, max_bytes = 0, max_messages_per_subject = 0, max_message_bytes = 0;
  double max_age_s = 0, duplicate_window_s = 0;
  std::uint32_t replicas = 1;
  std::uint64_t messages = 0, bytes = 0;
};

struct Config;

// What the configuration says of it.
struct StreamWishes {
  std::string subjects;  // "<prefix>.updates.>"
  std::uint32_t replicas = 1;
  std::uint64_t max_bytes = 0;
  double max_age_s = 0;
  bool must_be_whole = true;  // consumers fold it from its start
};

StreamWishes updates_stream_wishes(const Config& config);
StreamWishes events_stream_wishes(const Config& config);

// Why it must not be published to; empty: it may.
std::string why_unusable(const StreamFacts& stream, const StreamWishes& wishes);
// Which limit is reached that makes it refuse messages; empty: none.
std::string why_full(const StreamFacts& stream);
// What the operator should know, one line each: it works, but perhaps not as meant.
std::vector<std::string> stream_warnings(const StreamFacts& stream, const StreamWishes& wishes);

// True if `filter` (a stream's subject) takes everything that "<tokens>.>" takes.
bool subject_covers(std::string_view filter, std::string_view wanted);

}  // namespace arancini
