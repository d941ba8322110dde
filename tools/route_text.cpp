#include "tools/route_text.h"

#include <fmt/format.h>

#include "common/base/joined.h"

namespace arancini::tools {

using nlohmann::ordered_json;

namespace {

// A number or a string.
std::string bare(const ordered_json& member) {
  return member.is_string() ? member.get<std::string>() : member.dump();
}

std::string path_text(const ordered_json& path) {
  return joined(path, " ", [](const ordered_json& member) {
    if (member.is_number()) return member.dump();
    if (member.is_array()) return fmt::format("{{{}}}", joined(member, ",", bare));
    return fmt::format("({})", joined(*member.begin(), " ", bare));
  });
}

}  // namespace

std::string route_text(const ordered_json& j) {
  std::string out = j["prefix"].get<std::string>();
  if (j["path_id"] != 0) out += fmt::format(" path-id {}", j["path_id"].get<std::uint32_t>());
  if (j.contains("next_hop")) out.append(" via ").append(j["next_hop"].get<std::string>());
  if (j.contains("as_path")) out += fmt::format(" as-path [{}]", path_text(j["as_path"]));
  if (j.contains("origin")) out.append(" ").append(j["origin"].get<std::string>());
  for (const char* key : {"med", "local_pref"}) {
    if (j.contains(key)) out += fmt::format(" {} {}", key, j[key].get<std::uint32_t>());
  }
  for (const char* key : {"communities", "large_communities", "ext_communities"}) {
    if (j.contains(key) && !j[key].empty()) {
      out += fmt::format(" {} {}", key, joined(j[key], ",", bare));
    }
  }
  return out;
}

std::string table_text(const ordered_json& j) {
  std::string out = fmt::format("router {} peer {} AS{}", j["router"].get<std::string>(),
                                j["peer"].get<std::string>(), j["peer_asn"].get<std::uint32_t>());
  if (j["peer_distinguisher"] != "0:0") out.append(" rd ").append(j["peer_distinguisher"].get<std::string>());
  return out + fmt::format(" {} afi {} safi {}", j["view"].get<std::string>(), j["afi"].get<unsigned>(),
                           j["safi"].get<unsigned>());
}

}  // namespace arancini::tools
