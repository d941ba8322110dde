#include "tools/route_text.h"

#include <fmt/format.h>

namespace arancini::tools {

using nlohmann::ordered_json;

namespace {

// Members of a JSON array of numbers or strings. (fmt::join makes GCC 12 warn falsely.)
std::string joined(const ordered_json& list, char separator) {
  std::string out;
  for (const auto& member : list) {
    if (!out.empty()) out += separator;
    out += member.is_string() ? member.get<std::string>() : member.dump();
  }
  return out;
}

std::string path_text(const ordered_json& path) {
  std::string out;
  for (const auto& member : path) {
    if (!out.empty()) out += ' ';
    if (member.is_number()) {
      out += member.dump();
    } else if (member.is_array()) {
      out += fmt::format("{{{}}}", joined(member, ','));
    } else {
      out += fmt::format("({})", joined(*member.begin(), ' '));
    }
  }
  return out;
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
      out += fmt::format(" {} {}", key, joined(j[key], ','));
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
