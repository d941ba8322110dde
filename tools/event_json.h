#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "common/schema/event_fields.h"

// Events as JSON: aranctl tail --events, decode.
namespace arancini::tools {

// Only what the event's scope gives a meaning to, and what is there; shard null when not known. `raw` is in
// hex.
nlohmann::ordered_json event_json(const schema::EventFields& event, std::optional<std::uint32_t> shard);

// One line for a human, from event_json().
std::string event_text(const nlohmann::ordered_json& event);

// Decodes the payload of one event message and prints it on stdout. Nullopt, or what is wrong with it.
std::optional<std::string> print_event(std::span<const std::byte> payload, std::optional<std::uint32_t> shard,
                                       bool json);

}  // namespace arancini::tools
