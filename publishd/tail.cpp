#include "publishd/tail.h"

#include <algorithm>
#include <map>
#include <utility>

namespace arancini::publishd {

std::uint64_t tail_start(const TailSource::State& state, std::span<const Floor> floors) {
  std::uint64_t start = state.last_sequence;
  for (const Floor& f : floors) {
    start = std::min(start, f.stream_created_ns == state.created_ns ? f.stream_sequence : 0);
  }
  return start;
}

std::optional<Tail> read_tail(TailSource& source, std::span<const Floor> floors) {
  const auto state = source.state();
  if (!state) return std::nullopt;
  Tail tail;
  tail.last_sequence = state->last_sequence;
  tail.created_ns = state->created_ns;

  std::map<std::pair<WriterId, std::string>, Sequence> stored;
  std::uint64_t next = tail_start(*state, floors) + 1;
  if (state->first_sequence >
      next) {  // limits have eaten a part; deleting whole prefixes leaves no message to ask for
    tail.missing += std::min(state->first_sequence, state->last_sequence + 1) - next;
    next = state->first_sequence;
  }
  TailSource::Message message;
  for (; next <= state->last_sequence; ++next) {
    switch (source.get(next, message)) {
      case TailSource::Get::Failed: return std::nullopt;
      case TailSource::Get::Missing: ++tail.missing; break;
      case TailSource::Get::Message:
        ++tail.messages_read;
        if (message.writer) {
          Sequence& last = stored[{*message.writer, std::move(message.subject)}];
          last = std::max(last, message.last);
        }
        break;
    }
    message = {};
  }
  tail.stored.reserve(stored.size());
  for (const auto& [key, last] : stored) tail.stored.push_back({key.first, key.second, last});
  return tail;
}

}  // namespace arancini::publishd
