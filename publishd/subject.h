#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/types.h"

namespace arancini::publishd {

// Index of a subject in the SubjectTable; stable for the life of the process.
enum class SubjectId : std::uint32_t {};
constexpr std::uint32_t raw(SubjectId s) {
  return static_cast<std::uint32_t>(s);
}

// Subjects that have been published to: "<prefix>.updates.<router>.<peer_asn>.<afi>_<safi>" (DESIGN 4.2).
class SubjectTable {
 public:
  explicit SubjectTable(const std::string& prefix)
      : prefix_(prefix + ".updates."), events_prefix_(prefix + ".events.") {}

  // `key` is RecordHeader::subject_key, a hint that finds the subject fast; what it finds is verified.
  SubjectId find_or_add(std::uint64_t key, const IpAddress& router, std::uint32_t peer_asn, Family family);
  // The only subject with this key so far, not verified; nullopt: none, or several.
  [[nodiscard]] std::optional<SubjectId> find(std::uint64_t key) const {
    const auto it = by_key_.find(key);
    if (it == by_key_.end() || entries_[it->second - 1].next != 0) return std::nullopt;
    return SubjectId{it->second - 1};
  }
  // "<prefix>.events.<router>.<peer_asn>.<kind>"; router nullptr: about the collector.
  [[nodiscard]] std::string event_subject(const IpAddress* router, std::uint32_t peer_asn,
                                          std::string_view kind) const;
  // Routers are numbered in the order of their appearance.
  std::uint32_t router_index(const IpAddress& router) {
    return routers_.try_emplace(router, static_cast<std::uint32_t>(routers_.size())).first->second;
  }
  [[nodiscard]] std::uint32_t router_index(SubjectId id) const { return entries_[raw(id)].router_index; }
  [[nodiscard]] const std::string& name(SubjectId id) const { return entries_[raw(id)].name; }
  [[nodiscard]] std::uint64_t hash(SubjectId id) const { return entries_[raw(id)].hash; }  // of the name
  [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    IpAddress router;
    std::uint32_t peer_asn = 0;
    Family family;
    std::string name;
    std::uint64_t hash = 0;
    std::uint32_t next = 0;  // with the same key, + 1; 0: none
    std::uint32_t router_index = 0;
  };
  std::string prefix_, events_prefix_;
  std::vector<Entry> entries_;
  std::unordered_map<std::uint64_t, std::uint32_t> by_key_;  // first entry, + 1
  std::map<IpAddress, std::uint32_t> routers_;               // index
};

// FNV-1a of a subject: part of message ids.
std::uint64_t subject_hash(std::string_view subject);

}  // namespace arancini::publishd
