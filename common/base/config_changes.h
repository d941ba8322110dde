#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/config.h"

// What a changed configuration means for processes that run (docs/configuration.md, Reload).
namespace arancini {

// Keys ("bmp.backlog") whose values differ between two configurations.
std::vector<std::string> changed_keys(const Config& before, const Config& after);

enum class Daemon : std::uint8_t { Ingestd, Publishd, Curated };

enum class Effect : std::uint8_t {
  None,   // it does not use the key
  Live,   // a reload puts it in force
  Start,  // it takes the key when it starts
};
Effect effect_of(std::string_view key, Daemon daemon);

// Of the keys that differ, those that concern a daemon which runs with `now`.
struct ConfigPlan {
  std::vector<std::string> live, start;
};
ConfigPlan plan_change(const Config& now, const Config& next, Daemon daemon);

// `now` with the values of `next` for all keys that any daemon takes while it runs.
Config with_live_keys(Config now, const Config& next);

// Names a configuration file's text: 16 hex digits.
std::string text_hash(std::string_view text);

}  // namespace arancini
