#include "publishd/subject.h"

#include <fmt/format.h>

namespace arancini::publishd {

std::uint64_t subject_hash(std::string_view subject) {
  std::uint64_t h = 0xcbf29ce484222325ULL;
  for (const char c : subject) {
    h ^= static_cast<std::uint8_t>(c);
    h *= 0x100000001b3ULL;
  }
  return h;
}

SubjectId SubjectTable::find_or_add(std::uint64_t key, const IpAddress& router, std::uint32_t peer_asn,
                                    Family family) {
  std::uint32_t& first = by_key_[key];
  for (std::uint32_t at = first; at != 0; at = entries_[at - 1].next) {
    const Entry& e = entries_[at - 1];
    if (e.router == router && e.peer_asn == peer_asn && e.family == family) return SubjectId{at - 1};
  }
  Entry e;
  e.router = router;
  e.peer_asn = peer_asn;
  e.family = family;
  e.name = fmt::format("{}{}.{}.{}_{}", prefix_, subject_token(router), peer_asn, family.afi, family.safi);
  e.hash = subject_hash(e.name);
  e.next = first;
  e.router_index = router_index(router);
  entries_.push_back(std::move(e));
  first = static_cast<std::uint32_t>(entries_.size());
  return SubjectId{first - 1};
}

std::string SubjectTable::event_subject(const IpAddress* router, std::uint32_t peer_asn,
                                        std::string_view kind) const {
  return fmt::format("{}{}.{}.{}", events_prefix_, router == nullptr ? "collector" : subject_token(*router),
                     peer_asn, kind);
}

}  // namespace arancini::publishd
