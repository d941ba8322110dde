#pragma once

#include <nlohmann/json.hpp>
#include <string>

// Routes for people, of the JSON of route_json().
namespace arancini::tools {

// Prefix and attributes.
std::string route_text(const nlohmann::ordered_json& route);
// Whose table it is in: the heading under which routes are listed.
std::string table_text(const nlohmann::ordered_json& route);

}  // namespace arancini::tools
