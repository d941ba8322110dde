#include "curated/process_name.h"

#include <fmt/format.h>

#include <charconv>

namespace arancini::curated {

namespace {

constexpr std::string_view kShard = "ingestd@";

}  // namespace

std::string ingestd_name(std::uint32_t shard) {
  return fmt::format("{}{}", kShard, shard);
}

std::optional<std::uint32_t> shard_of(std::string_view process) {
  if (!process.starts_with(kShard)) return std::nullopt;
  const char* const last = process.data() + process.size();
  std::uint32_t shard = 0;
  const auto [end, error] = std::from_chars(process.data() + kShard.size(), last, shard);
  return error == std::errc{} && end == last ? std::optional(shard) : std::nullopt;
}

bool is_daemon(std::string_view process) {
  return process == "publishd" || process.starts_with(kShard);
}

}  // namespace arancini::curated
