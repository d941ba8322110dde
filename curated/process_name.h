#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// What the daemons are called towards operators and systemd: "publishd", "ingestd@K".
namespace arancini::curated {

std::string ingestd_name(std::uint32_t shard);

// K of "ingestd@K"; none for every other name.
std::optional<std::uint32_t> shard_of(std::string_view process);

// publishd or an ingestd: those with a stats page and a socket for curated.
bool is_daemon(std::string_view process);

}  // namespace arancini::curated
