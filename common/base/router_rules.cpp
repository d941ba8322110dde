#include "common/base/router_rules.h"

#include <algorithm>
#include <charconv>

namespace arancini {

namespace {

bool same_bits(const IpAddress& a, const IpAddress& b, unsigned bits) {
  for (unsigned i = 0; i < bits; ++i) {
    const unsigned mask = 0x80U >> (i % 8);
    if ((a.bytes[i / 8] & mask) != (b.bytes[i / 8] & mask)) return false;
  }
  return true;
}

}  // namespace

std::optional<AddressRange> AddressRange::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  AddressRange range{*address, 128};
  if (slash != std::string_view::npos) {
    const std::string_view digits = text.substr(slash + 1);
    unsigned length = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
    const unsigned most = address->is_v4() ? 32 : 128;
    if (error != std::errc{} || end != digits.data() + digits.size() || length > most) return std::nullopt;
    range.length = static_cast<std::uint8_t>(length + (128 - most));
  }
  for (unsigned i = range.length; i < 128; ++i) {
    if ((range.address.bytes[i / 8] & (0x80U >> (i % 8))) != 0) return std::nullopt;
  }
  return range;
}

bool AddressRange::contains(const IpAddress& a) const {
  return same_bits(address, a, length);
}

std::string AddressRange::to_string() const {
  if (is_host()) return address.to_string();
  return address.to_string() + "/" + std::to_string(address.is_v4() ? length - 96 : length);
}

bool RouterRules::allows(const IpAddress& address) const {
  if (allow.empty()) return true;
  const auto takes = [&address](const AddressRange& range) { return range.contains(address); };
  return std::any_of(allow.begin(), allow.end(), takes) ||
         std::any_of(entries.begin(), entries.end(),
                     [&takes](const RouterEntry& entry) { return takes(entry.address); });
}

bool RouterRules::needs_sys_name(const IpAddress& address) const {
  int longest = -1;
  bool needed = false;
  for (const RouterEntry& entry : entries) {
    if (!entry.address.contains(address) || entry.address.length < longest) continue;
    needed = (entry.address.length == longest && needed) || !entry.sys_name.empty();
    longest = entry.address.length;
  }
  return needed;
}

const RouterEntry* RouterRules::find(const IpAddress& address, std::string_view sys_name) const {
  const RouterEntry* best = nullptr;
  const auto rank = [](const RouterEntry& e) { return 2 * e.address.length + (e.sys_name.empty() ? 0 : 1); };
  int longest = -1;
  for (const RouterEntry& entry : entries) {
    if (!entry.address.contains(address)) continue;
    longest = std::max<int>(longest, entry.address.length);
    if (!entry.sys_name.empty() && entry.sys_name != sys_name) continue;
    if (best == nullptr || rank(entry) > rank(*best)) best = &entry;
  }
  return best != nullptr && best->address.length == longest ? best : nullptr;
}

std::optional<std::string_view> RouterRules::name_of(const IpAddress& address,
                                                     std::string_view sys_name) const {
  if (!allows(address)) return std::nullopt;
  const bool told_apart = needs_sys_name(address);
  const RouterEntry* entry = find(address, told_apart ? sys_name : std::string_view());
  if (entry == nullptr) return told_apart ? std::nullopt : std::optional(std::string_view());
  return entry->name;
}

const RouterEntry* RouterRules::named(const IpAddress& address, std::string_view name) const {
  if (name.empty()) {
    const RouterEntry* entry = find(address);
    return entry != nullptr && entry->name.empty() ? entry : nullptr;
  }
  for (const RouterEntry& entry : entries) {
    if (entry.name == name && entry.address.contains(address)) return &entry;
  }
  return nullptr;
}

bool good_router_name(std::string_view text) {
  return !text.empty() && text.size() <= RouterRules::kMostNameBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                  c == '.' || c == '-';
         });
}

}  // namespace arancini
