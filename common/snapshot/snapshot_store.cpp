#include "common/snapshot/snapshot_store.h"

#include <fmt/format.h>

#include <charconv>

namespace arancini::snapshot {

std::string SnapshotName::to_string() const {
  return fmt::format("shard-{}-of-{}-{:020}.snap", shard, shard_count, number);
}

std::optional<SnapshotName> SnapshotName::parse(std::string_view text) {
  SnapshotName name;
  const auto skip = [&text](std::string_view what) {
    if (!text.starts_with(what)) return false;
    text.remove_prefix(what.size());
    return true;
  };
  const auto number = [&text](auto& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (error != std::errc{}) return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return true;
  };
  const std::string_view whole = text;
  if (!skip("shard-") || !number(name.shard) || !skip("-of-") || !number(name.shard_count) || !skip("-") ||
      !number(name.number) || name.to_string() != whole || name.shard >= name.shard_count) {
    return std::nullopt;
  }
  return name;
}

}  // namespace arancini::snapshot
