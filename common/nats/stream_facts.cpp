#include "common/nats/stream_facts.h"

#include <nats/nats.h>

#include <algorithm>

namespace arancini {

StreamFacts stream_facts(const jsStreamInfo& info) {
  const jsStreamConfig& c = *info.Config;
  const auto limit = [](std::int64_t n) { return static_cast<std::uint64_t>(std::max<std::int64_t>(n, 0)); };
  StreamFacts f;
  for (int i = 0; i < c.SubjectsLen; ++i) f.subjects.emplace_back(c.Subjects[i]);
  f.sealed = c.Sealed;
  f.no_ack = c.NoAck;
  f.keeps_until_limits = c.Retention == js_LimitsPolicy;
  f.in_memory = c.Storage != js_FileStorage;
  f.mirrors_others = c.Mirror != nullptr || c.SourcesLen > 0;
  f.refuses_when_full = c.Discard == js_DiscardNew;
  f.rollup_allowed = c.AllowRollup;
  f.max_messages = limit(c.MaxMsgs);
  f.max_bytes = limit(c.MaxBytes);
  f.max_messages_per_subject = limit(c.MaxMsgsPerSubject);
  f.max_message_bytes = limit(c.MaxMsgSize);
  f.max_age_s = static_cast<double>(limit(c.MaxAge)) / 1e9;
  f.duplicate_window_s = static_cast<double>(limit(c.Duplicates)) / 1e9;
  f.replicas = static_cast<std::uint32_t>(std::max<std::int64_t>(c.Replicas, 1));
  f.messages = info.State.Msgs;
  f.bytes = info.State.Bytes;
  return f;
}

}  // namespace arancini
